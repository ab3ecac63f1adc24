//! Structures of a patient in a DICOM file: an RT Structure Set or a Segmentation.

use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;

use super::dataset::DatasetFile;
use super::elements::Elements;
use super::segmentation::Segmentation;
use super::structure::{FrameOfReference, Structure};
use super::structure_set::StructureSet;
use crate::error::{Fault, FaultKind};
use crate::ingest::{StructureSelector, Structures};
use crate::volume::Grid;

/// SOP class of an RT Structure Set (PS3.4, table B.5-1).
const STRUCTURE_SET_CLASS: &str = "1.2.840.10008.5.1.4.1.1.481.3";
/// SOP class of a Segmentation.
const SEGMENTATION_CLASS: &str = "1.2.840.10008.5.1.4.1.1.66.4";
/// SOP class of a Segmentation of type LABELMAP.
const LABEL_MAP_CLASS: &str = "1.2.840.10008.5.1.4.1.1.66.7";

/// The structures of one RT Structure Set or Segmentation.
///
/// A structure is a set of voxels of a scan. In an RT Structure Set, a voxel is inside if its centre is inside an odd number of the closed
/// planar contours in its slice. In a Segmentation, it is inside if its pixel is 1, or at least half of the maximum fractional value.
/// Structures may overlap.
pub struct StructureFile {
    structures: Vec<Structure>,
    content: Content,
}

enum Content {
    Contours(StructureSet),
    Segments(Box<Segmentation>),
}

impl StructureFile {
    /// Reads the structures of a file, or of the only such file in a folder, without its subfolders.
    ///
    /// `scan` is the frame of reference of the scan, if it is known: structures in another frame of reference are a fault.
    ///
    /// # Errors
    /// Returns `missing` if the folder contains no such file; `unsupported` for another kind of file, compressed pixels, and
    /// contours that are not closed and planar; `mismatch` if the folder contains several, or the frame of reference is another one;
    /// `truncated`, `corrupt`, `too_large` (more than `max_bytes`) or `io` if the file cannot be read.
    pub fn read(path: &Path, scan: Option<FrameOfReference>, max_bytes: u64) -> Result<Self, Fault> {
        match path.is_dir() {
            true => Self::read_file(&only_file(path)?, scan, max_bytes),
            false => Self::read_file(path, scan, max_bytes),
        }
    }

    fn read_file(path: &Path, scan: Option<FrameOfReference>, max_bytes: u64) -> Result<Self, Fault> {
        let file = DatasetFile::read(path, max_bytes)?;
        let dataset = file.dataset()?;
        let (structures, content) = match dataset.text(tags::SOP_CLASS_UID).as_deref() {
            Some(STRUCTURE_SET_CLASS) => {
                let (structures, set) = StructureSet::read(&dataset, scan)?;
                (structures, Content::Contours(set))
            }
            Some(SEGMENTATION_CLASS) => {
                let (structures, segmentation) = Segmentation::read(&dataset, file.syntax, scan)?;
                (structures, Content::Segments(Box::new(segmentation)))
            }
            Some(LABEL_MAP_CLASS) => return Err(Segmentation::label_map_fault()),
            _ => {
                let message = "expected an RT Structure Set or a Segmentation, got another DICOM file";
                return Err(Fault::read(FaultKind::Unsupported, message));
            }
        };
        Ok(Self { structures, content })
    }

    /// Returns the number and the name of each structure.
    pub fn names(&self) -> impl Iterator<Item = (i64, Option<&str>)> {
        self.structures.iter().map(|structure| (structure.number, structure.name.as_deref()))
    }
}

impl Structures for StructureFile {
    fn count(&self) -> usize {
        self.structures.len()
    }

    fn find(&self, selector: StructureSelector<'_>) -> Vec<usize> {
        let matches = |structure: &Structure| match selector {
            StructureSelector::Number(number) => structure.number == i64::from(number),
            StructureSelector::Name(name) => {
                structure.name.as_ref().is_some_and(|own| own.to_lowercase() == name.trim().to_lowercase())
            }
        };
        (0..self.structures.len()).filter(|&index| matches(&self.structures[index])).collect()
    }

    fn for_each_voxel(&self, index: usize, scan: &Grid, visit: &mut dyn FnMut(usize)) -> Result<(), Fault> {
        match &self.content {
            Content::Contours(set) => set.for_each_voxel(index, scan, visit),
            Content::Segments(segmentation) => segmentation.for_each_voxel(self.structures[index].number, scan, visit),
        }
    }
}

/// Returns whether a file is an RT Structure Set or a Segmentation, by its SOP class.
pub fn is_structure_file(path: &Path) -> bool {
    let elements = Elements::open(path, &[tags::SOP_CLASS_UID]);
    elements.is_some_and(|elements| elements.text(tags::SOP_CLASS_UID).is_some_and(is_structure_class))
}

fn is_structure_class(class: &str) -> bool {
    [STRUCTURE_SET_CLASS, SEGMENTATION_CLASS, LABEL_MAP_CLASS].contains(&class)
}

/// Returns the RT Structure Set or Segmentation in a folder.
fn only_file(folder: &Path) -> Result<PathBuf, Fault> {
    let failed = |error: std::io::Error| {
        Fault::read(FaultKind::Io, format!("cannot list the folder of a structure file: {}", error.kind()))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let class = path.is_file().then(|| Elements::open(&path, &[tags::SOP_CLASS_UID])).flatten();
        if class.is_some_and(|elements| elements.text(tags::SOP_CLASS_UID).is_some_and(is_structure_class)) {
            found.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) if found.is_empty() => Err(Fault::read(
            FaultKind::Missing,
            "expected an RT Structure Set or a Segmentation in the folder, got none",
        )),
        Err(found) => Err(Fault::read(
            FaultKind::Mismatch,
            format!(
                "expected one RT Structure Set or Segmentation in the folder, got {}: name the file in the pattern",
                found.len()
            ),
        )),
    }
}
