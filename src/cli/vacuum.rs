//! `freetumor vacuum`: deletes earlier states of a run folder.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::print::{ignore_closed_pipe, pluralize, print_json};
use crate::error::Result;
use crate::run::RunFolder;

/// Delete earlier states of a run folder
///
/// Rows and samples that changed or were withdrawn remain in earlier states, which `--at` reads. This command deletes the states before the
/// last commits, and all files that no later state names.
#[derive(Args, Clone, Debug)]
pub struct VacuumArgs {
    /// The run folder
    pub run: PathBuf,
    /// Number of commits before the last one whose states remain readable
    #[arg(long, value_name = "N")]
    pub keep_epochs: u64,
    /// Print the paths of the deleted files as JSON
    #[arg(long)]
    pub json: bool,
}

/// Deletes earlier states and returns the exit code.
///
/// # Errors
/// If the folder is not a run folder, is being written by another process, or files cannot be deleted.
pub fn run(args: &VacuumArgs, stdout: &mut dyn Write) -> Result<u8> {
    let manifest = RunFolder::open(&args.run)?.manifest().clone();
    let mut writer = RunFolder::create_or_resume(&args.run, &manifest)?;
    let removed = writer.purge(args.keep_epochs)?;
    let first = writer.folder().base().map_or(0, |base| base.epoch);
    if args.json {
        print_json(&json!({ "earliest_epoch": first, "deleted": removed }), stdout)?;
    } else {
        let files = pluralize(removed.len(), "file");
        ignore_closed_pipe(writeln!(stdout, "deleted {files}; the earliest readable state is that of commit {first}"))?;
    }
    Ok(0)
}
