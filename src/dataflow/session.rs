//! A process that writes a run folder: it processes changes of the scans and reports them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytesize::ByteSize;

use crate::error::Result;
use crate::graph::{MaskNode, Plan, SinkNode, free_bytes, required_space};
use crate::id::ScanId;
use crate::record::{Split, Status};
use crate::run::RunFolder;

use super::changes::{RunScans, ScanChanges};
use super::options::RunOptions;
use super::process::process;
use super::report::{NetworkUse, RunReport, StepSum};
use super::requests::execute_requests;
use super::schedule::Schedule;
use super::series_index::{SeriesIndex, parts_warning};
use super::telemetry::{Step, Telemetry};
use super::{Epoch, Ledger, Progress, StageRunner};

/// A process that writes a run folder.
pub(super) struct Session<'a> {
    pub runner: Arc<StageRunner>,
    pub ledger: Arc<Ledger>,
    /// The first epoch that this process ingests.
    pub first_epoch: Epoch,
    folder: &'a Path,
    start: Instant,
    pub options: &'a RunOptions,
}

impl<'a> Session<'a> {
    /// Opens a run folder for writing.
    pub fn open(
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

    /// Processes open epochs, then changes, and executes requests between epochs; `changes_of` compares the scans of the run with its
    /// sources and is called again after requests.
    pub fn process(
        &self,
        warnings: Vec<String>,
        changes_of: &dyn Fn(&RunScans) -> Result<ScanChanges>,
    ) -> Result<RunReport> {
        let Self { runner, ledger, options, .. } = self;
        let mut counts = ScanCounts::default();
        self.resume(&mut counts)?;
        let scans = ledger.scans()?;
        let left_out_scans = self.apply(&scans, &changes_of(&scans)?, options.limit, &mut counts)?;
        while execute_requests(runner, ledger, options)? {
            let left = options.limit.map(|limit| limit.saturating_sub(ledger.processed_since(self.first_epoch)));
            let scans = ledger.scans()?;
            self.apply(&scans, &changes_of(&scans)?, left, &mut counts)?;
        }
        self.report(counts, left_out_scans, warnings)
    }

    /// Processes the epochs that are ingested and not committed, before any comparison with the sources, which needs the rows of all
    /// ingested scans.
    pub fn resume(&self, counts: &mut ScanCounts) -> Result<()> {
        let Self { runner, ledger, options, .. } = self;
        let (open, next) = ledger.open_epochs()?;
        if open.is_empty() {
            return Ok(());
        }
        let (scans, changes) = (ledger.scans()?, ScanChanges::default());
        let schedule = Schedule::new(&runner.plan, open, next, &scans, &changes, None).without_interruption();
        runner.progress.expect_scans(schedule.scans() as u64);
        let processed = process(runner, ledger, &scans, schedule.clone(), options);
        counts.add(&schedule, &scans, &changes, ledger.next_epoch());
        counts.add_peak(processed?.budget.peak_bytes());
        Ok(())
    }

    /// Processes changes, at most `limit` scans, and returns the number of scans that the limit leaves out.
    pub fn apply(
        &self,
        scans: &RunScans,
        changes: &ScanChanges,
        limit: Option<usize>,
        counts: &mut ScanCounts,
    ) -> Result<u64> {
        let Self { runner, ledger, options, .. } = self;
        let next = ledger.open_epochs()?.1;
        let schedule = Schedule::new(&runner.plan, Vec::new(), next, scans, changes, limit);
        runner.progress.expect_scans(schedule.scans() as u64);
        warn_of_small_disk(&runner.plan, self.folder, &schedule);
        let left_out_scans = schedule.left_out_scans() as u64;
        let processed = process(runner, ledger, scans, schedule.clone(), options);
        counts.add(&schedule, scans, changes, ledger.next_epoch());
        counts.add_peak(processed?.budget.peak_bytes());
        Ok(left_out_scans)
    }

    /// Synchronizes the layouts, and returns the report of the folder and of this process.
    pub fn report(&self, counts: ScanCounts, left_out_scans: u64, mut warnings: Vec<String>) -> Result<RunReport> {
        let Self { runner, ledger, .. } = self;
        let ScanCounts {
            processed_scans,
            new_scans,
            changed_scans,
            affected_scans,
            retested_scans,
            retried_scans,
            removed_scans,
            peak_lease_bytes,
        } = counts;
        let failures = ledger.failures();
        let failed =
            |status| failures.iter().filter(move |(_, own)| **own == status).map(|(scan_id, _)| *scan_id).collect();
        let samples = ledger.project_layouts()?;
        warnings.extend(runner.plan.sinks.iter().filter_map(|sink| missing_splits(&runner.plan, sink, &samples)));
        warnings.extend(runner.plan.masks.iter().filter_map(absent_selections));
        warnings.extend(ledger.band_warnings());
        let folder_report = ledger.report(&runner.plan)?;
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
            peak_lease_bytes,
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
pub(super) struct ScanCounts {
    processed_scans: u64,
    new_scans: u64,
    changed_scans: Vec<ScanId>,
    affected_scans: Vec<ScanId>,
    retested_scans: Vec<ScanId>,
    retried_scans: Vec<ScanId>,
    removed_scans: Vec<ScanId>,
    peak_lease_bytes: u64,
}

impl ScanCounts {
    /// Records the bytes that were leased at once.
    fn add_peak(&mut self, bytes: u64) {
        self.peak_lease_bytes = self.peak_lease_bytes.max(bytes);
    }

    /// Adds the scans of the epochs of a schedule before `end`, which were committed: requests and stops end a schedule early.
    fn add(&mut self, schedule: &Schedule, scans: &RunScans, changes: &ScanChanges, end: Epoch) {
        let epochs = || schedule.epochs().iter().filter(|work| work.epoch < end);
        let scheduled: BTreeSet<ScanId> = epochs().flat_map(|work| &work.entries).map(|entry| entry.scan_id).collect();
        let is_scheduled = |scan_id: &ScanId| scheduled.contains(scan_id);
        let changed = changes.changed.iter().map(|entry| entry.scan_id);
        let retried = changes.pending.iter().chain(changes.duplicates.iter().map(|(_, entry)| entry));
        self.processed_scans += epochs().map(|work| work.entries.len() as u64).sum::<u64>();
        self.new_scans += scheduled.iter().filter(|scan_id| !scans.committed.contains_key(scan_id)).count() as u64;
        self.changed_scans.extend(changed.filter(is_scheduled));
        let affected = changes.affected.iter().map(|entry| entry.scan_id);
        self.affected_scans.extend(affected.filter(is_scheduled));
        let retested = epochs().flat_map(|work| &work.retested);
        self.retested_scans.extend(retested.map(|entry| entry.scan_id));
        self.retried_scans.extend(retried.map(|entry| entry.scan_id).filter(is_scheduled));
        self.removed_scans.extend(epochs().flat_map(|work| work.removed.iter().copied()));
    }
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
