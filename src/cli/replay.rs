//! `freetumor replay`: makes a candidate again and compares it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::print::{ignore_closed_pipe, print_json};
use super::recorded::RecordedArgs;
use super::run::select_recorded_kernel_class;
use crate::error::Result;
use crate::graph::Registry;
use crate::id::SampleId;
use crate::review::{SampleHistory, replay};
use crate::run::RunFolder;

/// Make a candidate again and compare it with the run folder
///
/// Reads the scan of a sample, computes its organ mask, repeats the attempt, and compares the digests of boxes, voxels and labels. The exit
/// code is 1 if they differ. Samples of several tumors are not supported.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The run folder
    pub run: PathBuf,
    /// The id of a sample or candidate
    pub sample: SampleId,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Graph file, threads and secret.
    #[command(flatten)]
    pub recorded: RecordedArgs,
}

/// Makes the candidate again and returns the exit code: 1 if it differs.
///
/// # Errors
/// If the folder has no such sample, or scan, mask or graph differ from those of the run.
pub fn run(args: &ReplayArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    select_recorded_kernel_class(&args.run)?;
    let folder = RunFolder::open(&args.run)?;
    let history = SampleHistory::read(&folder, args.sample, None)?;
    let plan = args.recorded.plan(&args.run, registry, stderr)?;
    let replayed = replay(&plan, &folder, &history.record)?;
    if args.json {
        print_json(&replayed, stdout)?;
    } else {
        let got = replayed.got.map_or("no candidate: the attempt found no site".to_owned(), |got| got.to_string());
        let result = if replayed.is_equal() { "equal" } else { "different" };
        ignore_closed_pipe(writeln!(
            stdout,
            "candidate   {}\nrun folder  {}\nmade again  {got}\n{result}",
            replayed.candidate_id, replayed.expected
        ))?;
    }
    Ok(u8::from(!replayed.is_equal()))
}
