//! Normalization over a volume.
//!
//! Two sums per channel, then one pass that writes. The sums are computed in double precision, so that one pass computes both the
//! mean and the variance. With few channels, several neighbouring voxels are combined into one wide row.

use candle_core::Result;
use rayon::prelude::*;

use super::{PIECE, rows_per_piece, single, sum_in_order};
use crate::nn::kernel::zeros;
use crate::nn::ops::moments::Moments;
use crate::nn::ops::norm::Normalize;
use crate::nn::ops::operator::{Native, Slices};
use crate::simd::dispatch;

/// The minimum number of columns of a wide row, which combines several voxels.
const WIDE_ROW: usize = 64;

/// The mean, factor and summand of each channel, repeated for a wide row.
struct Affine {
    mean: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Affine {
    /// Adds, for each column, the gradients before the activation and their products with the centered input. Sixteen
    /// rows are summed in single precision and those sums in double: half the registers and almost all of the accuracy.
    #[inline(always)]
    fn add_gradients(&self, x: &[f32], grad: &[f32], slope: f32, level: &mut [f64], product: &mut [f64]) {
        let row = self.mean.len();
        let (mut levels, mut products) = (vec![0f32; row], vec![0f32; row]);
        for (x, grad) in x.chunks(16 * row).zip(grad.chunks(16 * row)) {
            for (x, grad) in x.chunks(row).zip(grad.chunks(row)) {
                let by = self.mean.iter().zip(&self.scale).zip(&self.shift);
                let sums = levels.iter_mut().zip(products.iter_mut());
                for (((&x, &grad), ((&mean, &scale), &shift)), (level, product)) in x.iter().zip(grad).zip(by).zip(sums)
                {
                    let centered = x - mean;
                    let grad = if centered * scale + shift > 0. { grad } else { grad * slope };
                    *level += grad;
                    *product += grad * centered;
                }
            }
            for (sums, short) in [(&mut *level, &mut levels), (&mut *product, &mut products)] {
                for (sum, short) in sums.iter_mut().zip(short) {
                    *sum += f64::from(std::mem::take(short));
                }
            }
        }
    }
}

impl Normalize {
    /// Returns the number of voxels of one wide row.
    fn fold(&self) -> usize {
        WIDE_ROW.div_ceil(self.channels).min(PIECE)
    }

    /// Returns the number of elements that one task processes: whole wide rows.
    fn piece(&self) -> usize {
        let row = self.fold() * self.channels;
        rows_per_piece(row) * row
    }

    /// Returns one value for each channel, repeated for a wide row.
    fn wide(&self, value: impl Fn(usize) -> f64) -> Vec<f32> {
        (0..self.fold() * self.channels).map(|i| value(i % self.channels) as f32).collect()
    }

    /// Returns two sums per channel over one group. `add` is called with the range of each piece, and adds to one pair of sums for
    /// each column of a wide row.
    fn sums(&self, add: impl Fn(std::ops::Range<usize>, &mut [f64], &mut [f64]) + Sync) -> [Vec<f64>; 2] {
        let (row, len, piece) = (self.fold() * self.channels, self.rows * self.channels, self.piece());
        let parts: Vec<Vec<f64>> = (0..len.div_ceil(piece))
            .into_par_iter()
            .map(|i| {
                let mut sums = vec![0.; 2 * row];
                let (first, second) = sums.split_at_mut(row);
                add(i * piece..len.min((i + 1) * piece), first, second);
                sums
            })
            .collect();
        let sums = sum_in_order(&parts);
        let fold = |sums: &[f64]| {
            (0..self.channels).map(|c| sums.iter().skip(c).step_by(self.channels).sum()).collect::<Vec<f64>>()
        };
        [fold(&sums[..row]), fold(&sums[row..])]
    }

    /// Computes the moments of one group.
    fn moments_of(&self, x: &[f32]) -> Moments {
        let row = self.fold() * self.channels;
        let [sums, squares] = self.sums(|range, sums, squares| {
            let x = &x[range];
            dispatch(
                #[inline(always)]
                || {
                    for x in x.chunks(row) {
                        for ((sum, square), &x) in sums.iter_mut().zip(squares.iter_mut()).zip(x) {
                            let x = f64::from(x);
                            *sum += x;
                            *square += x * x;
                        }
                    }
                },
            );
        });
        let count = self.rows as f64;
        let mean: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        let variance = squares.iter().zip(&mean).map(|(square, mean)| (square / count - mean * mean).max(0.));
        let inverse = variance.map(|variance| (variance + self.eps).sqrt().recip()).collect();
        Moments { mean, inverse }
    }

    /// Returns the moments of all groups, computed once for both passes.
    fn moments(&self, x: &[f32]) -> &[Moments] {
        let groups = x.chunks_exact(self.rows * self.channels);
        self.moments.get_or_init(|| groups.map(|x| self.moments_of(x)).collect())
    }

