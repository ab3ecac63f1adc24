//! Removal of scans from committed epochs: one commit removes the rows and samples of the scans and keeps those of all other scans.
//!
//! The name of a file contains the number of the epoch that first committed the rows. The column `epoch` of the rows has the same number.
//! To remove scans, each epoch of the scans is sealed again without the scans: the commit removes the files of the epoch and adds new files
//! with the same number.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::RunFolder;
use super::seal::{LayoutInput, ResealedRows, count, seal_again};
use super::{Commit, Counts};
use crate::error::{Error, Result};
use crate::id::ScanId;
use crate::record::parquet::{Row, decode_part};
use crate::record::schema::Table;
use crate::record::{FaultRecord, FileEntry, SampleRecord, SampleRow, ScanRecord, epoch_of_name};

/// Scans to remove, by the epoch of their rows.
pub type ScansByEpoch = BTreeMap<u64, BTreeSet<ScanId>>;

/// The changes of files by which scans are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Files to add.
    pub add: Vec<FileEntry>,
    /// Files to remove.
    pub remove: Vec<FileEntry>,
    /// Counts of the removed scans and attempts.
    pub counts: Counts,
}

/// Publishes the files of epochs without some of their scans. This operation is idempotent.
///
/// # Errors
/// If committed files cannot be read, or the errors of [`seal`](super::seal::seal).
pub fn remove_scans(folder: &RunFolder, scans: &ScansByEpoch, inputs: &[LayoutInput<'_>]) -> Result<Removal> {
    let mut removal = Removal::default();
    for (epoch, files) in files_of_epochs(folder, scans)? {
        let removed = &scans[&epoch];
        let (removed_scans, kept_scans) = split::<ScanRecord>(folder, &files, |row| removed.contains(&row.scan_id))?;
        let (removed_samples, kept_samples) =
            split::<SampleRow>(folder, &files, |row| removed.contains(&row.record.scan_id))?;
        let (removed_faults, kept_faults) = split::<FaultRecord>(folder, &files, |row| removed.contains(&row.scan_id))?;
        for scan in &removed_scans {
            let samples = removed_samples.iter().map(|row| &row.record).filter(|row| row.scan_id == scan.scan_id);
            let faults = removed_faults.iter().filter(|row| row.scan_id == scan.scan_id);
            count(&mut removal.counts, scan, samples, faults);
        }
        let rows =
            ResealedRows { scans: kept_scans, samples: kept_samples, faults: kept_faults, retested: BTreeSet::new() };
        let added = seal_again(&**folder.store(), epoch, rows, &files, inputs)?;
        removal.remove.extend(files.iter().filter(|file| !added.contains(file)).cloned());
        removal.add.extend(added.into_iter().filter(|file| !files.contains(file)));
    }
    Ok(removal)
}

/// Reads the rows of `samples` of the given scans.
///
/// # Errors
/// If committed files cannot be read.
pub fn rows_of_scans(folder: &RunFolder, scans: &ScansByEpoch) -> Result<Vec<SampleRecord>> {
    let mut rows = Vec::new();
    for (epoch, files) in files_of_epochs(folder, scans)? {
        let selected = &scans[&epoch];
        let (found, _) = split::<SampleRow>(folder, &files, |row| selected.contains(&row.record.scan_id))?;
        rows.extend(found.into_iter().map(|row| row.record));
    }
    Ok(rows)
}

/// Returns the current files of epochs, without the parts of `quality`, which are changes and not rows of scans.
pub(super) fn files_of_epochs(folder: &RunFolder, scans: &ScansByEpoch) -> Result<BTreeMap<u64, Vec<FileEntry>>> {
    let mut files: BTreeMap<u64, Vec<FileEntry>> = BTreeMap::new();
    if scans.is_empty() {
        return Ok(files);
    }
    folder.for_each_file(None, &mut |file| {
        if let Some(epoch) = epoch_of(&file).filter(|epoch| scans.contains_key(epoch)) {
            files.entry(epoch).or_default().push(file);
        }
        Ok(())
    })?;
    Ok(files)
}

/// Returns the number of the epoch in the name of a file; `None` for a part of `quality` and for a file without a number.
fn epoch_of(file: &FileEntry) -> Option<u64> {
    let epoch = epoch_of_name(file.path.rsplit('/').next()?)?;
    (file.table != Table::Quality.name()).then_some(epoch)
}

/// Returns the rows of a table that `selects` accepts, and the other rows.
pub(super) fn split<R: Row>(
    folder: &RunFolder,
    files: &[FileEntry],
    selects: impl Fn(&R) -> bool,
) -> Result<(Vec<R>, Vec<R>)> {
    let (mut selected, mut others) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|file| file.table == R::TABLE.name()) {
        for row in decode_part::<R>(folder.read_verified(file)?)? {
            if selects(&row) { selected.push(row) } else { others.push(row) }
        }
    }
    Ok((selected, others))
}

impl RunFolder {
    /// Checks that the files that a commit removes are current.
    ///
    /// # Errors
    /// If a file is not current.
    pub(super) fn check_removals(&self, commit: &Commit) -> Result<()> {
        let mut missing: BTreeSet<&str> = commit.remove.iter().map(|file| file.path.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.for_each_file(None, &mut |file| {
            missing.remove(file.path.as_str());
            Ok(())
        })?;
        match missing.first() {
            Some(path) => Err(Error::new(format!("commit {} removes {path}, which does not exist", commit.epoch))),
            None => Ok(()),
        }
    }
}
