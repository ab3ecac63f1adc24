//! Smooth random fields on a box of voxels.

use crate::random::RandomStream;
use crate::simd::{Simd, SimdKernel, vectorised_short};
use crate::volume::Array3;

/// The standard deviation that independent unit values on a lattice keep after cubic B-spline interpolation, averaged
/// over positions: (151 / 315)^(3/2).
const SPLINE_DEVIATION: f64 = 0.331_9;

/// A smooth random field of mean 0 and standard deviation 1: independent values on a lattice of `step_mm`, joined by cubic
/// B-splines. Its features are about two steps wide.
///
/// The lattice is aligned with the voxel axes, so that the field is computed axis by axis; along the last one only for
/// the rows that are asked for.
pub(crate) struct SmoothNoise {
    /// [x, y, knots along z].
    planes: Array3<f32>,
    /// For each slice its first knot and the weights of four.
    taps: Vec<(usize, [f32; 4])>,
}

impl SmoothNoise {
    /// No value of a field is larger: those of the lattice are not, and the weights of splines are not negative and sum to 1.
    pub const MOST: f32 = 5.25;

    /// Draws the field of a box of `shape` voxels.
    pub fn new(draws: &mut RandomStream, shape: [usize; 3], spacing_mm: [f64; 3], step_mm: [f64; 3]) -> Self {
        let knots = [0, 1, 2].map(|axis| {
            let last = shape[axis].saturating_sub(1) as f64 * spacing_mm[axis] / step_mm[axis];
            // One more than the last position needs, for the random phase.
            last as usize + 5
        });
        let phase = [0, 1, 2].map(|_| draws.uniform(0.0, 1.0));
        // Sums of 64 uniform values are as good as normal, and much cheaper.
        let scale = (libm::sqrt(12.0) / SPLINE_DEVIATION) as f32;
        let lattice = Array3::from_fn(knots, |_| scale * (draws.unit_f32() - 0.5));
        let taps = [0, 1, 2].map(|k| taps(knots[k], shape[k], spacing_mm[k] / step_mm[k], phase[k]));
        let [along_x, along_y, taps] = taps;
        Self { planes: vectorised_short(Expansion { lattice, along_x, along_y }), taps }
    }

    /// The values of the row at [y, z] from voxel `x` on, as many as `out` takes.
    #[inline(always)]
    pub fn row(&self, x: usize, y: usize, z: usize, out: &mut [f32]) {
        let (first, weights) = &self.taps[z];
        let [a, b, c, d] = [0, 1, 2, 3].map(|k| &self.planes.row(y, first + k)[x..x + out.len()]);
        for (index, value) in out.iter_mut().enumerate() {
            *value = weights[0] * a[index] + weights[1] * b[index] + weights[2] * c[index] + weights[3] * d[index];
        }
    }

    /// For every row of the planes along z, y fastest, the largest value: what [`most_of_row`](Self::most_of_row) takes.
    pub fn most_of_rows(&self) -> Vec<f32> {
        let length = self.planes.shape()[0].max(1);
        self.planes.as_slice().chunks_exact(length).map(largest).collect()
    }

    /// A bound of the values of the row at [y, z], from the bounds of all rows of the planes.
    pub fn most_of_row(&self, most_of_rows: &[f32], y: usize, z: usize) -> f32 {
        let (first, ny) = (self.taps[z].0, self.planes.shape()[1]);
        (first..first + 4).map(|knot| most_of_rows[y + ny * knot]).fold(f32::NEG_INFINITY, f32::max)
    }

    /// The whole field.
    pub fn into_array(self) -> Array3<f32> {
        let [nx, ny, _] = self.planes.shape();
        let mut field = Array3::filled([nx, ny, self.taps.len()], 0.0f32);
        for z in 0..self.taps.len() {
            (0..ny).for_each(|y| self.row(0, y, z, field.row_mut(y, z)));
        }
        field
    }
}

