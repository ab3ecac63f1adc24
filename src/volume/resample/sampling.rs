//! Where the voxels of a target grid lie in a source grid.

use super::axis::{Axis, OutsideValue, SNAP_VOXELS, snap};
use super::spacing::{degenerate, positions, steps};
use super::{linear, nearest};
use crate::error::Fault;
use crate::volume::{Affine, Array3, Grid, Region};

/// A way from one grid to another: made once, used for everything that lies on the source grid.
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
    places: SamplePositions,
}

/// Target voxel → source voxel.
#[derive(Clone, Debug)]
pub(super) enum SamplePositions {
    /// The axes run alike: each coordinate depends on its own axis only.
    Axes(Box<[Axis; 3]>),
    /// Any affine map from target indices to source indices.
    Anywhere(Affine),
}

impl Resampling {
    /// From a grid to the one of another spacing over the same box ([`Grid::with_spacing`]).
    ///
    /// # Errors
    /// As [`Grid::with_spacing`].
    pub fn to_spacing(source: &Grid, spacing_mm: [f64; 3]) -> Result<Self, Fault> {
        let target = source.with_spacing(spacing_mm)?;
        let map = steps(&source.affine, &target.affine).ok_or_else(|| degenerate(source))?;
        let starts_there = (0..3).all(|axis| map.0[axis][3].abs() < SNAP_VOXELS);
        let places = if starts_there && runs_along(&map, target.shape) {
            SamplePositions::Axes(Box::new([0, 1, 2].map(|axis| {
                let coordinates = positions(map.0[axis][axis], source.shape[axis], target.shape[axis]);
                Axis::new(&coordinates, source.shape[axis])
            })))
        } else {
            SamplePositions::Anywhere(map)
        };
        Ok(Self { source: source.shape, target, region: target.region(), places })
    }

    /// From a grid onto any other, through both affines.
    ///
    /// # Errors
    /// A fault of class `geometry` where the source is empty or its axes are degenerate.
    pub fn between(source: &Grid, target: &Grid) -> Result<Self, Fault> {
        let map =
            steps(&source.affine, &target.affine).filter(|_| source.voxels() > 0).ok_or_else(|| degenerate(source))?;
        let places = if runs_along(&map, target.shape) {
            SamplePositions::Axes(Box::new([0, 1, 2].map(|axis| {
                let (step, first) = (map.0[axis][axis], map.0[axis][3]);
                let coordinates: Vec<f64> = (0..target.shape[axis]).map(|i| snap(step * i as f64 + first)).collect();
                Axis::new(&coordinates, source.shape[axis])
            })))
        } else {
            SamplePositions::Anywhere(map)
        };
        Ok(Self { source: source.shape, target: *target, region: target.region(), places })
    }

    /// The same way, to a part of the target only; every voxel gets the value that it has in the whole.
    ///
    /// # Panics
    /// Where the region does not lie in the target.
    #[must_use]
    pub fn of_region(mut self, region: Region) -> Self {
        let within = (0..3).all(|axis| region.end()[axis] <= self.region.shape[axis]);
        assert!(within, "the region {region:?} must lie in the target of {:?} voxels", self.region.shape);
        if let SamplePositions::Axes(axes) = &mut self.places {
            for (axis, places) in axes.iter_mut().enumerate() {
                *places = places.cut(region.start[axis], region.shape[axis]);
            }
        }
        let start = [0, 1, 2].map(|axis| self.region.start[axis] + region.start[axis]);
        self.region = Region { start, shape: region.shape };
        self
    }

    /// The grid that results.
    pub fn grid(&self) -> Grid {
        if self.region == self.target.region() { self.target } else { self.target.cut(self.region) }
    }

    /// Values between the source's voxels, linearly along each axis: x, then y, then z.
    ///
    /// # Panics
    /// Where the array has not the shape of the source grid.
    pub fn linear<T: Copy + Into<f32> + Sync>(&self, source: &Array3<T>, outside: OutsideValue<f32>) -> Array3<f32> {
        self.linear_then(source, outside, |value| value)
    }

    /// As [`Resampling::linear`], with `finish` applied to each value while it is at hand.
    pub(in crate::volume) fn linear_then<T: Copy + Into<f32> + Sync>(
        &self,
        source: &Array3<T>,
        outside: OutsideValue<f32>,
        finish: impl Fn(f32) -> f32 + Sync,
    ) -> Array3<f32> {
        self.check(source.shape());
        match &self.places {
            SamplePositions::Axes(axes) => linear::along_axes(axes, self.region.shape, source, outside, finish),
            SamplePositions::Anywhere(map) => linear::anywhere(map, self.region, source, outside, finish),
        }
    }

    /// The value of the nearest voxel; exactly between two, the one with the even index.
    ///
    /// # Panics
    /// Where the array has not the shape of the source grid.
    pub fn nearest<T: Copy + Default + Send + Sync>(&self, source: &Array3<T>, outside: OutsideValue<T>) -> Array3<T> {
        self.check(source.shape());
        match &self.places {
            SamplePositions::Axes(axes) => nearest::along_axes(axes, self.region.shape, source, outside),
            SamplePositions::Anywhere(map) => nearest::anywhere(map, self.region, source, outside),
        }
    }

    fn check(&self, shape: [usize; 3]) {
        assert_eq!(shape, self.source, "an array on the source grid is resampled");
    }
}

/// Whether each source coordinate depends on its own target axis only, over a grid of this shape.
fn runs_along(map: &Affine, shape: [usize; 3]) -> bool {
    (0..3).all(|row| {
        let astray: f64 = (0..3).filter(|&c| c != row).map(|c| map.0[row][c].abs() * shape[c] as f64).sum();
        astray < 1e-4
    })
}
