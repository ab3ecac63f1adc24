//! Cropping to the foreground and padding to the patch of a network.

use rayon::prelude::*;

use super::{Array3, Grid, Labels, Region, Volume, Voxels};

impl<T: Sync> Array3<T> {
    /// Returns the bounding box of the values for which `predicate` is true, `None` if there are none. Planes are searched in parallel.
    ///
    /// ```
    /// use freetumor::volume::{Array3, Region};
    /// let mut array = Array3::filled([5, 4, 3], 0);
    /// array[[1, 2, 0]] = 7;
    /// array[[3, 2, 1]] = 7;
    /// assert_eq!(array.bounds_of(|value| *value > 0), Some(Region { start: [1, 2, 0], shape: [3, 1, 2] }));
    /// ```
    pub fn bounds_of(&self, predicate: impl Fn(&T) -> bool + Sync) -> Option<Region> {
        let [nx, ny, _] = self.shape();
        if self.as_slice().is_empty() {
            return None;
        }
        // Each plane is searched only where its box can still grow: rows from both ends up to the first match, then, in the rows
        // between, the columns outside the box found so far.
        let boxes = self.as_slice().par_chunks_exact(nx * ny).enumerate().filter_map(|(z, plane)| {
            let row_matches = |row: &&[T]| row.iter().any(&predicate);
            let above = plane.chunks_exact(nx).take_while(|row| !row_matches(row)).count();
            if above == ny {
                return None;
            }
            let below = plane.chunks_exact(nx).rev().take_while(|row| !row_matches(row)).count();
            let (mut x0, mut x1) = (nx, 0);
            for row in plane[nx * above..nx * (ny - below)].chunks_exact(nx) {
                x0 = row[..x0].iter().position(&predicate).unwrap_or(x0);
                x1 = row[x1..].iter().rposition(&predicate).map_or(x1, |x| x1 + x + 1);
            }
            Some(([x0, above, z], [x1, ny - below, z + 1]))
        });
        let (start, end) = boxes.reduce_with(|(start, end), (other_start, other_end)| {
            let low = |axis: usize| start[axis].min(other_start[axis]);
            let high = |axis: usize| end[axis].max(other_end[axis]);
            ([0, 1, 2].map(low), [0, 1, 2].map(high))
        })?;
        Some(Region { start, shape: [0, 1, 2].map(|axis| end[axis] - start[axis]) })
    }
}

impl<T: Copy> Array3<T> {
    /// Converts the array into the voxels of `region` without allocation: rows are moved within the memory of the array.
    ///
    /// # Panics
    /// If the region is not inside the array.
    #[must_use]
    pub fn into_cut(self, region: Region) -> Self {
        let shape = self.shape();
        let end = region.end();
        assert!((0..3).all(|axis| end[axis] <= shape[axis]), "expected a region inside {shape:?}, got {region:?}");
        let ([nx, ny, _], [width, height, depth]) = (shape, region.shape);
        let mut values = self.into_vec();
        // The longest runs that are contiguous in both: planes if rows are whole, otherwise rows.
        let whole_rows = width == nx;
        let (run, runs) = if whole_rows { (width * height, depth) } else { (width, height * depth) };
        for i in 0..runs {
            let (y, z) = if whole_rows { (0, i) } else { (i % height, i / height) };
            let from = region.start[0] + nx * (region.start[1] + y + ny * (region.start[2] + z));
            if from != i * run {
                values.copy_within(from..from + run, i * run);
            }
        }
        values.truncate(region.voxels());
        Self::from_vec(region.shape, values)
    }

    /// Pads the array to `shape` with `value`, `before` voxels in front along each axis.
    ///
    /// # Panics
    /// If the array does not fit into the new shape.
    #[must_use]
    pub fn padded(&self, before: [usize; 3], shape: [usize; 3], value: T) -> Self {
        let own = self.shape();
        assert!(
            (0..3).all(|axis| before[axis] + own[axis] <= shape[axis]),
            "expected a shape with room for {own:?} after {before:?}, got {shape:?}"
        );
        let mut padded = Self::filled(shape, value);
        padded.paste(before, self);
        padded
    }
}

impl Grid {
    /// Pads the grid to `shape` voxels, `before` of them in front along each axis. Every voxel keeps its position.
    #[must_use]
    pub fn padded(&self, before: [usize; 3], shape: [usize; 3]) -> Self {
        let origin = self.affine.apply(before.map(|voxels| -(voxels as f64)));
        let mut affine = self.affine;
        for (row, value) in affine.0.iter_mut().zip(origin) {
            row[3] = value;
        }
        Self { shape, affine }
    }
}

