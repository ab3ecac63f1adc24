//! Organs from a folder of binary masks, one file per class, as TotalSegmentator writes them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::{MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize};

use super::align::Alignment;
use super::classes::{class_ids, class_name, did_you_mean_organ};
use super::label_settings::{check_coverage, default_coverage};
use super::names::{FILE_TABLE, contradiction};
use super::selections::Selections;
use super::{Coverage, Mask, Organ, OrganMask, ScanGrid, merged_organs};
use crate::error::{ConfigError, Fault, FaultKind};
use crate::ingest::{Companions, FileState, Scan};
use crate::volume::{Array3, Grid};

/// Settings of the mask kind `totalsegmentator`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TotalSegmentatorConfig {
    /// Path of the binary masks relative to the folder of the scan; `{name}` is replaced by the name of the class, `{stem}`
    /// by the file name of the scan without extensions.
    #[serde(default = "default_pattern")]
    pub pattern: String,
    /// Organs to use: a list of names (`["liver", "kidney"]`), or a table with the files of each
    /// organ (`kidney = ["kidney_left", "kidney_right"]`). Where files overlap, the first file has priority.
    pub organs: FileChoice,
    /// Whether a file may be absent; by default an absent file is a fault.
    #[serde(default)]
    pub optional: bool,
    /// Organ and tumor ids in the merged label map that replace the default ids (`spleen = [7, 8]`).
    #[serde(default)]
    pub merged_ids: BTreeMap<String, [u8; 2]>,
    /// Minimum share of the voxels of the scan that each file must cover, 0 to 1: with a smaller share, the file does not belong to the
    /// scan.
    #[serde(default = "default_coverage")]
    pub min_coverage: f64,
}

fn default_pattern() -> String {
    "organs/{name}.nii.gz".to_owned()
}

/// The setting of organs: names of TotalSegmentator, or names of organs with the mask files of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum FileChoice {
    /// Names of TotalSegmentator v2: a class, or the common start of several classes (`kidney`, `lung`).
    Names(Vec<String>),
    /// Names of files without folder and extension, by organ, in alphabetical order.
    Files(BTreeMap<String, Vec<String>>),
}

// Implemented by hand, because the error of an untagged enum in serde does not name a misspelled field.
impl<'de> Deserialize<'de> for FileChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = FileChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of organ names or a table of file names by organ")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<FileChoice, A::Error> {
                Deserialize::deserialize(value::SeqAccessDeserializer::new(names)).map(FileChoice::Names)
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<FileChoice, A::Error> {
                Deserialize::deserialize(value::MapAccessDeserializer::new(table)).map(FileChoice::Files)
            }
        }
        deserializer.deserialize_any(ChoiceVisitor)
    }
}

/// The mask stage that reads one binary mask per class and merges the masks of each organ.
pub struct TotalSegmentatorMask {
    pattern: String,
    organs: Arc<[Organ]>,
    /// Files of each organ.
    files: Vec<Vec<String>>,
    optional: bool,
    min_coverage: f64,
    /// The organs: each is absent from a scan without any of its files.
    selections: Selections,
}

