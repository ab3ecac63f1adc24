//! Folders of label maps and scans, by case name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ingest::{case_name, key_of};

/// A byte order mark, which spreadsheet programs write.
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// Returns the folder of label maps in a data set: the folder itself if it contains volume files (NIfTI, NRRD or MetaImage), else
/// `labelsTs`, `labelsTr` or
/// `labels`.
///
/// # Errors
/// Returns an error if there is no such folder.
pub fn label_folder(path: &Path) -> Result<PathBuf> {
    folder(path, &["labelsTs", "labelsTr", "labels"])
}

/// Returns the folder of scans in a data set: the folder itself if it contains volume files (NIfTI, NRRD or MetaImage), else
/// `imagesTs`, `imagesTr` or `images`.
///
/// # Errors
/// Returns an error if there is no such folder.
pub fn image_folder(path: &Path) -> Result<PathBuf> {
    folder(path, &["imagesTs", "imagesTr", "images"])
}

/// Lists the label maps of a data set by case: of the folder itself if it contains NIfTI files, else of all of `labelsTs`, `labelsTr` and
/// `labels`.
///
/// # Errors
/// Returns an error if there is no label map.
pub fn list_all_labels(path: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let first = label_folder(path)?;
    list_all(path, &first, &["labelsTs", "labelsTr", "labels"])
}

/// Lists the scans of a data set by case, without the suffix `_0000` of nnU-Net, as [`list_all_labels`] lists label maps. Empty if there
/// are none.
///
/// # Errors
/// Returns an error if a folder cannot be read.
pub fn list_all_images(path: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let Ok(first) = image_folder(path) else { return Ok(BTreeMap::new()) };
    let cases = list_all(path, &first, &["imagesTs", "imagesTr", "images"])?.into_iter();
    Ok(cases.map(|(case, path)| (case.strip_suffix("_0000").unwrap_or(&case).to_owned(), path)).collect())
}

/// Lists the folder `first`, and the other inner folders unless the first is the data set itself.
fn list_all(path: &Path, first: &Path, inner: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut cases = list(first)?;
    let others = inner.iter().map(|name| path.join(name)).filter(|folder| first != path && folder != first);
    for folder in others.filter(|folder| folder.is_dir()) {
        for (case, file) in volume_files(&folder)? {
            cases.entry(case).or_insert(file);
        }
    }
    Ok(cases)
}

/// Lists the subfolders of a folder, sorted; empty if the folder does not exist.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub fn folders_in(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries_in(path)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// Lists the tar files of a folder, sorted; empty if the folder does not exist.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub fn tar_files(path: &Path) -> Result<Vec<PathBuf>> {
    let is_tar = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "tar") && path.is_file();
    Ok(entries_in(path)?.into_iter().filter(is_tar).collect())
}

fn entries_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = |error| Error::io("cannot list", folder, error);
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

fn folder(path: &Path, inner: &[&str]) -> Result<PathBuf> {
    let candidates = std::iter::once(path.to_owned()).chain(inner.iter().map(|name| path.join(name)));
    for candidate in candidates {
        if candidate.is_dir() && !volume_files(&candidate)?.is_empty() {
            return Ok(candidate);
        }
    }
    let message = if path.is_dir() { "contains no NIfTI, NRRD or MetaImage file" } else { "is not a folder" };
    Err(Error::new(format!("{} {message}", path.display())).with_hint(format!(
        "use a folder with files such as case-1.nii.gz, or with one of the subfolders {}",
        inner.join(", ")
    )))
}

/// Lists the volume files (NIfTI, NRRD or MetaImage) of a folder by case name, which is the file name without its ending.
///
/// # Errors
/// Returns an error if the folder cannot be read, is empty, or has two files of one case.
pub fn list(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut cases = BTreeMap::new();
    for (case, path) in volume_files(folder)? {
        if let Some(other) = cases.insert(case.clone(), path) {
            return Err(Error::new(format!("expected one file of case {case} in {}, got two", folder.display()))
                .with_hint(format!("remove or rename {}", other.display())));
        }
    }
    if cases.is_empty() {
        return Err(Error::new(format!("{} contains no NIfTI, NRRD or MetaImage file", folder.display())));
    }
    Ok(cases)
}

/// Lists the scans of a folder by case name, without the suffix `_0000` of nnU-Net.
///
/// # Errors
/// Returns the errors of [`list`].
pub fn list_images(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cases = list(folder)?.into_iter();
    Ok(cases.map(|(case, path)| (case.strip_suffix("_0000").unwrap_or(&case).to_owned(), path)).collect())
}

fn volume_files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let unreadable = |error| Error::io("cannot list", folder, error);
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // Names that are not UTF-8 remain different.
        let name = key_of(path.file_name().unwrap_or_default().as_ref());
        let case = case_name(&name);
        if let Some(case) = case.filter(|case| !case.is_empty() && !case.starts_with('.')) {
            cases.push((case.to_owned(), path));
        }
    }
    cases.sort();
    Ok(cases)
}

/// Reads the patients of cases from lines `case,patient`. A first line `case,patient` is a header.
///
/// # Errors
/// Returns an error if the file cannot be read, a line does not have two entries, or a case has two patients.
pub fn patients(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let mut patients = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        match parts[..] {
            ["case", "patient"] if number == 0 => {}
            [case, patient] if !case.is_empty() && !patient.is_empty() => {
                let other = patients.insert(case.to_owned(), patient.to_owned());
                if let Some(other) = other.filter(|other| other != patient) {
                    let (path, line) = (path.display(), number + 1);
                    let message =
                        format!("{path}, line {line}: expected patient {other} of case {case}, got {patient}");
                    return Err(Error::new(message));
                }
            }
            _ => {
                let message = format!("{}, line {}: expected case,patient", path.display(), number + 1);
                return Err(Error::new(message));
            }
        }
    }
    Ok(patients)
}