    /// Returns the forward pass of each channel as an affine map. The mean is rounded; the shift contains the remainder.
    fn affine(&self, moments: &Moments, weight: &impl Fn(usize) -> f64, bias: impl Fn(usize) -> f64) -> Affine {
        let mean = |c: usize| f64::from(moments.mean[c] as f32);
        let scale = |c: usize| moments.inverse[c] * weight(c);
        Affine {
            mean: self.wide(mean),
            scale: self.wide(scale),
            shift: self.wide(|c| bias(c) + (mean(c) - moments.mean[c]) * scale(c)),
        }
    }
}

/// Returns one value for each channel, or `otherwise` for all channels.
fn parameter(values: Option<&[f32]>, otherwise: f64) -> impl Fn(usize) -> f64 {
    let values = values.map(<[f32]>::to_vec);
    move |c| values.as_ref().map_or(otherwise, |values| f64::from(values[c]))
}

/// Applies the activation to one number.
#[inline(always)]
fn activated(value: f32, slope: f32) -> f32 {
    if value > 0. { value } else { value * slope }
}

impl Normalize {
    /// Computes the forward pass in place.
    pub(in crate::nn::ops) fn overwrite(&self, x: &mut [f32], weight: Option<&[f32]>, bias: Option<&[f32]>) {
        let (row, group, piece) = (self.fold() * self.channels, self.rows * self.channels, self.piece());
        let (weight, bias) = (parameter(weight, 1.), parameter(bias, 0.));
        let slope = self.slope as f32;
        for x in x.chunks_exact_mut(group) {
            let by = self.affine(&self.moments_of(x), &weight, &bias);
            x.par_chunks_mut(piece).for_each(|x| {
                dispatch(
                    #[inline(always)]
                    || {
                        let factor = slope;
                        for x in x.chunks_mut(row) {
                            let by = by.mean.iter().zip(&by.scale).zip(&by.shift);
                            for (x, ((&mean, &scale), &shift)) in x.iter_mut().zip(by) {
                                *x = activated((*x - mean) * scale + shift, factor);
                            }
                        }
                    },
                );
            });
        }
    }
}

impl Native for Normalize {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let x = inputs[0];
        let (weight, bias) = (parameter(inputs.get(1).copied(), 1.), parameter(inputs.get(2).copied(), 0.));
        let (row, group, piece) = (self.fold() * self.channels, self.rows * self.channels, self.piece());
        let slope = self.slope as f32;
        let mut y = zeros(x.len());
        for ((x, y), moments) in x.chunks_exact(group).zip(y.chunks_exact_mut(group)).zip(self.moments(x)) {
            let by = self.affine(moments, &weight, &bias);
            y.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(y, x)| {
                dispatch(
                    #[inline(always)]
                    || {
                        let factor = slope;
                        for (y, x) in y.chunks_mut(row).zip(x.chunks(row)) {
                            let by = by.mean.iter().zip(&by.scale).zip(&by.shift);
                            for ((y, &x), ((&mean, &scale), &shift)) in y.iter_mut().zip(x).zip(by) {
                                *y = activated((x - mean) * scale + shift, factor);
                            }
                        }
                    },
                );
            });
        }
        Ok(y)
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let (x, grad) = (call.inputs[0], call.grad);
        let (weight, bias) = (parameter(call.inputs.get(1).copied(), 1.), parameter(call.inputs.get(2).copied(), 0.));
        let (row, group, piece) = (self.fold() * self.channels, self.rows * self.channels, self.piece());
        let (slope, count) = (self.slope as f32, self.rows as f64);
        let mut x_grad = zeros(if call.required[0] { x.len() } else { 0 });
        let mut weight_grad = vec![0f64; self.channels];
        let mut bias_grad = vec![0f64; self.channels];
        for (g, moments) in self.moments(x).iter().enumerate() {
            let range = g * group..(g + 1) * group;
            let (x, grad) = (&x[range.clone()], &grad[range.clone()]);
            // The sign before the activation is computed again, by the same arithmetic as in the forward pass.
            let by = self.affine(moments, &weight, &bias);
            let [level, product] = self.sums(|range, level, product| {
                let (x, grad) = (&x[range.clone()], &grad[range]);
                dispatch(
                    #[inline(always)]
                    || by.add_gradients(x, grad, slope, level, product),
                );
            });
            // The component along the standardized input: the gradients of the statistics subtract this component and the mean.
            let rounded = |c: usize| f64::from(moments.mean[c] as f32) - moments.mean[c];
            let along: Vec<f64> =
                (0..self.channels).map(|c| moments.inverse[c] * (product[c] + rounded(c) * level[c])).collect();
            for c in 0..self.channels {
                weight_grad[c] += along[c];
                bias_grad[c] += level[c];
            }
            if !call.required[0] {
                continue;
            }
            let of_x = |c: usize| -moments.inverse[c] * moments.inverse[c] * weight(c) * along[c] / count;
            let slant = self.wide(of_x);
            let offset = self.wide(|c| of_x(c) * rounded(c) - moments.inverse[c] * weight(c) * level[c] / count);
            let pieces = x.par_chunks(piece).zip(grad.par_chunks(piece));
            x_grad[range].par_chunks_mut(piece).zip(pieces).for_each(|(x_grad, (x, grad))| {
                dispatch(
                    #[inline(always)]
                    || {
                        let factor = slope;
                        let rows = x.chunks(row).zip(grad.chunks(row));
                        for (x_grad, (x, grad)) in x_grad.chunks_mut(row).zip(rows) {
                            let by = by.mean.iter().zip(&by.scale).zip(&by.shift).zip(slant.iter().zip(&offset));
                            for (((x_grad, &x), &grad), (((&mean, &scale), &shift), (&slant, &offset))) in
                                x_grad.iter_mut().zip(x).zip(grad).zip(by)
                            {
                                let centered = x - mean;
                                let value = centered * scale + shift;
                                let grad = if value > 0. { grad } else { grad * factor };
                                *x_grad = grad * scale + (centered * slant + offset);
                            }
                        }
                    },
                );
            });
        }
        let gradients = [x_grad, single(&weight_grad), single(&bias_grad)];
        Ok(gradients.into_iter().zip(call.required).map(|(grad, required)| required.then_some(grad)).collect())
    }
}
