//! The settings of the source kind `manifest`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ingest::PatientConfig;

/// Settings of the source kind `manifest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestConfig {
    /// CSV with a header, JSON lines or Parquet, recognized by content, with a row for each scan. The column `uri` names a volume file or a
    /// DICOM folder: a path relative to the folder of the manifest, an absolute path, or a `file://` URI. The columns `dataset`, `patient`,
    /// `split` and `mask` are optional; other columns are ignored. `mask` is a label file, which the mask kind `labels` reads with
    /// `pattern = "{mask}"`.
    pub path: PathBuf,
    /// Reads only the rows with this value in the column `split`; by default all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Whether DICOM scans are read without the files of their folder that cannot be read. By default such a file fails its scan.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_unreadable_files: bool,
    /// Name of the data set in tables for rows without a `dataset`; by default the name of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Rule for the patient of rows without a `patient`, applied to the path of the scan; by default every row is a separate patient.
    #[serde(default)]
    pub patient: PatientConfig,
}
