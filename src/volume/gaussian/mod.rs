//! Gaussian smoothing, axis by axis: of whole arrays in place (this file), or of selected spans of rows (`spans`).

mod rows;
mod spans;

use rayon::prelude::*;

use self::rows::{SumOrder, WeightedLines};
use super::Array3;
use crate::simd::{Simd, SimdKernel, dispatch};

/// The values outside the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The array mirrored, the outermost voxel twice: d c b a | a b c d | d c b a.
    Reflect,
    /// Zeros.
    Zero,
}

/// A Gaussian filter, which can be applied to any number of arrays.
///
/// ```
/// use freetumor::volume::{Array3, Boundary, Gaussian, Scratch};
/// let mut spot = Array3::filled([21, 21, 21], 0.0f32);
/// spot[[10, 10, 10]] = 1.0;
/// Gaussian::new([2.0, 2.0, 1.0], Boundary::Reflect).smooth(&mut spot, &mut Scratch::default());
/// assert!((spot.as_slice().iter().sum::<f32>() - 1.0).abs() < 1e-5);
/// assert!(spot[[12, 10, 10]] > spot[[10, 10, 12]]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    /// For each axis, the weights at distances 0, 1, 2, …
    weights: [Vec<f32>; 3],
    boundary: Boundary,
}

/// Memory that [`Gaussian::smooth`] reuses between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    values: Vec<f32>,
}

impl Gaussian {
    /// Creates a filter from the standard deviation along each axis in voxels, truncated at four standard deviations. An axis with
    /// 0 is not smoothed.
    ///
    /// # Source
    /// `scipy.ndimage.gaussian_filter` with its defaults, for [`Boundary::Reflect`].
    ///
    /// # Panics
    /// If a standard deviation is negative, not finite, or above 10⁶ voxels.
    pub fn new(sigma_voxels: [f64; 3], boundary: Boundary) -> Self {
        Self::truncated(sigma_voxels, 4.0, boundary)
    }

    /// Creates a filter as [`Gaussian::new`] does, truncated at `truncate` standard deviations.
    pub(crate) fn truncated(sigma_voxels: [f64; 3], truncate: f64, boundary: Boundary) -> Self {
        let weights = sigma_voxels.map(|sigma| half_kernel(sigma, radius_voxels(sigma, truncate)));
        Self { weights, boundary }
    }

    /// Creates the filter for a generator's difference map: 7 × 7 × 7 voxels, standard deviation 1, zeros outside.
    ///
    /// # Source
    /// FreeTumor, arXiv 2406.01264; the kernel is OpenCV's `getGaussianKernel(7, 1)` along each axis.
    pub fn difference_blur() -> Self {
        Self { weights: [1.0, 1.0, 1.0].map(|sigma| half_kernel(sigma, 3)), boundary: Boundary::Zero }
    }

    /// Returns the radius of the kernel along each axis in voxels.
    pub fn reach_voxels(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.weights[axis].len() - 1)
    }

    /// Smooths in place.
    pub fn smooth(&self, array: &mut Array3<f32>, scratch: &mut Scratch) {
        let shape = array.shape();
        let [nx, ny, nz] = shape;
        let plane = nx * ny;
        if array.as_slice().is_empty() {
            return;
        }
        let values = array.as_mut_slice();
        if scratch.values.len() < values.len() {
            scratch.values.resize(values.len(), 0.0);
        }
        // First x and y, plane by plane, into the scratch memory; then z into the array.
        let between = &mut scratch.values[..values.len()];
        if values.len() < MIN_PARALLEL_VOXELS {
            for (source, target) in values.chunks_exact_mut(plane).zip(between.chunks_exact_mut(plane)) {
                self.smooth_plane(source, target, nx);
            }
            self.smooth_depth(between, values, 0, shape);
        } else {
            let planes = values.par_chunks_exact_mut(plane).zip(between.par_chunks_exact_mut(plane));
            planes.for_each(|(source, target)| self.smooth_plane(source, target, nx));
            let depth = nz.div_ceil(4 * rayon::current_num_threads());
            let (between, groups) = (&*between, values.par_chunks_mut(plane * depth).enumerate());
            groups.for_each(|(group, planes)| self.smooth_depth(between, planes, group * depth, shape));
        }
    }

    /// Smooths one plane along x in place and along y into `target`.
    fn smooth_plane(&self, source: &mut [f32], target: &mut [f32], nx: usize) {
        dispatch(Plane { filter: self, source, target, nx });
    }

    /// Smooths along z into the planes that start at `first`.
    fn smooth_depth(&self, source: &[f32], planes: &mut [f32], first: usize, shape: [usize; 3]) {
        dispatch(Depth { filter: self, source, planes, first, shape });
    }

    /// Copies a row into the middle of `padded` and fills the margins by the boundary rule.
    #[inline(always)]
    fn pad(&self, row: &[f32], padded: &mut [f32]) {
        let margin = (padded.len() - row.len()) / 2;
        padded[margin..margin + row.len()].copy_from_slice(row);
        let outside = |x: isize| self.neighbour(x, row.len()).map_or(0.0, |x| row[x]);
        for k in 0..margin {
            padded[margin - 1 - k] = outside(-1 - k as isize);
            padded[margin + row.len() + k] = outside((row.len() + k) as isize);
        }
    }

    /// Returns the voxel whose value is used at position `i` of an axis of `length`, `None` for zero.
    #[inline(always)]
    fn neighbour(&self, i: isize, length: usize) -> Option<usize> {
        let length = length as isize;
        if (0..length).contains(&i) {
            return Some(i as usize);
        }
        match self.boundary {
            Boundary::Zero => None,
            Boundary::Reflect => {
                let i = i.rem_euclid(2 * length);
                Some(if i < length { i } else { 2 * length - 1 - i } as usize)
            }
        }
    }
}

