//! Gaussian smoothing of what is wanted of a box, as spans of its rows.
//!
//! A long tumor that lies across its box fills a tenth of it, and many rows of a box are empty: neither is computed.

use super::Gaussian;
use super::rows::{SumOrder, WeightedLines};
use crate::simd::{Simd, SimdKernel, vectorised_short};
use crate::volume::{Array3, RowSpans};

impl Gaussian {
    /// The smoothed values within `wanted`; the others are undefined.
    pub(crate) fn smoothed_within(&self, values: &Array3<f32>, wanted: &RowSpans) -> Array3<f32> {
        vectorised_short(GaussianWithin { filter: self, values, wanted })
    }
}

struct GaussianWithin<'a> {
    filter: &'a Gaussian,
    values: &'a Array3<f32>,
    wanted: &'a RowSpans,
}

impl SimdKernel for GaussianWithin<'_> {
    type Output = Array3<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Array3<f32> {
        let Self { filter, values, wanted } = self;
        let reach = filter.reach_voxels();
        // The result of a pass along one axis is the input of the passes after it.
        let after_y = wanted.grown([0, 0, reach[2]]);
        let passes = [after_y.grown([0, reach[1], 0]), after_y, wanted.clone()];
        let mut last: Option<Array3<f32>> = None;
        let mut spare: Option<Array3<f32>> = None;
        for axis in (0..3).filter(|&axis| reach[axis] > 0) {
            let source = last.as_ref().unwrap_or(values);
            let mut target = match spare.take() {
                // The rows of an earlier pass, which are not all written again.
                Some(mut spare) => {
                    spare.as_mut_slice().fill(0.0);
                    spare
                }
                None => Array3::filled(values.shape(), 0.0f32),
            };
            match axis {
                0 => filter.pass_along_rows(source, &passes[0], &mut target),
                _ => filter.pass_across_rows(axis, source, &passes[axis], &mut target),
            }
            spare = last.replace(target);
        }
        last.unwrap_or_else(|| values.clone())
    }
}

/// Which rows hold anything but zeros: the others need not be read again and again.
#[inline(always)]
fn filled_rows(values: &Array3<f32>) -> Vec<bool> {
    let rows = values.as_slice().chunks_exact(values.shape()[0].max(1));
    rows.map(|row| row.iter().fold(0, |bits, value| bits | value.to_bits()) != 0).collect()
}

impl Gaussian {
    /// Smooths along x.
    #[inline(always)]
    fn pass_along_rows(&self, source: &Array3<f32>, wanted: &RowSpans, target: &mut Array3<f32>) {
        let ([nx, ny, nz], half, filled) = (source.shape(), &self.weights[0], filled_rows(source));
        let margin = half.len() - 1;
        let mut padded = vec![0.0f32; nx + 2 * margin];
        for z in 0..nz {
            for y in 0..ny {
                let span = wanted.row(y, z);
                if span.is_empty() || !filled[y + ny * z] {
                    continue;
                }
                self.pad(source.row(y, z), &mut padded);
                let mut terms = WeightedLines::default();
                // Mirrored: of two voxels at one distance the later one is added first. Recorded tumors depend on it.
                terms.gather(
                    half,
                    SumOrder::Single,
                    #[inline(always)]
                    |by| Some(&padded[margin.strict_sub_signed(by) + span.start..][..span.len()]),
                );
                terms.sum(&mut target.row_mut(y, z)[span]);
            }
        }
    }

    /// Smooths along y or z.
    #[inline(always)]
    fn pass_across_rows(&self, axis: usize, source: &Array3<f32>, wanted: &RowSpans, target: &mut Array3<f32>) {
        let ([_, ny, nz], half, filled) = (source.shape(), &self.weights[axis], filled_rows(source));
        let mut terms = WeightedLines::default();
        // Along z line by line, so that the rows that are read again and again stay in the first caches.
        let (outer, inner) = if axis == 2 { (ny, nz) } else { (nz, ny) };
        for outer in 0..outer {
            for inner_at in 0..inner {
                let row_at = |at: usize| if axis == 2 { (outer, at) } else { (at, outer) };
                let (y, z) = row_at(inner_at);
                let span = wanted.row(y, z);
                if span.is_empty() {
                    continue;
                }
                terms.gather(
                    half,
                    SumOrder::Single,
                    #[inline(always)]
                    |by| {
                        let (y, z) = row_at(self.neighbour(inner_at as isize + by, inner)?);
                        filled[y + ny * z].then(|| &source.row(y, z)[span.clone()])
                    },
                );
                terms.sum(&mut target.row_mut(y, z)[span.clone()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Boundary, half_kernel};
    use super::*;
    use crate::random::Key;

    fn smoothed(values: &Array3<f32>, sigma: [f64; 3], truncate: f64, wanted: &RowSpans) -> Array3<f32> {
        Gaussian::truncated(sigma, truncate, Boundary::Zero).smoothed_within(values, wanted)
    }

    #[test]
    fn a_point_becomes_the_product_of_three_kernels() {
        let mut point = Array3::filled([15, 13, 11], 0.0);
        point[[7, 6, 5]] = 1.0;
        let smooth = smoothed(&point, [1.0, 0.5, 0.75], 4.0, &RowSpans::whole(point.shape()));
        let (x, y, z) = (half_kernel(1.0, 4), half_kernel(0.5, 2), half_kernel(0.75, 3));
        assert!((smooth[[9, 5, 6]] - x[2] * y[1] * z[1]).abs() < 1e-7);
        assert!((smooth.as_slice().iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn wanted_values_equal_those_of_the_whole() {
        let mut draws = Key::root(4).draws("values");
        let values = Array3::from_fn([150, 13, 11], |_| draws.unit_f32());
        for boundary in [Boundary::Zero, Boundary::Reflect] {
            for sigma in [[1.5, 1.0, 0.7], [0.0, 1.0, 0.7], [1.5, 0.0, 0.0]] {
                let filter = Gaussian::truncated(sigma, 3.0, boundary);
                let whole = filter.smoothed_within(&values, &RowSpans::whole(values.shape()));
                // Slanted, and of every length from a few voxels to more than a block.
                let some = Array3::from_fn(values.shape(), |[x, y, z]| x > 3 * z + y && x < 10 * (y + 1) + 5 * z);
                let wanted = RowSpans::of(&some, |&is_wanted| is_wanted);
                let part = filter.smoothed_within(&values, &wanted);
                for (y, z, span) in wanted.rows() {
                    assert_eq!(part.row(y, z)[span.clone()], whole.row(y, z)[span]);
                }
                // In another order of summation the same but for roundings.
                let mut in_place = values.clone();
                filter.smooth(&mut in_place, &mut Default::default());
                let pairs = whole.as_slice().iter().zip(in_place.as_slice());
                assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-6);
            }
        }
    }

    #[test]
    fn a_deviation_of_zero_changes_nothing() {
        let values = Array3::from_fn([4, 3, 2], |[x, y, z]| (x + 7 * y + z) as f32);
        assert_eq!(smoothed(&values, [0.0; 3], 4.0, &RowSpans::whole(values.shape())), values);
    }
}
