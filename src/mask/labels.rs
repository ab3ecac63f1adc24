//! Organs from one label file, or one DICOM file with structures, in the folder of the scan.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::{MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize};

use super::align::Alignment;
use super::classes::{CLASS_COUNT, class_ids, class_name, did_you_mean_organ};
use super::names::{DATA_SET_TABLE, FILE_TABLE, contradiction};
use super::structures::{self, OrganStructures, Selection};
use super::{Coverage, Mask, Organ, OrganMask, ScanGrid, merged_organs};
use crate::error::{ConfigError, Fault, FaultKind};
use crate::ingest::{Companions, FileState, Scan};
use crate::volume::{Array3, Grid, Labels};

/// Settings of the mask kind `labels`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsConfig {
    /// Path of the label file relative to the folder of the scan; `{stem}` is replaced by the file name of the scan without
    /// extensions. A DICOM RT Structure Set or Segmentation is recognised by its content; for these, the path may also be a folder
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
    fn has_names(&self) -> bool {
        !self.structures.is_empty() || !self.tumor_structures.is_empty()
    }

    /// Returns the structures of the organ in a DICOM file: those of the settings, else the classes of the scheme.
    fn in_dicom(&self, organ: &str, scheme: LabelScheme) -> OrganStructures {
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

/// The mask stage that reads one label file and maps its ids, or its structures, to organs.
///
/// An organ that is not in the file is absent from the mask; a mask without any organ is not a fault.
pub struct LabelsMask {
    pattern: String,
    organs: Arc<[Organ]>,
    /// Ids of each healthy organ in the file.
    organ_ids: Vec<Vec<u16>>,
    scheme: LabelScheme,
    /// The structures of each organ in a DICOM file.
    structures: Vec<OrganStructures>,
    /// Whether organs are selected by names, which a label map does not have.
    has_names: bool,
    /// Merged id by id of the file; 0 for ignored ids.
    merged: Vec<u8>,
    /// The highest id that may occur in the file.
    max_id: u16,
    other: OtherLabels,
    min_coverage: f64,
}

impl LabelsMask {
    /// Creates a stage and checks its settings.
    ///
    /// # Errors
    /// Returns every error in the settings.
    pub fn new(config: LabelsConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if config.pattern.is_empty() {
            errors.push(ConfigError::new("pattern", "expected a path such as `labels.nii.gz`, got an empty string"));
        }
        check_coverage(config.min_coverage, &mut errors);
        let named = matches!(config.organs, OrganChoice::Names(_));
        let choice: Vec<(String, OrganIds)> = match config.organs {
            OrganChoice::Names(names) => names.into_iter().map(|name| (name, OrganIds::default())).collect(),
            OrganChoice::Ids(table) => table.into_iter().collect(),
        };
        let names: Vec<&str> = choice.iter().map(|(name, _)| name.as_str()).collect();
        let organs = merged_organs(&names, &config.merged_ids).unwrap_or_else(|more| {
            errors.extend(more);
            Arc::default()
        });
        let mut merged = vec![0u8; usize::from(u16::MAX) + 1];
        let mut owner: BTreeMap<u16, &str> = BTreeMap::new();
        let mut organ_ids = Vec::new();
        for (index, (name, given)) in choice.iter().enumerate() {
            let field = if named { "organs".to_owned() } else { format!("organs.{name}") };
            let is_by_name = given.ids.is_empty() && !given.has_names();
            let ids = if is_by_name { ids_by_name(name, config.scheme) } else { Ok(given.ids.clone()) };
            let ids = ids.unwrap_or_else(|(message, hint)| {
                let error = ConfigError::new(&field, message);
                errors.push(hint.into_iter().fold(error, ConfigError::with_hint));
                Vec::new()
            });
            let label =
                |tumor: bool| organs.get(index).map_or(0, |organ| if tumor { organ.tumor_label } else { organ.label });
            for (id, tumor) in ids.iter().map(|&id| (id, false)).chain(given.tumor_ids.iter().map(|&id| (id, true))) {
                if id == 0 {
                    errors.push(ConfigError::new(&field, "expected ids above 0, which is the background"));
                } else if let Some(other) = owner.insert(id, name) {
                    errors.push(ConfigError::new(&field, format!("expected each id once, got {id} also in `{other}`")));
                }
                merged[usize::from(id)] = label(tumor);
            }
            organ_ids.push(ids);
        }
        let structures = choice.iter().map(|(name, given)| given.in_dicom(name, config.scheme)).collect();
        let has_names = choice.iter().any(|(_, given)| given.has_names());
        for (name, given) in &choice {
            if given.structures.iter().chain(&given.tumor_structures).any(|name| name.trim().is_empty()) {
                let message = "expected names of structures, got an empty one";
                errors.push(ConfigError::new(format!("organs.{name}"), message));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let max_id = match config.scheme {
            LabelScheme::TotalSegmentator => CLASS_COUNT,
            LabelScheme::Custom => u16::MAX,
        };
        let LabelsConfig { pattern, scheme, other, min_coverage, .. } = config;
        Ok(Self { pattern, organs, organ_ids, scheme, structures, has_names, merged, max_id, other, min_coverage })
    }

    /// Returns the mask of a label file on the grid of its scan.
    ///
    /// # Errors
    /// Returns a fault if the file does not belong to the scan or contains an id that is not allowed.
    pub fn merge(&self, labels: &Labels, scan: &Grid) -> Result<OrganMask, Fault> {
        let alignment = Alignment::new(&labels.grid, scan, self.min_coverage)?;
        let mut merged = Array3::filled(scan.shape, 0u8);
        let mut ignored = [false; u16::MAX as usize + 1];
        let voxels = merged.as_mut_slice();
        alignment.for_each_label(labels, |index, id| {
            let label = self.merged[usize::from(id)];
            voxels[index] = label;
            ignored[usize::from(id)] |= label == 0;
        });
        let fault = (1..=u16::MAX).filter(|&id| ignored[usize::from(id)]).find_map(|id| self.id_fault(id));
        fault.map_or(Ok(OrganMask { labels: merged, organs: self.organs.clone(), coverage: alignment.coverage() }), Err)
    }

    /// Compares the names that a label file states with the organs.
    ///
    /// # Errors
    /// Returns `mismatch` if an id has another name in the file than in the scheme, or an organ another id.
    pub fn check_names(&self, names: &BTreeMap<u16, String>) -> Result<(), Fault> {
        self.check_table(names, FILE_TABLE)
    }

    /// Compares the names of the label file that the stage reads, or else those of its data set, with the organs.
    fn check_label_file(&self, companions: &dyn Companions) -> Result<(), Fault> {
        let names = companions.label_names(&self.pattern)?;
        match names.is_empty() {
            true => self.check_table(&companions.data_set_label_names(&self.pattern), DATA_SET_TABLE),
            false => self.check_names(&names),
        }
    }

    fn check_table(&self, names: &BTreeMap<u16, String>, table: &str) -> Result<(), Fault> {
        let expected = |id| match self.scheme {
            LabelScheme::TotalSegmentator => class_name(id),
            LabelScheme::Custom => None,
        };
        // An organ without ids is selected by the names of its structures.
        let mut organs = self.organs.iter().zip(&self.organ_ids).filter(|(_, ids)| !ids.is_empty());
        organs.find_map(|(organ, ids)| contradiction(names, table, &organ.name, ids, expected)).map_or(Ok(()), Err)
    }

    /// Returns the fault of an id in the file, if the id is not allowed.
    fn id_fault(&self, id: u16) -> Option<Fault> {
        let message = if id > self.max_id {
            format!("expected labels 1..{CLASS_COUNT} of TotalSegmentator v2, got {id}")
        } else if self.other == OtherLabels::Fault {
            format!("expected labels of the organs only (`other = \"fault\"`), got {id}")
        } else {
            return None;
        };
        Some(Fault::mask(FaultKind::Mismatch, message))
    }
}

pub(super) fn check_coverage(min_coverage: f64, errors: &mut Vec<ConfigError>) {
    if !(0.0..=1.0).contains(&min_coverage) {
        errors.push(ConfigError::new("min_coverage", format!("expected a fraction from 0 to 1, got {min_coverage}")));
    }
}

/// Returns the ids of the scheme for a name, or a message and a hint.
fn ids_by_name(name: &str, scheme: LabelScheme) -> Result<Vec<u16>, (String, Option<String>)> {
    match scheme {
        LabelScheme::Custom => {
            let hint = format!("organs = {{ {name} = {{ ids = [1] }} }}");
            Err((format!("expected the ids of `{name}`, because the scheme is custom"), Some(hint)))
        }
        LabelScheme::TotalSegmentator => match class_ids(name) {
            ids if ids.is_empty() => {
                Err((format!("`{name}` is not an organ of TotalSegmentator v2"), did_you_mean_organ(name)))
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
        let grid = &scan.volume.grid;
        if let Some(file) = scan.companions.structures(&self.pattern)? {
            let is_strict = self.other == OtherLabels::Fault;
            return structures::merge(file.as_ref(), &self.structures, &self.organs, is_strict, grid);
        }
        self.check_label_file(&*scan.companions)?;
        let labels = scan.companions.labels(&self.pattern)?;
        if self.has_names {
            return Err(Fault::mask(
                FaultKind::Mismatch,
                "expected a DICOM RT Structure Set or Segmentation, because `structures` selects by name in DICOM files, got a label map: use its numbers instead, such as `ids = [1]`",
            ));
        }
        self.merge(&labels, grid)
    }

    fn coverage(&self, companions: &dyn Companions, scan: ScanGrid<'_>) -> Result<Option<Coverage>, Fault> {
        let Some(scan) = scan() else { return Ok(None) };
        let Some(labels) = companions.label_grid(&self.pattern)? else { return Ok(None) };
        let share = Alignment::new(&labels, &scan, 0.0)?.coverage();
        Ok(Some(Coverage { share, minimum: self.min_coverage }))
    }

    fn contradiction(&self, companions: &dyn Companions) -> Option<Fault> {
        let fault = self.check_label_file(companions).err();
        fault.filter(|fault| fault.kind == FaultKind::Mismatch)
    }

    fn file_states(&self, companions: &dyn Companions) -> Vec<FileState> {
        companions.file_states(&self.pattern)
    }

    fn missing_file(&self, companions: &dyn Companions) -> Option<String> {
        (!companions.exists(&self.pattern)).then(|| self.pattern.clone())
    }

    fn label_names(&self) -> BTreeMap<u16, String> {
        let name = |merged: u8| {
            let organ = self.organs.iter().find(|organ| [organ.label, organ.tumor_label].contains(&merged))?;
            Some(if organ.label == merged { organ.name.clone() } else { format!("{}_tumor", organ.name) })
        };
        let is_scheme = self.max_id == CLASS_COUNT;
        let names = (1..=u16::MAX).filter_map(|id| {
            let own = name(self.merged[usize::from(id)]);
            Some((id, own.or_else(|| class_name(id).filter(|_| is_scheme))?))
        });
        names.collect()
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
    fn names_select_ids_of_totalsegmentator() {
        let stage = mask("organs = ['liver', 'kidney']").unwrap();
        let found = stage.mask(&scan_with(grid(), labels([0, 5, 2, 3, 52, 23]))).unwrap();
        assert_eq!(found.labels.row(0, 0), [0, 1, 5, 5, 0, 0]);
        assert_eq!(found.organs[1].tumor_label, 6);
    }

    #[test]
    fn real_tumors_have_merged_tumor_id() {
        let stage = mask("scheme = 'custom'\norgans.liver = { ids = [7, 8], tumor_ids = [9] }").unwrap();
        let found = stage.mask(&scan_with(grid(), labels([0, 7, 8, 9, 10, 500]))).unwrap();
        assert_eq!(found.labels.row(3, 1), [0, 1, 1, 2, 0, 0]);
        assert_eq!(voxels_of(&found, 2), 8);
    }

    #[test]
    fn absent_organ_is_not_a_fault() {
        let stage = mask("organs = ['pancreas']").unwrap();
        let found = stage.mask(&scan_with(grid(), labels([0, 1, 1, 2, 2, 0]))).unwrap();
        assert_eq!(voxels_of(&found, 0), 48);
    }

    #[test]
    fn fault_names_unknown_label() {
        let stage = mask("organs = ['liver']").unwrap();
        let fault = stage.mask(&scan_with(grid(), labels([0, 5, 118, 300, 0, 0]))).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Mismatch);
        assert_eq!(fault.message, "expected labels 1..117 of TotalSegmentator v2, got 118");
        let strict = mask("organs = ['liver']\nother = 'fault'").unwrap();
        assert!(strict.mask(&scan_with(grid(), labels([0, 5, 5, 5, 5, 0]))).is_ok());
        assert!(strict.mask(&scan_with(grid(), labels([0, 5, 1, 5, 5, 0]))).is_err());
    }

    #[test]
    fn new_reports_all_errors_at_once() {
        let errors =
            mask("pattern = ''\norgans = ['lver', 'kidney', 'kidney_left']\nmin_coverage = 2.0").err().unwrap();
        let reported: Vec<_> = errors.iter().map(|error| (error.field.as_str(), error.hint.as_deref())).collect();
        let expected =
            [("pattern", None), ("min_coverage", None), ("organs", Some("did you mean `liver`?")), ("organs", None)];
        assert_eq!(reported, expected, "{errors:?}");
        let custom = mask("scheme = 'custom'\norgans = ['liver']").err().unwrap();
        assert_eq!(custom[0].hint.as_deref(), Some("organs = { liver = { ids = [1] } }"));
        let zero = mask("organs.liver = { ids = [0] }").err().unwrap();
        assert_eq!(zero[0].field, "organs.liver");
    }

    #[test]
    fn error_names_misspelled_field() {
        let error = toml::from_str::<LabelsConfig>("organs.liver = { id = [5] }").unwrap_err();
        assert!(error.message().contains("unknown field `id`"), "{error}");
    }
}
