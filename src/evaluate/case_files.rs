//! Folders of label maps and scans, by the names of cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Endings of NIfTI files.
const ENDINGS: [&str; 2] = [".nii.gz", ".nii"];

/// The folder of label maps in a data set: the folder itself where it holds any, else `labelsTs`, `labelsTr` or `labels`.
///
/// # Errors
/// Returns an error if there is none.
pub fn label_folder(path: &Path) -> Result<PathBuf> {
    folder(path, &["labelsTs", "labelsTr", "labels"])
}

/// The same for scans.
///
/// # Errors
/// Returns an error if there is none.
pub fn image_folder(path: &Path) -> Result<PathBuf> {
    folder(path, &["imagesTs", "imagesTr", "images"])
}

fn folder(path: &Path, inner: &[&str]) -> Result<PathBuf> {
    let candidates = std::iter::once(path.to_owned()).chain(inner.iter().map(|name| path.join(name)));
    for candidate in candidates {
        if candidate.is_dir() && !found(&candidate)?.is_empty() {
            return Ok(candidate);
        }
    }
    let is_there = if path.is_dir() { "holds no NIfTI file" } else { "is no folder" };
    Err(Error::new(format!("{} {is_there}", path.display()))
        .with_hint(format!("expected .nii.gz files there, or in {} below it", inner.join(", "))))
}

/// The NIfTI files of a folder by case: the name without its ending.
///
/// # Errors
/// Returns an error if the folder cannot be read, is empty, or has two files of one case.
pub fn list(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut cases = BTreeMap::new();
    for (case, path) in found(folder)? {
        if let Some(other) = cases.insert(case.clone(), path) {
            return Err(Error::new(format!("{} holds two files of case {case}", folder.display()))
                .with_hint(format!("one of them is {}", other.display())));
        }
    }
    if cases.is_empty() {
        return Err(Error::new(format!("{} holds no NIfTI file", folder.display())));
    }
    Ok(cases)
}

/// The scans of a folder by case: nnU-Net's `_0000` is not part of the name.
///
/// # Errors
/// As for [`list`].
pub fn list_images(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cases = list(folder)?.into_iter();
    Ok(cases.map(|(case, path)| (case.strip_suffix("_0000").unwrap_or(&case).to_owned(), path)).collect())
}

fn found(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let unreadable = |error| Error::io("cannot list", folder, error);
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let case = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
        if let Some(case) = case.filter(|case| !case.is_empty() && !case.starts_with('.')) {
            cases.push((case.to_owned(), path));
        }
    }
    cases.sort();
    Ok(cases)
}

/// The patients of cases: lines of `case,patient`. A first line `case,patient` is a heading.
///
/// # Errors
/// Returns an error if the file cannot be read, a line has not two entries, or a case has two patients.
pub fn patients(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
    let mut patients = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        match parts[..] {
            ["case", "patient"] if number == 0 => {}
            [case, patient] if !case.is_empty() && !patient.is_empty() => {
                let other = patients.insert(case.to_owned(), patient.to_owned());
                if let Some(other) = other.filter(|other| other != patient) {
                    let (path, line) = (path.display(), number + 1);
                    let message = format!("{path}, line {line}: case {case} is {patient}'s, and {other}'s above");
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
