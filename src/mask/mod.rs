//! Organ masks: which voxels of a scan belong to which organ.
//!
//! This room owns the label maps of organs, whichever way they are made: label files ([`LabelsMask`]), TotalSegmentator's files
//! ([`TotalSegmentatorMask`]), a threshold for lungs ([`LungMask`]), or a network ([`SegmentorMask`]); and sets of voxels with their
//! components ([`BitVolume`], [`crate::volume::Components`]).
//!
//! A mask is on the scan's own grid: labels on another grid are brought to it, and labels that do not cover it are a fault. Merged labels
//! use one id for an organ and the next for its tumor (liver 1 and 2, pancreas 3 and 4, …).

mod align;
mod bits;
mod classes;
mod labels;
mod lung;
mod organs;
mod segmentor;
#[cfg(test)]
mod testing;
mod totalsegmentator;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::id::{FieldHasher, MaskDigest};
use crate::inference::Inference;
use crate::ingest::Scan;
use crate::volume::Array3;

pub use align::Alignment;
pub use bits::BitVolume;
pub use classes::{CLASSES, class_ids, class_name};
pub use labels::{LabelScheme, LabelsConfig, LabelsMask, OrganChoice, OrganIds, OtherLabels};
pub use lung::{LungConfig, LungMask};
pub use organs::merged_organs;
pub use segmentor::{SegmentorMask, SegmentorMaskConfig};
pub use totalsegmentator::{FileChoice, TotalSegmentatorConfig, TotalSegmentatorMask};

/// One organ of a pipeline and its ids in the merged label map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organ {
    /// Lower-case English name: `liver`, `pancreas`, `kidney`, `lung`, or one of the user's own.
    pub name: String,
    /// Merged id of the healthy organ.
    pub label: u8,
    /// Merged id of its tumors, real or synthetic.
    pub tumor_label: u8,
}

/// Merged labels on the scan's own grid: 0 is background, the others as [`Organ`] says.
#[derive(Clone, Debug, PartialEq)]
pub struct OrganMask {
    /// The label of each voxel; same shape as the scan.
    pub labels: Array3<u8>,
    /// The organs that the labels may hold, in the order of the graph file.
    pub organs: Arc<[Organ]>,
}

impl OrganMask {
    /// SHA-256 of the labels and their shape.
    pub fn digest(&self) -> MaskDigest {
        let shape: Vec<u8> = self.labels.shape().into_iter().flat_map(|size| (size as u64).to_le_bytes()).collect();
        MaskDigest::from_hash(&FieldHasher::new("mask").field(shape).field(self.labels.as_slice()).finish())
    }
}

/// A scan with its organs: what every later stage works on.
#[derive(Clone, Debug)]
pub struct MaskedScan {
    /// The scan.
    pub scan: Arc<Scan>,
    /// Its organs.
    pub mask: OrganMask,
}

/// Finds the organs of a scan.
pub trait Mask: Send + Sync {
    /// The organs that this stage may find.
    fn organs(&self) -> Arc<[Organ]>;

    /// The mask of `scan`, brought to the scan's own grid.
    ///
    /// # Errors
    /// A [`Fault`] where the mask is missing, unreadable, or does not belong to the scan.
    fn mask(&self, scan: &Scan) -> Result<OrganMask, Fault>;

    /// The network that it looks with, where it does.
    fn viewer(&self) -> Option<&Inference> {
        None
    }
}
