//! The population on disk, and its scans as cases for training.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freetumor::error::{Error, Fault, FaultKind, Result};
use freetumor::ingest::{DecathlonListConfig, ListSource, PatientConfig, Source, dicom, nifti};
use freetumor::mask::{LabelsConfig, LabelsMask, Mask, MaskedScan};
use freetumor::train::data::{CaseEntry, Cases};
use freetumor::volume::Volume;
use serde_json::{Value, json};

use super::config::PopulationConfig;
use super::population::{BaseScan, PatientSource, Population, Role, ScanPopulation, write_patients};
use super::workspace::{Workspace, print_status, settings_error};

/// The settings of a mask stage that reads the labels of the population.
pub const LABELS: &str =
    "pattern = \"{label}\"\nscheme = \"custom\"\norgans = { liver = { ids = [1], tumor_ids = [2] } }\n";

/// The scans of one list, with the names of their patients.
#[derive(Clone)]
pub struct Scans {
    pub cases: Arc<Cases>,
    pub names: Vec<String>,
}

/// Returns the path of the list of all patients.
pub fn list(workspace: &Workspace) -> PathBuf {
    workspace.out.join("world").join("dataset.json")
}

/// Returns the path of the list for the oracle, in which the tumors of unlabeled patients are labeled.
fn oracle_list(workspace: &Workspace) -> PathBuf {
    workspace.out.join("world").join("oracle.json")
}

/// Writes the lists of the population that are missing.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn write(workspace: &Workspace) -> Result<()> {
    let settings = &workspace.experiment.population;
    let folder = workspace.out.join("world");
    let population = patients(settings)?;
    let roles = [
        (Role::Labeled, "training", settings.labeled),
        (Role::Unlabeled, "unlabeled", settings.unlabeled),
        (Role::Validation, "validation", settings.validation),
        (Role::Test, "test", settings.test),
        (Role::Healthy, "healthy", settings.healthy),
    ];
    for (role, section, patients) in roles {
        if read_list(&list(workspace), section)?.is_some_and(|entries| entries.len() == patients) {
            continue;
        }
        print_status(&format!("world: {patients} patients of the list `{section}`"));
        write_patients(&*population, role, patients, &folder)?;
    }
    let unlabeled = read_list(&list(workspace), "unlabeled")?.unwrap_or_default();
    let entries: Vec<Value> =
        unlabeled.iter().map(|entry| json!({ "image": entry["image"], "label": entry["truth"] })).collect();
    workspace.write_json(&oracle_list(workspace), &json!({ "unlabeled": entries }))
}

/// Opens the patients of the population: phantoms or real scans.
fn patients(settings: &PopulationConfig) -> Result<Box<dyn PatientSource>> {
    let &PopulationConfig { seed, shape, spacing_mm, noise, diameters, .. } = settings;
    if settings.scans.is_empty() {
        return Ok(Box::new(Population { seed, shape, spacing_mm, noise, diameters }));
    }
    let mut base_scans: BTreeMap<Role, Vec<Arc<BaseScan>>> = BTreeMap::new();
    for scan in &settings.scans {
        let unreadable = |path: &Path| {
            let path = path.display().to_string();
            move |fault: Fault| Error::new(format!("cannot read {path}: {fault}")).with_source(fault)
        };
        let volume = read_volume(&scan.image).map_err(unreadable(&scan.image))?;
        let labels = nifti::read_labels(&scan.labels).map_err(unreadable(&scan.labels))?;
        let base_scan = BaseScan::new(&volume, &labels, scan.liver).map_err(unreadable(&scan.labels))?;
        let base_scan = Arc::new(base_scan.softened(scan.softened_mm));
        scan.roles.iter().for_each(|role| base_scans.entry(*role).or_default().push(Arc::clone(&base_scan)));
    }
    Ok(Box::new(ScanPopulation { seed, spacing_mm, diameters, base_scans }))
}

/// Reads a NIfTI file, or the first series of a folder.
fn read_volume(path: &Path) -> std::result::Result<Volume, Fault> {
    if !path.is_dir() {
        return nifti::read_volume(path);
    }
    let all = dicom::list_series(path)?;
    let series = all.first().ok_or_else(|| Fault::read(FaultKind::Missing, "expected a DICOM series, got none"))?;
    dicom::read_series(series, &dicom::Decoder::in_process(), &dicom::Limits::default())
}

/// Reads a list of a file; returns `None` if the file or the list does not exist.
fn read_list(path: &Path, section: &str) -> Result<Option<Vec<Value>>> {
    let Ok(bytes) = std::fs::read(path) else { return Ok(None) };
    let json: Value = serde_json::from_slice(&bytes)
        .map_err(|cause| Error::new(format!("{} is not valid JSON: {cause}", path.display())).with_source(cause))?;
    Ok(json[section].as_array().cloned())
}

/// Lists the scans of a list.
///
/// # Errors
/// Returns an error if the list cannot be read.
pub fn scans(workspace: &Workspace, section: &str) -> Result<Scans> {
    open(workspace, &list(workspace), section)
}

/// Lists the unlabeled scans with labeled tumors.
///
/// # Errors
/// Returns an error if the list cannot be read.
pub fn unlabeled_with_truth(workspace: &Workspace) -> Result<Scans> {
    open(workspace, &oracle_list(workspace), "unlabeled")
}

fn open(workspace: &Workspace, list: &Path, section: &str) -> Result<Scans> {
    let config = DecathlonListConfig {
        list: list.to_owned(),
        section: section.to_owned(),
        root: None,
        dataset: None,
        patient: PatientConfig::default(),
    };
    let source = ListSource::decathlon(section, config).map_err(|errors| settings_error(section, errors))?;
    let source = Arc::new(source.with_secret_file(Some(workspace.patient_key())));
    let labels: LabelsConfig =
        toml::from_str(LABELS).map_err(|cause| Error::new(format!("labels of the population: {cause}")))?;
    let mask = Arc::new(LabelsMask::new(labels).map_err(|errors| settings_error("labels", errors))?);
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
    Ok(Scans { cases: Arc::new(Cases::new(entries, workspace.preprocess()?, u64::MAX)), names })
}

/// Returns the scans with a tumor.
///
/// # Errors
/// Returns an error if a scan cannot be read, or no scan has a tumor.
pub fn cases_with_tumors(workspace: &Workspace, scans: &Scans) -> Result<Arc<Cases>> {
    let mut entries = Vec::new();
    for (index, entry) in scans.cases.entries().iter().enumerate() {
        let case = scans.cases.get(index).map_err(|fault| Error::new(format!("scan {}: {fault}", entry.id)))?;
        if workspace.organs.iter().any(|organ| case.index.count(organ.tumor_label) > 0) {
            entries.push(entry.clone());
        }
    }
    if entries.is_empty() {
        return Err(Error::new("expected at least one scan with a tumor, got none"));
    }
    Ok(Arc::new(Cases::new(entries, workspace.preprocess()?, u64::MAX)))
}
