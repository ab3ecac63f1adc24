//! Execution of a plan into a run folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytesize::ByteSize;

use crate::error::{Error, Result};
use crate::graph::{MaskNode, Plan, SinkNode, SourceNode, free_bytes, required_space};
use crate::id::ScanId;
use crate::ingest::ScanEntry;
use crate::record::{FaultRecord, Split, Status};
use crate::run::RunFolder;

use super::changes::{Listing, RunScans, ScanChanges, check_missing};
use super::options::RunOptions;
use super::process::{current_entries, process};
use super::report::{NetworkUse, RunReport, StepSum};
use super::requests::execute_requests;
use super::schedule::Schedule;
use super::series_index::{SeriesIndex, parts_warning};
use super::telemetry::{Step, Telemetry};
use super::{Epoch, Ledger, Progress, StageRunner};

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
    let warnings = listing.empty_sources(plan).map(without_scans).collect();
    session.process(warnings, &|scans| {
        let mut changes = ScanChanges::new(plan, &listing, scans, &|ids| session.ledger.keys_of(ids))?;
        check_missing(plan, scans, &changes)?;
        session.ledger.select_retested(plan, scans, &mut changes)?;
        Ok(changes)
    })
}

/// Processes failed and pending scans of a run folder again, namely those with a fault for which `selects` returns true. New and changed scans wait
/// for the next run.
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

/// A process that writes a run folder.
struct Session<'a> {
    runner: Arc<StageRunner>,
    ledger: Arc<Ledger>,
    /// The first epoch that this process ingests.
    first_epoch: Epoch,
    folder: &'a Path,
    start: Instant,
    options: &'a RunOptions,
}

impl<'a> Session<'a> {
    /// Opens a run folder for writing.
    fn open(
        plan: Plan,
        folder: &'a Path,
        start: Instant,
        options: &'a RunOptions,
        progress: &Arc<Progress>,
    ) -> Result<Self> {
        let plan = plan.with_keyed_digest()?;
        if !RunFolder::exists(folder) {
            // An unreadable path must not leave an empty run folder.
            plan.never_train.list()?;
        }
        let (ledger, spool) = Ledger::open(folder, &plan)?;
        ledger.hold_out(&plan, options.threads)?;
        let telemetry = Telemetry::create(&folder.join("telemetry"))?;
        let runner = Arc::new(StageRunner {
            plan,
            spool,
            telemetry,
            progress: Arc::clone(progress),
            series: SeriesIndex::default(),
        });
        let first_epoch = ledger.open_epochs()?.1;
        Ok(Self { runner, ledger: Arc::new(ledger), first_epoch, folder, start, options })
    }

    /// Processes open epochs, then changes, and executes requests between epochs; `changes_of` compares the scans of the run with its sources
    /// and is called again after requests.
    fn process(
        &self,
        mut warnings: Vec<String>,
        changes_of: &dyn Fn(&RunScans) -> Result<ScanChanges>,
    ) -> Result<RunReport> {
        let Self { runner, ledger, options, .. } = self;
        let plan = &runner.plan;
        let mut counts = ScanCounts::default();
        let (open, next) = ledger.open_epochs()?;
        if !open.is_empty() {
            // Before the comparison with the sources, which needs the rows of all ingested scans.
            let scans = ledger.scans()?;
            let schedule =
                Schedule::new(plan, open, next, &scans, &ScanChanges::default(), None).without_interruption();
            runner.progress.expect_scans(schedule.scans() as u64);
            counts.add(&schedule, &scans, &ScanChanges::default());
            process(runner, ledger, &scans, schedule, options)?;
        }
        let schedule_of = |limit| {
            let scans = ledger.scans()?;
            let changes = changes_of(&scans)?;
            let next = ledger.open_epochs()?.1;
            let schedule = Schedule::new(plan, Vec::new(), next, &scans, &changes, limit);
            Ok::<_, Error>((scans, changes, schedule))
        };
        let (scans, changes, schedule) = schedule_of(options.limit)?;
        runner.progress.expect_scans(schedule.scans() as u64);
        warn_of_small_disk(plan, self.folder, &schedule);
        counts.add(&schedule, &scans, &changes);
        let ScanCounts {
            processed_scans,
            new_scans,
            changed_scans,
            affected_scans,
            retested_scans,
            retried_scans,
            removed_scans,
        } = counts;
        let left_out_scans = schedule.left_out_scans() as u64;
        let mut shared = process(runner, ledger, &scans, schedule, options)?;
        while execute_requests(runner, ledger, options)? {
            let left = options.limit.map(|limit| limit.saturating_sub(shared.ledger.processed_since(self.first_epoch)));
            let (scans, _, schedule) = schedule_of(left)?;
            shared = process(runner, ledger, &scans, schedule, options)?;
        }
        let failures = shared.ledger.failures();
        let failed =
            |status| failures.iter().filter(move |(_, own)| **own == status).map(|(scan_id, _)| *scan_id).collect();
        let samples = shared.ledger.project_layouts()?;
        warnings.extend(runner.plan.sinks.iter().filter_map(|sink| missing_splits(&runner.plan, sink, &samples)));
        warnings.extend(runner.plan.masks.iter().filter_map(absent_selections));
        warnings.extend(shared.ledger.band_warnings());
        let folder_report = shared.ledger.report(&runner.plan)?;
        warnings.extend(folder_report.warnings.iter().cloned());
        let parts_of_scans = runner.series.found();
        warnings.extend(parts_warning(&parts_of_scans));
        let sums = runner.telemetry.sums();
        let networks = network_uses(&runner.plan);
        let compute_steps = [Step::Mask, Step::Prepare, Step::Synthesize, Step::Score];
        let seconds: f64 =
            sums.iter().filter(|(step, ..)| compute_steps.contains(step)).map(|(.., seconds)| seconds).sum();
        let waiting_seconds: f64 = networks.iter().map(|network| network.cost.waited_seconds).sum();
        let device = runner.plan.inferences().next().map(|(_, inference)| inference.service().usage());
        Ok(RunReport {
            processed_scans,
            new_scans,
            left_out_scans,
            changed_scans,
            graph_change: ledger.graph_change().to_vec(),
            affected_scans,
            retested_scans,
            retried_scans,
            removed_scans,
            newly_failed_scans: failed(Status::Fault),
            newly_pending_scans: failed(Status::Pending),
            warnings,
            seconds: self.start.elapsed().as_secs_f64(),
            peak_lease_bytes: shared.budget.peak_bytes(),
            new_attempts: sums.iter().find(|(step, ..)| *step == Step::Synthesize).map_or(0, |(_, count, _)| *count),
            steps: sums
                .into_iter()
                .map(|(step, count, seconds)| StepSum { step: step.name(), count, seconds })
                .collect(),
            other_seconds: (seconds - waiting_seconds).max(0.0),
            networks,
            device_busy_share: device.map_or(0.0, |usage| usage.busy_share()),
            processors_busy_share: device.map_or(0.0, |usage| usage.processors_busy_share()),
            parts_of_scans,
            ..folder_report
        })
    }
}

