//! Data sets on disk: images and labels by case, and the patients of the cases.
//!
//! A data set is a folder of NIfTI files, or one of the layouts of a run folder or an export: folders of images and labels, or tar shards,
//! which are unpacked into a temporary folder. The patients are those of its `patients.csv`, of the run folder that contains it, or of
//! the shards.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::case_files;
use crate::error::{Error, Result};
use crate::record::parquet::decode_part;
use crate::record::schema::Table;
use crate::record::{SampleRow, Split};
use crate::run::RunFolder;
use crate::sink::pairs::{PATIENTS, Pair};
use crate::sink::tar::for_each_member;

/// A selection of the cases of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseSelection {
    /// The cases to evaluate on: those of the test split, or all if there are none.
    Evaluation,
    /// All cases.
    All,
}

/// A data set on disk.
#[derive(Debug, Default)]
pub struct DataSet {
    /// The images, by case.
    pub images: BTreeMap<String, PathBuf>,
    /// The label maps, by case.
    pub labels: BTreeMap<String, PathBuf>,
    /// The patients of cases, as far as they are known; every other case is a separate patient.
    pub patients: BTreeMap<String, String>,
    /// Unpacked shards.
    scratch: Option<tempfile::TempDir>,
}

impl DataSet {
    /// Opens a data set: a run folder, a layout of it, an export, or a folder of NIfTI files with or without subfolders for images and
    /// labels.
    ///
    /// # Errors
    /// If the folder has no label maps, or cannot be read.
    pub fn open(path: &Path, selection: CaseSelection) -> Result<Self> {
        let folder = only_data_set_in(path)?;
        let mut data_set = if RunFolder::exists(path) {
            Self::of_run(path, selection)?
        } else {
            match shards_in(path, selection)?[..] {
                [] => Self::of_folders(&folder, selection)?,
                ref shards => Self::unpack(shards)?,
            }
        };
        if data_set.patients.is_empty() {
            data_set.patients = patients_of(&folder)?;
        }
        data_set.patients.retain(|case, _| data_set.labels.contains_key(case));
        Ok(data_set)
    }

    fn of_folders(folder: &Path, selection: CaseSelection) -> Result<Self> {
        let labels = match selection {
            CaseSelection::Evaluation => case_files::list(&case_files::label_folder(folder)?)?,
            CaseSelection::All => case_files::list_all_labels(folder)?,
        };
        Ok(Self { images: case_files::list_all_images(folder)?, labels, ..Self::default() })
    }

    /// Opens the images and labels of a run folder, or else its shards of whole volumes.
    fn of_run(path: &Path, selection: CaseSelection) -> Result<Self> {
        let run = RunFolder::open(path)?;
        let pairs: Vec<Pair> =
            if run.tables(None)?.iter().any(|table| table == "pairs") { run.pairs()? } else { Vec::new() };
        if pairs.is_empty() {
            for layout in case_files::folders_in(&path.join("layouts"))? {
                let shards = shards_in(&layout, selection)?;
                if !shards.is_empty() && !has_patches(&shards[0])? {
                    return Self::unpack(&shards);
                }
            }
            return Err(Error::new(format!("{} has no samples as whole volumes", path.display()))
                .with_hint("make a data set from its patches with `freetumor export`, and pass that folder"));
        }
        let has_test = selection == CaseSelection::Evaluation && pairs.iter().any(|pair| pair.split == Split::Test);
        let mut data_set = Self::default();
        for pair in pairs.into_iter().filter(|pair| !has_test || pair.split == Split::Test) {
            let case = pair.sample_id.to_string();
            data_set.images.insert(case.clone(), path.join(pair.image_path()));
            data_set.labels.insert(case.clone(), path.join(pair.label_path()));
            data_set.patients.insert(case, pair.patient_key.to_string());
        }
        Ok(data_set)
    }

