//! The kinds of files in a DICOM folder: slices, other objects, and files whose name shows that they are not DICOM.

use std::ffi::OsStr;
use std::path::Path;

use dicom_dictionary_std::uids;

/// The prefix of identifiers of the standard; vendors use others.
const STANDARD: &str = "1.2.840.10008.";

/// Classes of CT images, in which each file or frame is a slice.
const CT_CLASSES: [&str; 3] =
    [uids::CT_IMAGE_STORAGE, uids::ENHANCED_CT_IMAGE_STORAGE, uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE];

/// Names of the classes that are found beside CT images, by the start of their identifiers; longer starts first.
const OTHER_CLASSES: [(&str, &str); 22] = [
    ("1.2.840.10008.1.3.10", "DICOMDIR"),
    ("1.2.840.10008.5.1.4.1.1.7", "secondary capture"),
    ("1.2.840.10008.5.1.4.1.1.128", "PET image"),
    ("1.2.840.10008.5.1.4.1.1.130", "PET image"),
    ("1.2.840.10008.5.1.4.1.1.20", "nuclear medicine image"),
    ("1.2.840.10008.5.1.4.1.1.481.1", "radiotherapy image"),
    ("1.2.840.10008.5.1.4.1.1.481.2", "radiotherapy dose"),
    ("1.2.840.10008.5.1.4.1.1.481.3", "radiotherapy structure set"),
    ("1.2.840.10008.5.1.4.1.1.481.5", "radiotherapy plan"),
    ("1.2.840.10008.5.1.4.1.1.481", "radiotherapy object"),
    ("1.2.840.10008.5.1.4.1.1.66.4", "segmentation"),
    ("1.2.840.10008.5.1.4.1.1.66.5", "surface segmentation"),
    ("1.2.840.10008.5.1.4.1.1.66", "raw data or registration"),
    ("1.2.840.10008.5.1.4.1.1.88.59", "key object selection"),
    ("1.2.840.10008.5.1.4.1.1.88.67", "dose report"),
    ("1.2.840.10008.5.1.4.1.1.88", "structured report"),
    ("1.2.840.10008.5.1.4.1.1.11", "presentation state"),
    ("1.2.840.10008.5.1.4.1.1.104", "encapsulated document"),
    ("1.2.840.10008.5.1.4.1.1.4", "MR image"),
    ("1.2.840.10008.5.1.4.1.1.6", "ultrasound image"),
    ("1.2.840.10008.5.1.4.1.1.1", "radiograph"),
    ("1.2.840.10008.5.1.4.1.1.12", "X-ray angiogram"),
];

/// Extensions of files that a DICOM folder may contain beside its slices. A file with another name that is not DICOM may be a damaged
/// slice.
const OTHER_EXTENSIONS: [&str; 69] = [
    "7z", "avi", "bat", "bmp", "cfg", "conf", "css", "csv", "db", "dll", "doc", "docx", "exe", "gif", "h5", "hdf5",
    "htm", "html", "ico", "inf", "ini", "jar", "jpeg", "jpg", "js", "json", "jsonl", "lnk", "log", "mat", "md", "md5",
    "mgz", "mha", "mhd", "mov", "mp3", "mp4", "nhdr", "nii", "npy", "npz", "nrrd", "parquet", "pdf", "pkl", "png",
    "py", "rar", "rtf", "sh", "sha1", "sha256", "svg", "tar", "tif", "tiff", "toml", "tsv", "txt", "url", "wav",
    "webp", "xls", "xlsx", "xml", "yaml", "yml", "zip",
];

/// Names, without extension, of files that a DICOM folder may contain beside its slices; compared in upper case.
const OTHER_NAMES: [&str; 13] = [
    "AUTORUN",
    "CHANGES",
    "CHECKSUMS",
    "DICOMDIR",
    "LICENCE",
    "LICENSE",
    "LOCKFILE",
    "MD5SUMS",
    "README",
    "SHA1SUMS",
    "SHA256SUMS",
    "THUMBS",
    "VERSION",
];

