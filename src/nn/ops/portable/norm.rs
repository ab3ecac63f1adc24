//! Normalization composed of tensor operations.

use candle_core::{D, Result, Tensor};

use super::{one_or, rows, sum_each, sum_rows};

/// Returns the mean over the rows of `[group, row, channel]`, as `[group, 1, channel]`.
fn mean(x: &Tensor) -> Result<Tensor> {
    sum_each(x)?.affine(1. / x.dim(1)? as f64, 0.)
}

/// Returns `x` with mean 0 and variance 1 in each channel of each group, and the inverse of its standard deviation.
fn standardize(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let centered = x.broadcast_sub(&mean(x)?)?;
    let inverse = (mean(&centered.sqr()?)? + eps)?.sqrt()?.recip()?;
    Ok((centered.broadcast_mul(&inverse)?, inverse))
}

/// Normalizes `[group, row, channel]` over the rows; `affine` is empty or contains weight and bias.
pub(in crate::nn::ops) fn normalize(x: &Tensor, affine: &[Tensor], eps: f64, slope: f64) -> Result<Tensor> {
    let (mut y, _) = standardize(x, eps)?;
    if let [weight, bias] = affine {
        y = y.broadcast_mul(weight)?.broadcast_add(bias)?;
    }
    if slope == 1. { Ok(y) } else { &y * one_or(&y.gt(0.)?, slope, &y)? }
}

/// Computes the gradients of input, weight and bias.
pub(in crate::nn::ops) fn normalize_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    y: &Tensor,
    grad: &Tensor,
    eps: f64,
    slope: f64,
) -> Result<[Tensor; 3]> {
    let (standard, inverse) = standardize(x, eps)?;
    let grad = if slope == 1. { grad.clone() } else { (grad * one_or(&y.gt(0.)?, slope, grad)?)? };
    let bias_grad = sum_rows(&rows(&grad)?)?;
    let weight_grad = sum_rows(&rows(&(&grad * &standard)?)?)?;
    let grad = match weight {
        Some(weight) => grad.broadcast_mul(weight)?,
        None => grad,
    };
    let along = mean(&(&grad * &standard)?)?;
    let rest = (grad.broadcast_sub(&mean(&grad)?)? - standard.broadcast_mul(&along)?)?;
    Ok([rest.broadcast_mul(&inverse)?, weight_grad, bias_grad])
}

/// Returns the mean over the last axis, which is kept with size 1.
fn mean_last(x: &Tensor) -> Result<Tensor> {
    x.sum_keepdim(D::Minus1)?.affine(1. / x.dim(D::Minus1)? as f64, 0.)
}

/// Returns `x` with mean 0 and variance 1 along the last axis, and the inverse of its standard deviation.
fn standardize_last(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let centered = x.broadcast_sub(&mean_last(x)?)?;
    let inverse = (mean_last(&centered.sqr()?)? + eps)?.sqrt()?.recip()?;
    Ok((centered.broadcast_mul(&inverse)?, inverse))
}

/// Normalizes the last axis.
pub(in crate::nn::ops) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    standardize_last(x, eps)?.0.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Computes the gradients of input, weight and bias.
pub(in crate::nn::ops) fn layer_norm_backward(
    x: &Tensor,
    weight: &Tensor,
    grad: &Tensor,
    eps: f64,
) -> Result<[Tensor; 3]> {
    let (standard, inverse) = standardize_last(x, eps)?;
    let bias_grad = sum_rows(&rows(grad)?)?;
    let weight_grad = sum_rows(&rows(&(grad * &standard)?)?)?;
    let grad = grad.broadcast_mul(weight)?;
    let along = mean_last(&(&grad * &standard)?)?;
    let rest = (grad.broadcast_sub(&mean_last(&grad)?)? - standard.broadcast_mul(&along)?)?;
    Ok([rest.broadcast_mul(&inverse)?, weight_grad, bias_grad])
}
