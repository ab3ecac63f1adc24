//! A finished run, which is only read.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::error::Result;
use crate::graph::Plan;
use crate::record::{QualityGroup, QualityRecord};
use crate::run::RunFolder;

use super::folder_report::{folder_report, for_each_row};
use super::ledger::manifest;
use super::report::RunReport;
use super::schedule::{Listing, Schedule};

/// Returns the summary of a run that has nothing to do: all scans of its sources are committed. Returns `None` if there is work, or the
/// folder is not a run folder. Nothing is written or locked, so that several processes can read a finished run at once.
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
