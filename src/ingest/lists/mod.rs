//! Scans that a list names, with their labels: the Decathlon's `dataset.json`, nnU-Net's folders and folds.
//!
//! A mask stage takes the label that the list has for a scan by the pattern `{label}`:
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

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

pub use decathlon::DecathlonListConfig;
pub use nnunet::{NnunetListConfig, NnunetPart};

use super::file::stem;
use super::folder::FolderCompanions;
use super::patient::{PatientConfig, PatientRule, PatientSecret};
use super::{Companions, Scan, ScanEntry, ScanHeader, Source, content_digest, nifti};
use crate::error::{ConfigError, Fault, FaultKind, Result, Stage};
use crate::volume::Labels;

/// The pattern that stands for the label that a list has.
const LABEL: &str = "{label}";

/// A scan of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ListEntry {
    /// Its image, relative to the root.
    image: String,
    /// Its label, relative to the root.
    label: Option<String>,
    /// Its patient, in the list's own words.
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

    /// Takes the secret for patient keys from a file, unless the environment holds it.
    #[must_use]
    pub fn with_secret_file(self, file: Option<PathBuf>) -> Self {
        Self { secret_file: file, ..self }
    }

    fn secret(&self) -> Result<PatientSecret> {
        PatientSecret::load(self.secret_file.as_deref())
    }

    fn listed(&self, entry: &ScanEntry) -> Result<&ListEntry, Fault> {
        let found = self.scans.binary_search_by(|listed| listed.image.cmp(&entry.key));
        found
            .map(|at| &self.scans[at])
            .map_err(|_| Fault::read(FaultKind::Missing, "expected a scan of the list, it has no such image"))
    }
}

impl Source for ListSource {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        let secret = self.secret()?;
        let entry = |listed: &ListEntry| {
            let metadata = self.root.join(&listed.image).metadata().ok();
            let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
            let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            ScanEntry {
                scan_id: secret.scan_id(&self.name, &listed.image),
                source: self.name.clone(),
                key: listed.image.clone(),
                dataset: self.dataset.clone(),
                patient_key: secret.patient_key(&self.dataset, &listed.patient),
                bytes: metadata.map_or(0, |metadata| metadata.len()),
                modified_s: modified.map_or(0, |time| time.as_secs() as i64),
            }
        };
        Ok(self.scans.iter().map(entry).collect())
    }

    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        self.secret().map(Some)
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        nifti::read_header(self.root.join(&self.listed(entry)?.image))
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let listed = self.listed(entry)?;
        let path = self.root.join(&listed.image);
        let volume = nifti::read_volume_within(&path, &self.limits)?;
        let beside = ListLabel {
            label: listed.label.as_ref().map(|label| self.root.join(label)),
            others: FolderCompanions::new(&self.root, &path, self.limits),
            limits: self.limits,
        };
        Ok(Scan { entry: entry.clone(), digest: content_digest(&volume), volume, companions: Arc::new(beside) })
    }
}

/// The label that a list has for a scan, and what lies beside it.
struct ListLabel {
    label: Option<PathBuf>,
    others: FolderCompanions,
    limits: nifti::Limits,
}

impl Companions for ListLabel {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        if pattern != LABEL {
            return self.others.labels(pattern);
        }
        let Some(path) = &self.label else {
            return Err(Fault::mask(FaultKind::Missing, "the list has no label for this scan"));
        };
        nifti::read_labels_within(path, &self.limits).map_err(|fault| fault.at(Stage::Mask))
    }
}

/// A path of a list as a key: below the root, parts separated by `/`.
fn key_of(written: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(written).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The rule for patients; unless set, `None`: every image is a patient of its own.
fn patient_rule(config: &PatientConfig, complaints: &mut Vec<ConfigError>) -> Option<PatientRule> {
    if config.dicom {
        complaints.push(ConfigError::new("patient.dicom", "lists name NIfTI files, which have no PatientID"));
        return None;
    }
    if *config == PatientConfig::default() {
        return None;
    }
    PatientRule::new(config, "patient").map_err(|more| complaints.extend(more)).ok()
}

/// The patient of an image by the rule; a complaint where it finds none.
fn patient_of(rule: Option<&PatientRule>, image: &str, field: &str) -> Result<String, ConfigError> {
    match rule {
        None => Ok(stem(image.rsplit('/').next().unwrap_or(image)).to_owned()),
        Some(rule) => rule
            .of_key(image)
            .map(str::to_owned)
            .ok_or_else(|| ConfigError::new(field, format!("the rule for patients finds none in `{image}`"))),
    }
}

/// Reads JSON of any form.
fn read_json(path: &Path, field: &str, what: &str) -> Result<serde_json::Value, ConfigError> {
    let text = std::fs::read(path).map_err(|cause| {
        ConfigError::new(field, format!("cannot read {what} {}: {cause}", path.display()))
            .with_hint("a relative path begins at the folder of the graph file")
    })?;
    serde_json::from_slice(&text)
        .map_err(|cause| ConfigError::new(field, format!("{} is not JSON: {cause}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_below_the_root() {
        assert_eq!(key_of("./imagesTr/a.nii.gz").as_deref(), Some("imagesTr/a.nii.gz"));
        for path in ["", ".", "/etc/passwd", "../a.nii", "a/../../b.nii"] {
            assert_eq!(key_of(path), None, "{path}");
        }
    }
}
