//! The guard against leakage: no patient and no scan is in both training and validation.
//!
//! A patient is identified by the key that the source derives. Two sources may list one file under two patients, for example if the
//! sources name the data set differently. Therefore a validation file is also identified by its name, length and modification time.

use std::collections::BTreeSet;

use super::data::RunSamples;
use crate::error::{Error, Result};
use crate::graph::SplitShares;
use crate::id::PatientKey;
use crate::ingest::ScanEntry;
use crate::record::Split;

/// Name, length in bytes and modification time of the file of a scan.
type FileIdentity = (String, u64, i64);

/// The patients and files that are held out for validation, and the check that none of them is trained on.
#[derive(Clone, Debug)]
pub struct LeakageGuard {
    /// The shares by which patients are split; `None` if [`LeakageGuard::hold_out`] defines the split.
    shares: Option<SplitShares>,
    patients: BTreeSet<PatientKey>,
    files: BTreeSet<FileIdentity>,
}

impl LeakageGuard {
    /// Creates a guard that splits patients into training, validation and test by `shares`.
    pub fn with_split_shares(shares: SplitShares) -> Self {
        Self { shares: Some(shares), patients: BTreeSet::new(), files: BTreeSet::new() }
    }

    /// Creates a guard that holds out only the scans passed to [`LeakageGuard::hold_out`].
    pub fn with_explicit_split() -> Self {
        Self { shares: None, patients: BTreeSet::new(), files: BTreeSet::new() }
    }

    /// Returns the split of a labeled scan; always [`Split::Train`] for a guard with an explicit split.
    pub fn split_of(&self, entry: &ScanEntry) -> Split {
        self.shares.map_or(Split::Train, |shares| shares.of(entry.patient_key))
    }

    /// Holds out a scan and its patient for validation.
    pub fn hold_out(&mut self, entry: &ScanEntry) {
        self.patients.insert(entry.patient_key);
        self.files.extend(file_identity(entry));
    }

    /// Returns whether a scan may be trained on.
    pub fn may_train(&self, entry: &ScanEntry) -> bool {
        let is_held_out = self.patients.contains(&entry.patient_key) || self.has_file(entry);
        !is_held_out && self.split_of(entry) == Split::Train
    }

    /// Returns whether a patient is held out.
    pub fn holds_out(&self, patient_key: &PatientKey) -> bool {
        self.patients.contains(patient_key)
    }

    /// Checks that no training scan is of a held-out patient or has a file that is held out under another patient.
    ///
    /// # Errors
    /// Returns an error that names the first such scan.
    pub fn check(&self, training: &[ScanEntry]) -> Result<()> {
        if let Some(both) = training.iter().find(|entry| self.patients.contains(&entry.patient_key)) {
            let patient = &both.patient_key;
            return Err(Error::new(format!(
                "patient {patient} is in the training scans and in the validation scans: the validation scores would be too high"
            ))
            .with_hint("remove `validation` to split by patient, or name validation scans of other patients"));
        }
        if let Some(both) = training.iter().find(|entry| self.has_file(entry)) {
            return Err(Error::new(format!(
                "{} of `{}` is a training scan and probably also a validation scan under another patient: a validation file has the \
                 same name, size and modification time",
                both.key, both.source
            ))
            .with_hint("set `dataset` to the same name in both sources"));
        }
        Ok(())
    }

    /// Returns the patients of a run folder with at least one held-out scan, even if another source or data set lists the scan.
    pub fn held_out_in(&self, run: &RunSamples) -> BTreeSet<PatientKey> {
        if self.files.is_empty() {
            return BTreeSet::new();
        }
        let mut patients = BTreeSet::new();
        let read = run.for_each_scan(|entry| {
            if self.has_file(&entry) {
                patients.insert(entry.patient_key);
            }
        });
        if let Err(error) = read {
            let folder = run.folder().display();
            tracing::warn!("cannot check {folder} for validation scans listed under another patient: {error}");
        }
        patients
    }

    fn has_file(&self, entry: &ScanEntry) -> bool {
        file_identity(entry).is_some_and(|file| self.files.contains(&file))
    }
}

/// Returns the identity of the file of a scan; `None` if the entry has no size or no modification time.
fn file_identity(entry: &ScanEntry) -> Option<FileIdentity> {
    let name = entry.key.rsplit('/').next().unwrap_or(&entry.key);
    (entry.bytes > 0 && entry.modified_s != 0).then(|| (name.to_owned(), entry.bytes, entry.modified_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ScanId;

    fn entry(patient: u8, key: &str, bytes: u64) -> ScanEntry {
        ScanEntry {
            scan_id: ScanId::from_bytes([patient; 8]),
            source: "archive".to_owned(),
            key: key.to_owned(),
            dataset: "a".to_owned(),
            patient_key: PatientKey::from_bytes([patient; 8]),
            bytes,
            modified_s: 77,
            version: Default::default(),
        }
    }

    #[test]
    fn scan_of_held_out_patient_is_refused() {
        let mut guard = LeakageGuard::with_explicit_split();
        guard.hold_out(&entry(1, "a/one.nii", 10));
        let second_scan = entry(1, "a/two.nii", 20);
        assert!(!guard.may_train(&second_scan));
        let error = guard.check(&[entry(2, "a/other.nii", 10), second_scan]).unwrap_err();
        assert!(error.to_string().contains("is in the training scans and in the validation scans"), "{error}");
    }

    #[test]
    fn held_out_file_under_another_patient_is_refused() {
        let mut guard = LeakageGuard::with_explicit_split();
        guard.hold_out(&entry(1, "a/one.nii", 10));
        let renamed = entry(2, "elsewhere/one.nii", 10);
        assert!(!guard.may_train(&renamed));
        let error = guard.check(std::slice::from_ref(&renamed)).unwrap_err();
        assert!(error.to_string().contains("under another patient"), "{error}");
        for other in [entry(2, "a/one.nii", 11), ScanEntry { modified_s: 78, ..renamed }, entry(2, "a/two.nii", 10)] {
            assert!(guard.may_train(&other), "{other:?}");
            guard.check(&[other]).unwrap();
        }
    }

    #[test]
    fn sources_without_files_are_compared_by_patient_only() {
        let mut guard = LeakageGuard::with_explicit_split();
        guard.hold_out(&entry(1, "phantom 1", 0));
        assert!(guard.may_train(&entry(2, "phantom 1", 0)));
    }

    #[test]
    fn split_shares_allow_only_training_patients() {
        let shares = SplitShares { train: 0.4, validation: 0.3, test: 0.3 };
        let guard = LeakageGuard::with_split_shares(shares);
        let mut counts = [0; 2];
        for patient in 0..200 {
            let entry = entry(patient, "scan.nii", 1);
            assert_eq!(guard.may_train(&entry), shares.of(entry.patient_key) == Split::Train);
            counts[usize::from(guard.may_train(&entry))] += 1;
        }
        assert!(counts[0] > 80 && counts[1] > 50, "{counts:?}");
    }
}
