//! Reorienting volumes: axes are permuted and flipped, no value changes.

use rayon::prelude::*;

use super::{Affine, Array3, Grid, Labels, Orientation, Volume, Voxels};

/// A permutation and flip of axes: for each axis of the result, the source axis and whether its direction is reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisPermutation([(usize, bool); 3]);

impl AxisPermutation {
    /// Returns whether every axis keeps its position and its direction.
    pub fn is_identity(&self) -> bool {
        *self == Self([(0, false), (1, false), (2, false)])
    }

    /// Returns the permuted shape.
    pub fn shape(&self, source: [usize; 3]) -> [usize; 3] {
        self.0.map(|(axis, _)| source[axis])
    }

    /// Returns the permuted grid. Every voxel keeps its position in the patient.
    #[must_use]
    pub fn grid(&self, source: &Grid) -> Grid {
        let mut first = [0.0; 3];
        for (axis, reversed) in self.0 {
            first[axis] = if reversed { source.shape[axis] as f64 - 1.0 } else { 0.0 };
        }
        let origin = source.affine.apply(first);
        let mut rows = [[0.0; 4]; 3];
        for (r, row) in rows.iter_mut().enumerate() {
            for (column, (axis, reversed)) in self.0.into_iter().enumerate() {
                // Adding zero turns -0 into 0, so that reports never print -0.
                row[column] = source.affine.0[r][axis] * if reversed { -1.0 } else { 1.0 } + 0.0;
            }
            row[3] = origin[r];
        }
        Grid { shape: self.shape(source.shape), affine: Affine(rows) }
    }

    /// Returns the permuted array.
    #[must_use]
    pub fn array<T: Copy + Default + Send + Sync>(&self, source: &Array3<T>) -> Array3<T> {
        let shape = self.shape(source.shape());
        let mut permuted = Array3::filled(shape, T::default());
        if permuted.as_slice().is_empty() {
            return permuted;
        }
        let walk = StridedWalk::new(self, source.shape());
        let plane = shape[0] * shape[1];
        // Groups of planes, so that a tile can be as deep as it is wide when x and z are swapped.
        permuted.as_mut_slice().par_chunks_mut(plane * TILE).enumerate().for_each(|(group, planes)| {
            walk.fill(source.as_slice(), planes, shape, group * TILE);
        });
        permuted
    }
}

/// Tiles of 32 × 32 voxels keep both sides of a transposition in the first-level cache.
const TILE: usize = 32;

/// The source index of each voxel of a permuted array: `first + x·step[0] + y·step[1] + z·step[2]`.
struct StridedWalk {
    first: isize,
    step: [isize; 3],
}

impl StridedWalk {
    fn new(permutation: &AxisPermutation, source: [usize; 3]) -> Self {
        let strides = [1, source[0], source[0] * source[1]];
        let mut first = 0;
        let step = permutation.0.map(|(axis, reversed)| {
            let stride = strides[axis] as isize;
            if reversed {
                first += stride * (source[axis] as isize - 1);
                -stride
            } else {
                stride
            }
        });
        Self { first, step }
    }

    #[inline]
    fn source_index(&self, x: usize, y: usize, z: usize) -> usize {
        let [sx, sy, sz] = self.step;
        (self.first + x as isize * sx + y as isize * sy + z as isize * sz) as usize
    }