/// The largest of values none of which is NaN, many at a time.
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 32];
    for chunk in values.chunks(lanes.len()) {
        lanes.iter_mut().zip(chunk).for_each(|(most, value)| *most = if value > most { *value } else { *most });
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// The first of the four knots that reach a voxel, and their weights; voxels lie `stride` knots apart.
fn taps(knots: usize, count: usize, stride: f64, phase: f64) -> Vec<(usize, [f32; 4])> {
    (0..count)
        .map(|index| {
            let position = index as f64 * stride + phase;
            let first = (position as usize).min(knots - 4);
            (first, spline_weights(position - first as f64))
        })
        .collect()
}

/// A lattice whose knots along x and y are to be replaced by voxels.
struct Expansion {
    lattice: Array3<f32>,
    along_x: Vec<(usize, [f32; 4])>,
    along_y: Vec<(usize, [f32; 4])>,
}

impl SimdKernel for Expansion {
    type Output = Array3<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Array3<f32> {
        expand(&expand(&self.lattice, 0, &self.along_x), 1, &self.along_y)
    }
}

/// Replaces the knots along x or y by voxels.
#[inline(always)]
fn expand(field: &Array3<f32>, axis: usize, taps: &[(usize, [f32; 4])]) -> Array3<f32> {
    let mut shape = field.shape();
    shape[axis] = taps.len();
    let mut result = Array3::filled(shape, 0.0f32);
    for z in 0..shape[2] {
        for y in 0..shape[1] {
            let row = result.row_mut(y, z);
            if axis == 0 {
                let line = field.row(y, z);
                for (out, (first, weights)) in row.iter_mut().zip(taps) {
                    *out = weights.iter().zip(&line[*first..]).map(|(weight, value)| weight * value).sum();
                }
                continue;
            }
            let (first, weights) = &taps[y];
            for (k, weight) in weights.iter().enumerate() {
                let line = field.row(first + k, z);
                row.iter_mut().zip(line).for_each(|(out, value)| *out += weight * value);
            }
        }
    }
    result
}

/// The four weights of a uniform cubic B-spline at `t` in 0..1.
fn spline_weights(t: f64) -> [f32; 4] {
    let s = 1.0 - t;
    let inner = |a: f64| 4.0 - 6.0 * a * a + 3.0 * a * a * a;
    [s * s * s, inner(t), inner(s), t * t * t].map(|weight| (weight / 6.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn has_unit_deviation_and_the_asked_scale() {
        let mut draws = Key::root(5).draws("noise");
        let field = SmoothNoise::new(&mut draws, [90, 80, 40], [1.0, 1.0, 2.0], [3.0; 3]).into_array();
        let values = field.as_slice();
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let deviation =
            (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!(mean.abs() < 0.05 && (deviation - 1.0).abs() < 0.05, "{mean} {deviation}");
        let product = |offset: usize| {
            let pairs = values.chunks_exact(90).flat_map(|row| row.iter().zip(&row[offset..]));
            pairs.map(|(a, b)| f64::from(a * b)).sum::<f64>() / ((90 - offset) * 80 * 40) as f64
        };
        // The autocorrelation of cubic B-spline noise: 0.49 at one step, 0.28 at four thirds, gone at four.
        assert!((product(3) - 0.49).abs() < 0.05, "{}", product(3));
        assert!((product(4) - 0.28).abs() < 0.05, "{}", product(4));
        assert!(product(12).abs() < 0.03, "{}", product(12));
    }

    #[test]
    fn no_value_is_above_its_bound() {
        assert!(0.5 * libm::sqrt(12.0) / SPLINE_DEVIATION < f64::from(SmoothNoise::MOST));
        let mut draws = Key::root(6).draws("noise");
        let field = SmoothNoise::new(&mut draws, [37, 21, 19], [1.0; 3], [4.0; 3]);
        let most = field.most_of_rows();
        let mut row = [0.0; 37];
        for (y, z) in (0..19).flat_map(|z| (0..21).map(move |y| (y, z))) {
            field.row(0, y, z, &mut row);
            let (largest, bound) = (largest(&row), field.most_of_row(&most, y, z));
            assert!(largest <= bound + 1e-5 && bound <= SmoothNoise::MOST, "{largest} {bound}");
        }
    }

    #[test]
    fn spline_weights_sum_to_one() {
        for t in [0.0, 0.3, 0.99] {
            assert!((spline_weights(t).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}
