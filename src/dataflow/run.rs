//! Execution of a plan into a run folder.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::error::{Error, Result};
use crate::graph::{Plan, SourceNode};
use crate::ingest::ScanEntry;
use crate::record::FaultRecord;
use crate::run::RunFolder;

use super::Progress;
use super::changes::{Listing, ScanChanges, check_missing};
use super::options::RunOptions;
use super::process::current_entries;
use super::report::RunReport;
use super::requests::execute_requests;
use super::session::Session;
use super::settling::young_scans;

/// Runs a plan into a new folder or resumes an existing one.
///
/// # Errors
/// If the folder belongs to another pipeline, a source cannot be listed, a new folder would have no scan, results cannot be written, or a
/// stop was requested ([`Progress::request_stop`]). Committed epochs stay.
pub fn run(plan: Plan, folder: &Path, options: &RunOptions, progress: &Arc<Progress>) -> Result<RunReport> {
    let start = Instant::now();
    let plan = plan.with_keyed_digest()?;
    // A run without scans must not create a folder, which would belong to its settings. An existing folder is checked before the
    // sources are listed, which may take long.
    let listing = if RunFolder::exists(folder) { None } else { Some(list_for_new(&plan, folder, options.limit)?) };
    let session = Session::open(plan, folder, start, options, progress)?;
    // Requests that an earlier process did not execute.
    execute_requests(&session.runner, &session.ledger, options)?;
    let plan = &session.runner.plan;
    let listing = listing.map_or_else(|| Listing::of(plan), Ok)?;
    let mut warnings: Vec<String> = listing.empty_sources(plan).map(without_scans).collect();
    let scans = session.ledger.scans()?;
    let changes = ScanChanges::new(plan, &listing, &scans, &|ids| session.ledger.keys_of(ids))?;
    warnings.extend(young_scans(plan, &changes, SystemTime::now()));
    session.process(warnings, &|scans| {
        let mut changes = ScanChanges::new(plan, &listing, scans, &|ids| session.ledger.keys_of(ids))?;
        check_missing(plan, scans, &changes)?;
        session.ledger.select_retested(plan, scans, &mut changes)?;
        Ok(changes)
    })
}

/// Processes failed and pending scans of a run folder again, namely those with a fault for which `selects` returns true. New and changed
/// scans wait for the next run.
///
/// # Errors
/// The errors of [`run`].
pub fn retry(
    plan: Plan,
    folder: &Path,
    selects: &dyn Fn(&FaultRecord) -> bool,
    options: &RunOptions,
    progress: &Arc<Progress>,
) -> Result<RunReport> {
    let session = Session::open(plan, folder, Instant::now(), options, progress)?;
    let failed = session.ledger.failed_scans(selects)?;
    let pending = current_entries(&session.runner.plan, &session.ledger, &failed)?;
    session.process(Vec::new(), &|scans| {
        // After an interruption, those that were processed are left out.
        let is_open = |entry: &ScanEntry| {
            scans.committed.get(&entry.scan_id).is_some_and(|scan| scan.epoch < session.first_epoch)
        };
        let pending = pending.iter().filter(|entry| is_open(entry)).cloned().collect();
        Ok(ScanChanges { pending, ..ScanChanges::default() })
    })
}

/// Lists the sources for a folder that is not a run folder yet.
///
/// # Errors
/// If the folder cannot become a run folder, a source cannot be listed, or the run would have no scan.
fn list_for_new(plan: &Plan, folder: &Path, limit: Option<usize>) -> Result<Listing> {
    RunFolder::check_creatable(folder)?;
    let listing = Listing::of(plan)?;
    if listing.scans() == 0 {
        let sources: Vec<String> = listing.empty_sources(plan).map(without_scans).collect();
        return Err(Error::new(format!("expected scans, got none: {}", sources.join("; ")))
            .with_hint("correct the sources; `freetumor validate` lists their scans"));
    }
    if limit == Some(0) {
        let message =
            format!("expected a limit of at least 1 for a new run folder, got 0 for {} scans", listing.scans());
        return Err(Error::new(message).with_hint("omit `--limit`, or set the number of scans to ingest"));
    }
    Ok(listing)
}

fn without_scans(node: &SourceNode) -> String {
    format!("the source `{}` has no scans: {}", node.name, node.source.explain_empty())
}
