//! The pipeline as a plain loop, the reference for the dataflow: the same rows and the same bytes for every number of workers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::telemetry::Telemetry;
use freetumor::dataflow::{
    KnownScans, Ledger, Listing, Progress, QualityChange, ScanChanges, Schedule, SeriesIndex, StageReport, StageRunner,
    deduplicate, known_scans,
};
use freetumor::error::Result;
use freetumor::graph::Plan;
use freetumor::record::QualityGroup;
use freetumor::run::spool::ScanOutcome;

/// Runs the stages of the dataflow sequentially.
pub fn plain_loop(plan: Plan, folder: &Path) -> Result<()> {
    let (ledger, spool) = Ledger::open(folder, &plan)?;
    let (open, next) = ledger.open_epochs()?;
    let scans = ledger.scans()?;
    let changes = ScanChanges::new(&plan, &Listing::of(&plan)?, &scans, &|ids| ledger.keys_of(ids))?;
    let schedule = Schedule::new(&plan, open, next, &scans, &changes, None);
    let known = known_scans(&scans, &schedule);
    let runner = StageRunner {
        plan,
        spool,
        telemetry: Telemetry::sums_only(),
        progress: Arc::new(Progress::default()),
        series: SeriesIndex::default(),
    };
    let mut counts: BTreeMap<QualityGroup, isize> = ledger.quality_counts().into_iter().collect();
    let mut recorded_counts = BTreeMap::new();
    for scheduled in schedule.epochs() {
        let epoch = scheduled.epoch;
        ledger.open_epoch(scheduled)?;
        let mut outcomes: Vec<ScanOutcome> = Vec::new();
        for entry in &scheduled.entries {
            let source = runner.plan.sources.iter().position(|node| node.name == entry.source).expect("a known source");
            outcomes.push(match runner.load_saved(epoch, entry)? {
                Some(outcome) => outcome,
                None => runner.finish(epoch, entry, run_scan(&runner, &known, epoch, source, entry)?)?,
            });
        }
        outcomes.sort_by_key(|outcome| outcome.scan.scan_id);
        deduplicate(&known, epoch, &mut outcomes);
        for group in outcomes.iter().flat_map(|outcome| &outcome.samples).filter_map(QualityGroup::of) {
            *counts.entry(group).or_default() += 1;
        }
        for group in ledger.rows_to_remove(epoch)?.iter().filter_map(QualityGroup::of) {
            *counts.entry(group).or_default() -= 1;
        }
        let changes = quality_changes(&mut recorded_counts, &counts, epoch);
        ledger.commit(epoch, &outcomes, None, &changes)?;
        runner.spool.clear(epoch)?;
    }
    ledger.project()
}

fn run_scan(
    runner: &StageRunner,
    known: &KnownScans,
    epoch: u64,
    source: usize,
    entry: &freetumor::ingest::ScanEntry,
) -> Result<Vec<StageReport>> {
    if let Err(fault) = runner.peek(epoch, source, entry, u64::MAX) {
        return Ok(vec![StageReport::failed(fault, None)]);
    }
    let scan = match runner.read(epoch, source, entry) {
        Ok(scan) => scan,
        Err(fault) => return Ok(vec![StageReport::failed(fault, None)]),
    };
    if known.is_withdrawn(scan.digest) {
        return Ok(vec![StageReport::withdrawn()]);
    }
    if let Some(first) = known.find_before(scan.digest, epoch) {
        return Ok(vec![StageReport::duplicate(&scan, first)]);
    }
    let mut reports = vec![StageReport::read(&scan)];
    for (index, node) in runner.plan.masks_of(source) {
        match runner.mask(epoch, node, &scan)? {
            Err(fault) => reports.push(StageReport::failed(fault, Some(&scan))),
            Ok(masked) => {
                for synthesis in runner.plan.syntheses_of(index) {
                    reports.push(runner.synthesize(epoch, synthesis, &masked)?);
                }
            }
        }
    }
    Ok(reports)
}

/// Returns the changes from the recorded counts to `counts`, and records them.
fn quality_changes(
    recorded: &mut BTreeMap<QualityGroup, isize>,
    counts: &BTreeMap<QualityGroup, isize>,
    epoch: u64,
) -> Vec<QualityChange> {
    let mut changes = Vec::new();
    for (group, &count) in counts {
        let before = recorded.insert(group.clone(), count);
        if before != Some(count) {
            changes.extend(before.map(|before| ((group.clone(), before), epoch, -1)));
            changes.push(((group.clone(), count), epoch, 1));
        }
    }
    changes
}
