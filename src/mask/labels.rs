//! Organs from one label file beside the scan.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::{MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize};

use super::align::Alignment;
use super::classes::{CLASSES, class_ids, known_names};
use super::{Mask, Organ, OrganMask, merged_organs};
use crate::error::{ConfigError, Fault, FaultKind};
use crate::ingest::Scan;
use crate::suggest::did_you_mean;
use crate::volume::{Array3, Grid, Labels};

/// Settings of the mask kind `labels`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsConfig {
    /// The label file, as a path relative to the scan's folder; `{stem}` stands for the scan's file name without
    /// extensions.
    #[serde(default = "default_pattern")]
    pub pattern: String,
    /// What the ids of the file mean.
    #[serde(default)]
    pub scheme: LabelScheme,
    /// The organs to use: a list of names where the scheme knows them (`["liver", "kidney"]`), or a table with the ids
    /// of each (`liver = { ids = [5], tumor_ids = [118] }`).
    pub organs: OrganChoice,
    /// What to do with ids that belong to none of the organs.
    #[serde(default)]
    pub other: OtherLabels,
    /// Organ and tumor ids in the merged label map, where the customary ones will not do (`spleen = [7, 8]`).
    #[serde(default)]
    pub merged_ids: BTreeMap<String, [u8; 2]>,
    /// Smallest share of the scan's voxels that the label file must cover, 0 to 1: below it, the two do not belong
    /// together.
    #[serde(default = "default_coverage")]
    pub min_coverage: f64,
}

fn default_pattern() -> String {
    "labels.nii.gz".to_owned()
}

pub(super) fn default_coverage() -> f64 {
    0.5
}

/// What the ids of a label file mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LabelScheme {
    /// Ids 1..117 of TotalSegmentator v2: organs are known by name.
    #[default]
    TotalSegmentator,
    /// Ids of your own, given with each organ.
    Custom,
}

/// What to do with ids that belong to none of the organs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtherLabels {
    /// They become background.
    #[default]
    Ignore,
    /// They spoil the scan: its labels are not what was expected.
    Fault,
}

/// Organs by name, or by name with their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OrganChoice {
    /// Names that the scheme knows, in the order of the merged label map.
    Names(Vec<String>),
    /// Ids by name, in alphabetical order.
    Ids(BTreeMap<String, OrganIds>),
}

/// The ids of one organ in a label file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OrganIds {
    /// Ids of the healthy organ, united; empty means those that the scheme knows under the organ's name.
    pub ids: Vec<u16>,
    /// Ids of its real tumors.
    pub tumor_ids: Vec<u16>,
}

// By hand, because serde's untagged enums say of a mistyped field only that no variant fits.
impl<'de> Deserialize<'de> for OrganChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;
        impl<'de> Visitor<'de> for Choice {
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
        deserializer.deserialize_any(Choice)
    }
}

/// Reads one label file beside the scan and maps its ids to organs.
///
/// An organ that does not occur in the file is simply absent from the mask, also when none occurs.
pub struct LabelsMask {
    pattern: String,
    organs: Arc<[Organ]>,
    /// Merged id by id of the file, 0 for what is left out.
    merged: Vec<u8>,
    /// Ids of the file that may occur without being asked for: up to this one.
    known: u16,
    other: OtherLabels,
    min_coverage: f64,
}

