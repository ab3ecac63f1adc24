//! The source kind `manifest`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use globset::GlobSet;

use super::config::ManifestConfig;
use super::scans::{Manifest, ManifestScan, split_root};
use crate::error::{ConfigError, Error, Fault, FaultKind, Result};
use crate::id::ScanVersion;
use crate::ingest::archive::ArchiveRemarks;
use crate::ingest::dicom::Decoder;
use crate::ingest::file::stem;
use crate::ingest::folder::{
    EntryRules, FolderCompanions, Listing, MatchedPath, PathKind, Remarks, ScanFiles, ScanFolder, ScanLocation,
    log_remarks, resolve,
};
use crate::ingest::patient::{PatientConfig, PatientRule, PatientSecret};
use crate::ingest::version::{FileState, VersionHasher};
use crate::ingest::{Companions, Scan, ScanEntry, ScanHeader, Source, content_digest, nifti, volume_file};

/// The pattern of the label file that a row names.
const MASK: &str = "{mask}";

/// The source kind `manifest`: the scans that the rows of a file name.
///
/// The key of a scan is its path relative to the folder of the manifest, or its absolute path if it is outside of this folder; for a DICOM
/// folder, `#` and the id of the series. A row that cannot be used is listed with the name of the manifest and its line as key.
pub struct ManifestSource {
    path: PathBuf,
    /// The folder of the manifest, absolute.
    folder: PathBuf,
    split: Option<String>,
    rules: EntryRules,
    /// Whether rows without a patient are each a separate patient.
    has_default_patients: bool,
    /// The settings of reading scans; the root depends on the scan.
    scans: ScanFolder,
    secret_file: Option<PathBuf>,
    /// The manifest with the state of its file when it was read.
    read: Mutex<Option<(FileState, Arc<Manifest>)>>,
}

impl ManifestSource {
    /// Creates the source `name` and checks its settings and the columns of the manifest.
    ///
    /// # Errors
    /// Returns every error in the settings and the manifest, but not those of single rows.
    pub fn new(name: &str, config: ManifestConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if config.dataset.as_ref().is_some_and(String::is_empty) {
            errors.push(ConfigError::new("dataset", "expected a name, got an empty one"));
        }
        let patient = PatientRule::new(&config.patient, "patient").unwrap_or_else(|more| {
            errors.extend(more);
            PatientRule::PathComponent(0)
        });
        let folder = config.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = resolve(&std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()));
        let dataset = config.dataset.unwrap_or_else(|| name.to_owned());
        let scans = ScanFolder::new(folder.clone(), GlobSet::empty(), config.allow_unreadable_files);
        let source = Self {
            path: config.path,
            folder,
            split: config.split,
            rules: EntryRules { source: name.to_owned(), dataset, patient },
            has_default_patients: config.patient == PatientConfig::default(),
            scans,
            secret_file: None,
            read: Mutex::default(),
        };
        if let Err((message, hint)) = source.manifest() {
            let error = ConfigError::new("path", message);
            let hint = hint.or_else(|| {
                (!source.path.exists()).then(|| "a relative path starts at the folder of the graph file".to_owned())
            });
            errors.push(hint.into_iter().fold(error, ConfigError::with_hint));
        }
        if errors.is_empty() { Ok(source) } else { Err(errors) }
    }

    /// Sets the file of the secret for patient keys, which is used unless the environment variable is set.
    #[must_use]
    pub fn with_secret_file(self, file: Option<PathBuf>) -> Self {
        Self { secret_file: file, ..self }
    }

    /// Sets the decoder of compressed DICOM; by default a decoder in this process.
    #[must_use]
    pub fn with_decoder(mut self, decoder: Decoder) -> Self {
        self.scans.decoder = decoder;
        self
    }

    /// Sets the limits of reading one scan or label file.
    #[must_use]
    pub fn with_limits(mut self, limits: nifti::Limits) -> Self {
        self.scans.limits = limits;
        self
    }

    /// Returns the manifest as it is now.
    fn manifest(&self) -> Result<Arc<Manifest>, (String, Option<String>)> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let state = FileState::of(&self.path);
        if let Some((_, manifest)) = read.as_ref().filter(|(known, _)| *known == state) {
            return Ok(Arc::clone(manifest));
        }
        let manifest = Arc::new(Manifest::read(&self.path, self.split.as_deref())?);
        *read = Some((state, Arc::clone(&manifest)));
        Ok(manifest)
    }

    fn secret(&self) -> Result<PatientSecret> {
        PatientSecret::load(self.secret_file.as_deref())
    }

    /// Returns the settings of reading the scan with this key, and its key below their root.
    fn located<'a>(&self, key: &'a str) -> (ScanFolder, &'a str) {
        match key.strip_prefix('/') {
            Some(key) => (self.scans.at(split_root(&self.folder).0), key),
            None => (self.scans.clone(), key),
        }
    }

    /// Returns the row of a scan.
    fn row(&self, entry: &ScanEntry) -> Result<ManifestScan, Fault> {
        let manifest =
            self.manifest().map_err(|_| Fault::read(FaultKind::Io, "the manifest of the scan cannot be read"))?;
        if let Some(message) = manifest.faults.get(&entry.key) {
            return Err(Fault::read(FaultKind::Corrupt, message));
        }
        let folder = entry.key.rsplit_once('#').map(|(folder, _)| folder);
        let row = manifest.scans.get(&entry.key).or_else(|| manifest.scans.get(folder?));
        let missing = || Fault::read(FaultKind::Missing, "the manifest no longer contains the scan");
        row.cloned().ok_or_else(missing)
    }

    /// Lists the scans of a row.
    fn entries_of(
        &self,
        key: &str,
        row: &ManifestScan,
        secret: &PatientSecret,
        remarks: &mut Remarks,
    ) -> Vec<ScanEntry> {
        let (scans, below) = self.located(key);
        let prefix = key.strip_suffix(below).unwrap_or_default();
        let key_of = |key: &str| format!("{prefix}{key}");
        let listing = Listing { secret, key_of: &key_of, files_of: &ScanFiles::of_series };
        let dataset = row.dataset.as_ref().unwrap_or(&self.rules.dataset);
        let rules = EntryRules { dataset: dataset.clone(), ..self.rules.clone() };
        let patient = match &row.patient {
            Some(patient) => Some(patient.as_str()),
            None => self.has_default_patients.then(|| stem(key)),
        };
        let entries = rules.entries_of(&scans, &MatchedPath::of(&row.path, below), &listing, remarks);
        let with_patient = |entry: ScanEntry| match patient {
            Some(patient) => ScanEntry { patient_key: secret.patient_key(dataset, patient), ..entry },
            None => entry,
        };
        entries.into_iter().map(with_patient).collect()
    }

    /// Returns the entry of a row that cannot be used.
    fn fault_entry(&self, key: &str, message: &str, secret: &PatientSecret) -> ScanEntry {
        let version = VersionHasher::new().add_text("fault", message).finish();
        let files = ScanFiles { bytes: 0, modified_s: 0, version };
        self.rules.entry(&Listing::of_files(secret), key, key, files, None)
    }

    fn check_patient(&self, row: &ManifestScan, key: &str, location: &ScanLocation) -> Result<(), Fault> {
        match row.patient.is_some() || self.has_default_patients {
            true => Ok(()),
            false => self.rules.check_patient(key, location),
        }
    }

    fn companions_of(&self, scans: &ScanFolder, row: &ManifestScan) -> FolderCompanions {
        scans.companions(&row.path).with_label(MASK, row.mask.clone())
    }
}

