//! Scans that lie in a folder: NIfTI files and DICOM folders, found by patterns.

mod companions;
mod walk;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use self::companions::FolderCompanions;
use self::walk::{MatchedPath, PathKind};
use super::dicom::{self, Decoder, Series};
use super::file::{check_regular, is_dicom_slice};
use super::patient::{PatientConfig, PatientRule, PatientSecret};
use super::{Scan, ScanEntry, ScanHeader, Source, content_digest, nifti};
use crate::error::{ConfigError, Error, Fault, FaultKind, Result};

/// Patients of DICOM headers are the same person in every archive.
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
    /// The folder to look in. Links in it are followed; names that begin with a dot are passed over.
    pub root: PathBuf,
    /// Patterns of what is a scan, relative to `root`: `**/ct.nii.gz`, `imagesTr/*.nii.gz`. `*` stands for anything
    /// within one part of a path, `**` for any number of parts. A folder that fits, such as `*/dicom`, is a DICOM
    /// folder: each series in it is a scan, and nothing else is looked for inside. Label files must not fit: they would
    /// be read as scans.
    pub include: Vec<String>,
    /// Patterns of what is no scan although it fits `include`. An excluded folder is passed over with all it holds.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// The data set's name in tables; the source's name unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// How the patient of a scan is told; the first part of the path unless set.
    #[serde(default)]
    pub patient: PatientConfig,
}

/// The source kind `folder`.
///
/// Keys are paths relative to the root, with `/` between parts and, for a DICOM folder, `#` and the id of the series. A
/// folder that cannot be listed, a name that is not UTF-8 and a folder without a CT series are listed too; reading them
/// is a fault.
#[derive(Clone, Debug)]
pub struct FolderSource {
    name: String,
    dataset: String,
    root: PathBuf,
    include: GlobSet,
    exclude: GlobSet,
    patient: PatientRule,
    secret_file: Option<PathBuf>,
    decoder: Decoder,
    limits: nifti::Limits,
}

impl FolderSource {
    /// Checks the settings of the source `name`. The secret for patient keys is loaded when scans are listed first, from
    /// where [`PatientSecret::load`] says.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(name: &str, config: FolderConfig) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        if !config.root.is_dir() {
            let message = match config.root.exists() {
                true => "expected a folder, got a file",
                false => "expected a folder, there is none",
            };
            let complaint = ConfigError::new("root", format!("{message}: {}", config.root.display()));
            complaints.push(complaint.with_hint("a relative path begins at the folder of the graph file"));
        }
        if config.include.is_empty() {
            let complaint = ConfigError::new("include", "expected at least one pattern, got none");
            complaints.push(complaint.with_hint("for example include = [\"**/ct.nii.gz\"]"));
        }
        if config.dataset.as_ref().is_some_and(String::is_empty) {
            complaints.push(ConfigError::new("dataset", "expected a name, got an empty one"));
        }
        let include = patterns("include", &config.include, &mut complaints);
        let exclude = patterns("exclude", &config.exclude, &mut complaints);
        let patient = PatientRule::new(&config.patient, "patient").unwrap_or_else(|more| {
            complaints.extend(more);
            PatientRule::PathComponent(0)
        });
        if !complaints.is_empty() {
            return Err(complaints);
        }
        Ok(Self {
            name: name.to_owned(),
            dataset: config.dataset.unwrap_or_else(|| name.to_owned()),
            root: config.root,
            include,
            exclude,
            patient,
            secret_file: None,
            decoder: Decoder::in_process(),
            limits: nifti::Limits::default(),
        })
    }

    /// Takes the secret for patient keys from a file, unless the environment holds it.
    #[must_use]
    pub fn with_secret_file(self, file: Option<PathBuf>) -> Self {
        Self { secret_file: file, ..self }
    }

    /// Decodes compressed DICOM there; in this process unless set.
    #[must_use]
    pub fn with_decoder(self, decoder: Decoder) -> Self {
        Self { decoder, ..self }
    }

    /// What reading one scan or label file may hold.
    #[must_use]
    pub fn with_limits(self, limits: nifti::Limits) -> Self {
        Self { limits, ..self }
    }

    fn entries_of(&self, found: MatchedPath, secret: &PatientSecret) -> Vec<ScanEntry> {
        let entry = |key: String, bytes: u64, modified_s: i64, header_patient: Option<String>| ScanEntry {
            scan_id: secret.scan_id(&self.name, &key),
            source: self.name.clone(),
            dataset: self.dataset.clone(),
            patient_key: match (&header_patient, self.patient.of_key(&key)) {
                (Some(patient), _) => secret.patient_key(DICOM_SCOPE, patient),
                (None, Some(patient)) => secret.patient_key(&self.dataset, patient),
                // Reading it is a fault; its own key keeps it apart from everybody else's.
                (None, None) => secret.patient_key(&self.dataset, &key),
            },
            key,
            bytes,
            modified_s,
        };
        if found.thing != PathKind::Folder {
            return vec![entry(found.key, found.bytes, found.modified_s, None)];
        }
        let series = scans_of(dicom::list_series(&self.root.join(&found.key)).unwrap_or_default());
        if series.is_empty() {
            return vec![entry(found.key, found.bytes, found.modified_s, None)];
        }
        let entries = series.into_iter().map(|series| {
            let patient = match self.patient {
                PatientRule::Dicom => dicom::patient_id(&series).ok().flatten(),
                _ => None,
            };
            entry(format!("{}#{}", found.key, series.id()), series.bytes(), series.modified_s(), patient)
        });
        entries.collect()
    }

    /// What an entry stands for on disk.
    fn locate(&self, entry: &ScanEntry) -> Result<ScanLocation, Fault> {
        let key = Path::new(&entry.key);
        if !key.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Fault::read(
                FaultKind::Corrupt,
                "expected a key below the source's root, came one that leaves it",
            ));
        }
        let path = self.root.join(key);
        if path.is_file() {
            return Ok(ScanLocation::File(path));
        }
        if let Some((folder, id)) = entry.key.rsplit_once('#') {
            let folder = self.root.join(folder);
            if folder.is_dir() {
                let series = dicom::list_series(&folder)?.into_iter().find(|series| series.id() == id);
                let gone = || Fault::read(FaultKind::Missing, "the series is no longer in its DICOM folder");
                return Ok(ScanLocation::Series(folder, Box::new(series.ok_or_else(gone)?)));
            }
        }
        if path.is_dir() {
            dicom::list_series(&path)?;
            return Err(Fault::read(FaultKind::Missing, "expected a DICOM series, the folder holds none"));
        }
        if let Ok(metadata) = path.metadata() {
            check_regular(metadata.file_type())?;
        }
        if entry.key.contains(char::REPLACEMENT_CHARACTER) {
            let message = "expected a name in UTF-8, came other bytes: rename the file or folder";
            return Err(Fault::read(FaultKind::Unsupported, message));
        }
        Err(Fault::read(FaultKind::Missing, "the scan is no longer there"))
    }

    /// A scan whose patient is unknown must not be trained on: it could land on both sides of a split.
    fn known_patient(&self, entry: &ScanEntry, place: &ScanLocation) -> Result<(), Fault> {
        let known = match (&self.patient, place) {
            (PatientRule::Dicom, ScanLocation::Series(_, series)) => dicom::patient_id(series)?.is_some(),
            (PatientRule::Dicom, ScanLocation::File(_)) => false,
            _ => self.patient.of_key(&entry.key).is_some(),
        };
        if known {
            return Ok(());
        }
        Err(Fault::read(FaultKind::Missing, "the rule for patients finds none in this scan's path or header"))
    }
}

