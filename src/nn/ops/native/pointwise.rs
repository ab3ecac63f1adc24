//! Operators of single numbers.

use candle_core::Result;
use rayon::prelude::*;

use super::exp::{erf, exp};
use super::simd::vectorised;
use super::{PIECE, filled, piece_of};
use crate::nn::ops::activation::{Gelu, LeakyRelu};
use crate::nn::ops::add::Add;
use crate::nn::ops::operator::{Native, Slices};

/// `f` of each number.
fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    filled(x.len(), PIECE, |i, y| {
        let x = piece_of(x, i, PIECE);
        vectorised(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x)),
        );
    })
}

/// `f` of each pair of numbers.
fn map_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    filled(a.len(), PIECE, |i, y| {
        let (a, b) = (piece_of(a, i, PIECE), piece_of(b, i, PIECE));
        vectorised(
            #[inline(always)]
            || y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = f(a, b)),
        );
    })
}

/// The share of the normal distribution below `x`.
#[inline(always)]
fn below(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

impl Native for Gelu {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        Ok(map(
            inputs[0],
            #[inline(always)]
            |x| x * below(x),
        ))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        const DENSITY_AT_ZERO: f32 = 0.398_942_3;
        let grad = map_pairs(
            call.inputs[0],
            call.grad,
            #[inline(always)]
            |x, grad| grad * (below(x) + x * DENSITY_AT_ZERO * exp(-0.5 * x * x)),
        );
        Ok(vec![Some(grad)])
    }
}

impl Native for LeakyRelu {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let slope = self.slope as f32;
        Ok(map(
            inputs[0],
            #[inline(always)]
            |x| if x > 0. { x } else { x * slope },
        ))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let slope = self.slope as f32;
        let grad = map_pairs(
            call.inputs[0],
            call.grad,
            #[inline(always)]
            |x, grad| if x > 0. { grad } else { grad * slope },
        );
        Ok(vec![Some(grad)])
    }
}

impl Add {
    /// The sum in the place of `a`.
    pub(in crate::nn::ops) fn overwrite(&self, a: &mut [f32], b: &[f32]) {
        let slope = self.slope as f32;
        a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).for_each(|(a, b)| {
            vectorised(
                #[inline(always)]
                || {
                    for (a, &b) in a.iter_mut().zip(b) {
                        let sum = *a + b;
                        *a = if sum > 0. { sum } else { sum * slope };
                    }
                },
            );
        });
    }
}

impl Native for Add {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let slope = self.slope as f32;
        Ok(map_pairs(
            inputs[0],
            inputs[1],
            #[inline(always)]
            |a, b| if a + b > 0. { a + b } else { (a + b) * slope },
        ))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        // The slope is not negative, so the sum has the sign of the output, or is multiplied by nothing.
        let slope = self.slope as f32;
        let grad = map_pairs(
            call.output,
            call.grad,
            #[inline(always)]
            |sum, grad| if sum > 0. { grad } else { grad * slope },
        );
        let [first, second] = [call.wanted[0], call.wanted[1]];
        Ok(match (first, second) {
            (true, true) => vec![Some(grad.clone()), Some(grad)],
            _ => vec![first.then(|| grad.clone()), second.then_some(grad)],
        })
    }
}
