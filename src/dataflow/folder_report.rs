//! The summary of a run folder, counted from its committed tables, and of a finished run without writing to its folder.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::error::Result;
use crate::graph::Plan;
use crate::record::{FaultRecord, QualityGroup, QualityRecord, ScanRecord, Status};
use crate::run::RunFolder;
use crate::sink::Layout;

use super::ledger::{for_each_row, manifest};
use super::report::{QualityCount, RunReport};
use super::schedule::{Listing, Schedule};

/// Returns the summary of a folder; the numbers of a single run are zero. `quality` is the number of attempts by group.
pub(super) fn folder_report(
    run: &RunFolder,
    folder: &Path,
    plan: &Plan,
    quality: &BTreeMap<QualityGroup, i64>,
) -> Result<RunReport> {
    let layout = |layout: &dyn Layout| (layout.name().to_owned(), folder.join("layouts").join(layout.name()));
    let layouts = plan.sinks.iter().filter_map(|node| node.output.layout()).map(layout);
    let count = |(group, &count): (&QualityGroup, &i64)| QualityCount {
        group: group.clone(),
        count: u64::try_from(count).unwrap_or_default(),
    };
    let mut report = RunReport {
        pipeline: plan.name.clone(),
        folder: folder.to_owned(),
        epochs: run.head().map_or(0, |epoch| epoch + 1),
        quality: quality.iter().map(count).collect(),
        // A stream has no folder.
        layouts: layouts.filter(|(_, folder)| folder.exists()).collect(),
        ..RunReport::default()
    };
    let sum = |is_accepted: bool| {
        let groups = report.quality.iter().filter(|group| group.group.reason.is_none() == is_accepted);
        groups.map(|group| group.count).sum()
    };
    (report.accepted, report.rejected) = (sum(true), sum(false));
    for_each_row::<ScanRecord>(run, |row| {
        report.scans += 1;
        report.failed_scans += u64::from(row.status == Status::Fault);
        report.duplicates += u64::from(row.status == Status::Duplicate);
        // Without a synthesis no masks are computed.
        let is_without = row.status == Status::Done && row.organs.is_empty() && !plan.syntheses.is_empty();
        report.scans_without_organs += u64::from(is_without);
    })?;
    for_each_row::<FaultRecord>(run, |row| {
        report.faults += 1;
        let kind = format!("{}/{}", row.fault.stage.name(), row.fault.kind.name());
        *report.fault_kinds.entry(kind).or_default() += 1;
    })?;
    Ok(report)
}

/// Returns the summary of a run that has nothing to do: all scans of its sources are committed. Returns `None` if there is work, or the
/// folder is no run folder. Nothing is written or locked, so that several processes can read a finished run at once.
///
/// # Errors
/// If the folder belongs to another pipeline, a source cannot be listed, or the tables cannot be read.
pub fn finished(plan: &Plan, folder: &Path) -> Result<Option<RunReport>> {
    if !RunFolder::exists(folder) {
        return Ok(None);
    }
    let plan = plan.clone().with_keyed_digest()?;
    let run = RunFolder::open(folder)?;
    run.check_same(&manifest(&plan)?)?;
    let next = run.head().map_or(0, |epoch| epoch + 1);
    if next == 0 || run.next_ingest()? != next {
        return Ok(None);
    }
    let known: HashMap<_, _> =
        run.ingested(next)?.into_values().map(|entry| (entry.scan_id, (entry.bytes, entry.modified_s))).collect();
    let schedule = Schedule::of_listing(&plan, &Listing::of(&plan)?, Vec::new(), next, &known, None);
    if schedule.scans() > 0 {
        return Ok(None);
    }
    let mut quality: BTreeMap<QualityGroup, i64> = BTreeMap::new();
    for_each_row::<QualityRecord>(&run, |row| *quality.entry(row.group).or_default() += row.attempts)?;
    quality.retain(|_, count| *count != 0);
    let report = folder_report(&run, folder, &plan, &quality)?;
    Ok(Some(RunReport { changed_scans: schedule.changed() as u64, ..report }))
}
