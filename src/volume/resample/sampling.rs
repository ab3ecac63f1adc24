//! The positions of the voxels of a target grid in a source grid.

use super::axis::{Axis, OutsideValue, SNAP_VOXELS, snap};
use super::spacing::{degenerate, positions, steps};
use super::{linear, nearest};
use crate::error::Fault;
use crate::volume::{Affine, Array3, Grid, Region};

/// A resampling from one grid to another, which can be applied to every array on the source grid.
///
/// ```
/// use freetumor::volume::{Affine, Array3, Grid, OutsideValue, Region, Resampling};
/// let coarse = Grid { shape: [3, 3, 3], affine: Affine::from_spacing([2.0; 3]) };
/// let fine = Grid { shape: [5, 5, 5], affine: Affine::from_spacing([1.0; 3]) };
/// let ramp = Array3::from_fn(coarse.shape, |[x, _, _]| x as f32);
/// let box_only = Region { start: [1, 2, 2], shape: [3, 1, 1] };
/// let between = Resampling::between(&coarse, &fine).unwrap().of_region(box_only);
/// assert_eq!(between.linear(&ramp, OutsideValue::Edge).as_slice(), [0.5, 1.0, 1.5]);
/// ```
#[derive(Clone, Debug)]
pub struct Resampling {
    source: [usize; 3],
    target: Grid,
    region: Region,
    positions: SamplePositions,
}

/// The map from target voxels to source voxels.
#[derive(Clone, Debug)]
pub(super) enum SamplePositions {
    /// Parallel axes: each coordinate depends on its own axis only.
    Axes(Box<[Axis; 3]>),
    /// Any affine map from target indices to source indices.
    Affine(Affine),
}

impl Resampling {
    /// Creates a resampling from a grid to another spacing over the same box ([`Grid::with_spacing`]).
    ///
    /// # Errors
    /// The errors of [`Grid::with_spacing`].
    pub fn to_spacing(source: &Grid, spacing_mm: [f64; 3]) -> Result<Self, Fault> {
        let target = source.with_spacing(spacing_mm)?;
        let map = steps(&source.affine, &target.affine).ok_or_else(|| degenerate(source))?;
        let starts_at_first = (0..3).all(|axis| map.0[axis][3].abs() < SNAP_VOXELS);
        let positions = if starts_at_first && is_parallel(&map, target.shape) {
            SamplePositions::Axes(Box::new([0, 1, 2].map(|axis| {
                let coordinates = positions(map.0[axis][axis], source.shape[axis], target.shape[axis]);
                Axis::new(&coordinates, source.shape[axis])
            })))
        } else {
            SamplePositions::Affine(map)
        };
        Ok(Self { source: source.shape, target, region: target.region(), positions })
    }

    /// Creates a resampling from one grid onto another through both affines.
    ///
    /// # Errors
    /// A fault of kind `geometry` if the source is empty or its axes are degenerate.
    pub fn between(source: &Grid, target: &Grid) -> Result<Self, Fault> {
        let map =
            steps(&source.affine, &target.affine).filter(|_| source.voxels() > 0).ok_or_else(|| degenerate(source))?;
        let positions = if is_parallel(&map, target.shape) {
            SamplePositions::Axes(Box::new([0, 1, 2].map(|axis| {
                let (step, first) = (map.0[axis][axis], map.0[axis][3]);
                let coordinates: Vec<f64> = (0..target.shape[axis]).map(|i| snap(step * i as f64 + first)).collect();
                Axis::new(&coordinates, source.shape[axis])
            })))
        } else {
            SamplePositions::Affine(map)
        };
        Ok(Self { source: source.shape, target: *target, region: target.region(), positions })
    }

    /// Restricts the resampling to a region of the target. Every voxel gets the same value as without the restriction.
    ///
    /// # Panics
    /// If the region is not inside the target.
    #[must_use]
    pub fn of_region(mut self, region: Region) -> Self {
        let within = (0..3).all(|axis| region.end()[axis] <= self.region.shape[axis]);
        assert!(within, "expected a region inside the target of {:?} voxels, got {region:?}", self.region.shape);
        if let SamplePositions::Axes(axes) = &mut self.positions {
            for (axis, positions) in axes.iter_mut().enumerate() {
                *positions = positions.cut(region.start[axis], region.shape[axis]);
            }
        }
        let start = [0, 1, 2].map(|axis| self.region.start[axis] + region.start[axis]);
        self.region = Region { start, shape: region.shape };
        self
    }

    /// Returns the grid of the result.
    pub fn grid(&self) -> Grid {
        if self.region == self.target.region() { self.target } else { self.target.cut(self.region) }
    }

    /// Interpolates linearly along x, then y, then z.
    ///
    /// # Panics
    /// If the array does not have the shape of the source grid.
    pub fn linear<T: Copy + Into<f32> + Sync>(&self, source: &Array3<T>, outside: OutsideValue<f32>) -> Array3<f32> {
        self.linear_then(source, outside, |value| value)
    }

    /// Interpolates as [`Resampling::linear`] does, with `finish` applied to each value in the same pass.
    pub(in crate::volume) fn linear_then<T: Copy + Into<f32> + Sync>(
        &self,
        source: &Array3<T>,
        outside: OutsideValue<f32>,
        finish: impl Fn(f32) -> f32 + Sync,
    ) -> Array3<f32> {
        self.check(source.shape());
        match &self.positions {
            SamplePositions::Axes(axes) => linear::along_axes(axes, self.region.shape, source, outside, finish),
            SamplePositions::Affine(map) => linear::by_affine(map, self.region, source, outside, finish),
        }
    }

    /// Returns the value of the nearest voxel; exactly between two voxels, of the one with the even index.
    ///
    /// # Panics
    /// If the array does not have the shape of the source grid.
    pub fn nearest<T: Copy + Default + Send + Sync>(&self, source: &Array3<T>, outside: OutsideValue<T>) -> Array3<T> {
        self.check(source.shape());
        match &self.positions {
            SamplePositions::Axes(axes) => nearest::along_axes(axes, self.region.shape, source, outside),
            SamplePositions::Affine(map) => nearest::by_affine(map, self.region, source, outside),
        }
    }

    fn check(&self, shape: [usize; 3]) {
        assert_eq!(shape, self.source, "expected an array on the source grid");
    }
}

/// Returns whether each source coordinate depends on its own target axis only, over a grid of this shape.
fn is_parallel(map: &Affine, shape: [usize; 3]) -> bool {
    (0..3).all(|row| {
        let deviation: f64 = (0..3).filter(|&c| c != row).map(|c| map.0[row][c].abs() * shape[c] as f64).sum();
        deviation < 1e-4
    })
}
