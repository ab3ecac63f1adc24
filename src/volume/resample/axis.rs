//! Coordinates of a target grid in a source grid, axis by axis.

use std::ops::Range;

/// The value of target voxels that are more than half a voxel outside the source's outermost voxel centres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OutsideValue<T> {
    /// The value of the outermost voxel.
    Edge,
    /// A fixed value.
    Value(T),
}

/// The coordinates of one target axis in the source.
#[derive(Clone, Debug, Default)]
pub(super) struct Axis {
    /// Lower neighbour of each target voxel.
    pub(super) lower: Vec<u32>,
    /// Weight of the upper neighbour, 0..1.
    pub(super) weight: Vec<f32>,
    /// Nearest neighbour of each target voxel; ties are rounded to the even index.
    pub(super) nearest: Vec<u32>,
    /// The target voxels inside the source, which extends half a voxel beyond the outermost centres.
    pub(super) inside: Range<usize>,
}

/// Coordinates within a millionth of a voxel of a voxel's centre, or of the middle between two centres, are moved to that position.
pub(super) const SNAP_VOXELS: f64 = 1e-6;

pub(super) fn snap(coordinate: f64) -> f64 {
    let halves = (2.0 * coordinate).round() / 2.0;
    if (coordinate - halves).abs() < SNAP_VOXELS { halves } else { coordinate }
}

/// Returns whether a coordinate is inside an axis of `voxels` voxels.
#[inline]
pub(super) fn is_inside(coordinate: f64, voxels: usize) -> bool {
    coordinate >= -0.5 - SNAP_VOXELS && coordinate <= voxels as f64 - 0.5 + SNAP_VOXELS
}

impl Axis {
    pub(super) fn new(coordinates: &[f64], voxels: usize) -> Self {
        let last = voxels as f64 - 1.0;
        let mut axis = Self::default();
        for coordinate in coordinates.iter().map(|coordinate| coordinate.clamp(0.0, last)) {
            // Rounding must not blend a voxel with its neighbour: at a voxel's centre the value is kept bit for bit.
            let snapped = snap(coordinate);
            let lower = snapped.floor();
            let weight = (snapped - lower) as f32;
            axis.lower.push(lower as u32);
            axis.weight.push(weight);
            axis.nearest.push(coordinate.round_ties_even() as u32);
        }
        let start = coordinates.iter().take_while(|&&c| !is_inside(c, voxels)).count();
        let length = coordinates[start..].iter().take_while(|&&c| is_inside(c, voxels)).count();
        axis.inside = start..start + length;
        axis
    }

    pub(super) fn cut(&self, start: usize, length: usize) -> Self {
        let (low, high) = (start, start + length);
        let inside = self.inside.start.clamp(low, high) - low..self.inside.end.clamp(low, high) - low;
        Self {
            lower: self.lower[low..high].to_vec(),
            weight: self.weight[low..high].to_vec(),
            nearest: self.nearest[low..high].to_vec(),
            inside,
        }
    }
}

/// Returns the number of planes in one unit of work: about four units per thread, so that all threads finish at about the same time.
pub(super) fn planes_at_once(planes: usize) -> usize {
    planes.div_ceil(4 * rayon::current_num_threads()).max(1)
}
