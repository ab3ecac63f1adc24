//! Gaussian smoothing of selected spans of the rows of a box.
//!
//! An elongated, oblique tumor fills a tenth of its box, and many rows of a box are empty. Neither the rest of the box nor empty rows
//! are computed.

use super::Gaussian;
use super::rows::{SumOrder, WeightedLines};
use crate::simd::{Simd, SimdKernel, dispatch_short_rows};
use crate::volume::{Array3, RowSpans};

impl Gaussian {
    /// Returns the smoothed values within `spans`; the others are undefined.
    pub(crate) fn smoothed_within(&self, values: &Array3<f32>, spans: &RowSpans) -> Array3<f32> {
        dispatch_short_rows(GaussianWithin { filter: self, values, spans })
    }
}

struct GaussianWithin<'a> {
    filter: &'a Gaussian,
    values: &'a Array3<f32>,
    spans: &'a RowSpans,
}

impl SimdKernel for GaussianWithin<'_> {
    type Output = Array3<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Array3<f32> {
        let Self { filter, values, spans } = self;
        let reach = filter.reach_voxels();
        // The result of a pass is the input of the next one, which reads beyond the spans by its reach.
        let after_y = spans.grown([0, 0, reach[2]]);
        let passes = [after_y.grown([0, reach[1], 0]), after_y, spans.clone()];
        let mut filled = filled_rows(values);
        let mut last: Option<Array3<f32>> = None;
        let mut spare: Option<Array3<f32>> = None;
        for axis in (0..3).filter(|&axis| reach[axis] > 0) {
            let source = last.as_ref().unwrap_or(values);
            // Not cleared: a pass writes all values that the next one reads.
            let mut target = spare.take().unwrap_or_else(|| Array3::filled(values.shape(), 0.0f32));
            match axis {
                0 => filter.pass_along_rows::<S>(source, &passes[0], &filled, &mut target),
                _ => filled = filter.pass_across_rows::<S>(axis, source, &passes[axis], &filled, &mut target),
            }
            spare = last.replace(target);
        }
        last.unwrap_or_else(|| values.clone())
    }
}

/// Returns whether each row has a value other than zero. Empty rows need not be read by each of their neighbours.
#[inline(always)]
fn filled_rows(values: &Array3<f32>) -> Vec<bool> {
    let rows = values.as_slice().chunks_exact(values.shape()[0].max(1));
    rows.map(|row| row.iter().fold(0, |bits, value| bits | value.to_bits()) != 0).collect()
}

impl Gaussian {
    /// Smooths along x the rows of a span that are `filled`.
    #[inline(always)]
    fn pass_along_rows<S: Simd>(
        &self,
        source: &Array3<f32>,
        spans: &RowSpans,
        filled: &[bool],
        target: &mut Array3<f32>,
    ) {
        let ([nx, ny, nz], half) = (source.shape(), &self.weights[0]);
        let margin = half.len() - 1;
        let mut padded = vec![0.0f32; nx + 2 * margin];
        for z in 0..nz {
            for y in 0..ny {
                let span = spans.row(y, z);
                if span.is_empty() || !filled[y + ny * z] {
                    continue;
                }
                self.pad(source.row(y, z), &mut padded);
                let mut terms = WeightedLines::with_space_for(half);
                // Mirrored: of two voxels at the same distance the later one is added first. The bits of recorded tumors depend on this
                // order.
                terms.gather(
                    half,
                    SumOrder::Single,
                    #[inline(always)]
                    |by| Some(&padded[margin.strict_sub_signed(by) + span.start..][..span.len()]),
                );
                terms.sum::<S>(&mut target.row_mut(y, z)[span]);
            }
        }
    }

    /// Smooths along y or z the rows that are `filled`. Returns the rows that are filled afterwards.
    #[inline(always)]
    fn pass_across_rows<S: Simd>(
        &self,
        axis: usize,
        source: &Array3<f32>,
        spans: &RowSpans,
        filled: &[bool],
        target: &mut Array3<f32>,
    ) -> Vec<bool> {
        let ([_, ny, nz], half) = (source.shape(), &self.weights[axis]);
        let mut filled_after = vec![false; filled.len()];
        let mut terms = WeightedLines::default();
        // Along z, column by column, so that rows that are read several times stay in the first-level cache.
        let (outer, inner) = if axis == 2 { (ny, nz) } else { (nz, ny) };
        for outer in 0..outer {
            for index in 0..inner {
                let row_of = |index: usize| if axis == 2 { (outer, index) } else { (index, outer) };
                let (y, z) = row_of(index);
                let span = spans.row(y, z);
                if span.is_empty() {
                    continue;
                }
                terms.gather(
                    half,
                    SumOrder::Single,
                    #[inline(always)]
                    |by| {
                        let (y, z) = row_of(self.neighbour(index as isize + by, inner)?);
                        filled[y + ny * z].then(|| &source.row(y, z)[span.clone()])
                    },
                );
                filled_after[y + ny * z] = !terms.is_empty();
                terms.sum::<S>(&mut target.row_mut(y, z)[span.clone()]);
            }
        }
        filled_after
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Boundary, half_kernel};
    use super::*;
    use crate::random::Key;

    fn smoothed(values: &Array3<f32>, sigma: [f64; 3], truncate: f64, spans: &RowSpans) -> Array3<f32> {
        Gaussian::truncated(sigma, truncate, Boundary::Zero).smoothed_within(values, spans)
    }

    #[test]
    fn smoothed_point_is_product_of_three_kernels() {
        let mut point = Array3::filled([15, 13, 11], 0.0);
        point[[7, 6, 5]] = 1.0;
        let smooth = smoothed(&point, [1.0, 0.5, 0.75], 4.0, &RowSpans::whole(point.shape()));
        let (x, y, z) = (half_kernel(1.0, 4), half_kernel(0.5, 2), half_kernel(0.75, 3));
        assert!((smooth[[9, 5, 6]] - x[2] * y[1] * z[1]).abs() < 1e-7);
        assert!((smooth.as_slice().iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn values_within_spans_equal_those_of_whole_array() {
        let mut random = Key::root(4).stream("values");
        let values = Array3::from_fn([150, 13, 11], |_| random.unit_f32());
        for boundary in [Boundary::Zero, Boundary::Reflect] {
            for sigma in [[1.5, 1.0, 0.7], [0.0, 1.0, 0.7], [1.5, 0.0, 0.0]] {
                let filter = Gaussian::truncated(sigma, 3.0, boundary);
                let whole = filter.smoothed_within(&values, &RowSpans::whole(values.shape()));
                // Oblique, with spans from a few voxels to more than a block.
                let mask = Array3::from_fn(values.shape(), |[x, y, z]| x > 3 * z + y && x < 10 * (y + 1) + 5 * z);
                let spans = RowSpans::of(&mask, |&is_set| is_set);
                let part = filter.smoothed_within(&values, &spans);
                for (y, z, span) in spans.rows() {
                    assert_eq!(part.row(y, z)[span.clone()], whole.row(y, z)[span]);
                }
                // Another order of summation changes the result by rounding errors only.
                let mut in_place = values.clone();
                filter.smooth(&mut in_place, &mut Default::default());
                let pairs = whole.as_slice().iter().zip(in_place.as_slice());
                assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-6);
            }
        }
    }

    #[test]
    fn zero_deviation_leaves_values_unchanged() {
        let values = Array3::from_fn([4, 3, 2], |[x, y, z]| (x + 7 * y + z) as f32);
        assert_eq!(smoothed(&values, [0.0; 3], 4.0, &RowSpans::whole(values.shape())), values);
    }
}
