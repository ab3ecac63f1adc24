//! `freetumor status`: the state of a run folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;

use super::print::{ignore_closed_pipe, pluralize, print_json};
use crate::error::Result;
use crate::record::parquet::decode_part;
use crate::record::{ScanRecord, Status};
use crate::run::{Counts, RunFolder};
use crate::store::serialize_path;

/// Print the state of a run folder
///
/// Prints the number of scans by status, samples, commits, open epochs and the size. The command only reads the folder and may be used
/// while a run writes to it.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The run folder
    pub run: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The state of a run folder.
#[derive(Debug, Serialize)]
struct RunStatus {
    #[serde(serialize_with = "serialize_path")]
    run: PathBuf,
    /// The last commit; absent before the first commit.
    epoch: Option<u64>,
    /// The earliest commit whose state can be read.
    earliest_epoch: u64,
    /// Number of epochs that are ingested but not committed.
    open_epochs: u64,
    /// Whether a process writes to the folder; absent if unknown.
    is_running: Option<bool>,
    scans: BTreeMap<String, u64>,
    counts: Counts,
    /// Tombstones of withdrawn scans, patients and contents.
    tombstones: usize,
    /// Total size of the files of the last state.
    bytes: u64,
    code_version: String,
    kernel_class: Option<String>,
}

/// Prints the state and returns the exit code.
///
/// # Errors
/// If the folder is not a run folder or cannot be read.
pub fn status(args: &StatusArgs, stdout: &mut dyn Write) -> Result<u8> {
    let status = read(&args.run)?;
    if args.json {
        print_json(&status, stdout)?
    } else {
        ignore_closed_pipe(print(&status, stdout))?
    }
    Ok(0)
}

fn read(run: &Path) -> Result<RunStatus> {
    let folder = RunFolder::open(run)?;
    let (manifest, next) = (folder.current_manifest()?, folder.head().map_or(0, |epoch| epoch + 1));
    let mut scans: BTreeMap<String, u64> = BTreeMap::new();
    for file in folder.files("scans", None)? {
        for row in decode_part::<ScanRecord>(folder.read_verified(&file)?)? {
            *scans.entry(row.status.to_string()).or_default() += 1;
        }
    }
    let (mut bytes, next_ingest) = (0, folder.next_ingest()?);
    folder.for_each_file(None, &mut |file| {
        bytes += file.bytes;
        Ok(())
    })?;
    bytes += folder.pairs()?.iter().map(|pair| pair.image.bytes + pair.label.bytes).sum::<u64>();
    Ok(RunStatus {
        run: run.to_owned(),
        epoch: folder.head(),
        earliest_epoch: folder.base().map_or(0, |base| base.epoch),
        open_epochs: next_ingest.saturating_sub(next),
        is_running: RunFolder::is_locked(run),
        scans,
        counts: folder.head_at(None)?.counts,
        tombstones: folder.ingested(next_ingest)?.withdrawn.len(),
        bytes,
        code_version: manifest.code_version,
        kernel_class: manifest.kernel_class,
    })
}

fn print(status: &RunStatus, out: &mut dyn Write) -> std::io::Result<()> {
    let state = match status.is_running {
        Some(true) => ": a process writes to it",
        Some(false) => ": no process writes to it",
        None => "",
    };
    writeln!(out, "{}{state}", status.run.display())?;
    match status.epoch {
        None => writeln!(out, "no commits")?,
        Some(epoch) => {
            let size = ByteSize(status.bytes);
            writeln!(out, "commit {epoch}, readable from commit {}; {size}", status.earliest_epoch)?;
        }
    }
    if status.open_epochs > 0 && status.is_running != Some(true) {
        let epochs = pluralize(status.open_epochs as usize, "epoch");
        writeln!(out, "{epochs} not committed: run the pipeline again to resume")?;
    }
    writeln!(out)?;
    for (status, count) in &status.scans {
        writeln!(out, "  {count:>8}  scans {status}")?;
    }
    let Counts { accepted, negatives, rejected, .. } = &status.counts;
    writeln!(out, "  {accepted:>8}  tumors accepted")?;
    writeln!(out, "  {:>8}  attempts rejected", rejected.values().sum::<u64>())?;
    if *negatives > 0 {
        writeln!(out, "  {negatives:>8}  negatives")?;
    }
    if status.tombstones > 0 {
        writeln!(out, "  {:>8}  tombstones of withdrawn scans, patients and contents", status.tombstones)?;
    }
    if status.scans.contains_key(Status::Pending.name()) {
        writeln!(out, "\nrun the pipeline again to process the pending scans")?;
    }
    Ok(())
}
