//! From a plan to timely operators.
//!
//! ```text
//!           ┌─ saved by an earlier run of the folder ──────────────────────────────────────────────┐
//! entries ▶ peek ▶ admit ▶ read ▶ mask ▶ synthesize ▶ gather ▶ finish ▶ deduplicate ▶ join ▶ commit
//!             │              │      │                              │             └▶ count ┘
//!             └─ faults ─────┴──────┴────────────────▶ gather      └ exchanged to worker 0
//! ```
//!
//! Up to `finish` a scan stays with the worker that its id hashes to; what crosses to worker 0 is small.

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

use crate::ingest::{Scan, ScanEntry};
use crate::record::QualityGroup;
use crate::run::spool::ScanOutcome;

use super::admit::admit;
use super::budget::{Budget, Lease};
use super::deduplicate::{KnownScans, deduplicate};
use super::gather::{BranchReport, gather};
use super::ledger::Ledger;
use super::offload::{Offload, offload};
use super::pool::{Pool, Priority};
use super::quality::{QualityChange, count_groups};
use super::split_three::{OneOf, split_three};
use super::telemetry::{Step, Timing};
use super::work::{DigestedScan, StageReport, StageRunner};
use super::{Abort, Epoch};

/// What every worker of a process shares.
#[derive(Clone)]
pub(super) struct Shared {
    pub work: Arc<StageRunner>,
    pub ledger: Arc<Ledger>,
    pub known: Arc<KnownScans>,
    pub pool: Arc<Pool>,
    pub budget: Arc<Budget>,
    pub abort: Arc<Abort>,
    /// Items that one operator may have on the pool at once.
    pub in_flight: usize,
}

/// An input of the dataflow.
pub(super) type Input<D> = InputHandle<Epoch, CapacityContainerBuilder<Vec<D>>>;

/// The handles by which a worker drives its part of the dataflow.
pub(super) struct Handles {
    /// One input a source.
    pub entries: Vec<Input<Arc<ScanEntry>>>,
    /// What earlier epochs counted; fed once, by worker 0, and closed.
    pub counted: Option<Input<(QualityGroup, Epoch, isize)>>,
    /// Passes an epoch when its commit is durable.
    pub committed: Handle<Epoch>,
}

type Reports<'scope> = StreamVec<'scope, Epoch, BranchReport<StageReport>>;

/// An admitted scan, read. Its memory is released when the last stage drops it.
struct OpenScan {
    scan: Arc<Scan>,
    _lease: Lease,
}

/// An opened scan with its organs.
struct Masked {
    scan: DigestedScan,
    _opened: Arc<OpenScan>,
}

/// What is known of an entry before it is read.
enum EntryCheck {
    /// All of it was done before a restart.
    Saved(Box<ScanOutcome>),
    /// The bytes that it needs.
    Needs(Arc<ScanEntry>, u64),
    /// It cannot be read.
    Failed(BranchReport<StageReport>),
}

/// Builds the operators of every node of the plan.
pub(super) fn build<'scope>(scope: Scope<'scope, Epoch>, shared: &Shared) -> Handles {
    let plan = &shared.work.plan;
    let syntheses: Vec<usize> = (0..plan.sources.len())
        .map(|source| plan.masks_of(source).map(|(mask, _)| plan.syntheses_of(mask).count()).sum())
        .collect();
    let (mut entries, mut opened) = (Vec::new(), Vec::new());
    let (mut reports, mut saved) = (Vec::new(), Vec::new());
    for (source, &syntheses) in syntheses.iter().enumerate() {
        let (input, stream) = scope.new_input();
        entries.push(input);
        let source = open_scans(stream, source, syntheses, shared);
        opened.push(source.opened);
        reports.extend(source.reports);
        saved.push(source.saved);
    }
    for mask in 0..plan.masks.len() {
        if plan.syntheses_of(mask).next().is_some() {
            let inputs: Vec<_> = plan.masks[mask].sources.iter().map(|&source| opened[source].clone()).collect();
            reports.extend(make_tumors(scope.concatenate(inputs), mask, shared));
        }
    }
    let of_source: BTreeMap<String, usize> = plan.sources.iter().map(|node| node.name.clone()).zip(syntheses).collect();
    let gathered = gather(scope.concatenate(reports), move |entry| of_source.get(&entry.source).copied().unwrap_or(0));
    let work = Arc::clone(&shared.work);
    let finished = fallible(gathered, "finish", Priority::Save, shared, move |epoch, (entry, reports)| {
        work.finish(epoch, &entry, reports)
    });
    saved.push(finished);
    let (counted, committed) = commit_epochs(scope, scope.concatenate(saved), shared);
    Handles { entries, counted: Some(counted), committed }
}

