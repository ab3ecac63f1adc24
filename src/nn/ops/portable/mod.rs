//! The operators composed of candle's tensor operations.

pub(super) mod attention;
pub(super) mod conv;
pub(super) mod norm;
pub(super) mod pool;
pub(super) mod upsample;

use candle_core::{Result, Tensor};

/// Returns the sum over the first axis of `[rows, columns]`.
pub(super) fn sum_rows(x: &Tensor) -> Result<Tensor> {
    sum_each(&x.unsqueeze(0)?)?.flatten_all()
}

/// Returns the sum over the rows of `[group, row, column]`, as `[group, 1, column]`: in blocks, then over the blocks' sums. One
/// running sum over the million voxels of a volume would keep only half of the digits. A product with ones is fast on
/// every device.
pub(super) fn sum_each(x: &Tensor) -> Result<Tensor> {
    const BLOCK: usize = 256;
    let (groups, rows, columns) = x.dims3()?;
    let ones = |groups: usize, rows: usize| Tensor::ones((groups, 1, rows), x.dtype(), x.device());
    if rows <= BLOCK {
        return ones(groups, rows)?.matmul(x);
    }
    let blocks = rows / BLOCK;
    let whole = x.narrow(1, 0, blocks * BLOCK)?.contiguous()?.reshape((groups * blocks, BLOCK, columns))?;
    let sum = sum_each(&ones(groups * blocks, BLOCK)?.matmul(&whole)?.reshape((groups, blocks, columns))?)?;
    match rows % BLOCK {
        0 => Ok(sum),
        rest => sum + sum_each(&x.narrow(1, rows - rest, rest)?.contiguous()?)?,
    }
}

/// Returns `1` where the condition holds and `otherwise` elsewhere; `condition` is a mask of `u8`, the result of candle's comparisons.
pub(super) fn one_or(condition: &Tensor, otherwise: f64, like: &Tensor) -> Result<Tensor> {
    condition.to_dtype(like.dtype())?.affine(1. - otherwise, otherwise)
}

/// Reshapes `x` to `[rows, columns]`; the columns are its last axis.
pub(super) fn rows(x: &Tensor) -> Result<Tensor> {
    let columns = x.dim(candle_core::D::Minus1)?;
    x.reshape((x.elem_count() / columns.max(1), columns))
}

/// Computes the softmax over the last axis.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    let last = candle_core::D::Minus1;
    let weight = x.broadcast_sub(&x.max_keepdim(last)?)?.exp()?;
    weight.broadcast_div(&weight.sum_keepdim(last)?)
}
