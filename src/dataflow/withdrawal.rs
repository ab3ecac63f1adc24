//! Withdrawals: scans that are removed from a run permanently.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::graph::Plan;
use crate::id::{PatientKey, ScanDigest, ScanId, Tombstone};
use crate::ingest::ScanEntry;
use crate::record::FileEntry;
use crate::run::{EpochChanges, Tombstones};
use crate::store::CONTACT_SHEET;

use super::changes::{RunScans, ScanChanges};
use super::process::{current_entries, process};
use super::schedule::Schedule;
use super::series_index::SeriesIndex;
use super::telemetry::Telemetry;
use super::{Epoch, Ledger, Progress, RunOptions, StageRunner};

/// A request to withdraw scans from a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithdrawalRequest {
    /// Scans to withdraw.
    pub scans: BTreeSet<ScanId>,
    /// Patients whose scans are withdrawn, also those that a source lists later.
    pub patients: BTreeSet<PatientKey>,
    /// Whether scans of equal content are withdrawn under every name; otherwise a duplicate of a withdrawn scan is processed instead.
    pub by_content: bool,
}

/// The changes of a withdrawal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawal {
    /// The scans to remove from the run.
    pub scans: BTreeSet<ScanId>,
    /// The duplicates of these scans that are processed instead.
    pub duplicates: Vec<ScanEntry>,
    /// The tombstones, which prevent that the scans are ingested again.
    pub tombstones: Vec<Tombstone>,
}

impl WithdrawalRequest {
    /// Finds the scans to withdraw among those of a run; `entries_of` returns scans with their keys.
    ///
    /// # Errors
    /// If a scan or patient is not in the run and is not withdrawn, or the error of `entries_of`.
    pub fn resolve(
        &self,
        scans: &RunScans,
        withdrawn: &Tombstones,
        entries_of: &dyn Fn(&HashSet<ScanId>) -> Result<Vec<ScanEntry>>,
    ) -> Result<Withdrawal> {
        let mut removed: BTreeSet<ScanId> = BTreeSet::new();
        for &scan_id in &self.scans {
            if scans.ingested.contains_key(&scan_id) {
                removed.insert(scan_id);
            } else if !withdrawn.contains(withdrawn.of_scan(scan_id)) {
                return Err(Error::new(format!("expected a scan of the run, got {scan_id}"))
                    .with_kind(ErrorKind::Refused)
                    .with_hint("`freetumor scans RUN --paths` lists the scans with their paths"));
            }
        }
        for &patient in &self.patients {
            let of_patient = scans.ingested.values().filter(|entry| entry.patient_key == patient);
            let before = removed.len();
            removed.extend(of_patient.map(|entry| entry.scan_id));
            let is_known = removed.len() > before
                || scans.ingested.values().any(|entry| entry.patient_key == patient)
                || withdrawn.contains(withdrawn.of_patient(patient));
            if !is_known {
                return Err(Error::new(format!("expected a patient of the run, got {patient}"))
                    .with_kind(ErrorKind::Refused)
                    .with_hint("the column `patient_key` of the table `scans` has the keys"));
            }
        }
        let mut tombstones: BTreeSet<Tombstone> = BTreeSet::new();
        if self.by_content {
            let digest_of = |scan_id: &ScanId| scans.committed.get(scan_id).and_then(|scan| scan.digest);
            let digests: HashSet<ScanDigest> = removed.iter().filter_map(digest_of).collect();
            let equal =
                scans.committed.iter().filter(|(_, scan)| scan.digest.is_some_and(|digest| digests.contains(&digest)));
            removed.extend(equal.map(|(scan_id, _)| *scan_id));
            tombstones.extend(digests.into_iter().map(|digest| withdrawn.of_content(digest)));
        }
        tombstones.extend(removed.iter().chain(&self.scans).map(|scan_id| withdrawn.of_scan(*scan_id)));
        tombstones.extend(self.patients.iter().map(|patient| withdrawn.of_patient(*patient)));
        let is_duplicate = |scan_id: &ScanId| {
            let original = scans.committed.get(scan_id).and_then(|scan| scan.duplicate_of);
            original.is_some_and(|original| removed.contains(&original)) && !removed.contains(scan_id)
        };
        let duplicates: HashSet<ScanId> =
            scans.committed.keys().copied().filter(|scan_id| is_duplicate(scan_id)).collect();
        let mut current: HashMap<ScanId, ScanEntry> = HashMap::new();
        if !duplicates.is_empty() {
            current.extend(entries_of(&duplicates)?.into_iter().map(|entry| (entry.scan_id, entry)));
        }
        let mut duplicates: Vec<ScanEntry> = current.into_values().collect();
        duplicates.sort_unstable();
        Ok(Withdrawal { scans: removed, duplicates, tombstones: tombstones.into_iter().collect() })
    }
}

