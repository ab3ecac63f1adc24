//! Writes the scans of a population in the layout of the Medical Segmentation Decathlon.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use freetumor::error::{Error, Result};
use freetumor::ingest::nifti::{Datatype, encode_header};
use freetumor::store::write_atomic;
use freetumor::volume::{Array3, Grid, Voxels};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::labels::{LIVER, TUMOR};
use super::patient::{Patient, PatientSource, Role};

/// The gzip level, for small files that are written once.
const LEVEL: u32 = 4;
const IMAGE: &str = "CT with tumors of a world, freetumor";
const LABEL: &str = "labels of a world, freetumor";

/// Returns the folders of images and labels of a role, and the name of its list.
fn folders(role: Role) -> [&'static str; 3] {
    match role {
        Role::Labeled => ["imagesTr", "labelsTr", "training"],
        Role::Unlabeled => ["imagesUn", "labelsUn", "unlabeled"],
        Role::Validation => ["imagesVa", "labelsVa", "validation"],
        Role::Test => ["imagesTs", "labelsTs", "test"],
        Role::Healthy => ["imagesHe", "labelsHe", "healthy"],
    }
}

/// Writes the first `patients` patients of a role to `folder`, and adds their list to `dataset.json` in the folder.
///
/// Entries are `{image, label}`. The labels of unlabeled patients contain only the liver; their third entry, `truth`, in `truthUn/`, is
/// for the oracle and for analysis. Every file is written atomically, has reproducible bytes, and replaces an existing file.
///
/// # Errors
/// Returns an error if a file cannot be written, `folder` contains another population, or a patient cannot be made.
pub fn write_patients(
    population: &(impl PatientSource + ?Sized),
    role: Role,
    patients: usize,
    folder: &Path,
) -> Result<()> {
    let [images, labels, list] = folders(role);
    let truths = (role == Role::Unlabeled).then_some("truthUn");
    for name in [images, labels].into_iter().chain(truths) {
        let path = folder.join(name);
        fs::create_dir_all(&path).map_err(|error| Error::io("cannot create the folder", &path, error))?;
    }
    let path = folder.join("dataset.json");
    let mut dataset = read_or_create(&path, population)?;
    let entries = (0..patients).into_par_iter().map(|number| {
        let patient = population.patient(role, number).map_err(|fault| {
            Error::new(format!("patient {number} of role {}: {}", role.name(), fault.message)).with_source(fault)
        })?;
        let file = format!("{}.nii.gz", patient.name);
        write_image(&folder.join(images).join(&file), &patient)?;
        write_ids(&folder.join(labels).join(&file), &patient.volume.grid, &patient.labels)?;
        let mut entry = json!({ "image": format!("./{images}/{file}"), "label": format!("./{labels}/{file}") });
        if let Some(truths) = truths {
            write_ids(&folder.join(truths).join(&file), &patient.volume.grid, &patient.truth)?;
            entry["truth"] = json!(format!("./{truths}/{file}"));
        }
        Ok(entry)
    });
    dataset[list] = Value::Array(entries.collect::<Result<_>>()?);
    dataset["numTraining"] = json!(dataset["training"].as_array().map_or(0, Vec::len));
    dataset["numTest"] = json!(dataset["test"].as_array().map_or(0, Vec::len));
    let text = format!("{dataset:#}\n");
    write_atomic(&path, |out| out.write_all(text.as_bytes())).map_err(|error| Error::io("cannot write", &path, error))
}

/// Reads the description of the data set, or creates a new one.
fn read_or_create(path: &Path, population: &(impl PatientSource + ?Sized)) -> Result<Value> {
    let description = population.describe();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(json!({
                "name": "freetumor world",
                "description": "Patients with tumors of a model that is independent of the synthesis.",
                "tensorImageSize": "3D",
                "modality": { "0": "CT" },
                "labels": { "0": "background", LIVER.to_string(): "liver", TUMOR.to_string(): "liver tumor" },
                "world": description,
            }));
        }
        Err(error) => return Err(Error::io("cannot read", path, error)),
    };
    let dataset: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(format!("{} is not valid JSON: {error}", path.display())).with_source(error))?;
    if dataset["world"] == description {
        return Ok(dataset);
    }
    Err(Error::new(format!("{}: expected the population {description}, got {}", path.display(), dataset["world"]))
        .with_hint("write each population to a separate folder"))
}

fn write_image(path: &Path, patient: &Patient) -> Result<()> {
    let bytes: Vec<u8> = match &patient.volume.voxels {
        Voxels::I16(hu) => hu.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect(),
        Voxels::F32(hu) => hu.as_slice().iter().flat_map(|hu| (hu.round() as i16).to_le_bytes()).collect(),
    };
    write_nifti(path, &patient.volume.grid, Datatype::I16, IMAGE, &bytes)
}

fn write_ids(path: &Path, grid: &Grid, ids: &Array3<u8>) -> Result<()> {
    write_nifti(path, grid, Datatype::U8, LABEL, ids.as_slice())
}

fn write_nifti(path: &Path, grid: &Grid, datatype: Datatype, description: &str, voxels: &[u8]) -> Result<()> {
    let header = encode_header(grid, datatype, description)
        .map_err(|fault| Error::new(format!("{}: {}", path.display(), fault.message)).with_source(fault))?;
    write_atomic(path, |out| {
        let mut out = GzEncoder::new(out, Compression::new(LEVEL));
        out.write_all(&header)?;
        out.write_all(voxels)?;
        out.finish().map(|_| ())
    })
    .map_err(|error| Error::io("cannot write", path, error))
}

#[cfg(test)]
mod tests {
    use freetumor::ingest::nifti;

    use super::super::patient::Population;
    use super::*;

    #[test]
    fn write_patients_shares_folder_between_roles_but_not_populations() {
        let folder = tempfile::tempdir().unwrap();
        let population = Population::new(11);
        write_patients(&population, Role::Unlabeled, 2, folder.path()).unwrap();
        write_patients(&population, Role::Test, 1, folder.path()).unwrap();
        let dataset: Value = serde_json::from_slice(&fs::read(folder.path().join("dataset.json")).unwrap()).unwrap();
        let entry = &dataset["test"][0];
        assert_eq!((&entry["image"], &dataset["numTest"]), (&json!("./imagesTs/test_000.nii.gz"), &json!(1)));
        assert_eq!(dataset["unlabeled"].as_array().unwrap().len(), 2);
        let patient = population.patient(Role::Test, 0).unwrap();
        let file = |key: &str| folder.path().join(entry[key].as_str().unwrap());
        let volume = nifti::read_volume(file("image")).unwrap();
        assert_eq!(volume.voxels, patient.volume.voxels);
        assert!(volume.grid.agrees_with(&patient.volume.grid));
        let labels = nifti::read_labels(file("label")).unwrap();
        assert_eq!(labels.ids, patient.truth.map(|id| u16::from(*id)));

        let before = fs::read(file("image")).unwrap();
        write_patients(&population, Role::Test, 1, folder.path()).unwrap();
        assert_eq!(fs::read(file("image")).unwrap(), before);
        let other = write_patients(&Population::new(12), Role::Test, 1, folder.path()).unwrap_err();
        assert!(other.to_string().contains("\"seed\":11") && other.hint().is_some(), "{other}");
    }
}