/// The kind of a DICOM object by its SOP class (PS3.4, annex B.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectClass {
    /// A CT image.
    Ct,
    /// Another class of the DICOM standard, which is not a CT image. The name is that of the standard, so that it contains no text of the
    /// file.
    Other(&'static str),
    /// A class of a vendor, or no class. The elements of the file show whether the file contains an image.
    Unknown,
}

impl ObjectClass {
    /// Returns the kind of a SOP class.
    pub fn of(uid: Option<&str>) -> Self {
        match uid {
            Some(uid) if CT_CLASSES.contains(&uid) => Self::Ct,
            Some(uid) if uid.starts_with(STANDARD) => {
                let is_start =
                    |start: &str| uid.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
                let found =
                    OTHER_CLASSES.iter().filter(|(start, _)| is_start(start)).max_by_key(|(start, _)| start.len());
                Self::Other(found.map_or("other DICOM object", |(_, name)| name))
            }
            _ => Self::Unknown,
        }
    }
}

/// Returns whether the name of a file shows that it is not a DICOM file: `notes.txt`, `DICOMDIR`, `MD5SUMS`, `.DS_Store`.
pub(super) fn is_other_file_by_name(path: &Path) -> bool {
    // A compressed slice, `IM0001.dcm.gz`, is a slice that cannot be read.
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
        return is_other_file_by_name(&path.with_extension(""));
    }
    let upper = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().to_uppercase()).unwrap_or_default();
    let name = upper(path.file_name());
    let has_other_extension = path
        .extension()
        .is_some_and(|extension| OTHER_EXTENSIONS.contains(&extension.to_string_lossy().to_lowercase().as_str()));
    name.starts_with('.') || has_other_extension || OTHER_NAMES.contains(&upper(path.file_stem()).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sop_class_is_named_by_longest_uid_prefix() {
        assert_eq!(ObjectClass::of(Some(uids::CT_IMAGE_STORAGE)), ObjectClass::Ct);
        for (uid, name) in [
            (uids::SECONDARY_CAPTURE_IMAGE_STORAGE, "secondary capture"),
            (uids::MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE, "secondary capture"),
            (uids::X_RAY_RADIATION_DOSE_SR_STORAGE, "dose report"),
            (uids::COMPREHENSIVE_SR_STORAGE, "structured report"),
            (uids::RT_STRUCTURE_SET_STORAGE, "radiotherapy structure set"),
            (uids::SEGMENTATION_STORAGE, "segmentation"),
            (uids::MEDIA_STORAGE_DIRECTORY_STORAGE, "DICOMDIR"),
            (uids::POSITRON_EMISSION_TOMOGRAPHY_IMAGE_STORAGE, "PET image"),
            (uids::MR_IMAGE_STORAGE, "MR image"),
            (uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION, "radiograph"),
            ("1.2.840.10008.5.1.4.1.1.9.1.1", "other DICOM object"),
        ] {
            assert_eq!(ObjectClass::of(Some(uid)), ObjectClass::Other(name), "{uid}");
        }
        assert_eq!(ObjectClass::of(Some("1.3.12.2.1107.5.9.1")), ObjectClass::Unknown);
        assert_eq!(ObjectClass::of(None), ObjectClass::Unknown);
    }

    #[test]
    fn file_names_of_notes_and_checksums_are_not_dicom() {
        for name in [
            "notes.txt",
            "DICOMDIR",
            "dicomdir",
            "MD5SUMS",
            "README.1ST",
            ".DS_Store",
            "._IM0001",
            "page.PDF",
            "labels.nii.gz",
        ] {
            assert!(is_other_file_by_name(Path::new(name)), "{name}");
        }
        for name in
            ["IM0001", "slice.dcm", "1.2.840.113619.2.5", "00000001", "a.ima", "b.dcm.part", "c.tmp", "d.dcm.gz"]
        {
            assert!(!is_other_file_by_name(Path::new(name)), "{name}");
        }
    }
}