/// The smoothing of one plane along x and y.
struct Plane<'a> {
    filter: &'a Gaussian,
    source: &'a mut [f32],
    target: &'a mut [f32],
    nx: usize,
}

impl SimdKernel for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { filter, source, target, nx } = self;
        let [along_x, along_y, _] = &filter.weights;
        let margin = along_x.len() - 1;
        let (ny, mut padded, zeros) = (source.len() / nx, vec![0.0; nx + 2 * margin], vec![0.0; nx]);
        if margin > 0 {
            for row in source.chunks_exact_mut(nx) {
                filter.pad(row, &mut padded);
                let mut terms = WeightedLines::default();
                terms.gather(
                    along_x,
                    SumOrder::Paired,
                    #[inline(always)]
                    |by| Some(&padded[margin.strict_add_signed(by)..][..nx]),
                );
                terms.sum::<S>(row);
            }
        }
        let mut terms = WeightedLines::default();
        for (y, row) in target.chunks_exact_mut(nx).enumerate() {
            let line = |y: isize| filter.neighbour(y, ny).map_or(&zeros[..], |y| &source[nx * y..nx * (y + 1)]);
            terms.gather(
                along_y,
                SumOrder::Paired,
                #[inline(always)]
                |by| Some(line(y as isize + by)),
            );
            terms.sum::<S>(row);
        }
    }
}

/// The smoothing along z of the planes that start at `first`.
struct Depth<'a> {
    filter: &'a Gaussian,
    source: &'a [f32],
    planes: &'a mut [f32],
    first: usize,
    shape: [usize; 3],
}

impl SimdKernel for Depth<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { filter, source, planes, first, shape: [nx, ny, nz] } = self;
        let (weights, zeros) = (&filter.weights[2], vec![0.0; nx]);
        let row_at = |y: usize, z: usize| &source[nx * (y + ny * z)..nx * (y + ny * z + 1)];
        let mut terms = WeightedLines::default();
        // A few rows of all planes at a time, so that the rows that the next plane also needs are still in the cache.
        for y0 in (0..ny).step_by(ROWS_AT_ONCE) {
            for (z, plane) in planes.chunks_exact_mut(nx * ny).enumerate() {
                for y in y0..(y0 + ROWS_AT_ONCE).min(ny) {
                    let line = |z: isize| filter.neighbour(z, nz).map_or(&zeros[..], |z| row_at(y, z));
                    terms.gather(
                        weights,
                        SumOrder::Paired,
                        #[inline(always)]
                        |by| Some(line((first + z) as isize + by)),
                    );
                    terms.sum::<S>(&mut plane[nx * y..nx * (y + 1)]);
                }
            }
        }
    }
}

/// The minimum number of voxels of an array that is smoothed on several threads: for smaller arrays, waking threads takes longer than they
/// save.
const MIN_PARALLEL_VOXELS: usize = 1 << 16;
const ROWS_AT_ONCE: usize = 8;

/// Returns the radius at which a Gaussian is truncated: `truncate` standard deviations, rounded. SciPy's default is 4.
pub(crate) fn radius_voxels(sigma_voxels: f64, truncate: f64) -> usize {
    (truncate * sigma_voxels + 0.5) as usize
}