impl LabelsMask {
    /// A stage with these settings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(config: LabelsConfig) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        if config.pattern.is_empty() {
            complaints.push(ConfigError::new("pattern", "expected a path such as `labels.nii.gz`, got nothing"));
        }
        check_coverage(config.min_coverage, &mut complaints);
        let named = matches!(config.organs, OrganChoice::Names(_));
        let choice: Vec<(String, OrganIds)> = match config.organs {
            OrganChoice::Names(names) => names.into_iter().map(|name| (name, OrganIds::default())).collect(),
            OrganChoice::Ids(table) => table.into_iter().collect(),
        };
        let names: Vec<&str> = choice.iter().map(|(name, _)| name.as_str()).collect();
        let organs = merged_organs(&names, &config.merged_ids).unwrap_or_else(|wrong| {
            complaints.extend(wrong);
            Arc::default()
        });
        let mut merged = vec![0u8; usize::from(u16::MAX) + 1];
        let mut owner: BTreeMap<u16, &str> = BTreeMap::new();
        for (index, (name, given)) in choice.iter().enumerate() {
            let field = if named { "organs".to_owned() } else { format!("organs.{name}") };
            let ids = if given.ids.is_empty() { ids_by_name(name, config.scheme) } else { Ok(given.ids.clone()) };
            let ids = ids.unwrap_or_else(|(message, hint)| {
                let complaint = ConfigError::new(&field, message);
                complaints.push(hint.into_iter().fold(complaint, ConfigError::with_hint));
                Vec::new()
            });
            let label =
                |tumor: bool| organs.get(index).map_or(0, |organ| if tumor { organ.tumor_label } else { organ.label });
            for (id, tumor) in ids.iter().map(|&id| (id, false)).chain(given.tumor_ids.iter().map(|&id| (id, true))) {
                if id == 0 {
                    complaints.push(ConfigError::new(&field, "expected ids above 0, the background"));
                } else if let Some(other) = owner.insert(id, name) {
                    complaints.push(ConfigError::new(&field, format!("id {id} is given twice, also in `{other}`")));
                }
                merged[usize::from(id)] = label(tumor);
            }
        }
        if !complaints.is_empty() {
            return Err(complaints);
        }
        let known = match config.scheme {
            LabelScheme::TotalSegmentator => CLASSES,
            LabelScheme::Custom => u16::MAX,
        };
        let LabelsConfig { pattern, other, min_coverage, .. } = config;
        Ok(Self { pattern, organs, merged, known, other, min_coverage })
    }

    /// The mask that a label file says, on the grid of its scan.
    ///
    /// # Errors
    /// A fault where the file does not belong to the scan, or holds an id that it may not.
    pub fn merge(&self, labels: &Labels, scan: &Grid) -> Result<OrganMask, Fault> {
        let alignment = Alignment::new(&labels.grid, scan, self.min_coverage)?;
        let mut merged = Array3::filled(scan.shape, 0u8);
        let mut left_out = [false; u16::MAX as usize + 1];
        let voxels = merged.as_mut_slice();
        alignment.for_each_label(labels, |index, id| {
            let label = self.merged[usize::from(id)];
            voxels[index] = label;
            left_out[usize::from(id)] |= label == 0;
        });
        let unknown = (1..=u16::MAX).filter(|&id| left_out[usize::from(id)]).find_map(|id| self.unknown(id));
        unknown.map_or(Ok(OrganMask { labels: merged, organs: self.organs.clone() }), Err)
    }

    /// The complaint about an id of the file, if it may not occur.
    fn unknown(&self, id: u16) -> Option<Fault> {
        let message = if id > self.known {
            format!("unknown label {id}: TotalSegmentator v2 has 1..{CLASSES}")
        } else if self.other == OtherLabels::Fault {
            format!("label {id} belongs to none of the organs, and `other` is \"fault\"")
        } else {
            return None;
        };
        Some(Fault::mask(FaultKind::Mismatch, message))
    }
}

pub(super) fn check_coverage(min_coverage: f64, complaints: &mut Vec<ConfigError>) {
    if !(0.0..=1.0).contains(&min_coverage) {
        complaints.push(ConfigError::new("min_coverage", format!("expected a share from 0 to 1, got {min_coverage}")));
    }
}

/// The ids that the scheme knows under a name, or what to say.
fn ids_by_name(name: &str, scheme: LabelScheme) -> Result<Vec<u16>, (String, Option<String>)> {
    match scheme {
        LabelScheme::Custom => {
            let hint = format!("organs = {{ {name} = {{ ids = [1] }} }}");
            Err((format!("expected the ids of `{name}`: the scheme is custom"), Some(hint)))
        }
        LabelScheme::TotalSegmentator => match class_ids(name) {
            ids if ids.is_empty() => {
                let known = known_names();
                let hint = did_you_mean(name, known.iter().map(String::as_str));
                Err((format!("`{name}` is no organ of TotalSegmentator v2"), hint))
            }
            ids => Ok(ids),
        },
    }
}