/// What becomes of one source's entries.
struct OpenedSource<'scope> {
    opened: StreamVec<'scope, Epoch, Arc<OpenScan>>,
    reports: Vec<Reports<'scope>>,
    saved: StreamVec<'scope, Epoch, ScanOutcome>,
}

/// Reads headers, waits for memory, reads scans.
fn open_scans<'scope>(
    entries: StreamVec<'scope, Epoch, Arc<ScanEntry>>,
    source: usize,
    syntheses: usize,
    shared: &Shared,
) -> OpenedSource<'scope> {
    let name = &shared.work.plan.sources[source].name;
    let (work, limit) = (Arc::clone(&shared.work), shared.budget.limit_bytes());
    let peeked =
        fallible(entries, &format!("peek {name}"), Priority::Peek, shared, move |epoch, entry: Arc<ScanEntry>| {
            if let Some(outcome) = work.saved(epoch, &entry)? {
                return Ok(EntryCheck::Saved(Box::new(outcome)));
            }
            Ok(match work.peek(epoch, source, &entry, limit) {
                Ok(bytes) => EntryCheck::Needs(entry, bytes),
                Err(fault) => EntryCheck::Failed(BranchReport {
                    entry,
                    syntheses,
                    report: Box::new(StageReport::failed(fault, None)),
                }),
            })
        });
    let (saved, needs, failed) = split_three(peeked, |peeked| match peeked {
        EntryCheck::Saved(outcome) => OneOf::First(*outcome),
        EntryCheck::Needs(entry, bytes) => OneOf::Second((entry, bytes)),
        EntryCheck::Failed(report) => OneOf::Third(report),
    });
    let (work, known) = (Arc::clone(&shared.work), Arc::clone(&shared.known));
    let settings = Offload { name: format!("read {name}"), lane: Priority::Read, in_flight: shared.in_flight };
    let read =
        offload(admit(needs, &shared.budget), settings, &shared.pool, &shared.abort, move |epoch, (entry, lease)| {
            let report = |entry, report| Err(BranchReport { entry, syntheses, report: Box::new(report) });
            match work.read(epoch, source, &entry) {
                Err(fault) => report(entry, StageReport::failed(fault, None)),
                Ok(scan) => match known.before(scan.digest, epoch) {
                    Some(first) => report(entry, StageReport::duplicate(&scan, first)),
                    None if syntheses == 0 => report(entry, StageReport::read(&scan)),
                    None => Ok(Arc::new(OpenScan { scan, _lease: lease })),
                },
            }
        });
    let (opened, unread) = read.ok_err(|read| read);
    OpenedSource { opened, reports: vec![failed, unread], saved }
}

/// Finds organs, and runs every synthesis that takes them.
fn make_tumors<'scope>(
    opened: StreamVec<'scope, Epoch, Arc<OpenScan>>,
    mask: usize,
    shared: &Shared,
) -> Vec<Reports<'scope>> {
    let plan = &shared.work.plan;
    let syntheses: Vec<usize> =
        (0..plan.syntheses.len()).filter(|&index| plan.syntheses[index].masks.contains(&mask)).collect();
    let (work, count) = (Arc::clone(&shared.work), syntheses.len());
    let name = format!("mask {}", plan.masks[mask].name);
    let masked = fallible(opened, &name, Priority::Mask, shared, move |epoch, opened: Arc<OpenScan>| {
        Ok(match work.mask(epoch, &work.plan.masks[mask], &opened.scan)? {
            Ok(scan) => Ok(Arc::new(Masked { scan, _opened: opened })),
            Err(fault) => {
                let report = Box::new(StageReport::failed(fault, Some(&opened.scan)));
                Err(BranchReport { entry: Arc::new(opened.scan.entry.clone()), syntheses: count, report })
            }
        })
    });
    let (masked, unmasked) = masked.ok_err(|masked| masked);
    let masked: StreamVec<'scope, Epoch, Arc<Masked>> = masked;
    let mut reports = vec![unmasked];
    for synthesis in syntheses {
        let name = format!("synthesize {}", plan.syntheses[synthesis].attempts.name);
        let work = Arc::clone(&shared.work);
        let run = move |epoch, masked: Arc<Masked>| {
            let report = Box::new(work.synthesize(epoch, &work.plan.syntheses[synthesis], &masked.scan)?);
            let entry = Arc::new(masked.scan.masked.scan.entry.clone());
            Ok(BranchReport { entry, syntheses: 1, report })
        };
        reports.push(fallible(masked.clone(), &name, Priority::Synthesize, shared, run));
    }
    reports
}

