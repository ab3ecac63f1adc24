//! The box and the JSON request that are passed to a program.

use serde_json::{Value as Json, json};

use crate::mask::{MaskedScan, Organ};
use crate::synth::Candidate;
use crate::volume::{Array3, Grid, Region};

/// A candidate with the surrounding part of the scan.
pub(super) struct CandidateContext {
    /// Voxel box on the scan.
    pub region: Region,
    /// Grid of the box, in patient coordinates.
    pub grid: Grid,
    /// HU before synthesis.
    pub before: Array3<f32>,
    /// Merged labels before synthesis.
    pub labels: Array3<u8>,
    /// 1 inside the candidate's tumor.
    pub tumor: Array3<u8>,
}

impl CandidateContext {
    /// Returns the candidate's box with a margin, clipped to the scan.
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

    /// Returns the JSON request, without patient data. Lengths are in mm; voxels are indices [x, y, z] into the box.
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

/// Returns the start of a region relative to an outer region.
pub(super) fn offset(inner: Region, outer: Region) -> [usize; 3] {
    [0, 1, 2].map(|axis| inner.start[axis] - outer.start[axis])
}

/// Converts labels or a mask to floats, for images of several volumes.
pub(super) fn floats(labels: &Array3<u8>) -> Array3<f32> {
    labels.map(|&label| f32::from(label))
}