impl TotalSegmentatorMask {
    /// Creates a stage and checks its settings.
    ///
    /// # Errors
    /// Returns every error in the settings.
    pub fn new(config: TotalSegmentatorConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if !config.pattern.contains("{name}") {
            let message = format!(
                "expected a pattern with the placeholder `{{name}}`, which represents the class, got `{}`",
                config.pattern
            );
            errors.push(ConfigError::new("pattern", message).with_hint("pattern = \"organs/{name}.nii.gz\""));
        }
        check_coverage(config.min_coverage, &mut errors);
        let (names, files): (Vec<String>, Vec<Vec<String>>) = match config.organs {
            FileChoice::Names(names) => {
                let files = names.iter().map(|name| files_by_name(name, &mut errors)).collect();
                (names, files)
            }
            FileChoice::Files(table) => table.into_iter().unzip(),
        };
        for (name, files) in names.iter().zip(&files) {
            if files.iter().any(String::is_empty) || (files.is_empty() && errors.is_empty()) {
                let message = "expected names of files without folder and extension, got none or an empty name";
                errors.push(ConfigError::new(format!("organs.{name}"), message));
            }
        }
        let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
        let organs = merged_organs(&borrowed, &config.merged_ids).unwrap_or_else(|more| {
            errors.extend(more);
            Arc::default()
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        let TotalSegmentatorConfig { pattern, optional, min_coverage, .. } = config;
        let selections = Selections::new(names.iter().map(|name| format!("`{name}`")));
        Ok(Self { pattern, organs, files, optional, min_coverage, selections })
    }
}

fn files_by_name(organ: &str, errors: &mut Vec<ConfigError>) -> Vec<String> {
    let files: Vec<String> = class_ids(organ).into_iter().filter_map(class_name).collect();
    if files.is_empty() {
        let error = ConfigError::new("organs", format!("`{organ}` is not an organ of TotalSegmentator v2"));
        let hint =
            did_you_mean_organ(organ).unwrap_or_else(|| format!("organs = {{ {organ} = [\"name_of_its_file\"] }}"));
        errors.push(error.with_hint(hint));
    }
    files
}

impl TotalSegmentatorMask {
    /// Merges the mask files in `companions` into one organ mask on the grid `scan`.
    ///
    /// # Errors
    /// Returns a fault if a file is missing, cannot be read, or does not belong to the scan.
    pub fn merge(&self, companions: &dyn Companions, scan: &Grid) -> Result<OrganMask, Fault> {
        self.merge_present(companions, scan).map(|(mask, _)| mask)
    }

    /// Merges the mask files, and returns whether there is a file of each organ.
    fn merge_present(&self, companions: &dyn Companions, scan: &Grid) -> Result<(OrganMask, Vec<bool>), Fault> {
        let mut is_present = vec![false; self.organs.len()];
        let mut merged = Array3::filled(scan.shape, 0u8);
        let mut coverage = 1.0f64;
        for ((organ, files), is_present) in self.organs.iter().zip(&self.files).zip(&mut is_present) {
            for file in files {
                let pattern = self.pattern.replace("{name}", file);
                let labels =
                    match self.check_names(companions, &pattern, file).and_then(|()| companions.labels(&pattern)) {
                        Ok(labels) => labels,
                        Err(fault) if fault.kind == FaultKind::Missing && self.optional => continue,
                        Err(fault) if fault.kind == FaultKind::Missing => {
                            let message = format!("expected a mask of `{file}` for {}, got none", organ.name);
                            return Err(Fault::mask(FaultKind::Missing, message));
                        }
                        Err(fault) => {
                            return Err(Fault { message: format!("mask of `{file}`: {}", fault.message), ..fault });
                        }
                    };
                *is_present = true;
                let voxels = merged.as_mut_slice();
                let alignment = Alignment::new(&labels.grid, scan, self.min_coverage)?;
                coverage = coverage.min(alignment.coverage());
                alignment.for_each_label(&labels, |index, _| {
                    if voxels[index] == 0 {
                        voxels[index] = organ.label;
                    }
                });
            }
        }
        Ok((OrganMask { labels: merged, organs: self.organs.clone(), coverage }, is_present))
    }
}

impl TotalSegmentatorMask {
    /// Returns `mismatch` if the table in a file names another class than the file does.
    fn check_names(&self, companions: &dyn Companions, pattern: &str, file: &str) -> Result<(), Fault> {
        let names = companions.label_names(pattern)?;
        let is_class = class_ids(file).len() == 1;
        let expected = |_| is_class.then(|| file.to_owned());
        // A binary mask has one id; a table with more is that of the map from which the mask was made.
        let found = if names.len() == 1 {
            contradiction(&names, FILE_TABLE, file, &Vec::from_iter(names.keys().copied()), expected)
        } else {
            None
        };
        found.map_or(Ok(()), Err)
    }
}

impl Mask for TotalSegmentatorMask {
    fn organs(&self) -> Arc<[Organ]> {
        self.organs.clone()
    }

    fn mask(&self, scan: &Scan) -> Result<OrganMask, Fault> {
        let (mask, is_present) = self.merge_present(scan.companions.as_ref(), &scan.volume.grid)?;
        self.selections.record(&is_present);
        Ok(mask)
    }

    fn selections(&self) -> Option<&Selections> {
        Some(&self.selections)
    }

    fn find_selections(&self, companions: &dyn Companions) -> Result<Vec<bool>, Fault> {
        let exists = |file: &String| companions.exists(&self.pattern.replace("{name}", file));
        Ok(self.files.iter().map(|files| files.iter().any(exists)).collect())
    }

    fn coverage(&self, companions: &dyn Companions, scan: ScanGrid<'_>) -> Result<Option<Coverage>, Fault> {
        let Some(scan) = scan() else { return Ok(None) };
        let mut least = None;
        for file in self.files.iter().flatten() {
            let pattern = self.pattern.replace("{name}", file);
            let labels = match companions.label_grid(&pattern) {
                Ok(Some(labels)) => labels,
                Ok(None) => continue,
                Err(fault) if fault.kind == FaultKind::Missing && self.optional => continue,
                Err(fault) => return Err(fault),
            };
            let share = Alignment::new(&labels, &scan, 0.0)?.coverage();
            least = Some(least.map_or(share, |least: f64| least.min(share)));
        }
        Ok(least.map(|share| Coverage { share, minimum: self.min_coverage }))
    }

    fn file_states(&self, companions: &dyn Companions) -> Vec<FileState> {
        let files = self.files.iter().flatten();
        files.flat_map(|file| companions.file_states(&self.pattern.replace("{name}", file))).collect()
    }

    fn missing_file(&self, companions: &dyn Companions) -> Option<String> {
        let path = |file: &String| self.pattern.replace("{name}", file);
        let mut missing = self.files.iter().flatten().map(path).filter(|path| !companions.exists(path));
        if !self.optional {
            return missing.next();
        }
        // Each file may be absent, but a scan without any file probably has another path.
        (missing.count() == self.files.iter().flatten().count()).then(|| self.pattern.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LabelsInMemory, scan_with_companions};
    use super::*;
    use crate::volume::{Affine, Labels};

    fn mask(settings: &str) -> Result<TotalSegmentatorMask, Vec<ConfigError>> {
        TotalSegmentatorMask::new(toml::from_str(settings).unwrap())
    }

    fn scan_with_files(files: &[(&str, [u16; 6])]) -> Scan {
        let grid = Grid { shape: [6, 1, 1], affine: Affine::from_spacing([1.0; 3]) };
        let labels = |ids: [u16; 6]| Labels { grid, ids: Array3::from_vec([6, 1, 1], ids.to_vec()) };
        let files = files.iter().map(|(name, ids)| (format!("organs/{name}.nii.gz"), labels(*ids))).collect();
        scan_with_companions(grid, LabelsInMemory(files))
    }

    #[test]
    fn files_of_organ_are_merged_and_first_file_has_priority() {
        let scan = scan_with_files(&[
            ("kidney_left", [1, 1, 0, 0, 0, 0]),
            ("kidney_right", [0, 0, 0, 0, 255, 0]),
            ("liver", [0, 1, 1, 0, 0, 0]),
        ]);
        let found = mask("organs = ['kidney', 'liver']").unwrap().mask(&scan).unwrap();
        assert_eq!(found.labels.as_slice(), [5, 5, 1, 0, 5, 0]);
    }

    #[test]
    fn fault_of_missing_file_names_organ_without_path() {
        let scan = scan_with_files(&[("kidney_left", [1, 0, 0, 0, 0, 0])]);
        let fault = mask("organs = ['kidney']").unwrap().mask(&scan).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Missing);
        assert_eq!(fault.message, "expected a mask of `kidney_right` for kidney, got none");
        let found = mask("organs = ['kidney']\noptional = true").unwrap().mask(&scan).unwrap();
        assert_eq!(found.labels.as_slice(), [5, 0, 0, 0, 0, 0]);
        let one = mask("organs.kidney = ['kidney_left']").unwrap().mask(&scan).unwrap();
        assert_eq!(one.labels.as_slice(), [5, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn new_reports_all_errors_at_once() {
        let errors = mask("pattern = 'x.nii'\norgans = ['splen']\nmin_coverage = -1.0").err().unwrap();
        let hints: Vec<_> = errors.iter().map(|error| error.hint.as_deref()).collect();
        assert_eq!(hints, [Some("pattern = \"organs/{name}.nii.gz\""), None, Some("did you mean `spleen`?")]);
        assert!(mask("organs.kidney = []").is_err());
    }
}
