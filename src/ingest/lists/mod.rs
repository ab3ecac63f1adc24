//! Sources that read a list of scans and their labels: `dataset.json` of the Decathlon, folders and folds of nnU-Net.
//!
//! A mask stage reads the label that the list names for a scan with the pattern `{label}`:
//!
//! ```toml
//! [sources.lits]
//! kind = "decathlon"
//! list = "/data/Task03_Liver/dataset.json"
//!
//! [stages.organs]
//! kind = "labels"
//! inputs = ["lits"]
//! pattern = "{label}"
//! scheme = "custom"
//! organs = { liver = { ids = [1], tumor_ids = [2] } }
//! ```

mod decathlon;
mod nnunet;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use decathlon::DecathlonListConfig;
pub use nnunet::{NnunetListConfig, NnunetPart};

use super::file::{check_root, stem};
use super::folder::{FolderCompanions, resolve};
use super::patient::{PatientConfig, PatientRule, PatientSecret};
use super::version::{VersionHasher, modified_s};
use super::volume_file::file_states;
use super::{Companions, Scan, ScanEntry, ScanHeader, Source, content_digest, nifti, volume_file};
use crate::error::{ConfigError, Fault, FaultKind, Result};
use crate::id::ScanVersion;

/// The pattern for the label that a list names.
const LABEL: &str = "{label}";

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ListEntry {
    /// Path of the image, relative to the root.
    image: String,
    /// Path of the label, relative to the root.
    label: Option<String>,
    /// Name of the patient as in the list.
    patient: String,
}

/// The source kinds `decathlon` and `nnunet`: the scans of a list, below a root.
#[derive(Clone, Debug)]
pub struct ListSource {
    name: String,
    dataset: String,
    root: PathBuf,
    scans: Vec<ListEntry>,
    secret_file: Option<PathBuf>,
    limits: nifti::Limits,
}

impl ListSource {
    fn new(name: &str, dataset: Option<String>, root: PathBuf, mut scans: Vec<ListEntry>) -> Self {
        scans.sort_by(|a, b| a.image.cmp(&b.image));
        scans.dedup_by(|a, b| a.image == b.image);
        let dataset = dataset.unwrap_or_else(|| name.to_owned());
        Self { name: name.to_owned(), dataset, root, scans, secret_file: None, limits: nifti::Limits::default() }
    }

    /// Sets the file of the secret for patient keys, which is used unless the environment variable is set.
    #[must_use]
    pub fn with_secret_file(self, file: Option<PathBuf>) -> Self {
        Self { secret_file: file, ..self }
    }

    fn secret(&self) -> Result<PatientSecret> {
        PatientSecret::load(self.secret_file.as_deref())
    }

    fn companions_of(&self, listed: &ListEntry) -> FolderCompanions {
        let label = listed.label.as_ref().map(|label| self.root.join(label));
        FolderCompanions::new(&self.root, &self.root.join(&listed.image), self.limits).with_label(LABEL, label)
    }

    fn version_of(&self, listed: &ListEntry) -> ScanVersion {
        VersionHasher::new().add_files("scan", file_states(&self.root.join(&listed.image))).finish()
    }

    fn list_entry(&self, entry: &ScanEntry) -> Result<&ListEntry, Fault> {
        let found = self.scans.binary_search_by(|listed| listed.image.cmp(&entry.key));
        found
            .map(|index| &self.scans[index])
            .map_err(|_| Fault::read(FaultKind::Missing, "expected an image of the list, got another key"))
    }
}

