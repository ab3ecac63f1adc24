//! Smooth random fields on a box of voxels.

use crate::random::RandomStream;
use crate::simd::{Simd, SimdKernel, dispatch_short_rows};
use crate::volume::{Array3, RowSpans};

/// The standard deviation of independent unit values on a lattice after cubic B-spline interpolation, averaged over positions:
/// (151 / 315)^(3/2).
const SPLINE_DEVIATION: f64 = 0.331_9;

/// The positions along one axis at which a field is computed, relative to the middle of its lattice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Positions {
    pub first_mm: f64,
    pub spacing_mm: f64,
    pub count: usize,
}

/// A smooth random field of mean 0 and standard deviation 1: independent values on a lattice of `step_mm`, interpolated by cubic
/// B-splines. Its features are about two steps wide.
///
/// The lattice is aligned with the voxel axes, so that the field is computed axis by axis; along the last axis only for the
/// requested rows. The lattice does not depend on the positions at which the field is computed: grids of different spacing have the same
/// values at the same positions.
pub(crate) struct SmoothNoise {
    /// [x, y, knots along z].
    planes: Array3<f32>,
    /// For each slice, the first of four knots and their weights.
    taps: Vec<(usize, [f32; 4])>,
}

impl SmoothNoise {
    /// An upper bound of all values: it bounds the lattice, and spline weights are not negative and sum to 1.
    pub const MAX: f32 = 5.25;

    /// Samples a field that extends to `reach_mm` on both sides of its middle. Positions beyond the lattice get its outermost values.
    pub fn new(random: &mut RandomStream, reach_mm: [f64; 3], step_mm: f64, positions: [Positions; 3]) -> Self {
        // One knot more than for the last position, because of the random phase.
        let knots = reach_mm.map(|reach| (2.0 * reach / step_mm) as usize + 5);
        let phase = [0, 1, 2].map(|_| random.uniform(0.0, 1.0));
        let axes = [0, 1, 2].map(|k| {
            let Positions { first_mm, spacing_mm, count } = positions[k];
            taps(knots[k], count, spacing_mm / step_mm, phase[k] + (first_mm + reach_mm[k]) / step_mm)
        });
        Self::on_lattice(random, knots, axes, &RowSpans::whole(positions.map(|along| along.count)))
    }

    /// Samples a field for the rows of a box that have a span, with a lattice of `step` voxels along each axis. The values of a row do not
    /// depend on the other rows.
    pub fn of_box(random: &mut RandomStream, within: &RowSpans, step: [f64; 3]) -> Self {
        let shape = within.shape();
        let knots = [0, 1, 2].map(|axis| (shape[axis].saturating_sub(1) as f64 / step[axis]) as usize + 5);
        let phase = [0, 1, 2].map(|_| random.uniform(0.0, 1.0));
        let axes = [0, 1, 2].map(|k| taps(knots[k], shape[k], 1.0 / step[k], phase[k]));
        Self::on_lattice(random, knots, axes, within)
    }

    fn on_lattice(
        random: &mut RandomStream,
        knots: [usize; 3],
        taps: [Vec<(usize, [f32; 4])>; 3],
        within: &RowSpans,
    ) -> Self {
        let [along_x, along_y, taps] = taps;
        // The rows of the planes, and of the lattice, from which the requested rows are computed.
        let mut planes = vec![false; along_y.len() * knots[2]];
        for (y, z, _) in within.rows() {
            let first = taps[z].0;
            (first..first + 4).for_each(|knot| planes[y + along_y.len() * knot] = true);
        }
        let mut rows = vec![false; knots[1] * knots[2]];
        for (plane_row, _) in planes.iter().enumerate().filter(|(_, needed)| **needed) {
            let (y, knot) = (plane_row % along_y.len(), plane_row / along_y.len());
            let first = along_y[y].0 + knots[1] * knot;
            rows[first..first + 4].fill(true);
        }
        // The sum of 64 uniform values is nearly normal, and much cheaper than normal values.
        let scale = (libm::sqrt(12.0) / SPLINE_DEVIATION) as f32;
        let mut lattice = Array3::filled(knots, 0.0f32);
        let mut skipped = 0;
        for (row, needed) in lattice.as_mut_slice().chunks_exact_mut(knots[0]).zip(&rows) {
            if !needed {
                skipped += knots[0];
                continue;
            }
            if skipped > 0 {
                random.skip_unit_f32(skipped);
                skipped = 0;
            }
            random.fill_unit_f32(row);
            row.iter_mut().for_each(|value| *value = scale * (*value - 0.5));
        }
        random.skip_unit_f32(skipped);
        Self { planes: dispatch_short_rows(Expansion { lattice, rows, planes, along_x, along_y }), taps }
    }

