//! The settings of the source kind `archive`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ingest::PatientConfig;

/// Settings of the source kind `archive`.
///
/// ```toml
/// [sources.batches]
/// kind = "archive"
/// path = "/archive/batches/*.tar.gz"
/// include = ["*/ct.nii.gz", "*/dicom"]
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// Path of an archive, or a pattern of paths such as `batches/*.tar.gz`. Archives are tar, tar compressed by gzip or zstd, and zip;
    /// they are recognized by content.
    pub path: PathBuf,
    /// Patterns of scans, relative to the top folder of the archive: `**/ct.nii.gz`. `*` matches any characters within one path component,
    /// `**` any number of components. A folder that matches is a DICOM folder: each series in it is a scan. `.` is the top folder itself.
    pub include: Vec<String>,
    /// Patterns of members that are not scans although they match `include`, and of files in DICOM folders that are not slices.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether DICOM scans are read without the files of their folder that cannot be read. By default such a file fails its scan.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_unreadable_files: bool,
    /// Name of the data set in tables; by default the name of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Rule for the patient of a scan, applied to its path in the archive; by default the first component of this path.
    #[serde(default)]
    pub patient: PatientConfig,
    /// Whether each archive is one patient, named by the path of the archive. A DICOM scan in the top folder has its archive as patient
    /// unless `patient` is set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archive_is_patient: bool,
    /// Maximum bytes of the files of one scan, and of its label files, in the scratch folder, in MiB. A larger scan is a fault.
    #[serde(default = "default_scratch_limit_mib")]
    pub scratch_limit_mib: u64,
    /// The folder for scratch folders; the folder of the system for temporary files if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
    /// Maximum number of members of one archive. Members beyond this number are not read, and the archive is a fault.
    #[serde(default = "default_max_members")]
    pub max_members: usize,
    /// Maximum number of decompressed bytes for each compressed byte, of a member of a zip archive or of a whole tar, beyond the first GiB.
    #[serde(default = "default_max_ratio")]
    pub max_ratio: u64,
}

pub(super) fn default_scratch_limit_mib() -> u64 {
    8192
}

pub(super) fn default_max_members() -> usize {
    2_000_000
}

pub(super) fn default_max_ratio() -> u64 {
    200
}
