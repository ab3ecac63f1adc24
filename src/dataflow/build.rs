//! Construction of timely operators from a plan.
//!
//! ```text
//!           ┌─ saved by an earlier run of the folder ──────────────────────────────────────────────┐
//! entries ▶ peek ▶ admit ▶ read ▶ mask ▶ synthesize ▶ gather ▶ finish ▶ deduplicate ▶ join ▶ commit
//!             │              │      │                              │             └▶ count ┘
//!             └─ faults ─────┴──────┴────────────────▶ gather      └ exchanged to worker 0
//! ```
//!
//! Up to `finish` a scan stays on the worker that its id hashes to; only small records are sent to worker 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::core::input::Handle as InputHandle;
use timely::dataflow::operators::core::{Concatenate, OkErr};
use timely::dataflow::operators::probe::Handle;
use timely::dataflow::operators::vec::{Input as _, Map};
use timely::dataflow::operators::{Operator, Probe};
use timely::dataflow::{Scope, StreamVec};

use crate::id::ScanVersion;
use crate::ingest::{Scan, ScanEntry};
use crate::record::{QualityGroup, SampleRecord};
use crate::run::Retest;
use crate::run::spool::ScanOutcome;

use super::admit::admit;
use super::budget::{Budget, Lease};
use super::deduplicate::{KnownScans, deduplicate};
use super::gather::{BranchReport, gather};
use super::interruption::Interruption;
use super::ledger::Ledger;
use super::offload::{OffloadConfig, offload};
use super::pool::{Pool, Priority};
use super::quality::{QualityChange, count_groups};
use super::split_three::{OneOf, split_three};
use super::stage_runner::{DigestedScan, StageReport, StageRunner};
use super::telemetry::{Step, Timing};
use super::{Abort, Epoch};

/// The state that all workers of a process share.
#[derive(Clone)]
pub(super) struct SharedState {
    pub runner: Arc<StageRunner>,
    pub ledger: Arc<Ledger>,
    pub known: Arc<KnownScans>,
    pub pool: Arc<Pool>,
    pub budget: Arc<Budget>,
    pub abort: Arc<Abort>,
    /// Maximum number of items per operator on the pool at once.
    pub in_flight: usize,
    /// Decides whether the epochs end early, so that requests can be executed.
    pub interruption: Arc<Interruption>,
}

/// An input of the dataflow.
pub(super) type Input<D> = InputHandle<Epoch, CapacityContainerBuilder<Vec<D>>>;

/// The handles with which a worker drives its part of the dataflow.
pub(super) struct Handles {
    /// One input per source.
    pub entries: Vec<Input<Arc<ScanEntry>>>,
    /// One item for each epoch, from worker 0: an epoch without scans is committed, too.
    pub markers: Option<Input<()>>,
    /// Counts of earlier epochs; fed once by worker 0, then closed.
    pub earlier_counts: Option<Input<(QualityGroup, Epoch, isize)>>,
    /// A probe that passes an epoch when its commit is durable.
    pub committed: Handle<Epoch>,
}

type Reports<'scope> = StreamVec<'scope, Epoch, BranchReport<StageReport>>;

/// An admitted scan in memory. The lease is released when the last stage drops the scan.
struct OpenScan {
    scan: Arc<Scan>,
    _lease: Lease,
}

/// An open scan with its organ mask.
struct MaskedOpenScan {
    scan: DigestedScan,
    _open_scan: Arc<OpenScan>,
}

/// The result of checking an entry before reading the scan.
enum EntryCheck {
    /// The scan was finished before a restart.
    Saved(Box<ScanOutcome>),
    /// The scan needs this number of bytes.
    Needs(Arc<ScanEntry>, u64),
    /// The scan cannot be read.
    Failed(BranchReport<StageReport>),
}