    /// Writes the values of the row at [y, z] from voxel `x` to `out`.
    #[inline(always)]
    pub fn row(&self, x: usize, y: usize, z: usize, out: &mut [f32]) {
        let (first, weights) = &self.taps[z];
        let [a, b, c, d] = [0, 1, 2, 3].map(|k| &self.planes.row(y, first + k)[x..x + out.len()]);
        for (index, value) in out.iter_mut().enumerate() {
            *value = weights[0] * a[index] + weights[1] * b[index] + weights[2] * c[index] + weights[3] * d[index];
        }
    }

    /// Returns the largest value of every row of the planes, y fastest, for [`row_bound`](Self::row_bound).
    pub fn plane_row_maxima(&self) -> Vec<f32> {
        let length = self.planes.shape()[0].max(1);
        self.planes.as_slice().chunks_exact(length).map(maximum).collect()
    }

    /// Returns an upper bound of the values of the row at [y, z] from the maxima of the rows of the planes.
    pub fn row_bound(&self, row_maxima: &[f32], y: usize, z: usize) -> f32 {
        let (first, ny) = (self.taps[z].0, self.planes.shape()[1]);
        (first..first + 4).map(|knot| row_maxima[y + ny * knot]).fold(f32::NEG_INFINITY, f32::max)
    }

    /// Returns the rows that have a span; the others are zero.
    pub fn into_array(self, within: &RowSpans) -> Array3<f32> {
        let mut field = Array3::filled(within.shape(), 0.0f32);
        for (y, z, span) in within.rows() {
            self.row(span.start, y, z, &mut field.row_mut(y, z)[span]);
        }
        field
    }
}

/// Returns the largest value, vectorized; no value may be NaN.
fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 32];
    for chunk in values.chunks(lanes.len()) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = if value > lane { *value } else { *lane });
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Returns, for each voxel, the first of the four knots that affect the voxel, and their weights. `stride` is the distance between
/// voxels in knots, `phase` the position of the first voxel.
fn taps(knots: usize, count: usize, stride: f64, phase: f64) -> Vec<(usize, [f32; 4])> {
    (0..count)
        .map(|index| {
            let position = (index as f64 * stride + phase).clamp(0.0, (knots - 3) as f64);
            let first = (position as usize).min(knots - 4);
            (first, spline_weights(position - first as f64))
        })
        .collect()
}

/// The interpolation of a lattice along x and y.
struct Expansion {
    lattice: Array3<f32>,
    /// Whether each row of the lattice, and each row of the planes, is needed.
    rows: Vec<bool>,
    planes: Vec<bool>,
    along_x: Vec<(usize, [f32; 4])>,
    along_y: Vec<(usize, [f32; 4])>,
}

impl SimdKernel for Expansion {
    type Output = Array3<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Array3<f32> {
        expand(&expand(&self.lattice, 0, &self.along_x, &self.rows), 1, &self.along_y, &self.planes)
    }
}

