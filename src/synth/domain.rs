//! The voxels that a tumor may occupy.
//!
//! A mask rarely ends where the organ does: it has holes at vessels, and it runs inside the organ or leaves parts of it out. A tumor that
//! were cut along such a border would have a straight edge in even tissue. So a tumor also occupies unlabeled voxels near the organ whose
//! HU are those of the organ, and holes that it encloses; in organs whose tumors grow beyond the surface, it occupies all soft tissue
//! and fat that it reaches. It never occupies real tumors, other organs, bone or air.

use super::host::Host;
use super::mass_effect::{AIR_HU, BONE_HU};
use super::organ::OrganSummary;
use crate::mask::{BitVolume, MaskedScan, Organ};
use crate::volume::{Array3, Boundary, Connectivity, Gaussian, Region, RowSpans, keep_largest};

/// The maximum distance of unlabeled tissue of the organ from the mask.
const NEAR_MASK_MM: f64 = 8.0;
/// The standard deviation of the smoothing before HU are compared with those of the organ.
const COMPARED_SIGMA_MM: f64 = 1.5;
/// The maximum deviation from the organ's median, in standard deviations of the organ.
const SIMILAR: f32 = 1.5;
/// The range of standard deviations of an organ that is compared.
const SPREAD_HU: [f32; 2] = [6.0, 20.0];
/// A voxel is labeled if at least this share of it is tumor.
const LABELED_FROM: f32 = 0.5;

/// A tumor at its site: the part of its shape that the organ and the tissue around it allow.
pub(super) struct PlacedTumor {
    /// 1 in voxels that the tumor may change.
    pub allowed: Array3<u8>,
    /// 1 in voxels of which at least half is tumor.
    pub tumor: Array3<u8>,
    /// 1 in allowed voxels that were not labeled as organ: their content is replaced by tissue of the organ.
    pub replaced: Array3<u8>,
    /// Share of the shape that is not part of the tumor.
    pub clipped_fraction: f64,
}

/// The surroundings of a tumor.
pub(super) struct Surroundings<'a> {
    pub scan: &'a MaskedScan,
    pub organ: &'a Organ,
    pub summary: &'a OrganSummary,
    pub host: &'a Host,
    /// Whether tumors of the organ grow beyond its surface.
    pub is_exterior: bool,
    pub spacing_mm: [f64; 3],
}

impl Surroundings<'_> {
    /// Returns the part of a shape that is in the organ. `coverage` is the share of each voxel of `part` that is inside the shape, `within`
    /// the spans that the tumor changes, `outside_voxels` the number of voxels of the shape that are outside the scan.
    ///
    /// # Errors
    /// Returns the reason if the shape does not fit.
    pub fn place(
        &self,
        part: Region,
        coverage: &Array3<f32>,
        within: &RowSpans,
        outside_voxels: usize,
        limits: Limits,
    ) -> Result<PlacedTumor, &'static str> {
        let labels = self.host.labels.cut(part);
        let shape = coverage.map(|&share| u8::from(share >= LABELED_FROM));
        let tumor_labels = self.scan.mask.kept_labels();
        if touches_tumor(&tumor_labels, &labels, &shape) {
            return Err("touches_tumor");
        }
        let mut allowed = labels.map(|&label| u8::from(label == self.organ.label));
        self.add_unlabeled(part, &labels, within, &mut allowed);
        let mut tumor = Array3::from_vec(
            shape.shape(),
            shape.as_slice().iter().zip(allowed.as_slice()).map(|(inside, allowed)| inside & allowed).collect(),
        );
        // Parts that the organ's edge separates are neither labeled nor changed.
        let whole = tumor.clone();
        keep_largest(&mut tumor);
        self.fill_holes(&labels, &shape, &tumor_labels, &mut tumor, &mut allowed);
        for ((allowed, &was), &is) in allowed.as_mut_slice().iter_mut().zip(whole.as_slice()).zip(tumor.as_slice()) {
            *allowed &= u8::from(was == 0 || is != 0);
        }
        let count = |mask: &Array3<u8>| mask.as_slice().iter().filter(|&&inside| inside != 0).count();
        let (all, voxels) = (count(&shape) + outside_voxels, count(&tumor));
        if all == 0 {
            return Err("too_small");
        }
        let clipped_fraction = 1.0 - voxels as f64 / all as f64;
        limits.check(voxels, clipped_fraction)?;
        let unlabeled = allowed.as_slice().iter().zip(labels.as_slice());
        let replaced = unlabeled.map(|(&allowed, &label)| u8::from(allowed != 0 && label != self.organ.label));
        let replaced = Array3::from_vec(part.shape, replaced.collect());
        Ok(PlacedTumor { allowed, tumor, replaced, clipped_fraction })
    }

    /// Adds the unlabeled voxels that the tumor may occupy.
    fn add_unlabeled(&self, part: Region, labels: &Array3<u8>, within: &RowSpans, allowed: &mut Array3<u8>) {
        let is_unlabeled = |y: usize, z: usize, span: std::ops::Range<usize>| labels.row(y, z)[span].contains(&0);
        if !within.rows().any(|(y, z, span)| is_unlabeled(y, z, span)) {
            return;
        }
        let hu = self.host.hu.cut(part);
        if self.is_exterior {
            let soft = f32::from(AIR_HU)..=f32::from(BONE_HU);
            for (index, allowed) in allowed.as_mut_slice().iter_mut().enumerate() {
                *allowed |= u8::from(labels.as_slice()[index] == 0 && soft.contains(&hu.as_slice()[index]));
            }
            return;
        }
        let organ = BitVolume::from_fn(part.shape, |voxel| labels[voxel] == self.organ.label);
        let near = organ.dilated(NEAR_MASK_MM, self.spacing_mm);
        let sigma = self.spacing_mm.map(|mm| COMPARED_SIGMA_MM / mm);
        let smooth = Gaussian::truncated(sigma, 2.5, Boundary::Reflect).smoothed_within(&hu, within);
        let spread = (self.summary.spread_hu as f32).clamp(SPREAD_HU[0], SPREAD_HU[1]);
        let median = self.summary.median_hu as f32;
        for (y, z, span) in within.rows() {
            for x in span {
                let similar = (smooth.row(y, z)[x] - median).abs() <= SIMILAR * spread;
                if labels.row(y, z)[x] == 0 && similar && near.contains([x, y, z]) {
                    allowed.row_mut(y, z)[x] = 1;
                }
            }
        }
    }

    /// Adds the voxels of the shape that the tumor encloses.
    fn fill_holes(
        &self,
        labels: &Array3<u8>,
        shape: &Array3<u8>,
        tumor_labels: &[u8],
        tumor: &mut Array3<u8>,
        allowed: &mut Array3<u8>,
    ) {
        let [nx, ny, nz] = tumor.shape();
        let missing = shape.as_slice().iter().zip(tumor.as_slice()).any(|(&shape, &tumor)| shape != 0 && tumor == 0);
        if !missing {
            return;
        }
        let outside = BitVolume::from_fn(tumor.shape(), |voxel| tumor[voxel] == 0);
        let components = outside.components(Connectivity::Faces);
        let mut is_open = vec![false; components.count()];
        for run in components.runs() {
            let at_border = run.y == 0 || run.z == 0 || run.y + 1 == ny || run.z + 1 == nz;
            is_open[run.component] |= at_border || run.start == 0 || run.end == nx;
        }
        let kept = |label: u8| tumor_labels.contains(&label) || (label != 0 && label != self.organ.label);
        let mut is_kept = vec![false; components.count()];
        for run in components.runs().filter(|run| !is_open[run.component]) {
            is_kept[run.component] |= labels.row(run.y, run.z)[run.start..run.end].iter().any(|&label| kept(label));
        }
        for run in components.runs().filter(|run| !is_open[run.component] && !is_kept[run.component]) {
            tumor.row_mut(run.y, run.z)[run.start..run.end].fill(1);
            allowed.row_mut(run.y, run.z)[run.start..run.end].fill(1);
        }
    }
}