/// Builds the operators of every node of the plan.
pub(super) fn build<'scope>(scope: Scope<'scope, Epoch>, shared: &SharedState) -> Handles {
    let plan = &shared.runner.plan;
    let syntheses: Vec<usize> = (0..plan.sources.len())
        .map(|source| plan.masks_of(source).map(|(mask, _)| plan.syntheses_of(mask).count()).sum())
        .collect();
    let (mut entries, mut scans) = (Vec::new(), Vec::new());
    let (mut reports, mut saved) = (Vec::new(), Vec::new());
    for (source, &syntheses) in syntheses.iter().enumerate() {
        let (input, stream) = scope.new_input();
        entries.push(input);
        let source = open_scans(stream, source, syntheses, shared);
        scans.push(source.scans);
        reports.extend(source.reports);
        saved.push(source.saved);
    }
    for mask in 0..plan.masks.len() {
        if plan.syntheses_of(mask).next().is_some() {
            let inputs: Vec<_> = plan.masks[mask].sources.iter().map(|&source| scans[source].clone()).collect();
            reports.extend(make_tumors(scope.concatenate(inputs), mask, shared));
        }
    }
    let of_source: BTreeMap<String, usize> = plan.sources.iter().map(|node| node.name.clone()).zip(syntheses).collect();
    let gathered = gather(scope.concatenate(reports), move |entry| of_source.get(&entry.source).copied().unwrap_or(0));
    let runner = Arc::clone(&shared.runner);
    let finished = fallible(gathered, "finish", Priority::Save, shared, move |epoch, (entry, reports)| {
        runner.finish(epoch, &entry, reports)
    });
    saved.push(finished);
    let (markers, marker_stream) = scope.new_input();
    let outcomes = scope.concatenate(saved).map(Some);
    let outcomes = scope.concatenate([outcomes, marker_stream.map(|()| None)]);
    let (earlier_counts, committed) = commit_epochs(scope, outcomes, shared);
    Handles { entries, markers: Some(markers), earlier_counts: Some(earlier_counts), committed }
}

/// The streams of one source.
struct SourceStreams<'scope> {
    scans: StreamVec<'scope, Epoch, Arc<OpenScan>>,
    reports: Vec<Reports<'scope>>,
    saved: StreamVec<'scope, Epoch, ScanOutcome>,
}

/// Reads headers, waits for memory and reads scans.
fn open_scans<'scope>(
    entries: StreamVec<'scope, Epoch, Arc<ScanEntry>>,
    source: usize,
    syntheses: usize,
    shared: &SharedState,
) -> SourceStreams<'scope> {
    let name = &shared.runner.plan.sources[source].name;
    let (runner, limit) = (Arc::clone(&shared.runner), shared.budget.limit_bytes());
    let checks =
        fallible(entries, &format!("peek {name}"), Priority::Peek, shared, move |epoch, entry: Arc<ScanEntry>| {
            // An outcome of another graph.
            let is_outdated = entry.version == ScanVersion::OUTDATED;
            if !is_outdated && let Some(outcome) = runner.load_saved(epoch, &entry)? {
                return Ok(EntryCheck::Saved(Box::new(outcome)));
            }
            Ok(match runner.peek(epoch, source, &entry, limit) {
                Ok(bytes) => EntryCheck::Needs(entry, bytes),
                Err(fault) => EntryCheck::Failed(BranchReport {
                    entry,
                    syntheses,
                    report: Box::new(StageReport::failed(fault, None)),
                }),
            })
        });
    let (saved, needs, failed) = split_three(checks, |check| match check {
        EntryCheck::Saved(outcome) => OneOf::First(*outcome),
        EntryCheck::Needs(entry, bytes) => OneOf::Second((entry, bytes)),
        EntryCheck::Failed(report) => OneOf::Third(report),
    });
    let (runner, known) = (Arc::clone(&shared.runner), Arc::clone(&shared.known));
    let settings =
        OffloadConfig { name: format!("read {name}"), priority: Priority::Read, in_flight: shared.in_flight };
    let read =
        offload(admit(needs, &shared.budget), settings, &shared.pool, &shared.abort, move |epoch, (entry, lease)| {
            let report = |entry, report| Err(BranchReport { entry, syntheses, report: Box::new(report) });
            match runner.read(epoch, source, &entry) {
                Err(fault) => report(entry, StageReport::failed(fault, None)),
                Ok(scan) if known.is_withdrawn(scan.digest) => report(entry, StageReport::withdrawn()),
                Ok(scan) if known.is_held_out(scan.digest) => report(entry, StageReport::held_out(&scan)),
                Ok(scan) => match known.find_before(scan.digest, epoch) {
                    Some(first) => report(entry, StageReport::duplicate(&scan, first)),
                    None => {
                        runner.series.add(&scan);
                        match syntheses {
                            0 => report(entry, StageReport::read(&scan)),
                            _ => Ok(Arc::new(OpenScan { scan, _lease: lease })),
                        }
                    }
                },
            }
        });
    let (scans, read_failures) = read.ok_err(|read| read);
    SourceStreams { scans, reports: vec![failed, read_failures], saved }
}