impl Mask for LabelsMask {
    fn organs(&self) -> Arc<[Organ]> {
        self.organs.clone()
    }

    fn mask(&self, scan: &Scan) -> Result<OrganMask, Fault> {
        self.merge(&scan.companions.labels(&self.pattern)?, &scan.volume.grid)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{scan_with, voxels_of};
    use super::*;
    use crate::volume::Affine;

    fn mask(settings: &str) -> Result<LabelsMask, Vec<ConfigError>> {
        LabelsMask::new(toml::from_str(settings).unwrap())
    }

    fn grid() -> Grid {
        Grid { shape: [6, 4, 2], affine: Affine::from_spacing([1.0, 1.0, 2.0]) }
    }

    fn labels(ids: [u16; 6]) -> Labels {
        Labels { grid: grid(), ids: Array3::from_fn([6, 4, 2], |[x, _, _]| ids[x]) }
    }

    #[test]
    fn names_alone_suffice_for_totalsegmentator() {
        let stage = mask("organs = ['liver', 'kidney']").unwrap();
        let found = stage.mask(&scan_with(grid(), labels([0, 5, 2, 3, 52, 23]))).unwrap();
        assert_eq!(found.labels.row(0, 0), [0, 1, 5, 5, 0, 0]);
        assert_eq!(found.organs[1].tumor_label, 6);
    }

    #[test]
    fn real_tumors_keep_their_own_id() {
        let stage = mask("scheme = 'custom'\norgans.liver = { ids = [7, 8], tumor_ids = [9] }").unwrap();
        let found = stage.mask(&scan_with(grid(), labels([0, 7, 8, 9, 10, 500]))).unwrap();
        assert_eq!(found.labels.row(3, 1), [0, 1, 1, 2, 0, 0]);
        assert_eq!(voxels_of(&found, 2), 8);
    }

    #[test]
    fn an_absent_organ_is_no_fault() {
        let stage = mask("organs = ['pancreas']").unwrap();
        let found = stage.mask(&scan_with(grid(), labels([0, 1, 1, 2, 2, 0]))).unwrap();
        assert_eq!(voxels_of(&found, 0), 48);
    }

    #[test]
    fn unknown_labels_are_named() {
        let stage = mask("organs = ['liver']").unwrap();
        let fault = stage.mask(&scan_with(grid(), labels([0, 5, 118, 300, 0, 0]))).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Mismatch);
        assert_eq!(fault.message, "unknown label 118: TotalSegmentator v2 has 1..117");
        let strict = mask("organs = ['liver']\nother = 'fault'").unwrap();
        assert!(strict.mask(&scan_with(grid(), labels([0, 5, 5, 5, 5, 0]))).is_ok());
        assert!(strict.mask(&scan_with(grid(), labels([0, 5, 1, 5, 5, 0]))).is_err());
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let complaints =
            mask("pattern = ''\norgans = ['lver', 'kidney', 'kidney_left']\nmin_coverage = 2.0").err().unwrap();
        let said: Vec<_> = complaints.iter().map(|it| (it.field.as_str(), it.hint.as_deref())).collect();
        let wanted =
            [("pattern", None), ("min_coverage", None), ("organs", Some("did you mean `liver`?")), ("organs", None)];
        assert_eq!(said, wanted, "{complaints:?}");
        let custom = mask("scheme = 'custom'\norgans = ['liver']").err().unwrap();
        assert_eq!(custom[0].hint.as_deref(), Some("organs = { liver = { ids = [1] } }"));
        let zero = mask("organs.liver = { ids = [0] }").err().unwrap();
        assert_eq!(zero[0].field, "organs.liver");
    }

    #[test]
    fn mistyped_fields_are_named() {
        let error = toml::from_str::<LabelsConfig>("organs.liver = { id = [5] }").unwrap_err();
        assert!(error.message().contains("unknown field `id`"), "{error}");
    }
}
