//! A first graph file for a folder of scans.
//!
//! This module owns the guesses about an unknown folder: which files are scans, where their labels are, and what the ids of the labels
//! mean. Every guess is a setting of the drafted file with a comment, and what was not found is a remark.

mod draft;
mod files;
mod labels;

use std::path::{Path, PathBuf};

pub use draft::draft;
pub use files::PatientGuess;
pub use labels::LabelFiles;

use crate::error::{Error, Result};
use files::FileGroups;

/// A folder of scans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFolderSurvey {
    /// The layout of the scans.
    pub layout: ScanLayout,
    /// Properties that could not be determined, each a sentence.
    pub remarks: Vec<String>,
}

/// The layout of the scans of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanLayout {
    /// A data set of the Decathlon, or of MONAI: its `dataset.json`.
    Decathlon {
        /// The list.
        list: PathBuf,
        /// The ids of the labels with their names.
        labels: Vec<(u16, String)>,
    },
    /// A raw data set of nnU-Net: its folder.
    Nnunet {
        /// The folder with `imagesTr`.
        root: PathBuf,
        /// The ids of the labels with their names.
        labels: Vec<(u16, String)>,
    },
    /// Files and DICOM folders.
    Files {
        /// Patterns of the scans, relative to the folder.
        include: Vec<String>,
        /// The origin of the patient of a scan.
        patient: PatientGuess,
        /// Number of scans, without the series of DICOM folders.
        scans: usize,
        /// The label files; absent if there are none.
        labels: Option<LabelFiles>,
    },
}

/// Looks for scans and labels in a folder. Headers and a few volumes are read.
///
/// # Errors
/// If the folder cannot be listed, or has no scan.
pub fn survey_folder(folder: &Path) -> Result<ScanFolderSurvey> {
    let list = folder.join("dataset.json");
    let (images, labels) = (folder.join("imagesTr"), named_labels(&folder.join("labelsTr/case.nii.gz")));
    if list.is_file() && images.is_dir() {
        let is_nnunet = std::fs::read_dir(&images)
            .map_err(|cause| Error::io("cannot list", &images, cause))?
            .filter_map(std::result::Result::ok)
            .any(|file| file.file_name().to_string_lossy().contains("_0000."));
        let layout = match is_nnunet {
            true => ScanLayout::Nnunet { root: folder.to_owned(), labels },
            false => ScanLayout::Decathlon { list, labels },
        };
        return Ok(ScanFolderSurvey { layout, remarks: Vec::new() });
    }
    let groups = FileGroups::find(folder)?;
    let mut remarks = groups.remarks.clone();
    let Some(scans) = groups.scans() else {
        return Err(Error::new(format!("expected CT scans below {}, got none", folder.display()))
            .with_hint("scans are NIfTI, NRRD and MetaImage files and folders of DICOM slices"));
    };
    let labels = groups.labels(&scans, &mut remarks);
    let (include, patient, scans) = (scans.include, scans.patient, scans.count);
    Ok(ScanFolderSurvey { layout: ScanLayout::Files { include, patient, scans, labels }, remarks })
}

fn named_labels(label: &Path) -> Vec<(u16, String)> {
    crate::ingest::known_label_names(label).into_iter().collect()
}
