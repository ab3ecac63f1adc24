//! The source of scans in a folder: NIfTI, NRRD and MetaImage files and DICOM folders, found by patterns.

mod companions;
mod remarks;
mod scan_files;
mod walk;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use self::companions::{FolderCompanions, resolve};
use self::remarks::Remarks;
use self::scan_files::ScanFiles;
use self::walk::{MatchedPath, PathKind};
use super::archive::{ArchiveRemarks, counts};
use super::dicom::{self, Decoder, DicomFolder, FolderFilter, FrameOfReference, Series};
use super::file::{check_regular, check_root, missing};
use super::key::path_of;
use super::patient::{PatientConfig, PatientRule, PatientSecret};
use super::version::FileState;
use super::{Companions, Scan, ScanEntry, ScanHeader, Source, content_digest, nifti, volume_file};
use crate::error::{ConfigError, Error, Fault, FaultKind, Result};
use crate::id::ScanVersion;
use crate::time_span::TimeSpan;

/// The name, or the end of the name, of a file that shows that a scan is complete.
const DONE: &str = ".done";

/// The scope of patients of DICOM headers: equal PatientIDs are the same person in every archive.
const DICOM_SCOPE: &str = "DICOM PatientID";

/// Settings of the source kind `folder`.
///
/// ```toml
/// [sources.archive]
/// kind = "folder"
/// root = "/archive/ct"
/// include = ["*/ct.nii.gz", "*/dicom"]
/// patient = { path_component = 0 }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// Folder to search. Links are followed; names that start with a dot are skipped.
    pub root: PathBuf,
    /// Patterns of scans, relative to `root`: `**/ct.nii.gz`, `imagesTr/*.nii.gz`. `*` matches any characters
    /// within one path component, `**` for any number of components. A folder that matches, such as `*/dicom`, is a DICOM
    /// folder: each series in it is a scan, and the folder is not searched further. Label files must not match: they would
    /// be read as scans.
    pub include: Vec<String>,
    /// Patterns of paths that are not scans although they match `include`, and of files in DICOM folders that are not slices. An excluded
    /// folder is skipped with its content.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether DICOM scans are read without the files of their folder that cannot be read. By default such a file fails its scan, or every
    /// scan of its folder if its series is unknown: a scan without its last slices looks whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_unreadable_files: bool,
    /// Name of the data set in tables; by default the name of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Rule for the patient of a scan; by default the first component of the path.
    #[serde(default)]
    pub patient: PatientConfig,
    /// Time without changes after which the files of a scan are complete, such as `2 min`: with `--follow`, younger scans wait, by default for
    /// 2 minutes; without, they are a warning. A file `NAME.done` beside a scan, or `.done` in its folder, shows that it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<TimeSpan>,
}

