//! Samples as changes of a scan: the boxes of one tumor or of several, and nothing for a negative.
//!
//! This module owns the *support* of a change, the composition of the changes of several tumors, and the digest of the result. Every
//! tumor is made and scored alone on the unchanged scan; a composition joins accepted tumors whose supports are disjoint and is not
//! scored again. A sample keeps one box for each tumor instead of one box around all of them, so that it needs the bytes of its tumors
//! only, although they may be far from each other. Every box contains the composed voxels, also those of other tumors: the boxes may be
//! pasted onto the scan in any order.

mod composition;

pub use composition::Composition;

use crate::id::{CandidateDigest, FieldHasher, SampleId};
use crate::synth::{Candidate, hash_voxels};
use crate::volume::{Array3, Region};

/// A box of a scan with the voxels that a sample changes, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// The box on the scan's grid.
    pub region: Region,
    /// HU of the box in the scan.
    pub before: &'a Array3<f32>,
    /// HU of the box with the tumors.
    pub after: &'a Array3<f32>,
    /// Merged labels of the box with the tumors.
    pub labels: &'a Array3<u8>,
}

/// A box of a scan with the voxels that a sample changes.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedBox {
    /// The box on the scan's grid.
    pub region: Region,
    /// HU of the box in the scan.
    pub before: Array3<f32>,
    /// HU of the box with the tumors.
    pub after: Array3<f32>,
    /// Merged labels of the box with the tumors.
    pub labels: Array3<u8>,
}

impl<'a> From<&'a Candidate> for Overlay<'a> {
    fn from(candidate: &'a Candidate) -> Self {
        let Candidate { region, before, after, labels, .. } = candidate;
        Self { region: *region, before, after, labels }
    }
}

impl<'a> From<&'a ChangedBox> for Overlay<'a> {
    fn from(changed: &'a ChangedBox) -> Self {
        let ChangedBox { region, before, after, labels } = changed;
        Self { region: *region, before, after, labels }
    }
}

/// Borrows boxes.
pub fn overlays(boxes: &[ChangedBox]) -> Vec<Overlay<'_>> {
    boxes.iter().map(Overlay::from).collect()
}

/// Returns the SHA-256 of the positions, voxels before and after, and labels of the boxes of a sample: for one box, the digest of the
/// candidate.
pub fn digest(boxes: &[Overlay<'_>]) -> CandidateDigest {
    let add = |hasher, overlay: &Overlay<'_>| {
        hash_voxels(hasher, overlay.region, overlay.before, overlay.after, overlay.labels)
    };
    CandidateDigest::from_hash(&boxes.iter().fold(FieldHasher::new("candidate"), add).finish())
}

/// Returns the id of the sample that consists of these candidates, in the order of their keys: of one candidate, the id of the candidate.
///
/// ```
/// use freetumor::compose::composition_id;
/// use freetumor::id::SampleId;
/// let [one, two] = [SampleId::from_bytes([1; 8]), SampleId::from_bytes([2; 8])];
/// assert_eq!(composition_id(&[one]), one);
/// assert_ne!(composition_id(&[one, two]), composition_id(&[two, one]));
/// ```
pub fn composition_id(candidates: &[SampleId]) -> SampleId {
    if let [candidate] = candidates {
        return *candidate;
    }
    let add = |hasher: FieldHasher, id: &SampleId| hasher.add_field(id.as_bytes());
    SampleId::from_hash(&candidates.iter().fold(FieldHasher::new("composition"), add).finish())
}

/// Returns the support of a change: 1 at every voxel of the box whose HU or label the change alters. `labels` are the merged labels of the
/// whole scan; the box must be inside the scan.
pub fn support(change: Overlay<'_>, labels: &Array3<u8>) -> Array3<u8> {
    let original = labels.cut(change.region);
    let hu = change.after.as_slice().iter().zip(change.before.as_slice()).map(|(after, before)| after != before);
    let label = change.labels.as_slice().iter().zip(original.as_slice()).map(|(after, before)| after != before);
    let voxels = hu.zip(label).map(|(hu, label)| u8::from(hu || label)).collect();
    Array3::from_vec(change.region.shape, voxels)
}