    /// Fills the planes that start at `first_z`.
    fn fill<T: Copy>(&self, source: &[T], planes: &mut [T], [nx, ny, _]: [usize; 3], first_z: usize) {
        let depth = planes.len() / (nx * ny);
        if self.step[0].abs() == 1 {
            for (row, values) in planes.chunks_exact_mut(nx).enumerate() {
                let (y, z) = (row % ny, first_z + row / ny);
                if self.step[0] == 1 {
                    let start = self.source_index(0, y, z);
                    values.copy_from_slice(&source[start..start + nx]);
                } else {
                    let start = self.source_index(nx - 1, y, z);
                    values.iter_mut().zip(source[start..start + nx].iter().rev()).for_each(|(to, from)| *to = *from);
                }
            }
            return;
        }
        let step_x = self.step[0];
        for z0 in (0..depth).step_by(if self.step[2].abs() == 1 { TILE } else { 1 }) {
            let z1 = if self.step[2].abs() == 1 { (z0 + TILE).min(depth) } else { z0 + 1 };
            for y0 in (0..ny).step_by(if self.step[1].abs() == 1 { TILE } else { 1 }) {
                let y1 = if self.step[1].abs() == 1 { (y0 + TILE).min(ny) } else { y0 + 1 };
                for x0 in (0..nx).step_by(TILE) {
                    let x1 = (x0 + TILE).min(nx);
                    for z in z0..z1 {
                        for y in y0..y1 {
                            let mut from = self.source_index(x0, y, first_z + z) as isize;
                            for to in &mut planes[nx * (y + ny * z) + x0..nx * (y + ny * z) + x1] {
                                *to = source[from as usize];
                                from += step_x;
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Orientation {
    /// Returns the permutation that reorients an array of this orientation to `target`.
    ///
    /// # Panics
    /// If either orientation has a world axis twice, which [`Affine::orientation`] never returns.
    pub fn permutation_to(self, target: Self) -> AxisPermutation {
        AxisPermutation(target.0.map(|(world, positive)| {
            let source = self.0.iter().position(|&(axis, _)| axis == world).expect("each world axis occurs once");
            (source, self.0[source].1 != positive)
        }))
    }
}

impl Grid {
    /// Returns the grid of the same voxels in another axis order.
    #[must_use]
    pub fn reoriented(&self, target: Orientation) -> Self {
        self.orientation().permutation_to(target).grid(self)
    }
}

impl Volume {
    /// Returns the volume in another axis order: axes are permuted and flipped, the affine is updated, no value changes.
    ///
    /// ```
    /// use freetumor::volume::{Affine, Array3, Grid, Orientation, Volume, Voxels};
    /// let affine = Affine([[-1.0, 0.0, 0.0, 9.0], [0.0, -1.0, 0.0, 9.0], [0.0, 0.0, 2.0, 0.0]]); // LPS
    /// let hu = Array3::from_fn([2, 2, 1], |[x, y, _]| (x + 10 * y) as i16);
    /// let scan = Volume { grid: Grid { shape: [2, 2, 1], affine }, voxels: Voxels::I16(hu) };
    /// let ras = scan.reoriented(Orientation::RAS);
    /// assert_eq!(ras.voxels.hu(0), 11.0);
    /// assert_eq!(ras.grid.affine.apply([0.0; 3]), [8.0, 8.0, 0.0]);
    /// ```
    #[must_use]
    pub fn reoriented(&self, target: Orientation) -> Self {
        let permutation = self.grid.orientation().permutation_to(target);
        if permutation.is_identity() {
            return self.clone();
        }
        let voxels = match &self.voxels {
            Voxels::I16(array) => Voxels::I16(permutation.array(array)),
            Voxels::F32(array) => Voxels::F32(permutation.array(array)),
        };
        Self { grid: permutation.grid(&self.grid), voxels }
    }
}

impl Labels {
    /// Returns the labels in another axis order; see [`Volume::reoriented`].
    #[must_use]
    pub fn reoriented(&self, target: Orientation) -> Self {
        let permutation = self.grid.orientation().permutation_to(target);
        if permutation.is_identity() {
            return self.clone();
        }
        Self { grid: permutation.grid(&self.grid), ids: permutation.array(&self.ids) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns all 48 axis orders.
    fn orientations() -> impl Iterator<Item = Orientation> {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        orders.into_iter().flat_map(|order| {
            (0..8).map(move |signs| Orientation([0, 1, 2].map(|axis| (order[axis], signs >> axis & 1 == 1))))
        })
    }

    /// Returns a grid whose axes point along `orientation`, slightly tilted.
    fn grid(orientation: Orientation, shape: [usize; 3], tilt: f64) -> Grid {
        let mut rows = [[tilt, -tilt, tilt, 11.0], [-tilt, tilt, tilt, -7.0], [tilt, tilt, tilt, 3.0]];
        for (axis, (world, positive)) in orientation.0.into_iter().enumerate() {
            rows[world][axis] = [0.7, 1.5, 4.0][axis] * if positive { 1.0 } else { -1.0 };
        }
        Grid { shape, affine: Affine(rows) }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn reorientation_keeps_value_and_position_of_every_voxel(shape in [1usize..40, 1usize..40, 1usize..40], tilt in -0.1f64..0.1) {
            for from in orientations() {
                let source = grid(from, shape, tilt);
                prop_assert_eq!(source.orientation(), from);
                let values = Array3::from_fn(shape, |[x, y, z]| (x + 64 * (y + 64 * z)) as u32 + 1);
                for to in [Orientation::RAS, Orientation([(1, false), (2, true), (0, false)])] {
                    let permutation = from.permutation_to(to);
                    let (permuted, target) = (permutation.array(&values), permutation.grid(&source));
                    prop_assert_eq!(target.orientation(), to);
                    prop_assert_eq!(permuted.shape(), target.shape);
                    let inverse = source.affine.inverse().unwrap();
                    for z in 0..target.shape[2] {
                        for y in 0..target.shape[1] {
                            for x in 0..target.shape[0] {
                                let position = inverse.apply(target.affine.apply([x as f64, y as f64, z as f64]));
                                let voxel = position.map(|c| c.round() as usize);
                                prop_assert!(position.iter().zip(voxel).all(|(c, v)| (c - v as f64).abs() < 1e-9));
                                prop_assert_eq!(permuted[[x, y, z]], values[voxel]);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn reorienting_twice_restores_volume_bit_for_bit() {
        let hu = Array3::from_fn([5, 4, 3], |[x, y, z]| (100 * x + 10 * y + z) as i16);
        for from in orientations() {
            let mut grid = grid(from, [5, 4, 3], 0.0);
            for row in &mut grid.affine.0 {
                row[3] = row[3].round();
            }
            let scan = Volume { grid, voxels: Voxels::I16(hu.clone()) };
            let restored = scan.reoriented(Orientation::RAS).reoriented(from);
            assert_eq!(restored.voxels, scan.voxels);
            assert!(restored.grid.agrees_with(&scan.grid));
        }
    }

    #[test]
    fn permuting_empty_array_returns_empty_array() {
        let permutation = Orientation::RAS.permutation_to(Orientation([(2, true), (1, true), (0, true)]));
        assert_eq!(permutation.array(&Array3::<u16>::filled([3, 0, 2], 0)).shape(), [2, 0, 3]);
    }
}
