//! The fine grid on which a tumor is computed, and averages over the voxels of the scan.
//!
//! A scanner averages over a voxel. A tumor that were sampled at the centres of thick slices would end at full contrast between two
//! slices, so shape, texture and contrast are computed on a grid that splits every voxel, and averaged.

use crate::volume::Array3;

/// The maximum spacing of the fine grid, for tumors of any size.
const COARSEST_MM: f64 = 1.0;
/// The minimum spacing of the fine grid: real edges are softer.
const FINEST_MM: f64 = 0.5;
/// The number of fine voxels across a tumor, if the spacing is between the limits.
const ACROSS: f64 = 12.0;
/// The share by which the spacing of a voxel may exceed the requested spacing before the voxel is split.
const TOLERANCE: f64 = 0.25;

/// A grid that splits each voxel of a scan into equal parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FineGrid {
    /// The number of parts of a voxel along each axis.
    pub split: [usize; 3],
    /// The spacing of the parts.
    pub spacing_mm: [f64; 3],
}

impl FineGrid {
    /// Returns the fine grid for a tumor of a given diameter on a scan of a given spacing: spacings of about a twelfth of the diameter,
    /// from 0.5 to 1 mm, or those of the scan if they are smaller.
    ///
    /// ```
    /// use freetumor::synth::FineGrid;
    /// assert_eq!(FineGrid::new([0.8, 0.8, 5.0], 30.0).split, [1, 1, 5]);
    /// assert_eq!(FineGrid::new([0.8, 0.8, 5.0], 5.0).split, [2, 2, 10]);
    /// ```
    pub fn new(spacing_mm: [f64; 3], diameter_mm: f64) -> Self {
        let requested_mm = (diameter_mm / ACROSS).clamp(FINEST_MM, COARSEST_MM);
        let split = spacing_mm.map(|mm| ((mm / requested_mm - TOLERANCE).ceil() as usize).max(1));
        Self { split, spacing_mm: [0, 1, 2].map(|k| spacing_mm[k] / split[k] as f64) }
    }

    /// Returns the grid that does not split voxels.
    pub fn unsplit(spacing_mm: [f64; 3]) -> Self {
        Self { split: [1; 3], spacing_mm }
    }

    /// Returns the position on the fine grid of a position in voxels of the scan.
    pub fn position(&self, voxel: [f64; 3]) -> [f64; 3] {
        [0, 1, 2].map(|k| (voxel[k] + 0.5) * self.split[k] as f64 - 0.5)
    }

    /// Returns the voxels of the scan that contain a box of the fine grid, as their first one and the one past the last.
    pub fn voxels(&self, start: [i64; 3], shape: [usize; 3]) -> [[i64; 3]; 2] {
        let split = self.split.map(|parts| parts as i64);
        let first = [0, 1, 2].map(|k| start[k].div_euclid(split[k]));
        let end = [0, 1, 2].map(|k| (start[k] + shape[k] as i64 - 1).div_euclid(split[k]) + 1);
        [first, end]
    }

    /// Returns the share of a voxel that one part has.
    pub fn share(&self) -> f32 {
        1.0 / self.split.iter().product::<usize>() as f32
    }

    /// Returns the mean over each voxel of the scan. `start` is the first fine voxel of `values`, `first` the first voxel of the result,
    /// `shape` its shape; values outside the box of `values` are 0, and those outside the result are left out.
    pub fn averaged(&self, values: &Array3<f32>, start: [i64; 3], first: [i64; 3], shape: [usize; 3]) -> Array3<f32> {
        let mut sums = Array3::filled(shape, 0.0f32);
        self.for_each_row(values.shape(), start, first, shape, |[y, z], [voxel_y, voxel_z], columns| {
            let row = sums.row_mut(voxel_y, voxel_z);
            for (&value, column) in values.row(y, z).iter().zip(columns) {
                if let Some(sum) = column.and_then(|x| row.get_mut(x)) {
                    *sum += value;
                }
            }
        });
        let share = self.share();
        if share < 1.0 {
            sums.as_mut_slice().iter_mut().for_each(|sum| *sum *= share);
        }
        sums
    }

    /// Calls `visit` for each row of a box of the fine grid that starts at `start`, with the row [y, z], the row of the scan's voxels in a
    /// box of `shape` voxels that starts at `first`, and for each fine voxel of the row the column in that box. Rows outside are skipped.
    pub fn for_each_row(
        &self,
        fine_shape: [usize; 3],
        start: [i64; 3],
        first: [i64; 3],
        shape: [usize; 3],
        mut visit: impl FnMut([usize; 2], [usize; 2], &[Option<usize>]),
    ) {
        let voxel = |k: usize, index: usize| {
            let voxel = (start[k] + index as i64).div_euclid(self.split[k] as i64) - first[k];
            usize::try_from(voxel).ok().filter(|&voxel| voxel < shape[k])
        };
        let columns: Vec<Option<usize>> = (0..fine_shape[0]).map(|x| voxel(0, x)).collect();
        for z in 0..fine_shape[2] {
            let Some(voxel_z) = voxel(2, z) else { continue };
            for y in 0..fine_shape[1] {
                let Some(voxel_y) = voxel(1, y) else { continue };
                visit([y, z], [voxel_y, voxel_z], &columns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_means_over_the_parts_of_a_voxel() {
        let grid = FineGrid { split: [2, 1, 3], spacing_mm: [1.0; 3] };
        // The fine box starts at −1: its first column is the second half of voxel −1, its first slice the last third.
        let values = Array3::from_fn([4, 2, 4], |[x, y, z]| (1 + x + 10 * y + 100 * z) as f32);
        let [first, end] = grid.voxels([-1; 3], values.shape());
        assert_eq!((first, end), ([-1, -1, -1], [2, 1, 1]));
        let mean = grid.averaged(&values, [-1; 3], first, [3, 2, 2]);
        assert_eq!(mean[[0, 0, 0]], 1.0 / 6.0);
        let whole: f32 = [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)].iter().map(|&(x, z)| values[[x, 1, z]]).sum();
        assert!((mean[[1, 1, 1]] - whole / 6.0).abs() < 1e-4);
        let cropped = grid.averaged(&values, [-1; 3], [0; 3], [1, 1, 1]);
        assert_eq!(cropped[[0, 0, 0]], mean[[1, 1, 1]]);
    }

    #[test]
    fn positions_on_the_fine_grid_have_the_same_centre() {
        let grid = FineGrid { split: [1, 2, 5], spacing_mm: [1.0; 3] };
        assert_eq!(grid.position([3.0, 0.0, 0.0]), [3.0, 0.5, 2.0]);
    }
}
