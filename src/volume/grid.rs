//! The position of a box of voxels in the patient.

use super::Affine;

/// The shape of a volume and the map from its voxels to RAS+ millimetres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Voxels along [x, y, z].
    pub shape: [usize; 3],
    /// Voxel index → RAS+ mm.
    pub affine: Affine,
}

impl Grid {
    /// Returns the distance between neighbouring voxels along [x, y, z] in millimetres.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.affine.spacing_mm()
    }

    /// Returns the volume of one voxel in cubic millimetres.
    pub fn voxel_volume_mm3(&self) -> f64 {
        self.affine.determinant().abs()
    }

    /// Returns the number of voxels.
    pub fn voxels(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the whole grid as a region.
    pub fn region(&self) -> Region {
        Region { start: [0; 3], shape: self.shape }
    }

    /// Returns the grid of `region`: the same axes, the origin at the first voxel of the region.
    #[must_use]
    pub fn cut(&self, region: Region) -> Self {
        let origin = self.affine.apply(region.start.map(|i| i as f64));
        let mut affine = self.affine;
        for (row, value) in affine.0.iter_mut().zip(origin) {
            row[3] = value;
        }
        Self { shape: region.shape, affine }
    }

    /// Returns whether both grids have the same shape, and their corners the same positions within a tenth of a voxel.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let tolerance_mm = 0.1 * self.spacing_mm().into_iter().fold(f64::INFINITY, f64::min);
        self.shape == other.shape && self.affine.agrees_with(&other.affine, self.shape, tolerance_mm)
    }
}

/// A box of voxels: `start` inclusive, `shape` voxels along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First voxel [x, y, z].
    pub start: [usize; 3],
    /// Voxels along [x, y, z].
    pub shape: [usize; 3],
}

impl Region {
    /// Returns the index after the last voxel along each axis.
    pub fn end(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.start[axis] + self.shape[axis])
    }

    /// Returns the number of voxels.
    pub fn voxels(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether a voxel is inside.
    pub fn contains(&self, voxel: [usize; 3]) -> bool {
        (0..3).all(|axis| (self.start[axis]..self.end()[axis]).contains(&voxel[axis]))
    }

    /// Returns the bounding box of both regions.
    ///
    /// ```
    /// use freetumor::volume::Region;
    /// let (low, high) = (Region { start: [1, 2, 3], shape: [2, 2, 2] }, Region { start: [5, 0, 3], shape: [1, 1, 1] });
    /// assert_eq!(low.union(&high), Region { start: [1, 0, 3], shape: [5, 4, 2] });
    /// ```
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let start = [0, 1, 2].map(|axis| self.start[axis].min(other.start[axis]));
        let shape = [0, 1, 2].map(|axis| self.end()[axis].max(other.end()[axis]) - start[axis]);
        Self { start, shape }
    }

    /// Returns the region grown by `margin` voxels on each side, clipped to a grid of shape `bounds`.
    ///
    /// ```
    /// use freetumor::volume::Region;
    /// let grown = Region { start: [1, 5, 5], shape: [2, 2, 2] }.grown([3, 3, 0], [10, 9, 10]);
    /// assert_eq!(grown, Region { start: [0, 2, 5], shape: [6, 7, 2] });
    /// ```
    #[must_use]
    pub fn grown(&self, margin: [usize; 3], bounds: [usize; 3]) -> Self {
        let start = [0, 1, 2].map(|axis| self.start[axis].saturating_sub(margin[axis]));
        let end = self.end();
        let shape = [0, 1, 2].map(|axis| (end[axis] + margin[axis]).min(bounds[axis]).saturating_sub(start[axis]));
        Self { start, shape }
    }
}
