//! Pointwise operators.

use candle_core::Result;
use rayon::prelude::*;

use super::exp::{erf, exp};
use super::{PIECE, filled, piece_of};
use crate::nn::kernel::zeros;
use crate::nn::ops::activation::{Gelu, LeakyRelu, Sigmoid, Tanh};
use crate::nn::ops::add::Add;
use crate::nn::ops::operator::{Native, Slices};
use crate::simd::{Class, Simd, SimdKernel, dispatch};

/// A function of pairs of numbers.
trait Function: Copy + Sync {
    fn of<S: Simd>(self, x: S::Vector, other: S::Vector) -> S::Vector;
}

/// The application of a function to a piece.
struct PieceKernel<'a, F> {
    function: F,
    x: &'a [f32],
    other: &'a [f32],
    y: &'a mut [f32],
}

impl<F: Function> SimdKernel for PieceKernel<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let whole = self.y.len() / S::WIDTH * S::WIDTH;
        let (x, x_rest) = self.x.split_at(whole);
        let (other, other_rest) = self.other.split_at(whole);
        let (y, y_rest) = self.y.split_at_mut(whole);
        let blocks = x.chunks_exact(S::WIDTH).zip(other.chunks_exact(S::WIDTH));
        for (y, (x, other)) in y.chunks_exact_mut(S::WIDTH).zip(blocks) {
            S::store(self.function.of::<S>(S::load(x), S::load(other)), y);
        }
        let mut padded = [[0f32; 16]; 2];
        padded[0][..x_rest.len()].copy_from_slice(x_rest);
        padded[1][..x_rest.len()].copy_from_slice(other_rest);
        let rest = self.function.of::<S>(S::load(&padded[0]), S::load(&padded[1]));
        S::store(rest, &mut padded[0]);
        y_rest.copy_from_slice(&padded[0][..y_rest.len()]);
    }
}

/// Applies `function` to each pair of numbers.
fn map(function: impl Function, x: &[f32], other: &[f32]) -> Vec<f32> {
    filled(x.len(), PIECE, |i, y| {
        let (x, other) = (piece_of(x, i, PIECE), piece_of(other, i, PIECE));
        dispatch(PieceKernel { function, x, other, y });
    })
}

/// The Gaussian error linear unit, `x · Φ(x)`.
#[derive(Clone, Copy)]
struct GeluValue;

/// The gradient of [`GeluValue`]: the second number times the derivative at the first number.
#[derive(Clone, Copy)]
struct GeluGradient;

/// Returns the cumulative distribution function of the normal distribution at `x`.
#[inline(always)]
fn below<S: Simd>(x: S::Vector) -> S::Vector {
    let erf = erf::<S>(S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2)));
    S::mul_add(erf, S::splat(0.5), S::splat(0.5))
}

impl Function for GeluValue {
    #[inline(always)]
    fn of<S: Simd>(self, x: S::Vector, _: S::Vector) -> S::Vector {
        S::mul(x, below::<S>(x))
    }
}

impl Function for GeluGradient {
    #[inline(always)]
    fn of<S: Simd>(self, x: S::Vector, grad: S::Vector) -> S::Vector {
        const DENSITY_AT_ZERO: f32 = 0.398_942_3;
        let density = exp::<S>(S::mul(S::mul(x, x), S::splat(-0.5)));
        let slope = S::mul_add(S::mul(x, S::splat(DENSITY_AT_ZERO)), density, below::<S>(x));
        S::mul(grad, slope)
    }
}

impl Native for Gelu {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        Ok(map(GeluValue, inputs[0], inputs[0]))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        Ok(vec![Some(map(GeluGradient, call.inputs[0], call.grad))])
    }
}

/// Applies `function` to each pair of numbers, one at a time: for functions without a vector form.
fn map_each(x: &[f32], other: &[f32], function: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    filled(x.len(), PIECE, |i, y| {
        let pairs = piece_of(x, i, PIECE).iter().zip(piece_of(other, i, PIECE));
        y.iter_mut().zip(pairs).for_each(|(y, (&x, &other))| *y = function(x, other));
    })
}

impl Native for Tanh {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let class = Class::current();
        Ok(map_each(inputs[0], inputs[0], |x, _| class.tanh(x)))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        Ok(vec![Some(map_each(call.output, call.grad, |y, grad| grad * (1. - y * y)))])
    }
}

impl Native for Sigmoid {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let class = Class::current();
        Ok(map_each(inputs[0], inputs[0], |x, _| 1. / (class.exp(-x) + 1.)))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let class = Class::current();
        let slope = |x: f32, grad: f32| {
            let power = class.exp(-x);
            let sum = power + 1.;
            grad / (sum * sum) * power
        };
        Ok(vec![Some(map_each(call.inputs[0], call.grad, slope))])
    }
}

impl LeakyRelu {
    /// Returns `values`, multiplied by the slope where `x` is not positive.
    fn sloped(slope: f32, x: &[f32], values: &[f32]) -> Vec<f32> {
        filled(x.len(), PIECE, |i, y| {
            let (x, values) = (piece_of(x, i, PIECE), piece_of(values, i, PIECE));
            dispatch(
                #[inline(always)]
                || {
                    let factor = slope;
                    for ((y, &x), &value) in y.iter_mut().zip(x).zip(values) {
                        *y = if x > 0. { value } else { value * factor };
                    }
                },
            );
        })
    }
}

impl Native for LeakyRelu {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        Ok(Self::sloped(self.slope as f32, inputs[0], inputs[0]))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        Ok(vec![Some(Self::sloped(self.slope as f32, call.inputs[0], call.grad))])
    }
}

impl Add {
    /// Computes the sum in place of `a`.
    pub(in crate::nn::ops) fn overwrite(&self, a: &mut [f32], b: &[f32]) {
        let slope = self.slope as f32;
        a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).for_each(|(a, b)| {
            dispatch(
                #[inline(always)]
                || {
                    let factor = slope;
                    for (a, &b) in a.iter_mut().zip(b) {
                        let sum = *a + b;
                        *a = if sum > 0. { sum } else { sum * factor };
                    }
                },
            );
        });
    }
}

impl Native for Add {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let mut sum = zeros(inputs[0].len());
        sum.par_chunks_mut(PIECE).zip(inputs[0].par_chunks(PIECE)).for_each(|(sum, a)| sum.copy_from_slice(a));
        self.overwrite(&mut sum, inputs[1]);
        Ok(sum)
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        // The slope is not negative, so the sum has the sign of the output; with a slope of 0, the gradient is zero, too.
        let grad = LeakyRelu::sloped(self.slope as f32, call.output, call.grad);
        let [first, second] = [call.required[0], call.required[1]];
        Ok(match (first, second) {
            (true, true) => vec![Some(grad.clone()), Some(grad)],
            _ => vec![first.then(|| grad.clone()), second.then_some(grad)],
        })
    }
}