/// Brings the outcomes of each epoch to worker 0, removes duplicates, counts, commits in order.
fn commit_epochs<'scope>(
    scope: Scope<'scope, Epoch>,
    outcomes: StreamVec<'scope, Epoch, ScanOutcome>,
    shared: &Shared,
) -> (Input<(QualityGroup, Epoch, isize)>, Handle<Epoch>) {
    let (counted, before) = scope.new_input();
    let epochs = deduplicate_epochs(outcomes, shared);
    let candidates = epochs.clone().flat_map(|epoch: Arc<EpochOutcomes>| {
        let rows = epoch.outcomes.iter().flat_map(|outcome| &outcome.samples);
        let groups: Vec<_> = rows.map(|row| (QualityGroup::of(row), epoch.epoch, 1)).collect();
        groups
    });
    let changes = count_groups(scope.concatenate([before, candidates]));
    let complete = join_counts(epochs, changes);
    let (ledger, work) = (Arc::clone(&shared.ledger), Arc::clone(&shared.work));
    let one_by_one = Shared { in_flight: 1, ..shared.clone() };
    let receipts = fallible(complete, "commit", Priority::Save, &one_by_one, move |epoch, (outcomes, changes)| {
        let outcomes: Arc<EpochOutcomes> = outcomes;
        let timing = Timing { epoch, step: Step::Commit, node: "commit", scan_id: None, sample_id: None };
        work.telemetry.time(timing, || ledger.commit(epoch, &outcomes.outcomes, &changes))?;
        work.spool.clear(epoch)?;
        work.progress.epoch_committed();
        Ok(())
    });
    let (committed, _) = receipts.probe();
    (counted, committed)
}

/// All outcomes of one epoch.
struct EpochOutcomes {
    epoch: Epoch,
    outcomes: Vec<ScanOutcome>,
}

fn deduplicate_epochs<'scope>(
    outcomes: StreamVec<'scope, Epoch, ScanOutcome>,
    shared: &Shared,
) -> StreamVec<'scope, Epoch, Arc<EpochOutcomes>> {
    let known = Arc::clone(&shared.known);
    let to_first = Exchange::new(|_: &ScanOutcome| 0);
    outcomes.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
        to_first,
        "deduplicate",
        move |capability, _info| {
            drop(capability);
            let mut open = BTreeMap::new();
            move |(input, frontier), output| {
                input.for_each_stamp(|stamp, batches| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    let epoch = *capability.time();
                    let (_, outcomes) = open.entry(epoch).or_insert_with(|| (capability, Vec::new()));
                    outcomes.extend(batches.flat_map(|batch| batch.drain(..)));
                });
                while let Some(first) = open.first_entry() {
                    if frontier.less_equal(first.key()) {
                        break;
                    }
                    let (epoch, (capability, mut outcomes)) = first.remove_entry();
                    outcomes.sort_by_key(|outcome: &ScanOutcome| outcome.scan.scan_id);
                    deduplicate(&known, epoch, &mut outcomes);
                    output.session(&capability).give(Arc::new(EpochOutcomes { epoch, outcomes }));
                }
            }
        },
    )
}

/// Waits until an epoch's counts are complete too, and lets epochs go in their order.
fn join_counts<'scope>(
    outcomes: StreamVec<'scope, Epoch, Arc<EpochOutcomes>>,
    changes: StreamVec<'scope, Epoch, QualityChange>,
) -> StreamVec<'scope, Epoch, (Arc<EpochOutcomes>, Vec<QualityChange>)> {
    let to_first = Exchange::new(|_: &QualityChange| 0);
    outcomes.binary_frontier::<_, CapacityContainerBuilder<Vec<_>>, _, _, _, _>(
        changes,
        Pipeline,
        to_first,
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
                    // Changes of epochs without any outcome belong to the next one that has some.
                    let later = counts.split_off(&(epoch + 1));
                    let changes = std::mem::replace(&mut counts, later).into_values().flatten().collect();
                    output.session(&capability).give((outcomes, changes));
                }
            }
        },
    )
}

/// An [`offload`] operator whose work may say that the run must stop.
fn fallible<'scope, I, O, F>(
    items: StreamVec<'scope, Epoch, I>,
    name: &str,
    lane: Priority,
    shared: &Shared,
    work: F,
) -> StreamVec<'scope, Epoch, O>
where
    I: Send + 'static,
    O: Send + 'static,
    F: Fn(Epoch, I) -> crate::error::Result<O> + Send + Sync + 'static,
{
    let abort = Arc::clone(&shared.abort);
    let settings = Offload { name: name.to_owned(), lane, in_flight: shared.in_flight };
    let results = offload(items, settings, &shared.pool, &shared.abort, move |epoch, item| {
        work(epoch, item).map_err(|error| abort.set(error)).ok()
    });
    results.flat_map(|result| result)
}
