//! The ids and structures that the settings of the mask kind `labels` select, and whether a file contains them.

use super::label_settings::OrganIds;
use super::structures::OrganStructures;
use crate::ingest::{StructureSelector, Structures};

/// The alternatives of one selection in a label map or a DICOM file.
pub(super) struct LabelSelection {
    ids: Vec<u16>,
    names: Vec<String>,
}

impl LabelSelection {
    /// Returns whether a label map with these ids contains the selection; `is_present` is indexed by id.
    pub fn is_in_map(&self, is_present: &[bool]) -> bool {
        self.ids.iter().any(|id| is_present[usize::from(*id)])
    }

    /// Returns whether a DICOM file contains the selection.
    pub fn is_in_file(&self, file: &dyn Structures) -> bool {
        let ids = self.ids.iter().map(|id| StructureSelector::Number(*id));
        let names = self.names.iter().map(|name| StructureSelector::Name(name));
        ids.chain(names).any(|selector| !file.find(selector).is_empty())
    }
}

/// Returns the selections of an organ with their names. The classes of a scheme are alternatives: a scan of the abdomen contains the lower
/// lobes of the lungs only.
pub(super) fn selections_of(
    organ: &str,
    given: &OrganIds,
    in_dicom: &OrganStructures,
    ids: &[u16],
) -> Vec<(String, LabelSelection)> {
    let mut found = Vec::new();
    let mut add = |name: String, ids: Vec<u16>, names: Vec<String>| found.push((name, LabelSelection { ids, names }));
    if given.ids.is_empty() && given.structures.is_empty() {
        if !ids.is_empty() {
            add(format!("`{organ}`"), ids.to_vec(), in_dicom.healthy.names.clone());
        }
    } else {
        given.ids.iter().for_each(|id| add(format!("id {id} of `{organ}`"), vec![*id], Vec::new()));
        for name in &given.structures {
            add(format!("structure `{name}` of `{organ}`"), Vec::new(), vec![name.clone()]);
        }
    }
    given.tumor_ids.iter().for_each(|id| add(format!("tumor id {id} of `{organ}`"), vec![*id], Vec::new()));
    for name in &given.tumor_structures {
        add(format!("tumor structure `{name}` of `{organ}`"), Vec::new(), vec![name.clone()]);
    }
    found
}