impl Volume {
    /// Copies the voxels of `region` to a volume on the grid of the region.
    ///
    /// # Panics
    /// If the region is not inside the volume.
    #[must_use]
    pub fn cut(&self, region: Region) -> Self {
        let voxels = match &self.voxels {
            Voxels::I16(array) => Voxels::I16(array.cut(region)),
            Voxels::F32(array) => Voxels::F32(array.cut(region)),
        };
        Self { grid: self.grid.cut(region), voxels }
    }
}

impl Labels {
    /// Copies the labels of `region` to the grid of the region.
    ///
    /// # Panics
    /// If the region is not inside the labels.
    #[must_use]
    pub fn cut(&self, region: Region) -> Self {
        Self { grid: self.grid.cut(region), ids: self.ids.cut(region) }
    }
}

/// Returns the symmetric padding that makes a shape at least as large as `patch`: the number of voxels before each axis (one less
/// than behind if the number is odd) and the new shape.
///
/// ```
/// use freetumor::volume::padding_to;
/// assert_eq!(padding_to([90, 96, 31], [96, 96, 32]), ([3, 0, 0], [96, 96, 32]));
/// ```
///
/// # Source
/// MONAI's `SpatialPad`, symmetric.
pub fn padding_to(shape: [usize; 3], patch: [usize; 3]) -> ([usize; 3], [usize; 3]) {
    let missing = [0, 1, 2].map(|axis| patch[axis].saturating_sub(shape[axis]));
    (missing.map(|voxels| voxels / 2), [0, 1, 2].map(|axis| shape[axis] + missing[axis]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::volume::Affine;

    proptest! {
        #[test]
        fn bounds_equal_search_of_every_voxel(
            shape in [1usize..9, 1usize..9, 1usize..9],
            hits in prop::collection::vec([0usize..9, 0usize..9, 0usize..9], 0..6),
        ) {
            let mut array = Array3::filled(shape, 0u8);
            let hits: Vec<_> = hits.into_iter().filter(|hit| (0..3).all(|axis| hit[axis] < shape[axis])).collect();
            for hit in &hits {
                array[*hit] = 1;
            }
            let expected = hits.iter().map(|hit| (*hit, *hit)).reduce(|(low, high), (hit, _)| {
                ([0, 1, 2].map(|a| low[a].min(hit[a])), [0, 1, 2].map(|a| high[a].max(hit[a])))
            });
            let expected = expected.map(|(start, high)| {
                Region { start, shape: [0, 1, 2].map(|axis| high[axis] - start[axis] + 1) }
            });
            prop_assert_eq!(array.bounds_of(|value| *value > 0), expected);
        }

        #[test]
        fn into_cut_equals_copy_of_region(
            shape in [1usize..9, 1usize..9, 1usize..9],
            start in [0usize..9, 0usize..9, 0usize..9],
            length in [0usize..9, 0usize..9, 0usize..9],
        ) {
            let array = Array3::from_fn(shape, |[x, y, z]| 100 * x + 10 * y + z);
            let start = [0, 1, 2].map(|axis| start[axis].min(shape[axis]));
            let region = Region { start, shape: [0, 1, 2].map(|axis| length[axis].min(shape[axis] - start[axis])) };
            let expected = Array3::from_fn(region.shape, |voxel| array[[0, 1, 2].map(|axis| start[axis] + voxel[axis])]);
            prop_assert_eq!(array.into_cut(region), expected);
        }
    }

    #[test]
    fn padding_keeps_position_of_every_voxel() {
        let affine = Affine([[0.0, -2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 1.0]]);
        let grid = Grid { shape: [3, 4, 5], affine };
        let array = Array3::from_fn(grid.shape, |[x, y, z]| (100 * x + 10 * y + z) as i32);
        let (before, shape) = padding_to(grid.shape, [8, 2, 8]);
        let (target, padded) = (grid.padded(before, shape), array.padded(before, shape, -1));
        assert_eq!((before, shape, target.shape), ([2, 0, 1], [8, 4, 8], [8, 4, 8]));
        assert_eq!(padded.cut(Region { start: before, shape: grid.shape }), array);
        assert_eq!(padded.as_slice().iter().filter(|value| **value == -1).count(), 8 * 4 * 8 - 3 * 4 * 5);
        assert_eq!(target.affine.apply([2.0, 0.0, 1.0]), affine.apply([0.0; 3]));
    }
}