/// The receipt of a withdrawal: the changes of the run folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The epoch whose commit removed the scans; absent if all of them were withdrawn before.
    pub epoch: Option<Epoch>,
    /// The withdrawn scans.
    pub scans: BTreeSet<ScanId>,
    /// The duplicates of these scans that were processed instead.
    pub processed_duplicates: BTreeSet<ScanId>,
    /// Files that the last state no longer names.
    pub removed: Vec<FileEntry>,
    /// Files that replace the removed files, without the withdrawn scans.
    pub rewritten: Vec<FileEntry>,
    /// With a purge, the paths of the deleted files.
    pub purged: Vec<String>,
    /// Whether earlier states, which contain the scans, were deleted.
    pub is_purged: bool,
}

/// Withdraws scans from a run folder: one commit removes the rows and samples of the scans, and tombstones prevent that a later run
/// ingests the scans again. With `purge`, earlier states
/// and all files that contain the scans are deleted; otherwise earlier states can still be read. Epochs that
/// an earlier process did not commit are processed before.
///
/// # Errors
/// If a scan is not in the run, or the errors of [`run`](super::run()).
pub fn withdraw(
    plan: Plan,
    folder: &Path,
    request: &WithdrawalRequest,
    purge: bool,
    options: &RunOptions,
    progress: &Arc<Progress>,
) -> Result<Receipt> {
    let plan = plan.with_keyed_digest()?;
    let (ledger, spool) = Ledger::open(folder, &plan)?;
    ledger.hold_out(&plan, options.threads)?;
    let runner = StageRunner {
        plan,
        spool,
        telemetry: Telemetry::sums_only(),
        progress: Arc::clone(progress),
        series: SeriesIndex::default(),
    };
    apply_withdrawal(&Arc::new(runner), &Arc::new(ledger), request, purge, options)
}

/// Withdraws scans from the run folder of a ledger, as [`withdraw`] does.
///
/// # Errors
/// The errors of [`withdraw`].
pub(super) fn apply_withdrawal(
    runner: &Arc<StageRunner>,
    ledger: &Arc<Ledger>,
    request: &WithdrawalRequest,
    purge: bool,
    options: &RunOptions,
) -> Result<Receipt> {
    let (open, next) = ledger.open_epochs()?;
    if !open.is_empty() {
        // The scans of open epochs may be among the withdrawn ones, by their content too.
        let scans = ledger.scans()?;
        let schedule = Schedule::new(&runner.plan, open, next, &scans, &ScanChanges::default(), None);
        process(runner, ledger, &scans, schedule.without_interruption(), options)?;
    }
    let scans = ledger.scans()?;
    let withdrawal = request.resolve(&scans, &scans.withdrawn, &|ids| current_entries(&runner.plan, ledger, ids))?;
    let mut receipt = Receipt { scans: withdrawal.scans.clone(), ..Receipt::default() };
    receipt.processed_duplicates = withdrawal.duplicates.iter().map(|entry| entry.scan_id).collect();
    let is_new = !withdrawal.scans.is_empty()
        || withdrawal.tombstones.iter().any(|tombstone| !scans.withdrawn.contains(*tombstone));
    if is_new {
        let next = ledger.open_epochs()?.1;
        let changes = EpochChanges {
            entries: withdrawal.duplicates,
            removed: withdrawal.scans.into_iter().collect(),
            withdrawn: withdrawal.tombstones,
            ..EpochChanges::default()
        };
        process(runner, ledger, &scans, Schedule::of_epoch(next, changes, &scans), options)?;
        let commit = ledger.committed(next)?;
        receipt.epoch = Some(next);
        (receipt.removed, receipt.rewritten) = (commit.remove, commit.add);
    }
    // The picture may show a withdrawn scan.
    ledger.store().remove(CONTACT_SHEET)?;
    // Links to files that are no longer named are removed before the files.
    ledger.project()?;
    if purge {
        receipt.purged = ledger.purge(0)?;
        receipt.is_purged = true;
    }
    Ok(receipt)
}
