//! The processing of a schedule by the dataflow.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::id::ScanId;
use crate::ingest::ScanEntry;
use crate::record::Status;

use super::build::SharedState;
use super::changes::RunScans;
use super::deduplicate::KnownScans;
use super::drive::drive;
use super::interruption::Interruption;
use super::options::RunOptions;
use super::pool::Pool;
use super::schedule::Schedule;
use super::{Abort, Budget, Ledger, StageRunner};

/// Processes the epochs of a schedule, up to requests that wait, and returns the state of the run after the last commit.
pub(super) fn process(
    runner: &Arc<StageRunner>,
    ledger: &Arc<Ledger>,
    scans: &RunScans,
    schedule: Schedule,
    options: &RunOptions,
) -> Result<SharedState> {
    let nodes = runner.plan.nodes.len() + 2;
    let in_flight = 2 * options.threads;
    let shared = SharedState {
        known: Arc::new(known_scans(scans, &schedule)),
        runner: Arc::clone(runner),
        ledger: Arc::clone(ledger),
        interruption: Arc::new(Interruption::new(ledger.store())),
        // Each queue has room for all items of all operators.
        pool: Pool::start(options.threads, options.workers * nodes * in_flight)?,
        budget: Budget::new(options.memory_bytes),
        abort: Arc::new(Abort::default()),
        in_flight,
    };
    if !schedule.is_empty() {
        execute(options.workers, &shared, schedule)?;
    }
    Ok(shared)
}

/// Returns the digests of the done scans of a run, and the epochs of the schedule in which they are processed again or removed.
pub fn known_scans(scans: &RunScans, schedule: &Schedule) -> KnownScans {
    let known = KnownScans::new(scans.withdrawn.clone(), scans.held_out.clone());
    for (&scan_id, scan) in &scans.committed {
        if let Some(digest) = scan.digest.filter(|_| scan.status == Status::Done) {
            known.add(digest, scan.epoch, scan_id);
        }
    }
    for work in schedule.epochs().iter().filter(|work| work.replaces) {
        work.scan_ids().for_each(|scan_id| known.replace(scan_id, work.epoch));
    }
    known
}

/// Returns scans as they are in their sources now; a scan that no longer exists keeps its version, so that its processing shows the change.
pub(super) fn current_entries(plan: &Plan, ledger: &Ledger, scans: &HashSet<ScanId>) -> Result<Vec<ScanEntry>> {
    let mut entries = ledger.entries_of(scans)?;
    for entry in &mut entries {
        if let Some(source) = plan.source_index(&entry.source)
            && let Ok(version) = plan.current_version(source, entry)
        {
            entry.version = version;
        }
    }
    Ok(entries)
}

fn execute(workers: usize, shared: &SharedState, schedule: Schedule) -> Result<()> {
    let config = if workers > 1 { timely::Config::process(workers) } else { timely::Config::thread() };
    let (shared_state, schedule) = (shared.clone(), Arc::new(schedule));
    let guards = timely::execute(config, move |worker| drive(worker, &shared_state, &schedule))
        .map_err(|cause| Error::new(format!("cannot start {workers} workers: {cause}")))?;
    let results: Vec<_> = guards.join();
    if let Some(error) = shared.abort.take() {
        return Err(error);
    }
    match results.into_iter().find_map(Result::err) {
        Some(cause) => Err(Error::new(format!("a worker failed: {cause}"))),
        None => Ok(()),
    }
}
