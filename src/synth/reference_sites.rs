//! The sites of the published code: an organ eroded in the axial plane, within the middle of its height.

use crate::mask::{MaskedScan, Organ};
use crate::random::RandomStream;
use crate::volume::{Array3, Region};

/// The sites of the reference: the voxels that remain after an erosion by 5×5 in the axial plane (at 1.5 mm, so 3 mm to each
/// side), within the middle 30–70% of the organ's height.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceSites {
    voxels: Vec<[u16; 3]>,
}

impl ReferenceSites {
    /// Creates the sites in the bounding box `region` of the healthy organ: erodes the organ in the axial plane and keeps the middle 30–70%
    /// of its height.
    pub fn new(masked: &MaskedScan, organ: &Organ, region: Region) -> Self {
        let grid = &masked.scan.volume.grid;
        let labels = &masked.mask.labels;
        let spacing_mm = grid.spacing_mm();
        let up = superior_axis(masked);
        let reach = [0, 1, 2].map(|k| if k == up { 0 } else { (3.0 / spacing_mm[k]).round() as usize });
        // Height increases towards the head, for both directions of the axis.
        let height = region.shape[up] as f64;
        let (low, high) = ((0.3 * height) as usize, (0.7 * height).ceil() as usize);
        let slices = if grid.affine.0[2][up] >= 0.0 {
            low..high
        } else {
            region.shape[up] - high.min(region.shape[up])..region.shape[up] - low
        };
        let mut healthy = labels.cut(region).map(|&label| u8::from(label == organ.label));
        for axis in (0..3).filter(|&axis| axis != up) {
            healthy = eroded(&healthy, axis, reach[axis]);
        }
        let [nx, ny, nz] = region.shape;
        let mut voxels = Vec::new();
        for z in 0..nz {
            for y in 0..ny {
                for x in (0..nx).filter(|&x| healthy.row(y, z)[x] != 0 && slices.contains(&[x, y, z][up])) {
                    voxels.push([0, 1, 2].map(|k| ([x, y, z][k] + region.start[k]) as u16));
                }
            }
        }
        Self { voxels }
    }

    /// Returns the middle one of the voxels, or `None` if there are no voxels.
    pub fn middle(&self) -> Option<[usize; 3]> {
        self.voxels.get(self.voxels.len() / 2).map(|voxel| voxel.map(usize::from))
    }

    /// Samples one of the voxels; `None` if no voxel remained after the erosion.
    pub fn sample(&self, random: &mut RandomStream) -> Option<[usize; 3]> {
        (!self.voxels.is_empty()).then(|| self.voxels[random.index(self.voxels.len())].map(usize::from))
    }
}

/// Returns the voxel axis closest to the direction along the body.
fn superior_axis(masked: &MaskedScan) -> usize {
    let row = masked.scan.volume.grid.affine.0[2];
    let spacing_mm = masked.scan.volume.grid.spacing_mm();
    let share = |axis: usize| (row[axis] / spacing_mm[axis]).abs();
    (0..3).rev().max_by(|&a, &b| share(a).total_cmp(&share(b))).unwrap_or(2)
}

/// Keeps the voxels with `reach` set voxels on both sides along an axis; voxels outside the box count as clear.
fn eroded(mask: &Array3<u8>, axis: usize, reach: usize) -> Array3<u8> {
    let shape = mask.shape();
    let mut runs = Array3::filled(shape, 0u16);
    let mut kept = Array3::filled(shape, 0u8);
    let step = [1, shape[0], shape[0] * shape[1]][axis];
    for index in 0..mask.as_slice().len() {
        let position = index / step % shape[axis];
        let before = if position > 0 { runs.as_slice()[index - step] } else { 0 };
        let run = if mask.as_slice()[index] != 0 { before.saturating_add(1) } else { 0 };
        runs.as_mut_slice()[index] = run;
        if usize::from(run) > 2 * reach {
            kept.as_mut_slice()[index - reach * step] = 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::organ::OrganSummary;
    use crate::synth::organ::testing::{ball_with_tumor, liver};

    #[test]
    fn reference_sites_equal_eroded_organ() {
        let scan = ball_with_tumor([1.5, 1.5, 2.0], [34, 34, 26]);
        let summary = OrganSummary::of(&scan, &liver()).unwrap();
        let sites = ReferenceSites::new(&scan, &liver(), summary.region);
        let labels = &scan.mask.labels;
        let (from, height) = (summary.region.start[2], summary.region.shape[2] as f64);
        let mut expected = Vec::new();
        for z in from + (0.3 * height) as usize..from + (0.7 * height).ceil() as usize {
            for y in 2..32 {
                for x in 2..32 {
                    if (0..25).all(|k| labels[[x + k % 5 - 2, y + k / 5 - 2, z]] == 1) {
                        expected.push([x as u16, y as u16, z as u16]);
                    }
                }
            }
        }
        assert!(expected.len() > 100);
        assert_eq!(sites.voxels, expected);
    }
}
