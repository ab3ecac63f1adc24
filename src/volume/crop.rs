//! Cropping to what matters and padding to what a network needs.

use rayon::prelude::*;

use super::{Array3, Grid, Labels, Region, Volume, Voxels};

impl<T: Sync> Array3<T> {
    /// The smallest region that holds every value that `is_wanted`, `None` where there is none.
    ///
    /// ```
    /// use freetumor::volume::{Array3, Region};
    /// let mut array = Array3::filled([5, 4, 3], 0);
    /// array[[1, 2, 0]] = 7;
    /// array[[3, 2, 1]] = 7;
    /// assert_eq!(array.bounds_of(|value| *value > 0), Some(Region { start: [1, 2, 0], shape: [3, 1, 2] }));
    /// ```
    pub fn bounds_of(&self, is_wanted: impl Fn(&T) -> bool + Sync) -> Option<Region> {
        let [nx, ny, _] = self.shape();
        if self.as_slice().is_empty() {
            return None;
        }
        // Each plane looks only at what could still widen its box: rows from both ends up to the first hit, then, in
        // the rows between, what lies beyond the columns already taken.
        let boxes = self.as_slice().par_chunks_exact(nx * ny).enumerate().filter_map(|(z, plane)| {
            let row_is_wanted = |row: &&[T]| row.iter().any(&is_wanted);
            let above = plane.chunks_exact(nx).take_while(|row| !row_is_wanted(row)).count();
            if above == ny {
                return None;
            }
            let below = plane.chunks_exact(nx).rev().take_while(|row| !row_is_wanted(row)).count();
            let (mut x0, mut x1) = (nx, 0);
            for row in plane[nx * above..nx * (ny - below)].chunks_exact(nx) {
                x0 = row[..x0].iter().position(&is_wanted).unwrap_or(x0);
                x1 = row[x1..].iter().rposition(&is_wanted).map_or(x1, |x| x1 + x + 1);
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
    /// The voxels of `region`, in the memory of the whole: rows move forward, nothing is allocated.
    ///
    /// # Panics
    /// Where the region does not lie inside.
    #[must_use]
    pub fn into_cut(self, region: Region) -> Self {
        let shape = self.shape();
        let end = region.end();
        assert!((0..3).all(|axis| end[axis] <= shape[axis]), "the region {region:?} must lie in {shape:?}");
        let ([nx, ny, _], [width, height, depth]) = (shape, region.shape);
        let mut values = self.into_vec();
        // The longest runs that lie together in both: planes, where rows are whole, or else rows.
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

    /// The array with `value` around it, `before` voxels in front of each axis.
    ///
    /// # Panics
    /// Where the array does not fit into the new shape.
    #[must_use]
    pub fn padded(&self, before: [usize; 3], shape: [usize; 3], value: T) -> Self {
        let own = self.shape();
        assert!(
            (0..3).all(|axis| before[axis] + own[axis] <= shape[axis]),
            "an array of {own:?} after {before:?} must fit into {shape:?}"
        );
        let mut padded = Self::filled(shape, value);
        padded.paste(before, self);
        padded
    }
}

impl Grid {
    /// The grid with `before` more voxels in front of each axis and `shape` voxels in all: every voxel stays where it
    /// is.
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
    /// A copy of the voxels of `region`, on their own grid.
    ///
    /// # Panics
    /// Where the region does not lie inside.
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
    /// A copy of the labels of `region`, on their own grid.
    ///
    /// # Panics
    /// Where the region does not lie inside.
    #[must_use]
    pub fn cut(&self, region: Region) -> Self {
        Self { grid: self.grid.cut(region), ids: self.ids.cut(region) }
    }
}

/// What makes a shape at least as large as `patch`, on both sides alike: the voxels before each axis (one less than
/// behind where the number is odd) and the new shape.
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
        fn bounds_are_those_of_looking_at_every_voxel(
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
        fn cutting_in_place_is_cutting(
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
    fn padding_leaves_every_voxel_in_its_place() {
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
