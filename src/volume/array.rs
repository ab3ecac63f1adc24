//! A dense three-dimensional array, x fastest.

use std::ops::Range;

use super::Region;

/// Values on a box of voxels: the value of voxel [x, y, z] has the index `x + nx * (y + ny * z)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Array3<T> {
    shape: [usize; 3],
    values: Vec<T>,
}

impl<T> Array3<T> {
    /// Wraps values that are already in memory order.
    ///
    /// # Panics
    /// If the number of values is not the product of the shape.
    pub fn from_vec(shape: [usize; 3], values: Vec<T>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values must fill the shape {shape:?}");
        Self { shape, values }
    }

    /// Computes every value from its voxel index.
    ///
    /// ```
    /// use freetumor::volume::Array3;
    /// let sums = Array3::from_fn([2, 3, 4], |[x, y, z]| x + y + z);
    /// assert_eq!(sums[[1, 2, 3]], 6);
    /// ```
    pub fn from_fn(shape: [usize; 3], mut value: impl FnMut([usize; 3]) -> T) -> Self {
        let mut values = Vec::with_capacity(shape.iter().product());
        for z in 0..shape[2] {
            for y in 0..shape[1] {
                for x in 0..shape[0] {
                    values.push(value([x, y, z]));
                }
            }
        }
        Self { shape, values }
    }

    /// Returns the number of voxels along [x, y, z].
    #[inline]
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Returns all values, x fastest.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        &self.values
    }

    /// Returns all values, x fastest, as a mutable slice.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// Converts the array into its values, x fastest.
    pub fn into_vec(self) -> Vec<T> {
        self.values
    }

    /// Returns the linear index of a voxel.
    #[inline]
    pub fn index_of(&self, [x, y, z]: [usize; 3]) -> usize {
        debug_assert!(x < self.shape[0] && y < self.shape[1] && z < self.shape[2]);
        x + self.shape[0] * (y + self.shape[1] * z)
    }

    /// Returns the row of voxels along x at [y, z].
    #[inline]
    pub fn row(&self, y: usize, z: usize) -> &[T] {
        let start = self.shape[0] * (y + self.shape[1] * z);
        &self.values[start..start + self.shape[0]]
    }

    /// Returns the row of voxels along x at [y, z] as a mutable slice.
    #[inline]
    pub fn row_mut(&mut self, y: usize, z: usize) -> &mut [T] {
        let start = self.shape[0] * (y + self.shape[1] * z);
        &mut self.values[start..start + self.shape[0]]
    }

    /// Applies `f` to every value.
    pub fn map<U>(&self, f: impl FnMut(&T) -> U) -> Array3<U> {
        Array3 { shape: self.shape, values: self.values.iter().map(f).collect() }
    }

    /// Returns the bounding box of the values for which `predicate` is true, `None` if there are none.
    ///
    /// ```
    /// use freetumor::volume::{Array3, Region};
    /// let mut mask = Array3::filled([5, 4, 3], 0u8);
    /// mask[[1, 2, 0]] = 1;
    /// mask[[3, 1, 0]] = 1;
    /// assert_eq!(mask.extent(|&v| v != 0), Some(Region { start: [1, 1, 0], shape: [3, 2, 1] }));
    /// ```
    pub fn extent(&self, predicate: impl Fn(&T) -> bool) -> Option<Region> {
        let [nx, ny, nz] = self.shape;
        extent(self, (0..nz).flat_map(|z| (0..ny).map(move |y| (y, z, 0..nx))), predicate)
    }

    /// Applies `f` to every value of `region`.
    ///
    /// # Panics
    /// If the region is not inside the array.
    pub(crate) fn cut_map<U>(&self, region: Region, f: impl Fn(&T) -> U) -> Array3<U> {
        let [x0, y0, z0] = region.start;
        let [nx, ny, nz] = region.shape;
        let mut values = Vec::with_capacity(nx * ny * nz);
        for z in z0..z0 + nz {
            for y in y0..y0 + ny {
                values.extend(self.row(y, z)[x0..x0 + nx].iter().map(&f));
            }
        }
        Array3 { shape: region.shape, values }
    }

    /// Returns the whole array as a region.
    pub fn region(&self) -> Region {
        Region { start: [0; 3], shape: self.shape }
    }
}

impl<T: Clone> Array3<T> {
    /// Creates an array with the same value in every voxel.
    pub fn filled(shape: [usize; 3], value: T) -> Self {
        Self { shape, values: vec![value; shape.iter().product()] }
    }

