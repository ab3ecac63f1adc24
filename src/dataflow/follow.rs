//! A run that follows its sources: scans are processed when their files are complete, until the run is stopped.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{ErrorKind, Result};
use crate::graph::Plan;
use crate::id::ScanId;
use crate::run::RunFolder;
use crate::run::requests::has_requests;

use super::Progress;
use super::changes::{Listing, ScanChanges, check_missing};
use super::options::RunOptions;
use super::report::RunReport;
use super::requests::execute_requests;
use super::session::{ScanCounts, Session};
use super::settling::SettlingScans;
use super::watch::Watcher;

/// Pause before a pending scan is processed again; doubled for each repetition.
const FIRST_RETRY: Duration = Duration::from_secs(60);

/// Longest pause before a pending scan is processed again.
const MAX_RETRY: Duration = Duration::from_secs(3600);

/// Options of a run that follows its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowOptions {
    /// Longest time between two listings of the sources: changes on network shares are found by listing only.
    pub rescan: Duration,
    /// Longest time for which complete scans wait for others of their epoch.
    pub max_delay: Duration,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self { rescan: Duration::from_secs(60), max_delay: Duration::from_secs(60) }
    }
}

/// Runs a plan and follows its sources until a stop is requested ([`Progress::request_stop`]); returns the report of the whole time.
///
/// # Errors
/// The errors of [`run`](super::run()), except that a requested stop is the normal end. Committed epochs stay.
pub fn follow(
    plan: Plan,
    folder: &Path,
    options: &RunOptions,
    follow: &FollowOptions,
    progress: &Arc<Progress>,
) -> Result<RunReport> {
    if !RunFolder::exists(folder) {
        RunFolder::check_creatable(folder)?;
        // The sources must exist, also without scans.
        Listing::of(&plan)?;
    }
    let session = Session::open(plan, folder, Instant::now(), options, progress)?;
    let mut counts = ScanCounts::default();
    match process_changes(&session, follow, progress, &mut counts) {
        Err(error) if error.kind() == ErrorKind::Stopped => {}
        result => result?,
    }
    session.report(counts, 0, Vec::new())
}

/// Processes changes until a stop is requested.
fn process_changes(
    session: &Session<'_>,
    follow: &FollowOptions,
    progress: &Progress,
    counts: &mut ScanCounts,
) -> Result<()> {
    let Session { runner, ledger, options, .. } = session;
    let plan = &runner.plan;
    let watcher = Watcher::start(plan.sources.iter().filter_map(|node| node.source.root()));
    let (mut settling, mut retries) = (SettlingScans::default(), Retries::default());
    let mut waiting_since: Option<Instant> = None;
    session.resume(counts)?;
    while !progress.is_stop_requested() {
        execute_requests(runner, ledger, options)?;
        ledger.hold_out(plan, options.threads)?;
        let scans = ledger.scans()?;
        let changes = Listing::of(plan).and_then(|listing| {
            let mut changes = ScanChanges::new(plan, &listing, &scans, &|ids| ledger.keys_of(ids))?;
            check_missing(plan, &scans, &changes)?;
            ledger.select_retested(plan, &scans, &mut changes)?;
            Ok(changes)
        });
        let mut changes = match changes {
            Ok(changes) => changes,
            Err(error) => {
                // A disk that is not mounted may come back.
                tracing::warn!(
                    "cannot compare the sources with the run, the next listing is in {:?}: {error}",
                    follow.rescan
                );
                watcher.wait(Instant::now() + follow.rescan, &|| progress.is_stop_requested());
                continue;
            }
        };
        let now = Instant::now();
        let settling_scans = settling.delay(plan, &scans, &mut changes, now, SystemTime::now());
        retries.delay(&mut changes, now);
        let ready = changes.in_order().len();
        let is_due = match (ready, waiting_since) {
            (0, _) => !changes.gone.is_empty() || !changes.retested.is_empty() || changes.is_graph_changed,
            (ready, _) if ready >= plan.epoch_scans => true,
            (_, since) => now.duration_since(*waiting_since.get_or_insert(since.unwrap_or(now))) >= follow.max_delay,
        };
        if is_due {
            waiting_since = None;
            session.apply(&scans, &changes, None, counts)?;
            continue;
        }
        tracing::debug!(ready, settling_scans, "waiting for changes of the sources");
        let due = waiting_since.map(|since| since + follow.max_delay);
        let deadline = due.into_iter().fold(now + follow.rescan, Instant::min);
        watcher.wait(deadline, &|| progress.is_stop_requested() || has_requests(&*ledger.store()));
    }
    Ok(())
}

/// The pauses of pending scans.
#[derive(Debug, Default)]
struct Retries {
    /// When a scan may be processed again, and the pause after that.
    pauses: HashMap<ScanId, (Instant, Duration)>,
}

impl Retries {
    /// Removes the pending scans from `changes` whose pause has not passed.
    fn delay(&mut self, changes: &mut ScanChanges, now: Instant) {
        let mut pauses = HashMap::new();
        changes.pending.retain(|entry| {
            let (next, pause) = *self.pauses.get(&entry.scan_id).unwrap_or(&(now + FIRST_RETRY, FIRST_RETRY));
            let is_due = now >= next;
            let following = (pause * 2).min(MAX_RETRY);
            pauses.insert(entry.scan_id, if is_due { (now + following, following) } else { (next, pause) });
            is_due
        });
        self.pauses = pauses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Source;
    use crate::ingest::phantom::{PhantomConfig, PhantomSource};

    #[test]
    fn pauses_of_pending_scans_double() {
        let config = PhantomConfig { count: 1, ..PhantomConfig::default() };
        let pending = PhantomSource::new(config, "phantoms").unwrap().list().unwrap();
        let (start, mut retries) = (Instant::now(), Retries::default());
        let mut due = Vec::new();
        for minute in 0..200 {
            let mut changes = ScanChanges { pending: pending.clone(), ..ScanChanges::default() };
            retries.delay(&mut changes, start + Duration::from_secs(60 * minute));
            if !changes.pending.is_empty() {
                due.push(minute);
            }
        }
        assert_eq!(due, [1, 3, 7, 15, 31, 63, 123, 183]);
        retries.delay(&mut ScanChanges::default(), start);
        assert!(retries.pauses.is_empty(), "a scan that is no longer pending");
    }
}