    /// Unpacks shards of whole volumes.
    fn unpack(shards: &[PathBuf]) -> Result<Self> {
        let scratch = tempfile::tempdir().map_err(|cause| Error::io("cannot create", std::env::temp_dir(), cause))?;
        let mut data_set = Self::default();
        for shard in shards {
            if has_patches(shard)? {
                return Err(Error::new(format!("{} contains patches, expected whole volumes", shard.display()))
                    .with_hint("make a data set from the patches with `freetumor export`, and pass that folder"));
            }
            let file = File::open(shard).map_err(|cause| Error::io("cannot read", shard, cause))?;
            let unpacked = for_each_member(file, &mut |name, content| {
                let Some((case, kind)) = name.split_once('.').filter(|(case, _)| !case.contains('/')) else {
                    return Ok(());
                };
                let path = scratch.path().join(name);
                match kind {
                    "image.nii.gz" => drop(data_set.images.insert(case.to_owned(), path.clone())),
                    "label.nii.gz" => drop(data_set.labels.insert(case.to_owned(), path.clone())),
                    "json" => {
                        let row: serde_json::Value = serde_json::from_reader(content)?;
                        let patient = row["patient_key"].as_str().map(str::to_owned);
                        patient
                            .into_iter()
                            .for_each(|patient| drop(data_set.patients.insert(case.to_owned(), patient)));
                        return Ok(());
                    }
                    _ => return Ok(()),
                }
                io::copy(content, &mut File::create(path)?).map(drop)
            });
            unpacked.map_err(|cause| Error::io("cannot unpack", shard, cause))?;
        }
        data_set.scratch = Some(scratch);
        Ok(data_set)
    }
}

/// Returns the data set in a folder: that of its only subfolder `DatasetNNN_NAME`, if there is one, else the folder itself.
///
/// # Errors
/// If there are several such subfolders, or the folder cannot be listed.
fn only_data_set_in(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let is_data_set = |folder: &PathBuf| {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("Dataset") && folder.join("dataset.json").exists()
    };
    let found: Vec<PathBuf> = case_files::folders_in(path)?.into_iter().filter(is_data_set).collect();
    match &found[..] {
        [] => Ok(path.to_owned()),
        [only] => Ok(only.clone()),
        [first, ..] => Err(Error::new(format!("{} contains {} data sets, expected one", path.display(), found.len()))
            .with_hint(format!("pass one of them, such as {}", first.display()))),
    }
}

/// Returns the tar shards of a folder, or of its subfolders by split.
fn shards_in(path: &Path, selection: CaseSelection) -> Result<Vec<PathBuf>> {
    let own = case_files::tar_files(path)?;
    if !own.is_empty() {
        return Ok(own);
    }
    let of_split = |split: Split| case_files::tar_files(&path.join(split.name()));
    let test = of_split(Split::Test)?;
    if selection == CaseSelection::Evaluation && !test.is_empty() {
        return Ok(test);
    }
    Ok([of_split(Split::Train)?, of_split(Split::Validation)?, test].concat())
}

/// Returns whether a shard contains patches instead of whole volumes.
fn has_patches(shard: &Path) -> Result<bool> {
    let file = File::open(shard).map_err(|cause| Error::io("cannot read", shard, cause))?;
    let mut has_patches = false;
    let read = for_each_member(file, &mut |name, _| {
        has_patches |= name.ends_with(".after.nii.gz");
        // The first member decides.
        Err(io::ErrorKind::Interrupted.into())
    });
    match read {
        Err(cause) if cause.kind() != io::ErrorKind::Interrupted => Err(Error::io("cannot read", shard, cause)),
        _ => Ok(has_patches),
    }
}

/// Returns the patients of the cases in a folder: those of its `patients.csv`, or of the samples of the run folder above.
fn patients_of(folder: &Path) -> Result<BTreeMap<String, String>> {
    let list = folder.join(PATIENTS);
    if list.is_file() {
        return case_files::patients(&list);
    }
    let mut patients = BTreeMap::new();
    let above = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(path) = above.ancestors().find(|path| RunFolder::exists(path)) else { return Ok(patients) };
    let run = RunFolder::open(path)?;
    for file in run.files(Table::Samples.name(), None)? {
        for SampleRow { record, .. } in decode_part::<SampleRow>(run.read_verified(&file)?)? {
            patients.insert(record.sample_id.to_string(), record.patient_key.to_string());
        }
    }
    Ok(patients)
}
