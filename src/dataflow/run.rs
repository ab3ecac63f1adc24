//! Execution of a plan into a run folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytesize::ByteSize;

use crate::error::{Error, Result};
use crate::graph::{MaskNode, Plan, SinkNode, SourceNode, free_bytes, required_space};
use crate::record::Split;
use crate::run::RunFolder;

use super::build::SharedState;
use super::drive::drive;
use super::pool::Pool;
use super::report::{NetworkUse, RunReport, StepSum};
use super::schedule::{Listing, Schedule};
use super::telemetry::{Step, Telemetry};
use super::{Abort, Budget, Ledger, Progress, StageRunner};

/// Options of a run. They do not change the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Number of timely workers.
    pub workers: usize,
    /// Number of threads of the pool.
    pub threads: usize,
    /// Memory budget of all open scans in bytes.
    pub memory_bytes: u64,
    /// Maximum number of new scans to ingest; all if absent.
    pub limit: Option<usize>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { workers: 1, threads: 2, memory_bytes: 8 << 30, limit: None }
    }
}

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
    let (ledger, spool) = Ledger::open(folder, &plan)?;
    let (open, next) = ledger.open_epochs()?;
    let listing = listing.map_or_else(|| Listing::of(&plan), Ok)?;
    let schedule = Schedule::of_listing(&plan, &listing, open, next, &ledger.ingested()?, options.limit);
    let mut warnings: Vec<String> = listing.empty_sources(&plan).map(without_scans).collect();
    progress.expect_scans(schedule.scans() as u64);
    warn_of_small_disk(&plan, folder, &schedule);
    let telemetry = Telemetry::create(&folder.join("telemetry"))?;
    let nodes = plan.nodes.len() + 2;
    let in_flight = 2 * options.threads;
    let shared = SharedState {
        known: Arc::new(ledger.known_scans()?),
        runner: Arc::new(StageRunner { plan, spool, telemetry, progress: Arc::clone(progress) }),
        ledger: Arc::new(ledger),
        // Each queue has room for all items of all operators.
        pool: Pool::start(options.threads, options.workers * nodes * in_flight)?,
        budget: Budget::new(options.memory_bytes),
        abort: Arc::new(Abort::default()),
        in_flight,
    };
    let (new_scans, changed_scans) = (schedule.scans() as u64, schedule.changed() as u64);
    let left_out_scans = schedule.left_out() as u64;
    if new_scans > 0 {
        execute(options.workers, &shared, schedule)?;
    }
    let samples = shared.ledger.project_layouts()?;
    let runner = &shared.runner;
    warnings.extend(runner.plan.sinks.iter().filter_map(|sink| missing_splits(&runner.plan, sink, &samples)));
    warnings.extend(runner.plan.masks.iter().filter_map(absent_selections));
    let sums = runner.telemetry.sums();
    let networks = network_uses(&runner.plan);
    let compute_steps = [Step::Mask, Step::Prepare, Step::Synthesize, Step::Score];
    let seconds: f64 = sums.iter().filter(|(step, ..)| compute_steps.contains(step)).map(|(.., seconds)| seconds).sum();
    let waiting_seconds: f64 = networks.iter().map(|network| network.cost.waited_seconds).sum();
    let device = runner.plan.inferences().next().map(|(_, inference)| inference.service().usage());
    Ok(RunReport {
        new_scans,
        left_out_scans,
        changed_scans,
        warnings,
        seconds: start.elapsed().as_secs_f64(),
        peak_lease_bytes: shared.budget.peak_bytes(),
        new_attempts: sums.iter().find(|(step, ..)| *step == Step::Synthesize).map_or(0, |(_, count, _)| *count),
        steps: sums.into_iter().map(|(step, count, seconds)| StepSum { step: step.name(), count, seconds }).collect(),
        other_seconds: (seconds - waiting_seconds).max(0.0),
        networks,
        device_busy_share: device.map_or(0.0, |usage| usage.busy_share()),
        processors_busy_share: device.map_or(0.0, |usage| usage.processors_busy_share()),
        ..shared.ledger.report(&runner.plan)?
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

/// Returns a warning if a training set has samples, but none for a split that its users expect.
fn missing_splits(plan: &Plan, sink: &SinkNode, samples: &BTreeMap<String, BTreeMap<Split, usize>>) -> Option<String> {
    let samples = samples.get(&sink.name).filter(|samples| samples.values().any(|count| *count > 0))?;
    let mut missing = sink.expected_splits(plan.split);
    missing.retain(|split| samples.get(split).is_none_or(|count| *count == 0));
    let names: Vec<&str> = missing.iter().map(|split| split.name()).collect();
    let consequence = if sink.kind == "nnunet" && missing.contains(&Split::Validation) {
        "nnU-Net cannot train fold 0 without validation cases"
    } else {
        "the shares of `split` need more patients"
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
