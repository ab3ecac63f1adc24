//! What the settings of a mask stage select in label files, and whether it occurs in any of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::label_settings::OrganIds;
use super::structures::OrganStructures;
use crate::ingest::{StructureSelector, Structures};

/// The ids, structures and files that the settings of a mask stage select, and which of them occurred in the scans that the stage masked.
///
/// ```
/// use freetumor::mask::Selections;
///
/// let selections = Selections::new(["id 5 of `liver`".to_owned(), "tumor id 118 of `liver`".to_owned()]);
/// selections.record(&[true, false]);
/// selections.record(&[false, false]);
/// assert_eq!(selections.scans(), 2);
/// assert_eq!(selections.absent(), ["tumor id 118 of `liver`"]);
/// ```
#[derive(Debug, Default)]
pub struct Selections {
    names: Vec<String>,
    occurred: Vec<AtomicBool>,
    scans: AtomicUsize,
}

impl Selections {
    /// Creates the selections with these names for messages, in no scan so far.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> = names.into_iter().collect();
        let occurred = names.iter().map(|_| AtomicBool::new(false)).collect();
        Self { names, occurred, scans: AtomicUsize::new(0) }
    }

    /// Returns the names of all selections.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Adds a scan; `occurs` states for each selection whether it occurs in the label files of the scan.
    pub fn record(&self, occurs: &[bool]) {
        for (occurred, _) in self.occurred.iter().zip(occurs).filter(|(_, occurs)| **occurs) {
            occurred.store(true, Ordering::Relaxed);
        }
        self.scans.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of scans.
    pub fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }

    /// Returns the names of the selections that occurred in no scan.
    pub fn absent(&self) -> Vec<&str> {
        let pairs = self.names.iter().zip(&self.occurred);
        pairs.filter(|(_, occurred)| !occurred.load(Ordering::Relaxed)).map(|(name, _)| name.as_str()).collect()
    }
}

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
