//! The pipeline as a plain loop, and the dataflow held against it: the same rows and the same bytes, whatever the number of workers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::telemetry::Telemetry;
use freetumor::dataflow::{KnownScans, Ledger, Progress, QualityChange, QualityGroup, Schedule, Word, Work, settle};
use freetumor::error::Result;
use freetumor::graph::Plan;
use freetumor::run::spool::ScanOutcome;

/// What the dataflow does, one thing after the other.
pub fn plain_loop(plan: Plan, folder: &Path) -> Result<()> {
    let (ledger, spool) = Ledger::open(folder, &plan)?;
    let (begun, next) = ledger.begun()?;
    let schedule = Schedule::new(&plan, begun, next, &ledger.taken_in()?, None)?;
    let known = ledger.known_scans()?;
    let work = Work { plan, spool, telemetry: Telemetry::sums_only(), progress: Arc::new(Progress::default()) };
    let mut counts: BTreeMap<QualityGroup, isize> = ledger.counted().into_iter().collect();
    let mut told = BTreeMap::new();
    for epoch_work in schedule.epochs() {
        let epoch = epoch_work.epoch;
        ledger.open_epoch(epoch_work)?;
        let mut outcomes: Vec<ScanOutcome> = Vec::new();
        for entry in &epoch_work.entries {
            let source = work.plan.sources.iter().position(|node| node.name == entry.source).expect("a known source");
            outcomes.push(match work.saved(epoch, entry)? {
                Some(outcome) => outcome,
                None => work.finish(epoch, entry, one_scan(&work, &known, epoch, source, entry)?)?,
            });
        }
        outcomes.sort_by(|a, b| a.scan.scan_id.cmp(&b.scan.scan_id));
        settle(&known, epoch, &mut outcomes);
        for row in outcomes.iter().flat_map(|outcome| &outcome.samples) {
            *counts.entry(QualityGroup::of(row)).or_default() += 1;
        }
        let changes = changes(&mut told, &counts, epoch);
        ledger.commit(epoch, &outcomes, &changes)?;
        work.spool.clear(epoch)?;
    }
    ledger.project()
}

fn one_scan(
    work: &Work,
    known: &KnownScans,
    epoch: u64,
    source: usize,
    entry: &freetumor::ingest::ScanEntry,
) -> Result<Vec<Word>> {
    if let Err(fault) = work.peek(epoch, source, entry, u64::MAX) {
        return Ok(vec![Word::spoiled(fault, None)]);
    }
    let scan = match work.read(epoch, source, entry) {
        Ok(scan) => scan,
        Err(fault) => return Ok(vec![Word::spoiled(fault, None)]),
    };
    if let Some(first) = known.before(&scan.digest, epoch) {
        return Ok(vec![Word::duplicate(&scan, first)]);
    }
    let mut words = vec![Word::read(&scan)];
    for (index, node) in work.plan.masks_of(source) {
        match work.mask(epoch, node, &scan)? {
            Err(fault) => words.push(Word::spoiled(fault, Some(&scan))),
            Ok(masked) => {
                for trial in work.plan.trials_of(index) {
                    words.push(work.trial(epoch, node, trial, &masked)?);
                }
            }
        }
    }
    Ok(words)
}

/// The changes that take the table last told of to `counts`.
fn changes(
    told: &mut BTreeMap<QualityGroup, isize>,
    counts: &BTreeMap<QualityGroup, isize>,
    epoch: u64,
) -> Vec<QualityChange> {
    let mut changes = Vec::new();
    for (group, &count) in counts {
        let before = told.insert(group.clone(), count);
        if before != Some(count) {
            changes.extend(before.map(|before| ((group.clone(), before), epoch, -1)));
            changes.push(((group.clone(), count), epoch, 1));
        }
    }
    changes
}
