//! Operators of single numbers.

use candle_core::Result;

use super::exp::{erf, exp};
use super::simd::{Arithmetic, Work, vectorised};
use super::{PIECE, filled, piece_of};
use crate::nn::ops::activation::{Gelu, LeakyRelu};
use crate::nn::ops::operator::{Native, Slices};

/// A function of a number and of another one beside it.
trait Function: Copy + Sync {
    fn of<A: Arithmetic>(self, x: A::Vector, beside: A::Vector) -> A::Vector;
}

/// A function applied to a piece.
struct Applied<'a, F> {
    function: F,
    x: &'a [f32],
    beside: &'a [f32],
    y: &'a mut [f32],
}

impl<F: Function> Work for Applied<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arithmetic>(self) {
        let whole = self.y.len() / A::WIDTH * A::WIDTH;
        let (x, x_rest) = self.x.split_at(whole);
        let (beside, beside_rest) = self.beside.split_at(whole);
        let (y, y_rest) = self.y.split_at_mut(whole);
        let blocks = x.chunks_exact(A::WIDTH).zip(beside.chunks_exact(A::WIDTH));
        for (y, (x, beside)) in y.chunks_exact_mut(A::WIDTH).zip(blocks) {
            A::store(self.function.of::<A>(A::load(x), A::load(beside)), y);
        }
        let mut padded = [[0f32; 16]; 2];
        padded[0][..x_rest.len()].copy_from_slice(x_rest);
        padded[1][..x_rest.len()].copy_from_slice(beside_rest);
        let rest = self.function.of::<A>(A::load(&padded[0]), A::load(&padded[1]));
        A::store(rest, &mut padded[0]);
        y_rest.copy_from_slice(&padded[0][..y_rest.len()]);
    }
}

/// `function` of each pair of numbers.
fn map(function: impl Function, x: &[f32], beside: &[f32]) -> Vec<f32> {
    filled(x.len(), PIECE, |i, y| {
        let (x, beside) = (piece_of(x, i, PIECE), piece_of(beside, i, PIECE));
        vectorised(Applied { function, x, beside, y });
    })
}

/// `x · Φ(x)`.
#[derive(Clone, Copy)]
struct GeluValue;

/// The gradient beside, times the derivative.
#[derive(Clone, Copy)]
struct GeluGradient;

/// The share of the normal distribution below `x`.
#[inline(always)]
fn below<A: Arithmetic>(x: A::Vector) -> A::Vector {
    let erf = erf::<A>(A::mul(x, A::splat(std::f32::consts::FRAC_1_SQRT_2)));
    A::mul_add(erf, A::splat(0.5), A::splat(0.5))
}

impl Function for GeluValue {
    #[inline(always)]
    fn of<A: Arithmetic>(self, x: A::Vector, _: A::Vector) -> A::Vector {
        A::mul(x, below::<A>(x))
    }
}

impl Function for GeluGradient {
    #[inline(always)]
    fn of<A: Arithmetic>(self, x: A::Vector, grad: A::Vector) -> A::Vector {
        const DENSITY_AT_ZERO: f32 = 0.398_942_3;
        let density = exp::<A>(A::mul(A::mul(x, x), A::splat(-0.5)));
        let slope = A::mul_add(A::mul(x, A::splat(DENSITY_AT_ZERO)), density, below::<A>(x));
        A::mul(grad, slope)
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

impl LeakyRelu {
    /// `values`, those multiplied by the slope whose `x` is not positive.
    fn sloped(&self, x: &[f32], values: &[f32]) -> Vec<f32> {
        let slope = self.slope as f32;
        filled(x.len(), PIECE, |i, y| {
            let (x, values) = (piece_of(x, i, PIECE), piece_of(values, i, PIECE));
            vectorised(
                #[inline(always)]
                || {
                    for ((y, &x), &value) in y.iter_mut().zip(x).zip(values) {
                        *y = if x > 0. { value } else { value * slope };
                    }
                },
            );
        })
    }
}

impl Native for LeakyRelu {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        Ok(self.sloped(inputs[0], inputs[0]))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        Ok(vec![Some(self.sloped(call.inputs[0], call.grad))])
    }
}