/// Interpolates the knots along x or y at the voxels of the rows that are needed.
#[inline(always)]
fn expand(field: &Array3<f32>, axis: usize, taps: &[(usize, [f32; 4])], needed: &[bool]) -> Array3<f32> {
    let mut shape = field.shape();
    shape[axis] = taps.len();
    let mut result = Array3::filled(shape, 0.0f32);
    for z in 0..shape[2] {
        for y in (0..shape[1]).filter(|y| needed[y + shape[1] * z]) {
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

/// Returns the four weights of a uniform cubic B-spline at `t` in 0..1.
fn spline_weights(t: f64) -> [f32; 4] {
    let s = 1.0 - t;
    let inner = |a: f64| 4.0 - 6.0 * a * a + 3.0 * a * a * a;
    [s * s * s, inner(t), inner(s), t * t * t].map(|weight| (weight / 6.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn of_box(random: &mut RandomStream, within: &RowSpans, step: [f64; 3]) -> Array3<f32> {
        SmoothNoise::of_box(random, within, step).into_array(within)
    }

    #[test]
    fn rows_do_not_depend_on_other_rows() {
        for (seed, step) in [(1, [0.5; 3]), (2, [1.3, 0.7, 2.5]), (3, [4.0; 3])] {
            let shape = [23, 17, 15];
            let mut random = Key::root(seed).stream("noise");
            let whole = of_box(&mut random, &RowSpans::whole(shape), step);
            let spans = (0..17 * 15).map(|row| if row % 17 > 9 && row % 3 == 0 { 4..19 } else { 0..0 }).collect();
            let within = RowSpans::new(shape, spans);
            let mut again = Key::root(seed).stream("noise");
            let part = of_box(&mut again, &within, step);
            within.rows().for_each(|(y, z, span)| assert_eq!(part.row(y, z)[span.clone()], whole.row(y, z)[span]));
            assert_eq!(random.bits(), again.bits());
        }
    }

    #[test]
    fn noise_has_unit_deviation_and_requested_scale() {
        let mut random = Key::root(5).stream("noise");
        let field = of_box(&mut random, &RowSpans::whole([90, 80, 40]), [3.0, 3.0, 1.5]);
        let values = field.as_slice();
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let deviation =
            (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!(mean.abs() < 0.05 && (deviation - 1.0).abs() < 0.05, "{mean} {deviation}");
        let product = |offset: usize| {
            let pairs = values.chunks_exact(90).flat_map(|row| row.iter().zip(&row[offset..]));
            pairs.map(|(a, b)| f64::from(a * b)).sum::<f64>() / ((90 - offset) * 80 * 40) as f64
        };
        // The autocorrelation of cubic B-spline noise: 0.49 at one step, 0.28 at four thirds, 0 at four.
        assert!((product(3) - 0.49).abs() < 0.05, "{}", product(3));
        assert!((product(4) - 0.28).abs() < 0.05, "{}", product(4));
        assert!(product(12).abs() < 0.03, "{}", product(12));
    }

    #[test]
    fn values_do_not_exceed_row_bound() {
        assert!(0.5 * libm::sqrt(12.0) / SPLINE_DEVIATION < f64::from(SmoothNoise::MAX));
        let mut random = Key::root(6).stream("noise");
        let field = SmoothNoise::of_box(&mut random, &RowSpans::whole([37, 21, 19]), [4.0; 3]);
        let row_maxima = field.plane_row_maxima();
        let mut row = [0.0; 37];
        for (y, z) in (0..19).flat_map(|z| (0..21).map(move |y| (y, z))) {
            field.row(0, y, z, &mut row);
            let (maximum, bound) = (maximum(&row), field.row_bound(&row_maxima, y, z));
            assert!(maximum <= bound + 1e-5 && bound <= SmoothNoise::MAX, "{maximum} {bound}");
        }
    }

    #[test]
    fn grids_of_different_spacing_have_equal_values_at_equal_positions() {
        let field = |spacing_mm: f64, count: usize| {
            let positions = Positions { first_mm: -8.0, spacing_mm, count };
            let mut random = Key::root(7).stream("noise");
            SmoothNoise::new(&mut random, [9.0; 3], 2.0, [positions; 3]).into_array(&RowSpans::whole([count; 3]))
        };
        let (fine, coarse) = (field(0.5, 31), field(1.5, 10));
        for z in 0..10 {
            for y in 0..10 {
                for x in 0..10 {
                    let difference = fine[[3 * x, 3 * y, 3 * z]] - coarse[[x, y, z]];
                    assert!(difference.abs() < 1e-5, "{x} {y} {z} {difference}");
                }
            }
        }
    }

    #[test]
    fn spline_weights_sum_to_one() {
        for t in [0.0, 0.3, 0.99] {
            assert!((spline_weights(t).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}
