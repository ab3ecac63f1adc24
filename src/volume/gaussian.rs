//! Gaussian smoothing, one axis after another.

use rayon::prelude::*;

use super::Array3;

/// What lies beyond the array's edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The array mirrored, the outermost voxel twice: d c b a | a b c d | d c b a.
    Reflect,
    /// Nothing.
    Zero,
}

/// A Gaussian filter: made once, applied to as many arrays as one likes.
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
    /// Per axis the weight of the voxel itself and of those at distance 1, 2, …
    weights: [Vec<f32>; 3],
    boundary: Boundary,
}

/// Memory that [`Gaussian::smooth`] works in and leaves for the next call.
#[derive(Debug, Default)]
pub struct Scratch {
    values: Vec<f32>,
}

impl Gaussian {
    /// A filter with a standard deviation in voxels per axis, cut off at four of them; an axis with 0 stays as it is.
    ///
    /// # Source
    /// `scipy.ndimage.gaussian_filter` with its defaults, for [`Boundary::Reflect`].
    ///
    /// # Panics
    /// Where a deviation is negative, not finite, or above 10⁶ voxels.
    pub fn new(sigma_voxels: [f64; 3], boundary: Boundary) -> Self {
        Self { weights: sigma_voxels.map(|sigma| weights(sigma, (4.0 * sigma + 0.5) as usize)), boundary }
    }

    /// The smoothing of a generator's difference map: 7 × 7 × 7 voxels, standard deviation 1, zeros outside.
    ///
    /// # Source
    /// FreeTumor, arXiv 2406.01264; the kernel is OpenCV's `getGaussianKernel(7, 1)` along each axis.
    pub fn difference_blur() -> Self {
        Self { weights: [1.0, 1.0, 1.0].map(|sigma| weights(sigma, 3)), boundary: Boundary::Zero }
    }

    /// Voxels along each axis that a voxel's value reaches.
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
        // x and y plane by plane into the scratch memory, then z back into the array.
        let between = &mut scratch.values[..values.len()];
        if values.len() < WORTH_SHARING_VOXELS {
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
        let [along_x, along_y, _] = &self.weights;
        let reach = along_x.len() - 1;
        if reach > 0 {
            let mut line = vec![0.0; nx + 2 * reach];
            for row in source.chunks_exact_mut(nx) {
                for (i, value) in line.iter_mut().enumerate() {
                    *value = self.neighbour(i as isize - reach as isize, nx).map_or(0.0, |x| row[x]);
                }
                let shifted = |k: usize| [&line[reach - k..reach - k + nx], &line[reach + k..reach + k + nx]];
                weigh(row, along_x, &(0..=reach).map(shifted).collect::<Vec<_>>());
            }
        }
        let (ny, zeros) = (source.len() / nx, vec![0.0; nx]);
        for (y, row) in target.chunks_exact_mut(nx).enumerate() {
            let at = |y: isize| self.neighbour(y, ny).map_or(&zeros[..], |y| &source[nx * y..nx * (y + 1)]);
            let rows = (0..along_y.len() as isize).map(|k| [at(y as isize - k), at(y as isize + k)]);
            weigh(row, along_y, &rows.collect::<Vec<_>>());
        }
    }

    /// Smooths along z into the planes from `first` on.
    fn smooth_depth(&self, source: &[f32], planes: &mut [f32], first: usize, [nx, ny, nz]: [usize; 3]) {
        let (weights, zeros) = (&self.weights[2], vec![0.0; nx]);
        // A few rows of all planes at a time: what the next plane needs again is then still in the cache.
        for y0 in (0..ny).step_by(ROWS_AT_ONCE) {
            for (z, plane) in planes.chunks_exact_mut(nx * ny).enumerate() {
                let z = (first + z) as isize;
                for y in y0..(y0 + ROWS_AT_ONCE).min(ny) {
                    let at = |z: isize| {
                        self.neighbour(z, nz).map_or(&zeros[..], |z| &source[nx * (y + ny * z)..nx * (y + ny * z + 1)])
                    };
                    let rows = (0..weights.len() as isize).map(|k| [at(z - k), at(z + k)]);
                    weigh(&mut plane[nx * y..nx * (y + 1)], weights, &rows.collect::<Vec<_>>());
                }
            }
        }
    }

