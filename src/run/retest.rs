//! New decisions on the stored candidates of committed scans: an epoch is sealed again with other rows of `samples` for some of its scans.
//!
//! The number of the epoch in the names of files and in the column `epoch` stays; see [`remove_scans`](super::remove_scans).

use std::collections::{BTreeMap, BTreeSet};

use super::reader::RunFolder;
use super::remove::{ScansByEpoch, files_of_epochs, split};
use super::seal::{LayoutInput, ResealedRows, count, seal_again};
use super::{Counts, Removal};
use crate::error::Result;
use crate::id::{SampleId, ScanId};
use crate::record::{FaultRecord, FileEntry, SampleRow, ScanRecord};
use crate::sink::EpochStage;

/// A committed scan with its rows of `samples`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanRows {
    /// The row of the scan.
    pub scan: ScanRecord,
    /// The rows of its attempts and negatives.
    pub samples: Vec<SampleRow>,
}

/// The samples whose files an epoch has, for each layout; `None` if the layout needs only the patches of samples.
pub struct CommittedFiles(Vec<Option<BTreeSet<SampleId>>>);

impl CommittedFiles {
    fn of(folder: &RunFolder, epoch: u64, files: &[FileEntry], inputs: &[LayoutInput<'_>]) -> Result<Self> {
        let stage = EpochStage { store: &**folder.store(), epoch, folder: "", patches: &[], committed: files };
        inputs.iter().map(|input| input.layout.committed_samples(&stage)).collect::<Result<_>>().map(Self)
    }

    /// Returns whether the epoch has the files that a row needs: its patch if it is accepted or received by a sink, and image and label if
    /// a sink needs them.
    pub fn has_files(&self, row: &SampleRow, inputs: &[LayoutInput<'_>]) -> bool {
        let (record, has_patch) = (&row.record, row.placement.patch_shard.is_some());
        if record.candidate_digest.is_none() {
            return true;
        }
        let has = |(input, committed): (&LayoutInput<'_>, &Option<BTreeSet<SampleId>>)| {
            !(input.selects)(record)
                || has_patch && committed.as_ref().is_none_or(|committed| committed.contains(&record.sample_id))
        };
        (has_patch || !record.outcome.is_accepted()) && inputs.iter().zip(&self.0).all(has)
    }
}

/// The changes of files that new decisions make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retest {
    /// The files to add and to remove, with the counts of the earlier rows.
    pub removal: Removal,
    /// Counts of the new rows.
    pub counts: Counts,
}

/// Decides on a scan again: returns the scan with its new rows.
pub type Decide<'a> = &'a mut dyn FnMut(ScanRows) -> Result<ScanRows>;

/// Publishes the files of epochs with new decisions on some of their scans. This operation is idempotent.
///
/// # Errors
/// If committed files cannot be read, the error of `decide`, or the errors of [`seal`](super::seal::seal).
pub fn retest_scans(
    folder: &RunFolder,
    scans: &ScansByEpoch,
    inputs: &[LayoutInput<'_>],
    decide: Decide<'_>,
) -> Result<Retest> {
    let mut retest = Retest::default();
    for (epoch, files) in files_of_epochs(folder, scans)? {
        let selected = &scans[&epoch];
        let (of_scans, mut scans, mut samples) = rows_of_epoch(folder, &files, selected)?;
        let (faults, _) = split::<FaultRecord>(folder, &files, |_| true)?;
        let mut retested = BTreeSet::new();
        for before in of_scans {
            let records = before.samples.iter().map(|row| &row.record);
            count(&mut retest.removal.counts, &before.scan, records, []);
            let after = decide(before)?;
            count(&mut retest.counts, &after.scan, after.samples.iter().map(|row| &row.record), []);
            retested.extend(after.samples.iter().map(|row| row.record.sample_id));
            scans.push(after.scan);
            samples.extend(after.samples);
        }
        let rows = ResealedRows { scans, samples, faults, retested };
        let added = seal_again(&**folder.store(), epoch, rows, &files, inputs)?;
        retest.removal.remove.extend(files.iter().filter(|file| !added.contains(file)).cloned());
        retest.removal.add.extend(added.into_iter().filter(|file| !files.contains(file)));
    }
    Ok(retest)
}

/// Visits scans with their rows, and the committed files of their epochs.
///
/// # Errors
/// If committed files cannot be read.
pub fn visit_scans(
    folder: &RunFolder,
    scans: &ScansByEpoch,
    inputs: &[LayoutInput<'_>],
    visit: &mut dyn FnMut(ScanRows, &CommittedFiles),
) -> Result<()> {
    for (epoch, files) in files_of_epochs(folder, scans)? {
        let committed = CommittedFiles::of(folder, epoch, &files, inputs)?;
        let (of_scans, ..) = rows_of_epoch(folder, &files, &scans[&epoch])?;
        of_scans.into_iter().for_each(|rows| visit(rows, &committed));
    }
    Ok(())
}

/// Returns the rows of the selected scans, and the other rows of `scans` and `samples` of the epoch.
fn rows_of_epoch(
    folder: &RunFolder,
    files: &[FileEntry],
    selected: &BTreeSet<ScanId>,
) -> Result<(Vec<ScanRows>, Vec<ScanRecord>, Vec<SampleRow>)> {
    let (scans, other_scans) = split::<ScanRecord>(folder, files, |row| selected.contains(&row.scan_id))?;
    let (samples, other_samples) = split::<SampleRow>(folder, files, |row| selected.contains(&row.record.scan_id))?;
    let mut by_scan: BTreeMap<ScanId, Vec<SampleRow>> = BTreeMap::new();
    for row in samples {
        by_scan.entry(row.record.scan_id).or_default().push(row);
    }
    let rows = |scan: ScanRecord| ScanRows { samples: by_scan.remove(&scan.scan_id).unwrap_or_default(), scan };
    Ok((scans.into_iter().map(rows).collect(), other_scans, other_samples))
}
