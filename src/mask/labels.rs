//! Organs from one label file, or one DICOM file with structures, in the folder of the scan.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::align::Alignment;
use super::classes::{CLASSES, class_ids, class_name, did_you_mean_organ};
use super::label_selections::{LabelSelection, selections_of};
use super::label_settings::{LabelScheme, LabelsConfig, OrganChoice, OrganIds, OtherLabels, check_coverage};
use super::names::{DATA_SET_TABLE, FILE_TABLE, contradiction};
use super::selections::Selections;
use super::structures::{self, OrganStructures};
use super::{Coverage, Mask, Organ, OrganMask, ScanGrid, merged_organs};
use crate::error::{ConfigError, Fault, FaultKind};
use crate::ingest::{Companions, Scan};
use crate::volume::{Array3, Grid, Labels};

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
    /// Ids and names of which a label file contains one, for each name of `selections`.
    selected: Vec<LabelSelection>,
    selections: Selections,
}

/// Returns which ids a label map contains, by id.
fn present_ids(labels: &Labels) -> Vec<bool> {
    let mut is_present = vec![false; usize::from(u16::MAX) + 1];
    labels.ids.as_slice().iter().for_each(|id| is_present[usize::from(*id)] = true);
    is_present
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
        let structures: Vec<OrganStructures> =
            choice.iter().map(|(name, given)| given.in_dicom(name, config.scheme)).collect();
        let selections = choice.iter().zip(structures.iter().zip(&organ_ids));
        let selections =
            selections.flat_map(|((name, given), (in_dicom, ids))| selections_of(name, given, in_dicom, ids));
        let (names, selected): (Vec<String>, Vec<LabelSelection>) = selections.unzip();
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
            LabelScheme::TotalSegmentator => CLASSES,
            LabelScheme::Custom => u16::MAX,
        };
        let LabelsConfig { pattern, scheme, other, min_coverage, .. } = config;
        Ok(Self {
            pattern,
            organs,
            organ_ids,
            scheme,
            structures,
            has_names,
            merged,
            max_id,
            other,
            min_coverage,
            selected,
            selections: Selections::new(names),
        })
    }

    /// Returns the mask of a label file on the grid of its scan.
    ///
    /// # Errors
    /// Returns a fault if the file does not belong to the scan or contains an id that is not allowed.
    pub fn merge(&self, labels: &Labels, scan: &Grid) -> Result<OrganMask, Fault> {
        self.merge_present(labels, scan).map(|(mask, _)| mask)
    }

    /// Returns the mask of a label file, and which ids the scan contains, by id.
    fn merge_present(&self, labels: &Labels, scan: &Grid) -> Result<(OrganMask, Vec<bool>), Fault> {
        let alignment = Alignment::new(&labels.grid, scan, self.min_coverage)?;
        let mut merged = Array3::filled(scan.shape, 0u8);
        let mut is_present = vec![false; usize::from(u16::MAX) + 1];
        let voxels = merged.as_mut_slice();
        alignment.for_each_label(labels, |index, id| {
            voxels[index] = self.merged[usize::from(id)];
            is_present[usize::from(id)] = true;
        });
        let is_ignored = |id: u16| is_present[usize::from(id)] && self.merged[usize::from(id)] == 0;
        if let Some(fault) = (1..=u16::MAX).filter(|id| is_ignored(*id)).find_map(|id| self.id_fault(id)) {
            return Err(fault);
        }
        let mask = OrganMask { labels: merged, organs: self.organs.clone(), coverage: alignment.coverage() };
        Ok((mask, is_present))
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
            format!("expected labels 1..{CLASSES} of TotalSegmentator v2, got {id}")
        } else if self.other == OtherLabels::Fault {
            format!("expected labels of the organs only (`other = \"fault\"`), got {id}")
        } else {
            return None;
        };
        Some(Fault::mask(FaultKind::Mismatch, message))
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
            let mask = structures::merge(file.as_ref(), &self.structures, &self.organs, is_strict, grid)?;
            let occurs: Vec<bool> = self.selected.iter().map(|selected| selected.is_in_file(file.as_ref())).collect();
            self.selections.record(&occurs);
            return Ok(mask);
        }
        self.check_label_file(&*scan.companions)?;
        let labels = scan.companions.labels(&self.pattern)?;
        if self.has_names {
            return Err(Fault::mask(
                FaultKind::Mismatch,
                "expected a DICOM RT Structure Set or Segmentation, because `structures` selects by name in DICOM files, got a label map: use its numbers instead, such as `ids = [1]`",
            ));
        }
        let (mask, is_present) = self.merge_present(&labels, grid)?;
        let occurs: Vec<bool> = self.selected.iter().map(|selected| selected.is_in_map(&is_present)).collect();
        self.selections.record(&occurs);
        Ok(mask)
    }

    fn selections(&self) -> Option<&Selections> {
        Some(&self.selections)
    }

    fn find_selections(&self, companions: &dyn Companions) -> Result<Vec<bool>, Fault> {
        if let Some(file) = companions.structures(&self.pattern)? {
            return Ok(self.selected.iter().map(|selected| selected.is_in_file(file.as_ref())).collect());
        }
        let is_present = present_ids(&companions.labels(&self.pattern)?);
        Ok(self.selected.iter().map(|selected| selected.is_in_map(&is_present)).collect())
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

    fn missing_file(&self, companions: &dyn Companions) -> Option<String> {
        (!companions.exists(&self.pattern)).then(|| self.pattern.clone())
    }

    fn label_names(&self) -> BTreeMap<u16, String> {
        let name = |merged: u8| {
            let organ = self.organs.iter().find(|organ| [organ.label, organ.tumor_label].contains(&merged))?;
            Some(if organ.label == merged { organ.name.clone() } else { format!("{}_tumor", organ.name) })
        };
        let is_scheme = self.max_id == CLASSES;
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
    fn ids_and_organs_that_occur_in_no_scan_are_absent() {
        let stage = mask(
            "scheme = 'custom'\norgans.liver = { ids = [7, 8], tumor_ids = [118] }\norgans.spleen = { ids = [9] }",
        );
        let stage = stage.unwrap();
        for ids in [[0, 7, 0, 0, 0, 0], [0, 7, 9, 9, 0, 0]] {
            stage.mask(&scan_with(grid(), labels(ids))).unwrap();
        }
        let selections = stage.selections().unwrap();
        assert_eq!((selections.scans(), selections.absent()), (2, vec!["id 8 of `liver`", "tumor id 118 of `liver`"]));
        // The classes of an organ of the scheme are alternatives.
        let stage = mask("organs = ['kidney', 'pancreas']").unwrap();
        let scan = scan_with(grid(), labels([0, 3, 0, 0, 0, 0]));
        assert_eq!(stage.find_selections(&*scan.companions), Ok(vec![true, false]));
        stage.mask(&scan).unwrap();
        assert_eq!(stage.selections().unwrap().absent(), ["`pancreas`"]);
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
