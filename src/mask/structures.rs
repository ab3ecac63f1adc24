//! Organs from the structures of a DICOM file.

use std::sync::Arc;

use super::{Organ, OrganMask};
use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::{StructureSelector, Structures};
use crate::volume::{Array3, Grid};

/// The structures of one organ in a DICOM file.
#[derive(Clone, Debug, Default)]
pub(super) struct OrganStructures {
    /// Structures of the organ.
    pub healthy: Selection,
    /// Structures of the real tumors of the organ.
    pub tumor: Selection,
}

/// Structures by number and by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub numbers: Vec<u16>,
    pub names: Vec<String>,
    /// Whether a file with none of the names is a fault.
    pub is_required: bool,
}

impl Selection {
    fn selectors(&self) -> impl Iterator<Item = StructureSelector<'_>> {
        let names = self.names.iter().map(|name| StructureSelector::Name(name));
        self.numbers.iter().map(|&number| StructureSelector::Number(number)).chain(names)
    }

    /// Returns the structures of a file, in the order of the selection.
    fn find(&self, file: &dyn Structures, organ: &str) -> Result<Vec<usize>, Fault> {
        let found: Vec<usize> = self.selectors().flat_map(|selector| file.find(selector)).collect();
        if found.is_empty() && self.is_required {
            let names: Vec<String> = self.names.iter().map(|name| format!("`{name}`")).collect();
            return Err(Fault::mask(
                FaultKind::Missing,
                format!(
                    "expected one of the structures {} for {organ}, got {} other structures",
                    names.join(", "),
                    file.count()
                ),
            ));
        }
        Ok(found)
    }
}