    /// The voxel that stands for position `i` of an axis of `length`, `None` where zero does.
    fn neighbour(&self, i: isize, length: usize) -> Option<usize> {
        let length = length as isize;
        match self.boundary {
            Boundary::Zero => (0..length).contains(&i).then_some(i as usize),
            Boundary::Reflect => {
                let i = i.rem_euclid(2 * length);
                Some(if i < length { i } else { 2 * length - 1 - i } as usize)
            }
        }
    }
}

/// Arrays below this size are not worth waking other threads for.
const WORTH_SHARING_VOXELS: usize = 1 << 16;
const ROWS_AT_ONCE: usize = 8;

/// One half of a Gaussian's weights, centre first, that sum to one over both.
fn weights(sigma: f64, reach: usize) -> Vec<f32> {
    assert!((0.0..=1e6).contains(&sigma), "a standard deviation lies in 0..=10^6 voxels, got {sigma}");
    if sigma <= 1e-15 {
        return vec![1.0];
    }
    let half: Vec<f64> = (0..=reach).map(|k| libm::exp(-0.5 * (k * k) as f64 / (sigma * sigma))).collect();
    let sum = half[0] + 2.0 * half[1..].iter().sum::<f64>();
    half.into_iter().map(|weight| (weight / sum) as f32).collect()
}

/// The weighted sum of rows: the first pair is the row itself, twice; the others lie at distance 1, 2, … on both sides.
fn weigh(sum: &mut [f32], weights: &[f32], rows: &[[&[f32]; 2]]) {
    // As many sums as stay in registers; every voxel adds in the same order, so that the result does not depend on how
    // the row is cut.
    const LANES: usize = 16;
    let mut at = 0;
    while at + LANES <= sum.len() {
        let mut lanes = [0.0f32; LANES];
        for (lane, value) in lanes.iter_mut().zip(&rows[0][0][at..at + LANES]) {
            *lane = weights[0] * value;
        }
        for (weight, [before, behind]) in weights.iter().zip(rows).skip(1) {
            let (before, behind) = (&before[at..at + LANES], &behind[at..at + LANES]);
            for (lane, (a, b)) in lanes.iter_mut().zip(before.iter().zip(behind)) {
                *lane += weight * (a + b);
            }
        }
        sum[at..at + LANES].copy_from_slice(&lanes);
        at += LANES;
    }
    for (i, value) in sum.iter_mut().enumerate().skip(at) {
        let pairs = weights.iter().zip(rows).skip(1);
        *value = pairs.fold(weights[0] * rows[0][0][i], |sum, (weight, [a, b])| sum + weight * (a[i] + b[i]));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Key;

    /// The definition: every voxel of the kernel's box, one axis after another, in f64.
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
                        let mut at = voxel;
                        at[axis] = i as usize;
                        sum += weight / total * smoothed[at];
                    }
                }
                sum
            });
        }
        smoothed
    }

    fn noise(shape: [usize; 3]) -> Array3<f32> {
        let mut draws = Key::root(11).draws("noise");
        Array3::from_fn(shape, |_| draws.unit_f32() * 2.0 - 1.0)
    }

    fn largest_difference(array: &Array3<f32>, expected: &Array3<f64>) -> f64 {
        let pairs = array.as_slice().iter().zip(expected.as_slice());
        pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn smoothing_is_the_plain_sum(
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
            // A scratch that was used for a larger array before.
            let mut scratch = Scratch::default();
            Gaussian::new([1.0; 3], Boundary::Zero).smooth(&mut noise([40, 12, 12]), &mut scratch);
            Gaussian::new(sigma, boundary).smooth(&mut array, &mut scratch);
            prop_assert!(largest_difference(&array, &expected) < 1e-6);
        }
    }

    #[test]
    fn large_arrays_are_shared_among_threads_with_the_same_result() {
        let shape = [50, 41, 37];
        assert!(shape.iter().product::<usize>() > WORTH_SHARING_VOXELS);
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
    fn a_negative_deviation_is_refused() {
        Gaussian::new([1.0, -1.0, 1.0], Boundary::Zero);
    }
}