/// The limits of a tumor's placement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Maximum share of the shape that may be clipped.
    pub max_clipped_fraction: f64,
    /// Minimum diameter in voxels.
    pub min_diameter_voxels: f64,
}

impl Limits {
    /// Checks the part of a shape that is in the organ.
    ///
    /// # Errors
    /// Returns the reason if it exceeds a limit.
    pub fn check(self, voxels: usize, clipped_fraction: f64) -> Result<(), &'static str> {
        if clipped_fraction > self.max_clipped_fraction || voxels == 0 {
            return Err("clipped");
        }
        // At least half of the volume of a ball of the minimum diameter.
        let across = self.min_diameter_voxels;
        if (voxels as f64) < 0.5 * std::f64::consts::PI / 6.0 * across * across * across {
            return Err("too_small");
        }
        Ok(())
    }
}

/// Returns whether a real tumor is in the shape or adjacent to it.
pub(super) fn touches_tumor(tumor_labels: &[u8], labels: &Array3<u8>, inside: &Array3<u8>) -> bool {
    let shape = labels.shape();
    let row_length = shape[0].max(1);
    labels.as_slice().iter().enumerate().filter(|(_, label)| tumor_labels.contains(label)).any(|(index, _)| {
        let voxel = [index % row_length, index / row_length % shape[1], index / row_length / shape[1]];
        let around = Region { start: voxel, shape: [1; 3] }.grown([1; 3], shape);
        inside.cut(around).as_slice().iter().any(|&inside| inside != 0)
    })
}

/// Returns the share of a tumor's surface that does not face its organ, by the area of the voxels' faces. `labels` are those of the box
/// without the tumor; faces at the end of the box face what is outside the scan.
pub(crate) fn exterior_fraction(tumor: &Array3<u8>, labels: &Array3<u8>, organ: &Organ, spacing_mm: [f64; 3]) -> f64 {
    let shape = tumor.shape();
    let steps = [1, shape[0], shape[0] * shape[1]];
    let (mut faces, mut outside) = ([0usize; 3], [0usize; 3]);
    for (y, z, span) in RowSpans::of(tumor, |&inside| inside != 0).rows() {
        let first = tumor.index_of([0, y, z]);
        for x in span.filter(|x| tumor.as_slice()[first + x] != 0) {
            for (axis, position) in [x, y, z].into_iter().enumerate() {
                let before = (position > 0).then(|| first + x - steps[axis]);
                let after = (position + 1 < shape[axis]).then(|| first + x + steps[axis]);
                for neighbour in [before, after] {
                    let is_tumor = neighbour.is_some_and(|neighbour| tumor.as_slice()[neighbour] != 0);
                    let is_organ = neighbour.is_some_and(|neighbour| labels.as_slice()[neighbour] == organ.label);
                    faces[axis] += usize::from(!is_tumor);
                    outside[axis] += usize::from(!is_tumor && !is_organ);
                }
            }
        }
    }
    let volume: f64 = spacing_mm.iter().product();
    let (mut exterior, mut all) = (0.0, 0.0);
    for axis in 0..3 {
        let area = volume / spacing_mm[axis];
        exterior += area * outside[axis] as f64;
        all += area * faces[axis] as f64;
    }
    if all > 0.0 { exterior / all } else { 0.0 }
}
