//! `freetumor diff`: compares two states of run folders.

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::print::{ignore_closed_pipe, print_json};
use crate::error::{Error, Result};
use crate::run::{Revision, RunFolder, SampleDiff, diff_samples};

/// Compare the samples of two runs or states
///
/// A state is a run folder, or a run folder with a commit or tag after `@`: runs/mine@12, runs/mine@v1. Samples are matched by their ids,
/// so two runs can be compared if they have the same scans and synthesis.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// The first state: RUN, RUN@COMMIT or RUN@TAG
    pub first: StatePath,
    /// The second state
    pub second: StatePath,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A run folder with a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePath {
    run: PathBuf,
    at: Option<Revision>,
}

impl FromStr for StatePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.rsplit_once('@') {
            Some((run, at)) if !std::path::Path::new(text).exists() => {
                Ok(Self { run: run.into(), at: Some(at.parse()?) })
            }
            _ => Ok(Self { run: text.into(), at: None }),
        }
    }
}

impl StatePath {
    fn open(&self) -> Result<(RunFolder, Option<u64>)> {
        let folder = RunFolder::open(&self.run)?;
        let at = self.at.as_ref().map(|at| folder.epoch_at(at)).transpose()?;
        Ok((folder, at))
    }
}

/// Compares two states and returns the exit code.
///
/// # Errors
/// If a folder is not a run folder, or has no such state.
pub fn diff(args: &DiffArgs, stdout: &mut dyn Write) -> Result<u8> {
    let (first, second) = (args.first.open()?, args.second.open()?);
    let diff = diff_samples((&first.0, first.1), (&second.0, second.1))?;
    if args.json {
        print_json(&diff, stdout)?
    } else {
        ignore_closed_pipe(print(&diff, stdout))?
    }
    Ok(0)
}

fn print(diff: &SampleDiff, out: &mut dyn Write) -> std::io::Result<()> {
    let lines = [
        (diff.same, "rows with the same outcome"),
        (diff.only_first, "rows of the first state only"),
        (diff.only_second, "rows of the second state only"),
        (diff.newly_accepted, "rows that only the second state accepts"),
        (diff.newly_rejected, "rows that only the first state accepts"),
        (diff.other_reason, "rows rejected for another reason"),
    ];
    for (count, rows) in lines {
        writeln!(out, "  {count:>8}  {rows}")?;
    }
    if !diff.examples.is_empty() {
        writeln!(out, "\nSome rows with another outcome:")?;
        for (sample_id, before, now) in &diff.examples {
            writeln!(out, "  {sample_id}  {before} -> {now}")?;
        }
    }
    writeln!(out, "\n  {:<24}{:>20}{:>20}", "organ and size", "accepted", "rejected")?;
    for (group, [first, second]) in &diff.groups {
        let accepted = format!("{} -> {}", first.accepted, second.accepted);
        let rejected = format!("{} -> {}", first.rejected, second.rejected);
        writeln!(out, "  {group:<24}{accepted:>20}{rejected:>20}")?;
    }
    Ok(())
}
