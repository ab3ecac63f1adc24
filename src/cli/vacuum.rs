//! `freetumor vacuum`: deletes earlier states of a run folder.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::print::{ignore_closed_pipe, pluralize, print_json};
use super::recorded::{RecordedArgs, send_request};
use crate::dataflow::vacuum;
use crate::error::{ErrorKind, Result};
use crate::graph::Registry;
use crate::run::RunFolder;
use crate::run::requests::Request;

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
    /// Graph file, threads and secret.
    #[command(flatten)]
    pub recorded: RecordedArgs,
}

/// Deletes earlier states and returns the exit code.
///
/// # Errors
/// If the folder is not a run folder, or files cannot be deleted.
pub fn run(args: &VacuumArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let plan = args.recorded.plan(&args.run, registry, stderr)?;
    let removed = match vacuum(plan, &args.run, args.keep_epochs) {
        Err(error) if error.kind() == ErrorKind::Locked => {
            let request = Request::Vacuum { keep_epochs: args.keep_epochs };
            print_json(&send_request(&args.run, &request, stderr)?, stdout)?;
            return Ok(0);
        }
        removed => removed?,
    };
    let first = RunFolder::open(&args.run)?.base().map_or(0, |base| base.epoch);
    if args.json {
        print_json(&json!({ "earliest_epoch": first, "deleted": removed }), stdout)?;
    } else {
        let files = pluralize(removed.len(), "file");
        ignore_closed_pipe(writeln!(stdout, "deleted {files}; the earliest readable state is that of commit {first}"))?;
    }
    Ok(0)
}