/// The scans of one run, by the reason of their processing.
#[derive(Default)]
struct ScanCounts {
    processed_scans: u64,
    new_scans: u64,
    changed_scans: Vec<ScanId>,
    affected_scans: Vec<ScanId>,
    retested_scans: Vec<ScanId>,
    retried_scans: Vec<ScanId>,
    removed_scans: Vec<ScanId>,
}

impl ScanCounts {
    /// Adds the scans of a schedule.
    fn add(&mut self, schedule: &Schedule, scans: &RunScans, changes: &ScanChanges) {
        let scheduled: BTreeSet<ScanId> =
            schedule.epochs().iter().flat_map(|work| &work.entries).map(|entry| entry.scan_id).collect();
        let is_scheduled = |scan_id: &ScanId| scheduled.contains(scan_id);
        let changed = changes.changed.iter().map(|entry| entry.scan_id);
        let retried = changes.pending.iter().chain(changes.duplicates.iter().map(|(_, entry)| entry));
        self.processed_scans += schedule.scans() as u64;
        self.new_scans += scheduled.iter().filter(|scan_id| !scans.committed.contains_key(scan_id)).count() as u64;
        self.changed_scans.extend(changed.filter(is_scheduled));
        let affected = changes.affected.iter().map(|entry| entry.scan_id);
        self.affected_scans.extend(affected.filter(is_scheduled));
        let retested = schedule.epochs().iter().flat_map(|work| &work.retested);
        self.retested_scans.extend(retested.map(|entry| entry.scan_id));
        self.retried_scans.extend(retried.map(|entry| entry.scan_id).filter(is_scheduled));
        self.removed_scans.extend(schedule.epochs().iter().flat_map(|work| work.removed.iter().copied()));
    }
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

/// Returns a warning if a training set has samples, but none for a split that its users expect.
fn missing_splits(plan: &Plan, sink: &SinkNode, samples: &BTreeMap<String, BTreeMap<Split, usize>>) -> Option<String> {
    let samples = samples.get(&sink.name).filter(|samples| samples.values().any(|count| *count > 0))?;
    let mut missing = sink.expected_splits(plan.split);
    missing.retain(|split| samples.get(split).is_none_or(|count| *count == 0));
    let names: Vec<&str> = missing.iter().map(|split| split.name()).collect();
    let consequence = if sink.kind == "nnunet" && missing.contains(&Split::Validation) {
        "nnU-Net cannot train fold 0 without validation cases"
    } else {
        "add patients, or change the shares of `split`"
    };
    (!names.is_empty())
        .then(|| format!("the sink `{}` has no {} samples: {consequence}", sink.name, names.join(" and no ")))
}

/// Returns a warning if a mask stage selects ids or structures that occur in none of the scans that it masked in this run.
fn absent_selections(node: &MaskNode) -> Option<String> {
    let selections = node.mask.selections()?;
    let (absent, scans) = (selections.absent(), selections.scans());
    let scans = if scans == 1 { "the scan".to_owned() } else { format!("any of the {scans} scans") };
    let is_masked = selections.scans() > 0;
    (is_masked && !absent.is_empty())
        .then(|| format!("the mask `{}` selects {}, not found in {scans} of this run", node.name, absent.join(", ")))
}

/// Warns if the disk may be too small for the samples; a full disk stops the run, which can be resumed.
fn warn_of_small_disk(plan: &Plan, folder: &Path, schedule: &Schedule) {
    let (samples, needed) = required_space(plan, &schedule.by_source(plan));
    if let Some(free) = free_bytes(folder).filter(|free| needed > *free) {
        let (needed, free) = (ByteSize(needed), ByteSize(free));
        tracing::warn!(
            "up to {samples} samples may need {needed} of disk space, but only {free} is free at {}",
            folder.display()
        );
    }
}

fn network_uses(plan: &Plan) -> Vec<NetworkUse> {
    let mut uses = Vec::new();
    for (node, inference) in plan.inferences() {
        let costs = inference.costs().into_iter();
        uses.extend(costs.map(|(phase, cost)| NetworkUse { node: node.to_owned(), phase, cost }));
    }
    uses
}
