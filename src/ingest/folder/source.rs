//! The source kind `folder`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;

use super::config::{FolderConfig, patterns};
use super::entries::{EntryRules, Listing};
use super::remarks::{Remarks, log_remarks};
use super::scan_folder::ScanFolder;
use super::walk;
use crate::error::{ConfigError, Error, Fault, Result};
use crate::id::ScanVersion;
use crate::ingest::archive::ArchiveRemarks;
use crate::ingest::dicom::Decoder;
use crate::ingest::file::check_root;
use crate::ingest::patient::{PatientRule, PatientSecret};
use crate::ingest::{Companions, Scan, ScanEntry, ScanHeader, Source, content_digest, nifti, volume_file};
use crate::time_span::TimeSpan;

/// The name, or the end of the name, of a file that shows that a scan is complete.
const DONE: &str = ".done";

/// The source kind `folder`.
///
/// Keys are paths relative to the root, with `/` between components and, for a DICOM folder, `#` and the id of the series.
/// A folder that cannot be listed, a broken link and a folder without a CT series are also listed; reading them is a fault. Names may
/// be any bytes, see the module `key`.
#[derive(Clone, Debug)]
pub struct FolderSource {
    scans: ScanFolder,
    rules: EntryRules,
    include: GlobSet,
    settle: Option<TimeSpan>,
    secret_file: Option<PathBuf>,
}

impl FolderSource {
    /// Creates the source `name` and checks its settings. The secret for patient keys is loaded by [`PatientSecret::load`] when scans
    /// are listed for the first time.
    ///
    /// # Errors
    /// Returns every error in the settings.
    pub fn new(name: &str, config: FolderConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if !config.root.is_dir() {
            let message = match config.root.exists() {
                true => "expected a folder, got a file",
                false => "expected a folder, got none",
            };
            let error = ConfigError::new("root", format!("{message}: {}", config.root.display()));
            errors.push(error.with_hint("a relative path starts at the folder of the graph file"));
        }
        if config.include.is_empty() {
            let error = ConfigError::new("include", "expected at least one pattern, got none");
            errors.push(error.with_hint("for example include = [\"**/ct.nii.gz\"]"));
        }
        if config.dataset.as_ref().is_some_and(String::is_empty) {
            errors.push(ConfigError::new("dataset", "expected a name, got an empty one"));
        }
        let include = patterns("include", &config.include, &mut errors);
        let exclude = patterns("exclude", &config.exclude, &mut errors);
        let patient = PatientRule::new(&config.patient, "patient").unwrap_or_else(|more| {
            errors.extend(more);
            PatientRule::PathComponent(0)
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        let dataset = config.dataset.unwrap_or_else(|| name.to_owned());
        Ok(Self {
            scans: ScanFolder {
                with_acquisition_year: config.acquisition_year,
                ..ScanFolder::new(config.root, exclude, config.allow_unreadable_files)
            },
            rules: EntryRules { source: name.to_owned(), dataset, patient },
            include,
            settle: config.settle,
            secret_file: None,
        })
    }

    /// Sets the file of the secret for patient keys, which is used unless the environment variable is set.
    #[must_use]
    pub fn with_secret_file(self, file: Option<PathBuf>) -> Self {
        Self { secret_file: file, ..self }
    }

    /// Sets the decoder of compressed DICOM; by default a decoder in this process.
    #[must_use]
    pub fn with_decoder(self, decoder: Decoder) -> Self {
        Self { scans: ScanFolder { decoder, ..self.scans }, ..self }
    }

    /// Sets the limits of reading one scan or label file.
    #[must_use]
    pub fn with_limits(self, limits: nifti::Limits) -> Self {
        Self { scans: ScanFolder { limits, ..self.scans }, ..self }
    }
}

impl Source for FolderSource {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        let (entries, remarks) = self.list_archive()?;
        log_remarks(&self.rules.source, &remarks);
        Ok(entries)
    }

    fn list_archive(&self) -> Result<(Vec<ScanEntry>, ArchiveRemarks)> {
        let secret = PatientSecret::load(self.secret_file.as_deref())?;
        let root = &self.scans.root;
        let found = walk::find(root, &self.include, &self.scans.exclude)
            .map_err(|error| Error::io("cannot list the folder of scans", root, error))?;
        let listing = Listing::of_files(&secret);
        let mut remarks = Remarks::default();
        let entries = |found| self.rules.entries_of(&self.scans, &found, &listing, &mut remarks);
        let mut entries: Vec<_> = found.into_iter().flat_map(entries).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries.dedup_by(|a, b| a.key == b.key);
        Ok((entries, remarks.finish()))
    }

    fn explain_empty(&self) -> String {
        let root = self.scans.root.display();
        match std::fs::read_dir(&self.scans.root).map(|mut entries| entries.next().is_none()) {
            Ok(true) => format!("the folder {root} is empty: is its disk mounted?"),
            Ok(false) => format!("no path below {root} matches `include` and not `exclude`"),
            Err(cause) => format!("the folder {root} cannot be listed: {cause}"),
        }
    }

    fn check_available(&self) -> Result<()> {
        check_root(&self.scans.root)
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.scans.root)
    }

    fn settle(&self) -> Option<Duration> {
        self.settle.map(Duration::from)
    }

    fn is_complete(&self, entry: &ScanEntry) -> bool {
        let path = self.scans.path_of_scan(&entry.key);
        let mut marker = path.clone().into_os_string();
        marker.push(DONE);
        let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        Path::new(&marker).exists() || folder.is_some_and(|folder| folder.join(DONE).exists())
    }

    fn companions(&self, entry: &ScanEntry) -> Option<Arc<dyn Companions>> {
        Some(Arc::new(self.scans.companions(&self.scans.path_of_scan(&entry.key))))
    }

    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        PatientSecret::load(self.secret_file.as_deref()).map(Some)
    }

    fn version(&self, entry: &ScanEntry) -> Result<ScanVersion, Fault> {
        self.scans.version(&entry.key)
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        self.scans.header(&entry.key)
    }

    fn check(&self, entry: &ScanEntry) -> Result<(), Fault> {
        if self.scans.is_folder(&entry.key) {
            // Listing has read the headers of DICOM folders.
            return Ok(());
        }
        let location = self.scans.locate(&entry.key)?;
        self.rules.check_patient(&entry.key, &location)?;
        volume_file::check(location.path(), &self.scans.limits)
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let location = self.scans.locate(&entry.key)?;
        self.rules.check_patient(&entry.key, &location)?;
        let volume = self.scans.decode(&location)?;
        let companions = self.scans.companions(location.path()).with_frame(location.frame_of_reference());
        Ok(Scan {
            acquisition: self.scans.acquisition(&location),
            entry: entry.clone(),
            digest: content_digest(&volume),
            volume,
            companions: Arc::new(companions),
        })
    }
}
