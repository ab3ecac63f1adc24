//! The entries of scans: their ids, data set and patients.

use super::remarks::Remarks;
use super::scan_files::ScanFiles;
use super::scan_folder::{ScanFolder, ScanLocation, unknown_patient, without_series};
use super::walk::{MatchedPath, PathKind};
use crate::error::Fault;
use crate::ingest::ScanEntry;
use crate::ingest::dicom::{self, DicomFolder, Series};
use crate::ingest::key::path_of;
use crate::ingest::patient::{PatientRule, PatientSecret};
use crate::ingest::version::FileState;

/// The scope of patients of DICOM headers: equal PatientIDs are the same person in every archive.
const DICOM_SCOPE: &str = "DICOM PatientID";

/// The rules for the data set, patient and key of the entries of a source.
#[derive(Clone, Debug)]
pub(in crate::ingest) struct EntryRules {
    /// Name of the source.
    pub source: String,
    /// Name of the data set.
    pub dataset: String,
    /// The rule for patients, applied to the path below the root.
    pub patient: PatientRule,
}

/// One listing of the scans below a root.
#[derive(Clone, Copy)]
pub(in crate::ingest) struct Listing<'a> {
    /// The secret of patients and scan ids.
    pub secret: &'a PatientSecret,
    /// Returns the key of a scan in its source, from its key below the root.
    pub key_of: &'a dyn Fn(&str) -> String,
    /// Returns the size and version of the files of a series.
    pub files_of: &'a dyn Fn(&Series) -> ScanFiles,
}

impl<'a> Listing<'a> {
    /// Creates a listing of files on disk, in which the key of a scan is its key below the root.
    pub fn of_files(secret: &'a PatientSecret) -> Self {
        Self { secret, key_of: &str::to_owned, files_of: &ScanFiles::of_series }
    }
}

impl EntryRules {
    /// Returns the entry of a scan: `path` is the path of its file or folder below the root, `key` its key below the root.
    pub fn entry(
        &self,
        listing: &Listing<'_>,
        path: &str,
        key: &str,
        files: ScanFiles,
        header_patient: Option<&str>,
    ) -> ScanEntry {
        let key = (listing.key_of)(key);
        ScanEntry {
            scan_id: listing.secret.scan_id(&self.source, &key),
            source: self.source.clone(),
            dataset: self.dataset.clone(),
            patient_key: match (header_patient, self.patient.of_path(path)) {
                (Some(patient), _) => listing.secret.patient_key(DICOM_SCOPE, patient),
                (None, Some(patient)) => listing.secret.patient_key(&self.dataset, patient),
                // Reading this scan is a fault; its key separates it from every other patient.
                (None, None) => listing.secret.patient_key(&self.dataset, &key),
            },
            key,
            bytes: files.bytes,
            modified_s: files.modified_s,
            version: files.version,
        }
    }

    /// Returns the entries of a path on disk, and adds to the remarks what a DICOM folder contains beside its scans.
    pub fn entries_of(
        &self,
        scans: &ScanFolder,
        found: &MatchedPath,
        listing: &Listing<'_>,
        remarks: &mut Remarks,
    ) -> Vec<ScanEntry> {
        let entry = |files| vec![self.entry(listing, &found.key, &found.key, files, None)];
        match found.kind {
            PathKind::File => entry(ScanFiles::of_file(&scans.root, found)),
            PathKind::Unreadable | PathKind::BrokenLink => entry(ScanFiles::of_unread(found, &[])),
            PathKind::Folder => {
                let path = scans.root.join(path_of(&found.key));
                let Ok(folder) = scans.list_folder(&path) else { return entry(ScanFiles::unreadable()) };
                let entries = self.entries_of_series(&found.key, folder, listing, remarks);
                if !entries.is_empty() {
                    return entries;
                }
                entry(ScanFiles::of_unread(found, &FileState::of_path(&path)))
            }
        }
    }

    /// Returns the entries of the series of a DICOM folder; none if the folder has no series.
    pub fn entries_of_series(
        &self,
        key: &str,
        folder: DicomFolder,
        listing: &Listing<'_>,
        remarks: &mut Remarks,
    ) -> Vec<ScanEntry> {
        remarks.add_folder(&folder);
        let other_files = folder.other_files.clone();
        let series = folder.into_scans();
        if series.is_empty() {
            remarks.add_fault(&without_series(&other_files));
        }
        let entries = series.into_iter().map(|series| {
            let patient = match self.patient {
                PatientRule::Dicom => dicom::patient_id(&series).ok().flatten(),
                _ => None,
            };
            if patient.is_none() && self.patient.of_path(key).is_none() {
                remarks.add_fault(&unknown_patient());
            }
            let files = (listing.files_of)(&series);
            let entry = self.entry(listing, key, &format!("{key}#{}", series.id()), files, patient.as_deref());
            remarks.add_scan(&(listing.key_of)(key), entry.scan_id, &series);
            entry
        });
        entries.collect()
    }

    /// Returns a fault if the patient of a scan is unknown: the scan could be on both sides of a split. `key` is the key below the root.
    ///
    /// # Errors
    /// `missing` if the rule does not match, and the fault of reading the header.
    pub fn check_patient(&self, key: &str, location: &ScanLocation) -> Result<(), Fault> {
        let known = match (&self.patient, location) {
            (PatientRule::Dicom, ScanLocation::Series(_, series)) => dicom::patient_id(series)?.is_some(),
            (PatientRule::Dicom, ScanLocation::File(_)) => false,
            (_, ScanLocation::File(_)) => self.patient.of_path(key).is_some(),
            (_, ScanLocation::Series(..)) => {
                key.rsplit_once('#').is_some_and(|(folder, _)| self.patient.of_path(folder).is_some())
            }
        };
        if known { Ok(()) } else { Err(unknown_patient()) }
    }
}
