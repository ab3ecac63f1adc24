//! Organ masks: the organ of each voxel of a scan.
//!
//! This module owns the label maps of organs and their sources: label files and structures of DICOM files ([`LabelsMask`]), files of
//! TotalSegmentator ([`TotalSegmentatorMask`]), a threshold for lungs ([`LungMask`]), or a network ([`SegmentorMask`]); and sets of voxels
//! with their components ([`BitVolume`], [`crate::volume::Components`]).
//!
//! A mask is on the grid of the scan: labels on another grid are resampled to it, and labels that do not cover the scan are a fault. Merged
//! labels use one id for an organ and the next id for its tumor (liver 1 and 2, pancreas 3 and 4, …).

mod align;
mod bits;
mod classes;
mod label_selections;
mod label_settings;
mod labels;
mod lung;
mod names;
mod organs;
mod segmentor;
mod selections;
mod structures;
#[cfg(test)]
mod testing;
mod totalsegmentator;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::id::{FieldHasher, MaskDigest};
use crate::inference::Inference;
use crate::ingest::{Companions, FileState, Scan};
use crate::volume::{Array3, Grid};

pub use align::Alignment;
pub use bits::BitVolume;
pub use classes::{CLASS_COUNT, class_ids, class_name};
pub use label_settings::{LabelScheme, LabelsConfig, OrganChoice, OrganIds, OtherLabels};
pub use labels::LabelsMask;
pub use lung::{LungConfig, LungMask};
pub use names::is_other_organ;
pub use organs::merged_organs;
pub use segmentor::{SegmentorMask, SegmentorMaskConfig, SuspectedTumors};
pub use selections::Selections;
pub use totalsegmentator::{FileChoice, TotalSegmentatorConfig, TotalSegmentatorMask};

/// The label of voxels without a known label, such as suspected real tumors: no synthetic tumor is placed in them, and training and
/// evaluation ignore them.
pub const IGNORE_LABEL: u8 = 255;

/// One organ of a pipeline and its ids in the merged label map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organ {
    /// Lower-case English name: `liver`, `pancreas`, `kidney`, `lung`, or a user-defined name.
    pub name: String,
    /// Merged id of the healthy organ.
    pub label: u8,
    /// Merged id of the tumors of the organ, real or synthetic.
    pub tumor_label: u8,
}

/// Merged labels on the grid of the scan: 0 is background, [`IGNORE_LABEL`] is unknown, the other ids are those of each [`Organ`].
#[derive(Clone, Debug, PartialEq)]
pub struct OrganMask {
    /// The label of each voxel; the shape is that of the scan.
    pub labels: Array3<u8>,
    /// The organs that the labels may contain, in the order of the graph file.
    pub organs: Arc<[Organ]>,
    /// Share of the voxels of the scan that the label files cover, 0 to 1: the smallest of several files. Voxels outside are background.
    pub coverage: f64,
}

impl OrganMask {
    /// Returns the labels of voxels that synthesis leaves as they are: the tumors of all organs, and [`IGNORE_LABEL`].
    pub fn kept_labels(&self) -> Vec<u8> {
        self.organs.iter().map(|organ| organ.tumor_label).chain([IGNORE_LABEL]).collect()
    }

    /// Returns the SHA-256 of the labels and of the shape of the label map.
    pub fn digest(&self) -> MaskDigest {
        let shape: Vec<u8> = self.labels.shape().into_iter().flat_map(|size| (size as u64).to_le_bytes()).collect();
        MaskDigest::from_hash(&FieldHasher::new("mask").add_field(shape).add_field(self.labels.as_slice()).finish())
    }
}

/// A scan with its organs: the input of every later stage.
#[derive(Clone, Debug)]
pub struct MaskedScan {
    /// The scan.
    pub scan: Arc<Scan>,
    /// The merged labels of the organs in the scan.
    pub mask: OrganMask,
}

/// The share of the voxels of a scan that label files cover.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// The share, 0 to 1.
    pub share: f64,
    /// The minimum share: a scan with a smaller one is a fault.
    pub minimum: f64,
}

/// Reads the grid of a scan on demand; `None` if the scan cannot be read.
pub type ScanGrid<'a> = &'a dyn Fn() -> Option<Grid>;

/// Finds the organs of a scan.
pub trait Mask: Send + Sync {
    /// Returns the organs that this stage may find.
    fn organs(&self) -> Arc<[Organ]>;

    /// Returns the version of the algorithm, which increases with every change of results: a run folder then computes its scans again.
    fn algorithm_version(&self) -> u32 {
        1
    }

    /// Returns the mask of `scan` on the grid of the scan.
    ///
    /// # Errors
    /// Returns a [`Fault`] if the mask is missing, is unreadable, or does not belong to the scan.
    fn mask(&self, scan: &Scan) -> Result<OrganMask, Fault>;

    /// Returns the pattern of a label file that the stage needs and that does not exist; `None` if no file is missing, or the stage reads
    /// no label files.
    fn missing_file(&self, _companions: &dyn Companions) -> Option<String> {
        None
    }

    /// Returns the states of the label files that the stage reads for a scan; empty if the stage reads none.
    fn file_states(&self, _companions: &dyn Companions) -> Vec<FileState> {
        Vec::new()
    }

    /// Returns the files and folders that the stage reads for every scan, beside its weights, which its digest covers.
    fn program_files(&self) -> &[PathBuf] {
        &[]
    }

    /// Returns the fault of a label file whose table of names, or that of its data set, contradicts the organs of the stage.
    fn contradiction(&self, _companions: &dyn Companions) -> Option<Fault> {
        None
    }

    /// Returns the share of the voxels of a scan that the label files cover, by their headers, and the minimum share; `None` if the stage
    /// reads no label files, they have no grid of their own, or `scan` returns no grid.
    ///
    /// # Errors
    /// Returns the fault of the header of a label file.
    fn coverage(&self, _companions: &dyn Companions, _scan: ScanGrid<'_>) -> Result<Option<Coverage>, Fault> {
        Ok(None)
    }

    /// Returns what the settings select in label files; `None` if the stage selects nothing by id, name or file.
    fn selections(&self) -> Option<&Selections> {
        None
    }

    /// Returns for each name of [`Mask::selections`] whether it occurs in the label files of a scan, which are read in full.
    ///
    /// # Errors
    /// Returns the fault of reading a label file.
    fn find_selections(&self, _companions: &dyn Companions) -> Result<Vec<bool>, Fault> {
        Ok(Vec::new())
    }

    /// Returns the names of the ids in the label files that the stage reads, if it reads one file for all organs.
    fn label_names(&self) -> BTreeMap<u16, String> {
        BTreeMap::new()
    }

    /// Returns whether masks may contain [`IGNORE_LABEL`].
    fn may_ignore(&self) -> bool {
        false
    }

    /// Returns the inference of the stage, if the stage uses a network.
    fn inference(&self) -> Option<&Inference> {
        None
    }
}
