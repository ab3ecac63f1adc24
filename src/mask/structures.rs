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
/// Returns `missing` if an organ has required names and none of them is in the file; `mismatch` if a structure does not belong to the scan, or
/// is not selected although `is_strict`; and the faults of using a structure.
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