/// Where a scan lies.
enum ScanLocation {
    File(PathBuf),
    Series(PathBuf, Box<Series>),
}

impl ScanLocation {
    /// The file or the DICOM folder.
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Series(path, _) => path,
        }
    }
}

impl Source for FolderSource {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        let secret = PatientSecret::load(self.secret_file.as_deref())?;
        let found = walk::find(&self.root, &self.include, &self.exclude)
            .map_err(|error| Error::io("cannot list the folder of scans", &self.root, error))?;
        let mut entries: Vec<_> = found.into_iter().flat_map(|found| self.entries_of(found, &secret)).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries.dedup_by(|a, b| a.key == b.key);
        Ok(entries)
    }

    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        PatientSecret::load(self.secret_file.as_deref()).map(Some)
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        match self.locate(entry)? {
            ScanLocation::File(path) => nifti::read_header(&path).map_err(|fault| explained(fault, &path)),
            ScanLocation::Series(_, series) => dicom::read_header(&series),
        }
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let place = self.locate(entry)?;
        self.known_patient(entry, &place)?;
        let volume = match &place {
            ScanLocation::File(path) => {
                nifti::read_volume_within(path, &self.limits).map_err(|fault| explained(fault, path))?
            }
            ScanLocation::Series(_, series) => {
                let limits = dicom::Limits { volume_bytes: self.limits.held_bytes };
                dicom::read_series(series, &self.decoder, &limits)?
            }
        };
        Ok(Scan {
            entry: entry.clone(),
            digest: content_digest(&volume),
            volume,
            companions: Arc::new(FolderCompanions::new(&self.root, place.path(), self.limits)),
        })
    }
}

/// The series that are scans: scouts and other modalities are passed over, unless there is nothing else to report.
fn scans_of(series: Vec<Series>) -> Vec<Series> {
    let is_scan = |series: &Series| !series.is_localizer() && !series.is_other_modality();
    if series.iter().any(is_scan) { series.into_iter().filter(is_scan).collect() } else { series }
}

/// A fault of a file that is a DICOM slice says what to do instead.
fn explained(fault: Fault, path: &Path) -> Fault {
    if fault.kind == FaultKind::Corrupt && is_dicom_slice(path) {
        let message = "a DICOM slice by itself is no scan: let the pattern fit its folder";
        return Fault::read(FaultKind::Unsupported, message);
    }
    fault
}

fn patterns(field: &str, patterns: &[String], complaints: &mut Vec<ConfigError>) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for (index, pattern) in patterns.iter().enumerate() {
        match glob(pattern) {
            Ok(glob) => {
                set.add(glob);
            }
            Err(message) => complaints.push(ConfigError::new(format!("{field}[{index}]"), message)),
        }
    }
    set.build().unwrap_or_else(|error| {
        complaints.push(ConfigError::new(field, format!("the patterns are too large together: {error}")));
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
    GlobBuilder::new(relative).literal_separator(true).build().map_err(|error| format!("no pattern: {error}"))
}
