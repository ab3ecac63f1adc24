//! The world on disk, and its scans as cases of training.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freetumor::error::{Error, Fault, FaultKind, Result};
use freetumor::ingest::{DecathlonListConfig, ListSource, PatientConfig, Source, dicom, nifti};
use freetumor::mask::{LabelsConfig, LabelsMask, Mask, MaskedScan};
use freetumor::train::data::{CaseEntry, Cases};
use freetumor::volume::Volume;
use serde_json::{Value, json};

use super::config::WorldConfig;
use super::lab::{Lab, refused, say};
use super::world::{Ground, Patients, Role, ScanWorld, World, write_patients};

/// How a mask stage reads the labels of the world.
pub const LABELS: &str =
    "pattern = \"{label}\"\nscheme = \"custom\"\norgans = { liver = { ids = [1], tumor_ids = [2] } }\n";

/// Scans of one list, with the names of their patients.
#[derive(Clone)]
pub struct Scans {
    pub cases: Arc<Cases>,
    pub names: Vec<String>,
}

/// The list of all patients.
pub fn list(lab: &Lab) -> PathBuf {
    lab.out.join("world").join("dataset.json")
}

/// The list in which unlabeled patients have their tumors marked: for the oracle.
fn told(lab: &Lab) -> PathBuf {
    lab.out.join("world").join("oracle.json")
}

/// Writes the world, as far as it is not there.
///
/// # Errors
/// Returns an error if it cannot be written.
pub fn write(lab: &Lab) -> Result<()> {
    let settings = &lab.experiment.world;
    let folder = lab.out.join("world");
    let world = patients(settings)?;
    let roles = [
        (Role::Labeled, "training", settings.labeled),
        (Role::Unlabeled, "unlabeled", settings.unlabeled),
        (Role::Validation, "validation", settings.validation),
        (Role::Test, "test", settings.test),
        (Role::Healthy, "healthy", settings.healthy),
    ];
    for (role, section, patients) in roles {
        if listed(&list(lab), section)?.is_some_and(|there| there.len() == patients) {
            continue;
        }
        say(&format!("world: {patients} patients of the list `{section}`"));
        write_patients(&*world, role, patients, &folder)?;
    }
    let unlabeled = listed(&list(lab), "unlabeled")?.unwrap_or_default();
    let marked: Vec<Value> =
        unlabeled.iter().map(|entry| json!({ "image": entry["image"], "label": entry["truth"] })).collect();
    lab.write_json(&told(lab), &json!({ "unlabeled": marked }))
}

/// The world's patients: phantoms, or real scans.
fn patients(settings: &WorldConfig) -> Result<Box<dyn Patients>> {
    let &WorldConfig { seed, shape, spacing_mm, noise, diameters, .. } = settings;
    if settings.scans.is_empty() {
        return Ok(Box::new(World { seed, shape, spacing_mm, noise, diameters }));
    }
    let mut grounds: BTreeMap<Role, Vec<Arc<Ground>>> = BTreeMap::new();
    for scan in &settings.scans {
        let unreadable = |path: &Path| {
            let path = path.display().to_string();
            move |fault: Fault| Error::new(format!("{path} cannot be read: {fault}")).with_source(fault)
        };
        let volume = volume_of(&scan.image).map_err(unreadable(&scan.image))?;
        let labels = nifti::read_labels(&scan.labels).map_err(unreadable(&scan.labels))?;
        let whole = Ground::new(&volume, &labels, scan.liver).map_err(unreadable(&scan.labels))?;
        let ground = Arc::new(whole.softened(scan.softened_mm));
        scan.roles.iter().for_each(|role| grounds.entry(*role).or_default().push(Arc::clone(&ground)));
    }
    Ok(Box::new(ScanWorld { seed, spacing_mm, diameters, grounds }))
}

/// A NIfTI file, or the one series of a folder.
fn volume_of(path: &Path) -> std::result::Result<Volume, Fault> {
    if !path.is_dir() {
        return nifti::read_volume(path);
    }
    let found = dicom::list_series(path)?;
    let series = found.first().ok_or_else(|| Fault::read(FaultKind::Missing, "expected a DICOM series, got none"))?;
    dicom::read_series(series, &dicom::Decoder::in_process(), &dicom::Limits::default())
}

/// A list of a file, where both are there.
fn listed(path: &Path, section: &str) -> Result<Option<Vec<Value>>> {
    let Ok(bytes) = std::fs::read(path) else { return Ok(None) };
    let json: Value = serde_json::from_slice(&bytes)
        .map_err(|cause| Error::new(format!("{} is no JSON: {cause}", path.display())).with_source(cause))?;
    Ok(json[section].as_array().cloned())
}

/// The scans of a list.
///
/// # Errors
/// Returns an error if the list cannot be read.
pub fn scans(lab: &Lab, section: &str) -> Result<Scans> {
    open(lab, &list(lab), section)
}

/// The unlabeled scans, with their tumors marked.
///
/// # Errors
/// Returns an error if the list cannot be read.
pub fn unlabeled_with_truth(lab: &Lab) -> Result<Scans> {
    open(lab, &told(lab), "unlabeled")
}

fn open(lab: &Lab, list: &Path, section: &str) -> Result<Scans> {
    let config = DecathlonListConfig {
        list: list.to_owned(),
        section: section.to_owned(),
        root: None,
        dataset: None,
        patient: PatientConfig::default(),
    };
    let source = ListSource::decathlon(section, config).map_err(|complaints| refused(section, complaints))?;
    let source = Arc::new(source.with_secret_file(Some(lab.patient_key())));
    let labels: LabelsConfig =
        toml::from_str(LABELS).map_err(|cause| Error::new(format!("labels of the world: {cause}")))?;
    let mask = Arc::new(LabelsMask::new(labels).map_err(|complaints| refused("labels", complaints))?);
    let (mut entries, mut names) = (Vec::new(), Vec::new());
    for entry in source.list()? {
        let file = entry.key.rsplit('/').next().unwrap_or(&entry.key);
        names.push(file.trim_end_matches(".nii.gz").to_owned());
        let (source, mask) = (Arc::clone(&source), Arc::clone(&mask));
        entries.push(CaseEntry::new(entry.scan_id, entry.patient_key, move || {
            let scan = Arc::new(source.read(&entry)?);
            let mask = mask.mask(&scan)?;
            Ok(MaskedScan { scan, mask })
        }));
    }
    Ok(Scans { cases: Arc::new(Cases::new(entries, lab.preprocess()?, u64::MAX)), names })
}

/// The scans of a list that show a tumor.
///
/// # Errors
/// Returns an error if one cannot be read, or none does.
pub fn with_tumors(lab: &Lab, scans: &Scans) -> Result<Arc<Cases>> {
    let mut entries = Vec::new();
    for (index, entry) in scans.cases.entries().iter().enumerate() {
        let case = scans.cases.get(index).map_err(|fault| Error::new(format!("scan {}: {fault}", entry.id)))?;
        if lab.organs.iter().any(|organ| case.index.count(organ.tumor_label) > 0) {
            entries.push(entry.clone());
        }
    }
    if entries.is_empty() {
        return Err(Error::new("no scan of the list has a tumor: there is nothing to draw crops around"));
    }
    Ok(Arc::new(Cases::new(entries, lab.preprocess()?, u64::MAX)))
}
