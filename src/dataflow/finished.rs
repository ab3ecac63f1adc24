//! A finished run, which is only read.

use std::collections::HashSet;
use std::path::Path;

use crate::error::Result;
use crate::graph::Plan;
use crate::id::ScanId;
use crate::ingest::HeldOut;
use crate::run::{IngestedScans, RunFolder, Tombstones};

use super::changes::{Listing, RunScans, ScanChanges};
use super::committed_scans::{committed_scans, keys_of};
use super::folder_report::folder_report;
use super::held_out::{cached_contents, contents_without_saving};
use super::report::RunReport;
use super::run_manifest::{CODE_VERSION, manifest};

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
    let graph_change = run.check_resumable(&manifest(&plan)?)?;
    let next = run.head().map_or(0, |epoch| epoch + 1);
    if next == 0 || run.next_ingest()? != next || !graph_change.is_empty() {
        return Ok(None);
    }
    let Some(held_out) = cached_contents(&plan, &**run.store())? else { return Ok(None) };
    if changes_of(&plan, &run, held_out)? != ScanChanges::default() {
        return Ok(None);
    }
    let quality = run.quality(None)?;
    folder_report(&run, folder, &plan, &quality).map(Some)
}

/// Compares a listing of the sources with the scans of a run folder, which is only read.
///
/// # Errors
/// If a source cannot be listed, a held-out scan cannot be read, or the run folder cannot be read.
pub fn changes_since(plan: &Plan, run: &RunFolder) -> Result<ScanChanges> {
    changes_of(plan, run, contents_without_saving(plan, &**run.store())?)
}

fn changes_of(plan: &Plan, run: &RunFolder, held_out: HeldOut) -> Result<ScanChanges> {
    let keys = |ids: &HashSet<ScanId>| keys_of(run, ids);
    ScanChanges::new(plan, &Listing::of(plan)?, &scans_of(run, plan, held_out)?, &keys)
}

pub(super) fn scans_of(run: &RunFolder, plan: &Plan, held_out: HeldOut) -> Result<RunScans> {
    let IngestedScans { entries, withdrawn: tombstones } = run.ingested(run.next_ingest()?)?;
    let mut withdrawn = Tombstones::new(plan.patient_secret()?);
    withdrawn.extend(tombstones);
    let graph_change = run.check_resumable(&manifest(plan)?)?;
    let first_epoch_of_version = run.first_epoch_of_version(CODE_VERSION)?;
    Ok(RunScans {
        ingested: entries,
        committed: committed_scans(run)?,
        withdrawn,
        held_out,
        graph_change,
        first_epoch_of_version,
    })
}
