//! Scans and preprocessing options on the command line.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use super::print::pluralize;
use crate::error::{Error, Fault, Result};
use crate::ingest::{dicom, is_dicom_slice, volume_file};
use crate::volume::{HuWindow, Volume};

/// Reads a NIfTI, NRRD or MetaImage file, or the DICOM series of a folder.
pub fn read_scan(path: &Path) -> Result<Volume> {
    if path.is_dir() {
        return read_series(path, None);
    }
    let named = path.to_str().and_then(|text| text.rsplit_once('#'));
    if let (false, Some((folder, id))) = (path.exists(), named) {
        return read_series(Path::new(folder), Some(id));
    }
    volume_file::read_volume(path).map_err(|fault| {
        let error = read_error(path, &fault);
        if dicom::is_structure_file(path) {
            error.with_hint(
                "the file is a DICOM RT Structure Set or Segmentation: pass its scan, and this file with --labels",
            )
        } else if is_dicom_slice(path) {
            error.with_hint("the file is a DICOM slice: pass the folder of its series")
        } else {
            error
        }
    })
}

fn read_series(folder: &Path, id: Option<&str>) -> Result<Volume> {
    // A crash of a decoder ends the child process, not this command.
    let decoder =
        std::env::current_exe().map_or_else(|_| dicom::Decoder::in_process(), dicom::Decoder::in_child_process);
    let filter = dicom::FolderFilter { decoder: Some(&decoder), ..dicom::FolderFilter::default() };
    let listing = dicom::list_folder(folder, &filter).map_err(|fault| read_error(folder, &fault))?;
    for separation in &listing.separations {
        tracing::warn!("{separation}");
    }
    for [first, second] in &listing.adjoining {
        tracing::warn!(
            "the series {first} and {second} of one patient continue each other: check that they are not pieces of one scan"
        );
    }
    let unread = listing.unread_files();
    let dicom::DicomFolder { series: found, other_files, .. } = listing;
    let volumes: Vec<_> = found.iter().filter(|series| !series.is_other_modality() && !series.is_localizer()).collect();
    let series = match (id, &volumes[..], &found[..]) {
        (Some(id), ..) => found.iter().find(|series| series.id() == id),
        (None, [only], _) => Some(*only),
        // Read the only series, so that its fault explains why it is not a scan.
        (None, [], [only]) => Some(only),
        _ => None,
    };
    let Some(series) = series else {
        return Err(ambiguous(folder, &found, &other_files, id));
    };
    if !unread.is_empty() {
        let list: Vec<String> = unread.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        tracing::warn!("skipped files that are not slices of the scan: {}", list.join(", "));
    }
    dicom::read_series(series, &decoder, &dicom::Limits::default()).map_err(|fault| {
        let names: Vec<String> = series.unreadable_files().map(|path| path.display().to_string()).collect();
        let error = read_error(folder, &fault);
        if names.is_empty() {
            error
        } else {
            error.with_hint(format!("files that cannot be read: {}", shortened(&names)))
        }
    })
}

/// Returns the first names, and the number of the other names.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// Returns the error for a folder without a series, with several, or without the requested one.
fn ambiguous(folder: &Path, found: &[dicom::Series], other_files: &BTreeMap<&str, usize>, id: Option<&str>) -> Error {
    let path = folder.display();
    let objects: Vec<_> = other_files.iter().filter(|(kind, _)| !kind.ends_with("file")).collect();
    if found.is_empty() && !objects.is_empty() {
        let list: Vec<String> = objects.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        return Error::new(format!("{path} is not a scan: expected CT images, got {}", list.join(", ")));
    }
    if found.is_empty() {
        return Error::new(format!("{path} is not a scan: a folder without DICOM images"))
            .with_hint("pass a NIfTI, NRRD or MetaImage file or the folder that contains the slices themselves");
    }
    let list: Vec<String> =
        found.iter().map(|series| format!("{} ({})", series.id(), pluralize(series.files(), "file"))).collect();
    let message = match id {
        Some(id) => format!("{path} has no series {id}, but {}", list.join(", ")),
        None => format!("{path} contains {} series: {}", found.len(), list.join(", ")),
    };
    Error::new(message).with_hint(format!("select one of them: {path}#{}", found[0].id()))
}

/// Converts a fault to an error of this file.
pub fn read_error(path: &Path, fault: &Fault) -> Error {
    let (kind, message) = (fault.kind.name(), &fault.message);
    Error::new(format!("{} cannot be read ({kind}): {message}", path.display())).with_source(fault.clone())
}

/// Parses `LOW,HIGH`.
pub fn window(text: &str) -> Result<HuWindow, String> {
    let numbers: Option<Vec<f32>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[low_hu, high_hu]) if low_hu < high_hu && low_hu.is_finite() && high_hu.is_finite() => {
            Ok(HuWindow { low_hu, high_hu })
        }
        _ => Err("expected two numbers of HU in ascending order with a comma between them, such as -1000,500".into()),
    }
}

/// Parses `N`, for all three axes, or `X,Y,Z`.
pub fn triple<T: FromStr + Copy>(text: &str) -> Result<[T; 3], String> {
    let numbers: Option<Vec<T>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[all]) => Ok([all; 3]),
        Some(&[x, y, z]) => Ok([x, y, z]),
        _ => Err("expected one number, or three with commas between them, such as 96 or 192,192,32".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_parses_two_ordered_numbers() {
        assert_eq!(window("-1000,500").unwrap(), HuWindow::CHEST);
        assert_eq!(window(" -175 , 250").unwrap(), HuWindow::ABDOMEN);
        for text in ["", "1", "1,2,3", "5,5", "9,1", "a,b", "nan,1", "-inf,3"] {
            assert!(window(text).unwrap_err().contains("-1000,500"), "{text}");
        }
    }

    #[test]
    fn triple_accepts_one_or_three_numbers() {
        assert_eq!(triple::<usize>("96").unwrap(), [96; 3]);
        assert_eq!(triple::<f64>("1.25, 1.25,5").unwrap(), [1.25, 1.25, 5.0]);
        for text in ["", "1,2", "1,2,3,4", "x", "-1", "1.5"] {
            assert!(triple::<usize>(text).unwrap_err().contains("192,192,32"), "{text}");
        }
    }
}
