//! Operators over the last axis: softmax and layer norm.

use candle_core::Result;
use rayon::prelude::*;

use super::exp::exp;
use super::{filled, piece_of, rows_per_piece, single, sum_in_order, sum_pairs};
use crate::nn::kernel::zeros;
use crate::nn::ops::norm::LayerNorm;
use crate::nn::ops::operator::{Native, Slices};
use crate::nn::ops::softmax::Softmax;
use crate::simd::{Simd, SimdKernel, dispatch};

impl Native for Softmax {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let (x, columns) = (inputs[0], self.channels);
        let piece = rows_per_piece(columns) * columns;
        Ok(filled(x.len(), piece, |i, y| {
            dispatch(Weights { x: piece_of(x, i, piece), y, columns });
        }))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let columns = self.channels;
        let piece = rows_per_piece(columns) * columns;
        let grad = filled(call.grad.len(), piece, |i, x_grad| {
            let (y, grad) = (piece_of(call.output, i, piece), piece_of(call.grad, i, piece));
            dispatch(
                #[inline(always)]
                || {
                    let rows = y.chunks_exact(columns).zip(grad.chunks_exact(columns));
                    for (x_grad, (y, grad)) in x_grad.chunks_exact_mut(columns).zip(rows) {
                        let along = sum_pairs(y, grad, |y, grad| y * grad);
                        for ((x_grad, &y), &grad) in x_grad.iter_mut().zip(y).zip(grad) {
                            *x_grad = y * (grad - along);
                        }
                    }
                },
            );
        });
        Ok(vec![Some(grad)])
    }
}

/// Softmax of each row of a piece. The exponentials of all rows are computed together: rows are often shorter than a vector.
struct Weights<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    columns: usize,
}

impl SimdKernel for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { x, y, columns } = self;
        for (y, x) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)) {
            let largest = x.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
            for (y, x) in y.iter_mut().zip(x) {
                *y = x - largest;
            }
        }
        let mut blocks = y.chunks_exact_mut(S::WIDTH);
        for y in &mut blocks {
            S::store(exp::<S>(S::load(y)), y);
        }
        let rest = blocks.into_remainder();
        let mut padded = [0f32; 16];
        padded[..rest.len()].copy_from_slice(rest);
        let weights = exp::<S>(S::load(&padded));
        S::store(weights, &mut padded);
        rest.copy_from_slice(&padded[..rest.len()]);
        for y in y.chunks_exact_mut(columns) {
            let scale = 1. / sum_pairs(y, y, |y, _| y);
            for y in y {
                *y *= scale;
            }
        }
    }
}

/// Returns the mean and the inverse standard deviation of a row.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let share = 1. / x.len() as f32;
    let mean = share * sum_pairs(x, x, |x, _| x);
    let variance = share * sum_pairs(x, x, |x, _| (x - mean) * (x - mean));
    (mean, 1. / (variance + eps).sqrt())
}

impl Native for LayerNorm {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let (&[x, weight, bias], columns, eps) = (inputs, self.channels, self.eps as f32) else {
            candle_core::bail!("layer_norm: expected input, weight and bias")
        };
        let piece = rows_per_piece(columns) * columns;
        Ok(filled(x.len(), piece, |i, y| {
            let x = piece_of(x, i, piece);
            dispatch(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)) {
                        let (mean, inverse) = moments(x, eps);
                        for (((y, &x), &weight), &bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                            *y = (x - mean) * inverse * weight + bias;
                        }
                    }
                },
            );
        }))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let (x, weight, grad) = (call.inputs[0], call.inputs[1], call.grad);
        let (columns, eps) = (self.channels, self.eps as f32);
        // The sums of a piece are computed in single precision, those over pieces in double precision: a piece has few rows.
        let piece = rows_per_piece(columns).min(64) * columns;
        let mut x_grad = zeros(x.len());
        let sums: Vec<Vec<f64>> = x_grad
            .par_chunks_mut(piece)
            .enumerate()
            .map(|(i, x_grad)| {
                let (x, grad) = (piece_of(x, i, piece), piece_of(grad, i, piece));
                let mut sums = vec![0f32; 2 * columns];
                dispatch(
                    #[inline(always)]
                    || layer_norm_backward(x, weight, grad, eps, x_grad, &mut sums),
                );
                sums.into_iter().map(f64::from).collect()
            })
            .collect();
        let sums = single(&sum_in_order(&sums));
        let (weight_grad, bias_grad) = sums.split_at(columns);
        Ok(vec![Some(x_grad), Some(weight_grad.to_vec()), Some(bias_grad.to_vec())])
    }
}

/// Computes the gradients of a few rows; the gradients of weight and bias are added to `sums`.
#[inline(always)]
fn layer_norm_backward(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, x_grad: &mut [f32], sums: &mut [f32]) {
    let columns = weight.len();
    let share = 1. / columns as f32;
    let (weight_grad, bias_grad) = sums.split_at_mut(columns);
    let rows = x.chunks_exact(columns).zip(grad.chunks_exact(columns));
    for (x_grad, (x, grad)) in x_grad.chunks_exact_mut(columns).zip(rows) {
        let (mean, inverse) = moments(x, eps);
        // At first, `x_grad` holds the gradient of the standardized input.
        let sums = weight_grad.iter_mut().zip(bias_grad.iter_mut());
        for ((((x_grad, &x), &grad), &weight), (weight_grad, bias_grad)) in
            x_grad.iter_mut().zip(x).zip(grad).zip(weight).zip(sums)
        {
            *x_grad = grad * weight;
            *weight_grad += grad * ((x - mean) * inverse);
            *bias_grad += grad;
        }
        let level = share * sum_pairs(x_grad, x, |h, _| h);
        let along = share * sum_pairs(x_grad, x, |h, x| h * ((x - mean) * inverse));
        for (x_grad, &x) in x_grad.iter_mut().zip(x) {
            *x_grad = inverse * (*x_grad - level - (x - mean) * inverse * along);
        }
    }
}
