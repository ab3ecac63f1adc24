//! `freetumor scans`: the scans of a run folder, with paths for users who may read `RUN/private`.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::print::{ignore_closed_pipe, print_json};
use super::recorded::RecordedArgs;
use crate::dataflow::changes_since;
use crate::error::Result;
use crate::graph::Registry;
use crate::id::ScanId;
use crate::record::parquet::{Row, decode_part};
use crate::record::{FaultRecord, ScanRecord, Status};
use crate::run::RunFolder;

/// List the scans of a run folder
///
/// One scan per line: id, status, source and, with `--paths`, the path below the source. Paths are read from `RUN/private` and may
/// name a person. The messages of faults are printed below the scan.
#[derive(Args, Clone, Debug)]
pub struct ScansArgs {
    /// The run folder
    pub run: PathBuf,
    /// List failed and pending scans only
    #[arg(long)]
    pub failed: bool,
    /// List only scans that are new, changed, gone or pending, compared with the current files of the sources
    #[arg(long, conflicts_with = "failed")]
    pub changed: bool,
    /// Print the path of each scan
    #[arg(long)]
    pub paths: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Graph file, threads and secret.
    #[command(flatten)]
    pub recorded: RecordedArgs,
}

/// A scan of the list.
#[derive(Debug, Serialize)]
struct ListedScan {
    scan_id: ScanId,
    /// The status in the table `scans`, or with `--changed` the kind of change.
    status: String,
    dataset: String,
    source: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// Lists scans and returns the exit code.
///
/// # Errors
/// If the folder is not a run folder, its tables cannot be read, or with `--changed` a source cannot be listed.
pub fn scans(args: &ScansArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let folder = RunFolder::open(&args.run)?;
    let mut listed = match args.changed {
        true => changed(args, &folder, registry, stderr)?,
        false => committed(args, &folder)?,
    };
    listed.sort_by_key(|scan| scan.scan_id);
    if args.json {
        print_json(&listed, stdout)?;
        return Ok(0);
    }
    let print = |scan: &ListedScan| {
        let ListedScan { scan_id, status, source, path, faults, .. } = scan;
        write!(stdout, "{scan_id}  {status:<9}  {source}")?;
        if let Some(path) = path {
            write!(stdout, "  {path}")?;
        }
        writeln!(stdout)?;
        faults.iter().try_for_each(|fault| writeln!(stdout, "    {fault}"))
    };
    ignore_closed_pipe(listed.iter().try_for_each(print))?;
    Ok(0)
}

/// Returns the committed scans.
fn committed(args: &ScansArgs, folder: &RunFolder) -> Result<Vec<ListedScan>> {
    let mut faults: HashMap<ScanId, Vec<String>> = HashMap::new();
    for row in rows::<FaultRecord>(folder)? {
        faults.entry(row.scan_id).or_default().push(row.fault.to_string());
    }
    let keys = if args.paths { keys(folder)? } else { HashMap::new() };
    let rows = rows::<ScanRecord>(folder)?.into_iter();
    let selected = rows.filter(|row| !args.failed || matches!(row.status, Status::Fault | Status::Pending));
    Ok(selected
        .map(|row| ListedScan {
            scan_id: row.scan_id,
            status: row.status.to_string(),
            dataset: row.dataset,
            source: row.source,
            faults: faults.remove(&row.scan_id).unwrap_or_default(),
            path: keys.get(&row.scan_id).cloned(),
        })
        .collect())
}

/// Returns the scans whose files differ from those that the run processed.
fn changed(
    args: &ScansArgs,
    folder: &RunFolder,
    registry: &Registry,
    stderr: &mut dyn Write,
) -> Result<Vec<ListedScan>> {
    let plan = args.recorded.plan(&args.run, registry, stderr)?.with_keyed_digest()?;
    let changes = changes_since(&plan, folder)?;
    let ingested = folder.ingested(folder.next_ingest()?)?.entries;
    let keys = if args.paths { keys(folder)? } else { HashMap::new() };
    let mut listed = Vec::new();
    for (status, entries) in [("new", changes.new), ("changed", changes.changed), ("pending", changes.pending)] {
        listed.extend(entries.into_iter().map(|entry| ListedScan {
            scan_id: entry.scan_id,
            status: status.to_owned(),
            dataset: entry.dataset,
            source: entry.source,
            faults: Vec::new(),
            path: args.paths.then_some(entry.key),
        }));
    }
    listed.extend(changes.gone.into_iter().filter_map(|scan_id| {
        let entry = ingested.get(&scan_id)?;
        Some(ListedScan {
            scan_id,
            status: "gone".to_owned(),
            dataset: entry.dataset.clone(),
            source: entry.source.clone(),
            faults: Vec::new(),
            path: keys.get(&scan_id).cloned(),
        })
    }));
    Ok(listed)
}

fn keys(folder: &RunFolder) -> Result<HashMap<ScanId, String>> {
    let mut keys = HashMap::new();
    folder.for_each_entry(folder.next_ingest()?, &mut |entry| _ = keys.insert(entry.scan_id, entry.key))?;
    Ok(keys)
}

fn rows<R: Row>(folder: &RunFolder) -> Result<Vec<R>> {
    let mut rows = Vec::new();
    for file in folder.files(R::TABLE.name(), None)? {
        rows.extend(decode_part::<R>(folder.read_verified(&file)?)?);
    }
    Ok(rows)
}
