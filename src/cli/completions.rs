//! `freetumor completions` and `freetumor man`: completions for shells, and manual pages.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::print::ignore_closed_pipe;
use crate::error::{Error, Result};

/// Print completions for a shell
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell that completes the commands
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Print the manual page, or write one page for each subcommand
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Folder to write the pages of all subcommands to
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

/// Prints the completions of `command`.
///
/// # Errors
/// If the output cannot be written.
pub fn completions(args: &CompletionsArgs, mut command: Command, stdout: &mut dyn Write) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "freetumor", &mut script);
    ignore_closed_pipe(stdout.write_all(&script))?;
    Ok(0)
}

/// Prints or writes the manual pages of `command`.
///
/// # Errors
/// If the pages cannot be written.
pub fn man(args: &ManArgs, command: Command, stdout: &mut dyn Write) -> Result<u8> {
    match &args.to {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|cause| Error::io("cannot create", folder, cause))?;
            clap_mangen::generate_to(command, folder).map_err(|cause| Error::io("cannot write to", folder, cause))?;
        }
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(command).render(&mut page);
            ignore_closed_pipe(rendered.and_then(|()| stdout.write_all(&page)))?;
        }
    }
    Ok(0)
}