/// The source kind `folder`.
///
/// Keys are paths relative to the root, with `/` between components and, for a DICOM folder, `#` and the id of the series.
/// A folder that cannot be listed, a broken link and a folder without a CT series are also listed; reading them is a fault. Names may
/// be any bytes, see the module `key`.
#[derive(Clone, Debug)]
pub struct FolderSource {
    name: String,
    dataset: String,
    root: PathBuf,
    include: GlobSet,
    exclude: GlobSet,
    allow_unreadable_files: bool,
    patient: PatientRule,
    settle: Option<TimeSpan>,
    secret_file: Option<PathBuf>,
    decoder: Decoder,
    limits: nifti::Limits,
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
        Ok(Self {
            name: name.to_owned(),
            dataset: config.dataset.unwrap_or_else(|| name.to_owned()),
            root: config.root,
            include,
            exclude,
            allow_unreadable_files: config.allow_unreadable_files,
            patient,
            settle: config.settle,
            secret_file: None,
            decoder: Decoder::in_process(),
            limits: nifti::Limits::default(),
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
        Self { decoder, ..self }
    }

    /// Sets the limits of reading one scan or label file.
    #[must_use]
    pub fn with_limits(self, limits: nifti::Limits) -> Self {
        Self { limits, ..self }
    }

    /// Lists the entries of a path, and adds to the remarks what a DICOM folder contains beside its scans.
    fn entries_of(&self, found: MatchedPath, secret: &PatientSecret, remarks: &mut Remarks) -> Vec<ScanEntry> {
        let entry = |key: String, files: ScanFiles, header_patient: Option<String>| ScanEntry {
            scan_id: secret.scan_id(&self.name, &key),
            source: self.name.clone(),
            dataset: self.dataset.clone(),
            patient_key: match (&header_patient, self.patient.of_path(&found.key)) {
                (Some(patient), _) => secret.patient_key(DICOM_SCOPE, patient),
                (None, Some(patient)) => secret.patient_key(&self.dataset, patient),
                // Reading this scan is a fault; its key separates it from every other patient.
                (None, None) => secret.patient_key(&self.dataset, &key),
            },
            key,
            bytes: files.bytes,
            modified_s: files.modified_s,
            version: files.version,
        };
        if found.kind == PathKind::File {
            return vec![entry(found.key.clone(), ScanFiles::of_file(&self.root, &found), None)];
        }
        if found.kind != PathKind::Folder {
            return vec![entry(found.key.clone(), ScanFiles::of_unread(&found, &[]), None)];
        }
        let Ok(folder) = self.list_folder(&self.root.join(path_of(&found.key))) else {
            return vec![entry(found.key.clone(), ScanFiles::unreadable(), None)];
        };
        remarks.add_folder(&folder);
        let other_files = folder.other_files.clone();
        let series = folder.into_scans();
        if series.is_empty() {
            remarks.add_fault(&without_series(&other_files));
            let states = FileState::of_path(&self.root.join(path_of(&found.key)));
            return vec![entry(found.key.clone(), ScanFiles::of_unread(&found, &states), None)];
        }
        let entries = series.into_iter().map(|series| {
            let patient = match self.patient {
                PatientRule::Dicom => dicom::patient_id(&series).ok().flatten(),
                _ => None,
            };
            if patient.is_none() && self.patient.of_path(&found.key).is_none() {
                remarks.add_fault(&unknown_patient());
            }
            let entry = entry(format!("{}#{}", found.key, series.id()), ScanFiles::of_series(&series), patient);
            remarks.add_scan(&found.key, entry.scan_id, &series);
            entry
        });
        entries.collect()
    }

    /// Lists the series of a DICOM folder with the settings of the source.
    fn list_folder(&self, folder: &Path) -> Result<DicomFolder, Fault> {
        let is_excluded = |path: &Path| path.strip_prefix(&self.root).is_ok_and(|key| self.exclude.is_match(key));
        dicom::list_folder(
            folder,
            &FolderFilter {
                is_excluded: &is_excluded,
                skip_unreadable: self.allow_unreadable_files,
                decoder: Some(&self.decoder),
            },
        )
    }

    /// Returns the location of an entry on disk.
    fn locate(&self, entry: &ScanEntry) -> Result<ScanLocation, Fault> {
        let key = path_of(&entry.key);
        if !key.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Fault::read(
                FaultKind::Corrupt,
                "expected a key below the source's root, got a path outside of it",
            ));
        }
        let path = self.root.join(&key);
        if path.is_file() {
            return Ok(ScanLocation::File(path));
        }
        if let Some((folder, id)) = entry.key.rsplit_once('#') {
            let folder = self.root.join(path_of(folder));
            if folder.is_dir() {
                let series = self.list_folder(&folder)?.series.into_iter().find(|series| series.id() == id);
                let gone = || Fault::read(FaultKind::Missing, "the series no longer exists in its DICOM folder");
                return Ok(ScanLocation::Series(folder, Box::new(series.ok_or_else(gone)?)));
            }
        }
        if path.is_dir() {
            return Err(without_series(&self.list_folder(&path)?.other_files));
        }
        if let Ok(metadata) = path.metadata() {
            check_regular(metadata.file_type())?;
        }
        Err(missing(&path))
    }

    /// Returns a fault if the patient of a scan is unknown: the scan could be on both sides of a split.
    fn check_patient(&self, entry: &ScanEntry, location: &ScanLocation) -> Result<(), Fault> {
        let known = match (&self.patient, location) {
            (PatientRule::Dicom, ScanLocation::Series(_, series)) => dicom::patient_id(series)?.is_some(),
            (PatientRule::Dicom, ScanLocation::File(_)) => false,
            (_, ScanLocation::File(_)) => self.patient.of_path(&entry.key).is_some(),
            (_, ScanLocation::Series(..)) => {
                entry.key.rsplit_once('#').is_some_and(|(folder, _)| self.patient.of_path(folder).is_some())
            }
        };
        if known {
            return Ok(());
        }
        Err(unknown_patient())
    }
}

/// The location of a scan.
enum ScanLocation {
    File(PathBuf),
    Series(PathBuf, Box<Series>),
}

impl ScanLocation {
    /// Returns the path of the file or the DICOM folder.
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Series(path, _) => path,
        }
    }

    /// Returns the frame of reference of a DICOM series.
    fn frame_of_reference(&self) -> Option<FrameOfReference> {
        match self {
            Self::File(_) => None,
            Self::Series(_, series) => dicom::frame_of_reference(series),
        }
    }
}

