//! The settings of the source kind `folder`, and patterns of paths.

use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::ingest::patient::PatientConfig;
use crate::time_span::TimeSpan;

/// Settings of the source kind `folder`.
///
/// ```toml
/// [sources.archive]
/// kind = "folder"
/// root = "/archive/ct"
/// include = ["*/ct.nii.gz", "*/dicom"]
/// patient = { path_component = 0 }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// Folder to search. Links are followed; names that start with a dot are skipped.
    pub root: PathBuf,
    /// Patterns of scans, relative to `root`: `**/ct.nii.gz`, `imagesTr/*.nii.gz`. `*` matches any characters
    /// within one path component, `**` any number of components. A folder that matches, such as `*/dicom`, is a DICOM
    /// folder: each series in it is a scan, and the folder is not searched further. Label files must not match: they would
    /// be read as scans.
    pub include: Vec<String>,
    /// Patterns of paths that are not scans although they match `include`, and of files in DICOM folders that are not slices. An excluded
    /// folder is skipped with its content.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether DICOM scans are read without the files of their folder that cannot be read. By default such a file fails its scan, or every
    /// scan of its folder if its series is unknown: a scan without its last slices looks complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_unreadable_files: bool,
    /// Name of the data set in tables; by default the name of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Rule for the patient of a scan; by default the first component of the path.
    #[serde(default)]
    pub patient: PatientConfig,
    /// Whether the table `scans` gets the year of the acquisition of DICOM scans.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub acquisition_year: bool,
    /// Time without changes after which the files of a scan are complete, such as `2 min`: with `--follow`, younger scans wait, by default
    /// for 2 minutes; without, they are a warning. A file `NAME.done` beside a scan, or `.done` in its folder, shows that it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<TimeSpan>,
}

/// Returns the set of the patterns of the setting `field`, and adds their errors to `errors`.
pub(in crate::ingest) fn patterns(field: &str, patterns: &[String], errors: &mut Vec<ConfigError>) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for (index, pattern) in patterns.iter().enumerate() {
        match glob(pattern) {
            Ok(glob) => {
                set.add(glob);
            }
            Err(message) => errors.push(ConfigError::new(format!("{field}[{index}]"), message)),
        }
    }
    set.build().unwrap_or_else(|error| {
        errors.push(ConfigError::new(field, format!("the patterns are too large: {error}")));
        GlobSet::empty()
    })
}

/// Returns a pattern below the root, or the message of an error.
fn glob(pattern: &str) -> Result<Glob, String> {
    let path = Path::new(pattern);
    if path.is_absolute() || path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err(format!("expected a pattern below the root, got `{pattern}`"));
    }
    let relative = pattern.strip_prefix("./").unwrap_or(pattern).trim_end_matches('/');
    if relative.is_empty() {
        return Err(format!("expected a pattern below the root, got `{pattern}`"));
    }
    GlobBuilder::new(relative)
        .literal_separator(true)
        .build()
        .map_err(|error| format!("expected a glob pattern: {error}"))
}