/// Computes masks and runs every synthesis of a mask stage.
fn make_tumors<'scope>(
    scans: StreamVec<'scope, Epoch, Arc<OpenScan>>,
    mask: usize,
    shared: &SharedState,
) -> Vec<Reports<'scope>> {
    let plan = &shared.runner.plan;
    let syntheses: Vec<usize> =
        (0..plan.syntheses.len()).filter(|&index| plan.syntheses[index].masks.contains(&mask)).collect();
    let (runner, count) = (Arc::clone(&shared.runner), syntheses.len());
    let name = format!("mask {}", plan.masks[mask].name);
    let masked = fallible(scans, &name, Priority::Mask, shared, move |epoch, open_scan: Arc<OpenScan>| {
        Ok(match runner.mask(epoch, &runner.plan.masks[mask], &open_scan.scan)? {
            Ok(scan) => Ok(Arc::new(MaskedOpenScan { scan, _open_scan: open_scan })),
            Err(fault) => {
                let report = Box::new(StageReport::failed(fault, Some(&open_scan.scan)));
                Err(BranchReport { entry: Arc::new(open_scan.scan.entry.clone()), syntheses: count, report })
            }
        })
    });
    let (masked, mask_failures) = masked.ok_err(|masked| masked);
    let masked: StreamVec<'scope, Epoch, Arc<MaskedOpenScan>> = masked;
    let mut reports = vec![mask_failures];
    for synthesis in syntheses {
        let name = format!("synthesize {}", plan.syntheses[synthesis].attempts.name);
        let runner = Arc::clone(&shared.runner);
        let run = move |epoch, masked: Arc<MaskedOpenScan>| {
            let report = Box::new(runner.synthesize(epoch, &runner.plan.syntheses[synthesis], &masked.scan)?);
            let entry = Arc::new(masked.scan.masked.scan.entry.clone());
            Ok(BranchReport { entry, syntheses: 1, report })
        };
        reports.push(fallible(masked.clone(), &name, Priority::Synthesize, shared, run));
    }
    reports
}

/// Sends the outcomes of each epoch to worker 0, marks duplicates, counts attempts and commits epochs in order. An epoch starts with a
/// marker instead of an outcome.
fn commit_epochs<'scope>(
    scope: Scope<'scope, Epoch>,
    outcomes: StreamVec<'scope, Epoch, Option<ScanOutcome>>,
    shared: &SharedState,
) -> (Input<(QualityGroup, Epoch, isize)>, Handle<Epoch>) {
    let (earlier_counts, counts_stream) = scope.new_input();
    let sequential = SharedState { in_flight: 1, ..shared.clone() };
    let (ledger, runner) = (Arc::clone(&shared.ledger), Arc::clone(&shared.runner));
    let deduplicated = deduplicate_epochs(outcomes, shared);
    let epochs = fallible(deduplicated, "remove", Priority::Save, &sequential, move |epoch, outcomes| {
        let added = attempts_of(outcomes.iter().flat_map(|outcome: &ScanOutcome| &outcome.samples), epoch, 1);
        let removed = attempts_of(&ledger.rows_to_remove(epoch)?, epoch, -1);
        let (retest, retested) = ledger.retest(epoch, &runner.plan)?.unzip();
        let retested = retested.into_iter().flatten().map(|(group, change)| (group, epoch, change));
        let attempts = added.into_iter().chain(removed).chain(retested).collect();
        Ok(Arc::new(EpochOutcomes { epoch, outcomes, retest, attempts }))
    });
    let candidates = epochs.clone().flat_map(|epoch: Arc<EpochOutcomes>| epoch.attempts.clone());
    let changes = count_groups(scope.concatenate([counts_stream, candidates]));
    let complete = join_counts(epochs, changes);
    let (ledger, runner) = (Arc::clone(&shared.ledger), Arc::clone(&shared.runner));
    let receipts = fallible(complete, "commit", Priority::Save, &sequential, move |epoch, (outcomes, changes)| {
        let outcomes: Arc<EpochOutcomes> = outcomes;
        let timing = Timing { epoch, step: Step::Commit, node: "commit", scan_id: None, sample_id: None };
        runner
            .telemetry
            .time(timing, || ledger.commit(epoch, &outcomes.outcomes, outcomes.retest.as_ref(), &changes))?;
        runner.spool.clear(epoch)?;
        runner.progress.epoch_committed();
        Ok(())
    });
    let (committed, _) = receipts.probe();
    (earlier_counts, committed)
}

/// All outcomes of one epoch.
struct EpochOutcomes {
    epoch: Epoch,
    outcomes: Vec<ScanOutcome>,
    /// New decisions on stored candidates.
    retest: Option<Retest>,
    /// The attempts that the epoch adds (+1) and removes (−1), by group.
    attempts: Vec<(QualityGroup, Epoch, isize)>,
}

