//! The pipeline as a plain loop, and the dataflow held against it: the same rows and the same bytes, whatever the number of workers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::telemetry::Telemetry;
use freetumor::dataflow::{
    KnownScans, Ledger, Progress, QualityChange, Schedule, StageReport, StageRunner, deduplicate,
};
use freetumor::error::Result;
use freetumor::graph::Plan;
use freetumor::record::QualityGroup;
use freetumor::run::spool::ScanOutcome;

/// What the dataflow does, one thing after the other.
pub fn plain_loop(plan: Plan, folder: &Path) -> Result<()> {
    let (ledger, spool) = Ledger::open(folder, &plan)?;
    let (open, next) = ledger.open_epochs()?;
    let schedule = Schedule::new(&plan, open, next, &ledger.ingested()?, None)?;
    let known = ledger.known_scans()?;
    let work = StageRunner { plan, spool, telemetry: Telemetry::sums_only(), progress: Arc::new(Progress::default()) };
    let mut counts: BTreeMap<QualityGroup, isize> = ledger.quality_counts().into_iter().collect();
    let mut known_counts = BTreeMap::new();
    for epoch_work in schedule.epochs() {
        let epoch = epoch_work.epoch;
        ledger.open_epoch(epoch_work)?;
        let mut outcomes: Vec<ScanOutcome> = Vec::new();
        for entry in &epoch_work.entries {
            let source = work.plan.sources.iter().position(|node| node.name == entry.source).expect("a known source");
            outcomes.push(match work.load_saved(epoch, entry)? {
                Some(outcome) => outcome,
                None => work.finish(epoch, entry, one_scan(&work, &known, epoch, source, entry)?)?,
            });
        }
        outcomes.sort_by_key(|outcome| outcome.scan.scan_id);
        deduplicate(&known, epoch, &mut outcomes);
        for row in outcomes.iter().flat_map(|outcome| &outcome.samples) {
            *counts.entry(QualityGroup::of(row)).or_default() += 1;
        }
        let changes = changes(&mut known_counts, &counts, epoch);
        ledger.commit(epoch, &outcomes, &changes)?;
        work.spool.clear(epoch)?;
    }
    ledger.project()
}

fn one_scan(
    work: &StageRunner,
    known: &KnownScans,
    epoch: u64,
    source: usize,
    entry: &freetumor::ingest::ScanEntry,
) -> Result<Vec<StageReport>> {
    if let Err(fault) = work.peek(epoch, source, entry, u64::MAX) {
        return Ok(vec![StageReport::failed(fault, None)]);
    }
    let scan = match work.read(epoch, source, entry) {
        Ok(scan) => scan,
        Err(fault) => return Ok(vec![StageReport::failed(fault, None)]),
    };
    if let Some(first) = known.find_before(scan.digest, epoch) {
        return Ok(vec![StageReport::duplicate(&scan, first)]);
    }
    let mut reports = vec![StageReport::read(&scan)];
    for (index, node) in work.plan.masks_of(source) {
        match work.mask(epoch, node, &scan)? {
            Err(fault) => reports.push(StageReport::failed(fault, Some(&scan))),
            Ok(masked) => {
                for synthesis in work.plan.syntheses_of(index) {
                    reports.push(work.synthesize(epoch, synthesis, &masked)?);
                }
            }
        }
    }
    Ok(reports)
}

/// The changes that turn the counts known before into `counts`.
fn changes(
    known: &mut BTreeMap<QualityGroup, isize>,
    counts: &BTreeMap<QualityGroup, isize>,
    epoch: u64,
) -> Vec<QualityChange> {
    let mut changes = Vec::new();
    for (group, &count) in counts {
        let before = known.insert(group.clone(), count);
        if before != Some(count) {
            changes.extend(before.map(|before| ((group.clone(), before), epoch, -1)));
            changes.push(((group.clone(), count), epoch, 1));
        }
    }
    changes
}