    /// Copies the voxels of `region`.
    ///
    /// # Panics
    /// If the region is not inside the array.
    pub fn cut(&self, region: Region) -> Self {
        let [x0, y0, z0] = region.start;
        let [nx, ny, nz] = region.shape;
        let mut values = Vec::with_capacity(nx * ny * nz);
        for z in z0..z0 + nz {
            for y in y0..y0 + ny {
                values.extend_from_slice(&self.row(y, z)[x0..x0 + nx]);
            }
        }
        Self { shape: region.shape, values }
    }

    /// Copies the array, whose first voxel is `start`, into a box of `shape` voxels whose first one is `first`. Voxels outside the array
    /// are `outside`.
    pub(crate) fn translated(&self, start: [i64; 3], first: [i64; 3], shape: [usize; 3], outside: T) -> Self {
        let mut result = Self::filled(shape, outside);
        let skipped = [0, 1, 2].map(|k| (first[k] - start[k]).max(0) as usize);
        let offset = [0, 1, 2].map(|k| (start[k] - first[k]).max(0) as usize);
        let size = [0, 1, 2].map(|k| self.shape[k].saturating_sub(skipped[k]).min(shape[k].saturating_sub(offset[k])));
        if size[0] > 0 {
            for z in 0..size[2] {
                for y in 0..size[1] {
                    let row = &self.row(skipped[1] + y, skipped[2] + z)[skipped[0]..skipped[0] + size[0]];
                    result.row_mut(offset[1] + y, offset[2] + z)[offset[0]..offset[0] + size[0]].clone_from_slice(row);
                }
            }
        }
        result
    }

    /// Overwrites the voxels from `start` with `patch`.
    ///
    /// # Panics
    /// If the patch is not inside the array.
    pub fn paste(&mut self, start: [usize; 3], patch: &Self) {
        let [nx, ny, nz] = patch.shape;
        for z in 0..nz {
            for y in 0..ny {
                self.row_mut(start[1] + y, start[2] + z)[start[0]..start[0] + nx].clone_from_slice(patch.row(y, z));
            }
        }
    }
}

impl<T> std::ops::Index<[usize; 3]> for Array3<T> {
    type Output = T;

    #[inline]
    fn index(&self, voxel: [usize; 3]) -> &T {
        &self.values[self.index_of(voxel)]
    }
}

impl<T> std::ops::IndexMut<[usize; 3]> for Array3<T> {
    #[inline]
    fn index_mut(&mut self, voxel: [usize; 3]) -> &mut T {
        let index = self.index_of(voxel);
        &mut self.values[index]
    }
}

/// Returns the bounding box of the values for which `predicate` is true in ranges of rows, each given as y, z, and the range.
pub(super) fn extent<T>(
    values: &Array3<T>,
    rows: impl Iterator<Item = (usize, usize, Range<usize>)>,
    predicate: impl Fn(&T) -> bool,
) -> Option<Region> {
    let (mut low, mut high) = ([usize::MAX; 3], [0usize; 3]);
    for (y, z, range) in rows {
        let row = &values.row(y, z)[range.clone()];
        let Some(first) = row.iter().position(&predicate) else { continue };
        let last = row.iter().rposition(&predicate).unwrap_or(first);
        for (axis, (from, to)) in [(range.start + first, range.start + last), (y, y), (z, z)].into_iter().enumerate() {
            low[axis] = low[axis].min(from);
            high[axis] = high[axis].max(to + 1);
        }
    }
    (low[0] < high[0]).then(|| Region { start: low, shape: [0, 1, 2].map(|axis| high[axis] - low[axis]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paste_restores_cut_region() {
        let array = Array3::from_fn([5, 4, 3], |[x, y, z]| 100 * x + 10 * y + z);
        let region = Region { start: [1, 2, 0], shape: [3, 2, 2] };
        let cut = array.cut(region);
        assert_eq!(cut[[2, 1, 1]], array[[3, 3, 1]]);
        assert_eq!(array.cut_map(region, |value| 2 * value), cut.map(|value| 2 * value));
        let mut other = Array3::filled([5, 4, 3], 0);
        other.paste(region.start, &cut);
        assert_eq!(other.cut(region), cut);
        assert_eq!(
            other.as_slice().iter().filter(|v| **v != 0).count(),
            cut.as_slice().iter().filter(|v| **v != 0).count()
        );
    }
}