/// Returns the groups of attempts as updates of differential dataflow.
fn attempts_of<'a>(
    rows: impl IntoIterator<Item = &'a SampleRecord>,
    epoch: Epoch,
    change: isize,
) -> Vec<(QualityGroup, Epoch, isize)> {
    rows.into_iter().filter_map(QualityGroup::of).map(|group| (group, epoch, change)).collect()
}

fn deduplicate_epochs<'scope>(
    outcomes: StreamVec<'scope, Epoch, Option<ScanOutcome>>,
    shared: &SharedState,
) -> StreamVec<'scope, Epoch, Vec<ScanOutcome>> {
    let known = Arc::clone(&shared.known);
    let to_worker_0 = Exchange::new(|_: &Option<ScanOutcome>| 0);
    outcomes.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
        to_worker_0,
        "deduplicate",
        move |capability, _info| {
            drop(capability);
            let mut open = BTreeMap::new();
            move |(input, frontier), output| {
                input.for_each_stamp(|stamp, batches| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    let epoch = *capability.time();
                    let (_, outcomes) = open.entry(epoch).or_insert_with(|| (capability, Vec::new()));
                    outcomes.extend(batches.flat_map(|batch| batch.drain(..)).flatten());
                });
                while let Some(first) = open.first_entry() {
                    if frontier.less_equal(first.key()) {
                        break;
                    }
                    let (epoch, (capability, mut outcomes)) = first.remove_entry();
                    outcomes.sort_by_key(|outcome: &ScanOutcome| outcome.scan.scan_id);
                    deduplicate(&known, epoch, &mut outcomes);
                    output.session(&capability).give(outcomes);
                }
            }
        },
    )
}

/// Joins the outcomes of each epoch with its complete counts, and emits epochs in order.
fn join_counts<'scope>(
    outcomes: StreamVec<'scope, Epoch, Arc<EpochOutcomes>>,
    changes: StreamVec<'scope, Epoch, QualityChange>,
) -> StreamVec<'scope, Epoch, (Arc<EpochOutcomes>, Vec<QualityChange>)> {
    let to_worker_0 = Exchange::new(|_: &QualityChange| 0);
    outcomes.binary_frontier::<_, CapacityContainerBuilder<Vec<_>>, _, _, _, _>(
        changes,
        Pipeline,
        to_worker_0,
        "join",
        move |capability, _info| {
            drop(capability);
            let (mut open, mut counts) = (BTreeMap::new(), BTreeMap::<Epoch, Vec<QualityChange>>::new());
            move |(epochs, epochs_frontier), (changes, changes_frontier), output| {
                epochs.for_each_stamp(|stamp, batches| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    for outcomes in batches.flat_map(|batch| batch.drain(..)) {
                        open.insert(outcomes.epoch, (capability.clone(), outcomes));
                    }
                });
                changes.for_each_stamp(|_, batches| {
                    for change in batches.flat_map(|batch| batch.drain(..)) {
                        counts.entry(change.1).or_default().push(change);
                    }
                });
                while let Some(first) = open.first_entry() {
                    if epochs_frontier.less_equal(first.key()) || changes_frontier.less_equal(first.key()) {
                        break;
                    }
                    let (epoch, (capability, outcomes)) = first.remove_entry();
                    // Changes of an epoch without outcomes belong to the next epoch with outcomes.
                    let later = counts.split_off(&(epoch + 1));
                    let changes = std::mem::replace(&mut counts, later).into_values().flatten().collect();
                    output.session(&capability).give((outcomes, changes));
                }
            }
        },
    )
}

/// Creates an [`offload`] operator whose work may return an error that stops the run.
fn fallible<'scope, I, O, F>(
    items: StreamVec<'scope, Epoch, I>,
    name: &str,
    priority: Priority,
    shared: &SharedState,
    work: F,
) -> StreamVec<'scope, Epoch, O>
where
    I: Send + 'static,
    O: Send + 'static,
    F: Fn(Epoch, I) -> crate::error::Result<O> + Send + Sync + 'static,
{
    let abort = Arc::clone(&shared.abort);
    let settings = OffloadConfig { name: name.to_owned(), priority, in_flight: shared.in_flight };
    let results = offload(items, settings, &shared.pool, &shared.abort, move |epoch, item| {
        work(epoch, item).map_err(|error| abort.set(error)).ok()
    });
    results.flat_map(|result| result)
}