/// Returns the mask of the structures on the grid of their scan. Where structures overlap, a tumor has priority over every organ, and an
/// organ over the organs after it.
///
/// # Errors
/// Returns `missing` if an organ has required names and none of them is in the file; `mismatch` if a structure does not belong to the scan,
/// or is not selected although `is_strict`; and the faults of using a structure.
pub(super) fn merge(
    file: &dyn Structures,
    selected: &[OrganStructures],
    organs: &Arc<[Organ]>,
    is_strict: bool,
    scan: &Grid,
) -> Result<OrganMask, Fault> {
    let mut labels = Array3::filled(scan.shape, 0u8);
    let voxels = labels.as_mut_slice();
    let mut is_selected = vec![false; file.count()];
    let pairs = || organs.iter().zip(selected);
    let tumors = pairs().map(|(organ, structures)| (organ, &structures.tumor, organ.tumor_label));
    let healthy = pairs().map(|(organ, structures)| (organ, &structures.healthy, organ.label));
    for (organ, selection, label) in tumors.chain(healthy) {
        for index in selection.find(file, &organ.name)? {
            is_selected[index] = true;
            let filled = file.for_each_voxel(index, scan, &mut |voxel| {
                if voxels[voxel] == 0 {
                    voxels[voxel] = label;
                }
            });
            filled.map_err(|fault| fault.during(&format!("a structure of {}", organ.name)).at(Stage::Mask))?;
        }
    }
    let others = is_selected.iter().filter(|selected| !**selected).count();
    if is_strict && others > 0 {
        let message = format!("expected structures of the organs only (`other = \"fault\"`), got {others} others");
        return Err(Fault::mask(FaultKind::Mismatch, message));
    }
    Ok(OrganMask { labels, organs: organs.clone(), coverage: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LabelsInMemory, scan_with_companions};
    use super::super::{LabelsMask, Mask};
    use super::*;
    use crate::error::ConfigError;
    use crate::ingest::{Companions, Scan};
    use crate::volume::{Affine, Labels};

    /// Names and voxels of structures, numbered from 1.
    #[derive(Clone)]
    struct StructuresInMemory(Vec<(&'static str, Vec<usize>)>);

    impl Structures for StructuresInMemory {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn find(&self, selector: StructureSelector<'_>) -> Vec<usize> {
            let matches = |index: &usize| match selector {
                StructureSelector::Name(name) => self.0[*index].0 == name,
                StructureSelector::Number(number) => usize::from(number) == index + 1,
            };
            (0..self.0.len()).filter(matches).collect()
        }

        fn for_each_voxel(&self, index: usize, _: &Grid, visit: &mut dyn FnMut(usize)) -> Result<(), Fault> {
            self.0[index].1.iter().for_each(|voxel| visit(*voxel));
            Ok(())
        }
    }

    impl Companions for StructuresInMemory {
        fn labels(&self, _: &str) -> Result<Labels, Fault> {
            Err(Fault::mask(FaultKind::Missing, "no label file"))
        }

        fn structures(&self, _: &str) -> Result<Option<Box<dyn Structures>>, Fault> {
            Ok(Some(Box::new(self.clone())))
        }
    }

    fn mask(settings: &str) -> Result<LabelsMask, Vec<ConfigError>> {
        LabelsMask::new(toml::from_str(&format!("pattern = 'rtstruct.dcm'\n{settings}")).unwrap())
    }

    /// Returns a scan of six voxels in a row.
    fn scan(structures: &[(&'static str, &[usize])]) -> Scan {
        let grid = Grid { shape: [6, 1, 1], affine: Affine::from_spacing([1.0; 3]) };
        let scan = scan_with_companions(grid, LabelsInMemory(Default::default()));
        let structures = structures.iter().map(|(name, voxels)| (*name, voxels.to_vec())).collect();
        Scan { companions: Arc::new(StructuresInMemory(structures)), ..scan }
    }

    #[test]
    fn tumor_structure_has_priority_over_organs() {
        let scan = scan(&[("Liver", &[0, 1, 2]), ("Kidney", &[2, 3]), ("GTV", &[1, 5])]);
        let settings = "scheme = 'custom'\n\
            organs.liver = { structures = ['Liver'], tumor_structures = ['GTV', 'GTV 2'] }\n\
            organs.kidney = { ids = [2] }";
        let found = mask(settings).unwrap().mask(&scan).unwrap();
        // Organs of a table are in alphabetical order: kidney, liver.
        assert_eq!(found.labels.as_slice(), [1, 2, 5, 5, 0, 2]);
        let stage = mask(settings).unwrap();
        stage.mask(&scan).unwrap();
        assert_eq!(stage.selections().unwrap().absent(), ["tumor structure `GTV 2` of `liver`"]);
    }

    #[test]
    fn names_of_scheme_select_structures_of_its_classes() {
        let scan = scan(&[("kidney_left", &[0]), ("kidney_right", &[1]), ("spleen", &[2])]);
        let found = mask("organs = ['kidney', 'liver']").unwrap().mask(&scan).unwrap();
        assert_eq!(found.labels.as_slice(), [5, 5, 0, 0, 0, 0]);
        let fault = mask("organs = ['kidney']\nother = 'fault'").unwrap().mask(&scan).unwrap_err();
        assert!(fault.message.ends_with("got 1 others"), "{fault}");
    }

    #[test]
    fn absent_structure_of_organ_is_missing_and_of_tumor_is_not() {
        let scan = scan(&[("Patient Name", &[0])]);
        let fault = mask("organs.liver = { structures = ['Liver', 'Leber'] }").unwrap().mask(&scan).unwrap_err();
        assert_eq!((fault.stage, fault.kind), (Stage::Mask, FaultKind::Missing));
        assert_eq!(fault.message, "expected one of the structures `Liver`, `Leber` for liver, got 1 other structures");
        let found = mask("organs.liver = { ids = [1], tumor_structures = ['GTV'] }").unwrap().mask(&scan).unwrap();
        assert_eq!(found.labels.as_slice(), [1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn names_need_dicom_file_and_are_not_empty() {
        let settings = "pattern = 'labels.nii.gz'\norgans.liver = { structures = ['Liver'] }";
        let stage = LabelsMask::new(toml::from_str(settings).unwrap()).unwrap();
        let grid = Grid { shape: [2, 1, 1], affine: Affine::from_spacing([1.0; 3]) };
        let labels = Labels { grid, ids: Array3::filled([2, 1, 1], 1) };
        let fault = stage.mask(&super::super::testing::scan_with(grid, labels)).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Mismatch);
        let errors = mask("organs.liver = { structures = [' '] }").err().unwrap();
        assert_eq!(errors[0].field, "organs.liver");
    }
}
