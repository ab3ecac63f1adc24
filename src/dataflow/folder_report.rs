//! The summary of a run folder, counted from its committed tables.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Result;
use crate::graph::Plan;
use crate::record::parquet::{Row, decode_part};
use crate::record::{FaultRecord, QualityGroup, ScanRecord, Status};
use crate::run::RunFolder;
use crate::sink::Layout;

use super::report::{QualityCount, RunReport};
use super::shared_contents::{SharedContents, shared_warning};

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
    report.negatives = run.head_at(None)?.counts.negatives;
    let mut contents = SharedContents::default();
    for_each_row::<ScanRecord>(run, |row| {
        contents.add(&row);
        report.scans += 1;
        report.failed_scans += u64::from(row.status == Status::Fault);
        report.pending_scans += u64::from(row.status == Status::Pending);
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
    report.shared_contents = contents.finish();
    report.warnings.extend(shared_warning(&report.shared_contents));
    report.expectations = run.check_expectations(&plan.expectations)?;
    Ok(report)
}

/// Visits the rows of a table, with one part in memory at a time.
pub(super) fn for_each_row<R: Row>(folder: &RunFolder, mut visit: impl FnMut(R)) -> Result<()> {
    for file in folder.files(R::TABLE.name(), None)? {
        decode_part::<R>(folder.read_verified(&file)?)?.into_iter().for_each(&mut visit);
    }
    Ok(())
}