impl Source for FolderSource {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        let (entries, remarks) = self.list_archive()?;
        let source = self.name.as_str();
        remarks.sentences().iter().for_each(|sentence| tracing::warn!(source, "{sentence}"));
        if let Some(example) = remarks.unreadable.keys().next() {
            tracing::warn!(
                source,
                "{} DICOM scan(s) cannot be read, for example: {example}",
                remarks.unreadable_scans()
            );
        }
        Ok(entries)
    }

    fn list_archive(&self) -> Result<(Vec<ScanEntry>, ArchiveRemarks)> {
        let secret = PatientSecret::load(self.secret_file.as_deref())?;
        let found = walk::find(&self.root, &self.include, &self.exclude)
            .map_err(|error| Error::io("cannot list the folder of scans", &self.root, error))?;
        let mut remarks = Remarks::default();
        let mut entries: Vec<_> =
            found.into_iter().flat_map(|found| self.entries_of(found, &secret, &mut remarks)).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries.dedup_by(|a, b| a.key == b.key);
        Ok((entries, remarks.finish()))
    }

    fn explain_empty(&self) -> String {
        let root = self.root.display();
        match std::fs::read_dir(&self.root).map(|mut entries| entries.next().is_none()) {
            Ok(true) => format!("the folder {root} is empty: is its disk mounted?"),
            Ok(false) => format!("no path below {root} matches `include` and not `exclude`"),
            Err(cause) => format!("the folder {root} cannot be listed: {cause}"),
        }
    }

    fn check_available(&self) -> Result<()> {
        check_root(&self.root)
    }

    fn settle(&self) -> Option<Duration> {
        self.settle.map(Duration::from)
    }

    fn is_complete(&self, entry: &ScanEntry) -> bool {
        let path = path_of(entry.key.rsplit_once('#').map_or(entry.key.as_str(), |(folder, _)| folder));
        let path = self.root.join(path);
        let mut marker = path.clone().into_os_string();
        marker.push(DONE);
        let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        Path::new(&marker).exists() || folder.is_some_and(|folder| folder.join(DONE).exists())
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn companions(&self, entry: &ScanEntry) -> Option<Arc<dyn Companions>> {
        let path = self.root.join(path_of(&entry.key));
        let path = match entry.key.rsplit_once('#') {
            Some((folder, _)) if !path.exists() => self.root.join(path_of(folder)),
            _ => path,
        };
        Some(Arc::new(FolderCompanions::new(&self.root, &path, self.limits)))
    }

    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        PatientSecret::load(self.secret_file.as_deref()).map(Some)
    }

    fn version(&self, entry: &ScanEntry) -> Result<ScanVersion, Fault> {
        let series = || match self.locate(entry)? {
            ScanLocation::Series(_, series) => Ok(ScanFiles::of_series(&series)),
            ScanLocation::File(path) => Err(missing(&path)),
        };
        ScanFiles::current(&self.root, &entry.key, series).map(|files| files.version)
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        match self.locate(entry)? {
            ScanLocation::File(path) => volume_file::read_header(&path),
            ScanLocation::Series(_, series) => dicom::read_header(&series),
        }
    }

    fn check(&self, entry: &ScanEntry) -> Result<(), Fault> {
        let path = self.root.join(path_of(&entry.key));
        let is_series = !path.exists() && entry.key.contains('#');
        if is_series || path.is_dir() {
            // Listing has read the headers of DICOM folders.
            return Ok(());
        }
        let location = self.locate(entry)?;
        self.check_patient(entry, &location)?;
        volume_file::check(location.path(), &self.limits)
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let location = self.locate(entry)?;
        self.check_patient(entry, &location)?;
        let volume = match &location {
            ScanLocation::File(path) => volume_file::read_volume_within(path, &self.limits)?,
            ScanLocation::Series(_, series) => {
                let limits = dicom::Limits { volume_bytes: self.limits.held_bytes };
                dicom::read_series(series, &self.decoder, &limits)?
            }
        };
        Ok(Scan {
            entry: entry.clone(),
            digest: content_digest(&volume),
            volume,
            companions: Arc::new(
                FolderCompanions::new(&self.root, location.path(), self.limits)
                    .with_frame(location.frame_of_reference()),
            ),
        })
    }
}

fn unknown_patient() -> Fault {
    Fault::read(FaultKind::Missing, "the rule for patients does not match the path or header of this scan")
}

/// Returns the fault of a DICOM folder without a series.
fn without_series(other_files: &BTreeMap<&'static str, usize>) -> Fault {
    if other_files.is_empty() {
        return Fault::read(FaultKind::Missing, "expected a DICOM series, got a folder without one");
    }
    let message = format!("expected CT images in a DICOM folder, got {}", counts(other_files));
    Fault::read(FaultKind::Unsupported, message)
}

fn patterns(field: &str, patterns: &[String], errors: &mut Vec<ConfigError>) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for (index, pattern) in patterns.iter().enumerate() {
        match glob(pattern) {
            Ok(glob) => {
                set.add(glob);
            }
            Err(message) => errors.push(ConfigError::new(format!("{field}[{index}]"), message)),
        }
    }
    set.build().unwrap_or_else(|error| {
        errors.push(ConfigError::new(field, format!("the patterns are too large: {error}")));
        GlobSet::empty()
    })
}

fn glob(pattern: &str) -> Result<Glob, String> {
    let path = Path::new(pattern);
    if path.is_absolute() || path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err(format!("expected a pattern below the root, got `{pattern}`"));
    }
    let relative = pattern.strip_prefix("./").unwrap_or(pattern).trim_end_matches('/');
    if relative.is_empty() {
        return Err(format!("expected a pattern below the root, got `{pattern}`"));
    }
    GlobBuilder::new(relative)
        .literal_separator(true)
        .build()
        .map_err(|error| format!("expected a glob pattern: {error}"))
}