impl Source for ListSource {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        let secret = self.secret()?;
        let entry = |listed: &ListEntry| {
            let metadata = self.root.join(&listed.image).metadata().ok();
            ScanEntry {
                scan_id: secret.scan_id(&self.name, &listed.image),
                source: self.name.clone(),
                key: listed.image.clone(),
                dataset: self.dataset.clone(),
                patient_key: secret.patient_key(&self.dataset, &listed.patient),
                bytes: metadata.as_ref().map_or(0, |metadata| metadata.len()),
                modified_s: metadata.as_ref().map_or(0, modified_s),
                version: self.version_of(listed),
            }
        };
        Ok(self.scans.iter().map(entry).collect())
    }

    fn explain_empty(&self) -> String {
        "the list has no scans in the selected part".to_owned()
    }

    fn check_available(&self) -> Result<()> {
        check_root(&self.root)
    }

    fn companions(&self, entry: &ScanEntry) -> Option<Arc<dyn Companions>> {
        self.list_entry(entry).ok().map(|listed| Arc::new(self.companions_of(listed)) as Arc<dyn Companions>)
    }

    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        self.secret().map(Some)
    }

    fn version(&self, entry: &ScanEntry) -> Result<ScanVersion, Fault> {
        self.list_entry(entry).map(|listed| self.version_of(listed))
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        volume_file::read_header(self.root.join(&self.list_entry(entry)?.image))
    }

    fn check(&self, entry: &ScanEntry) -> Result<(), Fault> {
        volume_file::check(&self.root.join(&self.list_entry(entry)?.image), &self.limits)
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let listed = self.list_entry(entry)?;
        let path = self.root.join(&listed.image);
        let volume = volume_file::read_volume_within(&path, &self.limits)?;
        let companions = self.companions_of(listed);
        Ok(Scan {
            acquisition: Default::default(),
            entry: entry.clone(),
            digest: content_digest(&volume),
            volume,
            companions: Arc::new(companions),
        })
    }
}

/// Returns a path of a list as a key with `/` between its components; `None` if it is not below the root. Lists may contain absolute
/// paths, which MONAI reads as they are.
fn key_of(root: &Path, path: &str) -> Option<String> {
    let path = Path::new(path);
    let absolute = |path: &Path| resolve(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let root_path = absolute(root);
    let found = absolute(&root_path.join(path));
    let below = match found.strip_prefix(&root_path) {
        Ok(below) => below.to_owned(),
        // The root, or the path in the list, may go through a link.
        Err(_) => {
            let folder = found.parent()?.canonicalize().ok()?;
            folder.strip_prefix(root.canonicalize().ok()?).ok()?.join(found.file_name()?)
        }
    };
    let parts: Option<Vec<&str>> = below.components().map(|part| part.as_os_str().to_str()).collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join("/"))
}

/// Returns the rule for patients; `None` by default: every image is a separate patient.
fn patient_rule(config: &PatientConfig, errors: &mut Vec<ConfigError>) -> Option<PatientRule> {
    if config.dicom {
        errors.push(ConfigError::new(
            "patient.dicom",
            "expected another rule: a list names files, which have no PatientID",
        ));
        return None;
    }
    if *config == PatientConfig::default() {
        return None;
    }
    PatientRule::new(config, "patient").map_err(|more| errors.extend(more)).ok()
}

/// Returns the patient of an image by the rule, or an error if the rule does not match.
fn patient_of(rule: Option<&PatientRule>, image: &str, field: &str) -> Result<String, ConfigError> {
    match rule {
        None => Ok(stem(image.rsplit('/').next().unwrap_or(image)).to_owned()),
        Some(rule) => rule
            .of_path(image)
            .map(str::to_owned)
            .ok_or_else(|| ConfigError::new(field, format!("the rule for patients does not match `{image}`"))),
    }
}

/// Reads a JSON file; `name` is the file in the message of an error.
fn read_json(path: &Path, field: &str, name: &str) -> Result<serde_json::Value, ConfigError> {
    let text = std::fs::read(path).map_err(|cause| {
        ConfigError::new(field, format!("cannot read {name} {}: {cause}", path.display()))
            .with_hint("a relative path starts at the folder of the graph file")
    })?;
    // Some editors write a byte order mark.
    serde_json::from_slice(text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text))
        .map_err(|cause| ConfigError::new(field, format!("expected JSON in {}: {cause}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_relative_to_root_or_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let key = |path: &str| key_of(&root, path);
        assert_eq!(key("./imagesTr/a.nii.gz").as_deref(), Some("imagesTr/a.nii.gz"));
        assert_eq!(key("imagesTr/../b.nii").as_deref(), Some("b.nii"));
        let absolute = root.join("imagesTr/a.nii.gz");
        assert_eq!(key(absolute.to_str().unwrap()).as_deref(), Some("imagesTr/a.nii.gz"));
        assert_eq!(
            key_of(Path::new("/"), absolute.to_str().unwrap()).as_deref(),
            absolute.to_str().unwrap().strip_prefix('/')
        );
        for path in ["", ".", "/etc/passwd", "../a.nii", "a/../../b.nii"] {
            assert_eq!(key(path), None, "{path}");
        }
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&root, &link).unwrap();
            let through_link = link.join("a.nii");
            assert_eq!(key(through_link.to_str().unwrap()).as_deref(), Some("a.nii"));
        }
    }
}
