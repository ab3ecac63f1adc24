//! `freetumor completions` and `freetumor man`: completions for shells, and manual pages.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::help::EXIT_HEADING;
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
            let mut command = command.disable_help_subcommand(true);
            // Names of subcommands are complete after building.
            command.build();
            for command in std::iter::once(&command).chain(command.get_subcommands()).filter(|c| !c.is_hide_set()) {
                let path = folder.join(Man::new(command.clone()).get_filename());
                let page = page(command).map_err(|cause| Error::io("cannot write", &path, cause))?;
                std::fs::write(&path, page).map_err(|cause| Error::io("cannot write", &path, cause))?;
            }
        }
        None => {
            let page = page(&command);
            ignore_closed_pipe(page.and_then(|page| stdout.write_all(&page)))?;
        }
    }
    Ok(0)
}

/// Renders the manual page of a command. The text after the help becomes sections of its own: EXAMPLES and EXIT STATUS.
fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    for block in after.split("\n\n") {
        let Some((heading, lines)) = block.split_once(":\n") else { continue };
        let title = if heading == EXIT_HEADING { "EXIT STATUS".to_owned() } else { heading.to_uppercase() };
        writeln!(page, ".SH \"{title}\"\n.nf")?;
        for line in lines.lines() {
            // A line must not start a request of roff, and a hyphen must stay a hyphen when copied.
            writeln!(page, "\\&{}", line.trim_start().replace('\\', "\\e").replace('-', "\\-"))?;
        }
        writeln!(page, ".fi")?;
    }
    man.render_version_section(&mut page)?;
    Ok(page)
}
