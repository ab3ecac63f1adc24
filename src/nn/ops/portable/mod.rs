//! The operators composed of candle's tensor operations.

pub(super) mod attention;
pub(super) mod conv;
pub(super) mod norm;
pub(super) mod pool;
pub(super) mod upsample;

use candle_core::{Result, Tensor};

/// The sum over the first axis of `[rows, columns]`, as a product with ones: the matrix product sums in blocks, which is
/// more exact than one running sum and fast on every device.
pub(super) fn sum_rows(x: &Tensor) -> Result<Tensor> {
    let (rows, _) = x.dims2()?;
    Tensor::ones((1, rows), x.dtype(), x.device())?.matmul(x)?.squeeze(0)
}

/// `1` where the condition holds and `otherwise` elsewhere; `condition` is a mask of `u8` as candle's comparisons give.
pub(super) fn one_or(condition: &Tensor, otherwise: f64, like: &Tensor) -> Result<Tensor> {
    condition.to_dtype(like.dtype())?.affine(1. - otherwise, otherwise)
}

/// `x` as `[rows, columns]`, the columns its last axis.
pub(super) fn rows(x: &Tensor) -> Result<Tensor> {
    let columns = x.dim(candle_core::D::Minus1)?;
    x.reshape((x.elem_count() / columns.max(1), columns))
}

/// Softmax over the last axis.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    let last = candle_core::D::Minus1;
    let weight = x.broadcast_sub(&x.max_keepdim(last)?)?.exp()?;
    weight.broadcast_div(&weight.sum_keepdim(last)?)
}