impl fmt::Debug for ManifestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestSource").field("path", &self.path).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Source for ManifestSource {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        let (entries, remarks) = self.list_archive()?;
        log_remarks(&self.rules.source, &remarks);
        Ok(entries)
    }

    fn list_archive(&self) -> Result<(Vec<ScanEntry>, ArchiveRemarks)> {
        let secret = self.secret()?;
        let error =
            |(message, hint): (String, Option<String>)| hint.into_iter().fold(Error::new(message), Error::with_hint);
        let manifest = self.manifest().map_err(error)?;
        let mut remarks = Remarks::default();
        let mut entries = Vec::new();
        for (key, row) in &manifest.scans {
            entries.extend(self.entries_of(key, row, &secret, &mut remarks));
        }
        for (key, message) in &manifest.faults {
            remarks.add_fault(&Fault::read(FaultKind::Corrupt, message));
            entries.push(self.fault_entry(key, message, &secret));
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let mut remarks = remarks.finish();
        remarks.notes.extend(manifest.notes.iter().cloned());
        Ok((entries, remarks))
    }

    fn explain_empty(&self) -> String {
        let path = self.path.display();
        match (self.manifest(), &self.split) {
            (Err((message, _)), _) => message,
            (Ok(manifest), Some(split)) if manifest.rows > 0 => {
                format!("no row of the manifest {path} has the split `{split}`")
            }
            _ => format!("the manifest {path} has no rows"),
        }
    }

    fn check_available(&self) -> Result<()> {
        match std::fs::File::open(&self.path) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::io("cannot open the manifest", &self.path, error)),
        }
    }

    fn companions(&self, entry: &ScanEntry) -> Option<Arc<dyn Companions>> {
        let row = self.row(entry).ok()?;
        Some(Arc::new(self.companions_of(&self.located(&entry.key).0, &row)))
    }

    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        self.secret().map(Some)
    }

    fn version(&self, entry: &ScanEntry) -> Result<ScanVersion, Fault> {
        if let Ok(manifest) = self.manifest()
            && let Some(message) = manifest.faults.get(&entry.key)
        {
            return Ok(VersionHasher::new().add_text("fault", message).finish());
        }
        let row = self.row(entry)?;
        let (scans, key) = self.located(&entry.key);
        let found = MatchedPath::of(&row.path, key);
        match found.kind {
            // A path that does not exist is listed, as are broken links.
            PathKind::BrokenLink if !entry.key.contains('#') => Ok(ScanFiles::of_unread(&found, &[]).version),
            _ => scans.version(key),
        }
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        self.row(entry)?;
        let (scans, key) = self.located(&entry.key);
        scans.header(key)
    }

    fn check(&self, entry: &ScanEntry) -> Result<(), Fault> {
        let manifest = self.manifest().ok();
        if manifest.is_some_and(|manifest| manifest.faults.contains_key(&entry.key)) {
            // Listing has reported the rows that cannot be used.
            return Ok(());
        }
        let row = self.row(entry)?;
        let (scans, key) = self.located(&entry.key);
        if scans.is_folder(key) {
            return Ok(());
        }
        let location = scans.locate(key)?;
        self.check_patient(&row, key, &location)?;
        volume_file::check(location.path(), &scans.limits)
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let row = self.row(entry)?;
        let (scans, key) = self.located(&entry.key);
        let location = scans.locate(key)?;
        self.check_patient(&row, key, &location)?;
        let volume = scans.decode(&location)?;
        let companions = self.companions_of(&scans, &row).with_frame(location.frame_of_reference());
        Ok(Scan {
            acquisition: Default::default(),
            entry: entry.clone(),
            digest: content_digest(&volume),
            volume,
            companions: Arc::new(companions),
        })
    }
}
