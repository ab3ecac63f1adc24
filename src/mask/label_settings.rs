//! Settings of the mask kind `labels`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize};

use super::classes::{class_ids, class_name};
use super::structures::{OrganStructures, Selection};
use crate::error::ConfigError;

/// Settings of the mask kind `labels`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsConfig {
    /// Path of the label file relative to the folder of the scan; `{stem}` is replaced by the file name of the scan without
    /// extensions. A DICOM RT Structure Set or Segmentation is recognized by its content; for these, the path may also be a folder
    /// that contains one such file.
    #[serde(default = "default_pattern")]
    pub pattern: String,
    /// Meaning of the ids in the file.
    #[serde(default)]
    pub scheme: LabelScheme,
    /// Organs to use: a list of names of the scheme (`["liver", "kidney"]`), or a table with the ids
    /// of each organ (`liver = { ids = [5], tumor_ids = [118] }`), or with its structures in a DICOM file
    /// (`liver = { structures = ["Liver"], tumor_structures = ["GTV"] }`).
    pub organs: OrganChoice,
    /// Treatment of ids that belong to none of the organs.
    #[serde(default)]
    pub other: OtherLabels,
    /// Organ and tumor ids in the merged label map that replace the default ids (`spleen = [7, 8]`).
    #[serde(default)]
    pub merged_ids: BTreeMap<String, [u8; 2]>,
    /// Minimum share of the voxels of the scan that the label file must cover, 0 to 1: with a smaller share, the file does not belong
    /// to the scan.
    #[serde(default = "default_coverage")]
    pub min_coverage: f64,
}

fn default_pattern() -> String {
    "labels.nii.gz".to_owned()
}

pub(super) fn default_coverage() -> f64 {
    0.5
}

pub(super) fn check_coverage(min_coverage: f64, errors: &mut Vec<ConfigError>) {
    if !(0.0..=1.0).contains(&min_coverage) {
        errors.push(ConfigError::new("min_coverage", format!("expected a fraction from 0 to 1, got {min_coverage}")));
    }
}

/// Meaning of the ids in a label file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LabelScheme {
    /// Ids 1..117 of TotalSegmentator v2: organs are selected by name.
    #[default]
    TotalSegmentator,
    /// User-defined ids, set for each organ.
    Custom,
}

/// Treatment of ids that belong to none of the organs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtherLabels {
    /// The ids become background.
    #[default]
    Ignore,
    /// The ids are a fault of the scan.
    Fault,
}

/// Organs by name, or by name with their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OrganChoice {
    /// Names of the scheme, in the order of the merged label map.
    Names(Vec<String>),
    /// Ids by name, in alphabetical order.
    Ids(BTreeMap<String, OrganIds>),
}

/// The ids of one organ in a label file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OrganIds {
    /// Ids of the healthy organ; if empty and without `structures`, the ids of the scheme for the name of the organ. In a DICOM file,
    /// ids are the numbers of its segments or structures.
    pub ids: Vec<u16>,
    /// Ids of the real tumors of the organ.
    pub tumor_ids: Vec<u16>,
    /// Names of the healthy organ in a DICOM file, independent of case: the ROI Name of an RT Structure Set, the Segment Label of
    /// a Segmentation. A file that contains none of the names is a fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub structures: Vec<String>,
    /// Names of the real tumors of the organ in a DICOM file; a file may contain none of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tumor_structures: Vec<String>,
}

impl OrganIds {
    /// Returns whether structures are selected by name.
    pub(super) fn has_names(&self) -> bool {
        !self.structures.is_empty() || !self.tumor_structures.is_empty()
    }

    /// Returns the structures of the organ in a DICOM file: those of the settings, else the classes of the scheme.
    pub(super) fn in_dicom(&self, organ: &str, scheme: LabelScheme) -> OrganStructures {
        let is_empty = self.ids.is_empty() && self.structures.is_empty();
        let classes = if is_empty && scheme == LabelScheme::TotalSegmentator { class_ids(organ) } else { Vec::new() };
        let classes = classes.into_iter().filter_map(class_name);
        let numbers = self.ids.clone();
        let names = self.structures.iter().cloned().chain(classes).collect();
        let is_required = !self.structures.is_empty();
        let (tumor_ids, tumor_names) = (self.tumor_ids.clone(), self.tumor_structures.clone());
        OrganStructures {
            healthy: Selection { numbers, names, is_required },
            tumor: Selection { numbers: tumor_ids, names: tumor_names, is_required: false },
        }
    }
}

// Implemented by hand, because the error of an untagged enum in serde does not name a misspelled field.
impl<'de> Deserialize<'de> for OrganChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = OrganChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of organ names or a table of ids by organ")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<OrganChoice, A::Error> {
                Deserialize::deserialize(value::SeqAccessDeserializer::new(names)).map(OrganChoice::Names)
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<OrganChoice, A::Error> {
                Deserialize::deserialize(value::MapAccessDeserializer::new(table)).map(OrganChoice::Ids)
            }
        }
        deserializer.deserialize_any(ChoiceVisitor)
    }
}