/// Returns the weights of a Gaussian at distances `0..=radius` in voxels. The weights of both sides sum to one.
pub(crate) fn half_kernel(sigma_voxels: f64, radius: usize) -> Vec<f32> {
    assert!(
        (0.0..=1e6).contains(&sigma_voxels),
        "expected a standard deviation in 0..=10^6 voxels, got {sigma_voxels}"
    );
    if sigma_voxels <= 1e-15 || radius == 0 {
        return vec![1.0];
    }
    let half: Vec<f64> =
        (0..=radius).map(|k| libm::exp(-0.5 * (k as f64 / sigma_voxels) * (k as f64 / sigma_voxels))).collect();
    let sum = half[0] + 2.0 * half[1..].iter().sum::<f64>();
    half.iter().map(|weight| (weight / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Key;

    /// Smooths by the definition: the full kernel, axis by axis, in f64.
    fn plain(array: &Array3<f32>, sigma: [f64; 3], reach: [usize; 3], boundary: Boundary) -> Array3<f64> {
        let mut smoothed = array.map(|value| f64::from(*value));
        for axis in 0..3 {
            if sigma[axis] == 0.0 {
                continue;
            }
            let reach = reach[axis] as i64;
            let kernel: Vec<f64> = (-reach..=reach).map(|k| (-0.5 * (k as f64 / sigma[axis]).powi(2)).exp()).collect();
            let total: f64 = kernel.iter().sum();
            let length = array.shape()[axis] as i64;
            smoothed = Array3::from_fn(array.shape(), |voxel| {
                let mut sum = 0.0;
                for (k, weight) in kernel.iter().enumerate() {
                    let mut i = voxel[axis] as i64 + k as i64 - reach;
                    while boundary == Boundary::Reflect && !(0..length).contains(&i) {
                        i = if i < 0 { -1 - i } else { 2 * length - 1 - i };
                    }
                    if (0..length).contains(&i) {
                        let mut neighbour = voxel;
                        neighbour[axis] = i as usize;
                        sum += weight / total * smoothed[neighbour];
                    }
                }
                sum
            });
        }
        smoothed
    }

    fn noise(shape: [usize; 3]) -> Array3<f32> {
        let mut random = Key::root(11).stream("noise");
        Array3::from_fn(shape, |_| random.unit_f32() * 2.0 - 1.0)
    }

    fn largest_difference(array: &Array3<f32>, expected: &Array3<f64>) -> f64 {
        let pairs = array.as_slice().iter().zip(expected.as_slice());
        pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn smooth_equals_plain_sum(
            shape in [1usize..36, 1usize..12, 1usize..12],
            sigma in [0.0f64..3.5, 0.0f64..3.5, 0.0f64..3.5],
            skipped in 0usize..4,
            zero in any::<bool>(),
        ) {
            let mut sigma = sigma;
            if skipped < 3 {
                sigma[skipped] = 0.0;
            }
            let boundary = if zero { Boundary::Zero } else { Boundary::Reflect };
            let mut array = noise(shape);
            let reach = sigma.map(|sigma| (4.0 * sigma + 0.5) as usize);
            let expected = plain(&array, sigma, reach, boundary);
            // The scratch memory was used for a larger array before.
            let mut scratch = Scratch::default();
            Gaussian::new([1.0; 3], Boundary::Zero).smooth(&mut noise([40, 12, 12]), &mut scratch);
            Gaussian::new(sigma, boundary).smooth(&mut array, &mut scratch);
            prop_assert!(largest_difference(&array, &expected) < 1e-6);
        }
    }

    #[test]
    fn smooth_does_not_depend_on_number_of_threads() {
        let shape = [50, 41, 37];
        assert!(shape.iter().product::<usize>() > MIN_PARALLEL_VOXELS);
        let expected = plain(&noise(shape), [2.0, 1.0, 3.0], [8, 4, 12], Boundary::Reflect);
        let smooth = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut array = noise(shape);
            let filter = Gaussian::new([2.0, 1.0, 3.0], Boundary::Reflect);
            pool.install(|| filter.smooth(&mut array, &mut Scratch::default()));
            array
        };
        assert!(largest_difference(&smooth(1), &expected) < 1e-6);
        assert_eq!(smooth(1), smooth(3));
    }

    #[test]
    #[should_panic(expected = "standard deviation")]
    fn new_panics_on_negative_deviation() {
        Gaussian::new([1.0, -1.0, 1.0], Boundary::Zero);
    }
}
