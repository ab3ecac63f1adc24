//! The box that a program is given, and the JSON beside it.

use serde_json::{Value as Json, json};

use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;
use crate::volume::{Array3, Grid, Region};

/// A candidate with the scan around it.
pub(super) struct CandidateContext {
    /// Where on the scan.
    pub region: Region,
    /// Where in the patient.
    pub grid: Grid,
    /// HU before.
    pub before: Array3<f32>,
    /// Merged labels before.
    pub labels: Array3<u8>,
    /// 1 where the candidate's tumor is.
    pub tumor: Array3<u8>,
}

impl CandidateContext {
    /// The candidate's box with a margin, as far as the scan reaches.
    pub fn new(masked: &MaskedScan, candidate: &Candidate, margin_mm: f64) -> Self {
        let volume = &masked.scan.volume;
        let margin = volume.grid.spacing_mm().map(|mm| (margin_mm / mm).ceil() as usize);
        let region = candidate.region.grown(margin, volume.grid.shape);
        let mut tumor = Array3::filled(region.shape, 0u8);
        tumor.paste(offset(candidate.region, region), &candidate.tumor);
        Self {
            region,
            grid: volume.grid.cut(region),
            before: volume.voxels.hu_of(region),
            labels: masked.mask.labels.cut(region),
            tumor,
        }
    }

    /// What a program may want to know: no more than the voxels say, and nothing of the patient. Lengths in mm, voxels
    /// [x, y, z] of the box.
    pub fn request(&self, organ: &Organ, candidate: &Candidate) -> Json {
        let geometry = &candidate.geometry;
        let site: Vec<i64> =
            (0..3).map(|axis| geometry.site_voxel[axis] as i64 - self.region.start[axis] as i64).collect();
        json!({
            "organ": organ.name,
            "label": organ.label,
            "tumor_label": organ.tumor_label,
            "spacing_mm": self.grid.spacing_mm(),
            "box": { "start": self.region.start, "shape": self.region.shape },
            "tumor": {
                "size_class": geometry.size_class,
                "site_voxel": site,
                "radii_mm": geometry.radii_mm,
                "diameter_mm": geometry.diameter_mm,
            },
        })
    }
}

/// Where a region begins inside a larger one.
pub(super) fn offset(inner: Region, outer: Region) -> [usize; 3] {
    [0, 1, 2].map(|axis| inner.start[axis] - outer.start[axis])
}

/// Labels or a mask as floats, for images of several volumes.
pub(super) fn floats(labels: &Array3<u8>) -> Array3<f32> {
    labels.map(|&label| f32::from(label))
}
