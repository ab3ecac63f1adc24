//! Max pooling composed of tensor operations.

use candle_core::{D, Result, Tensor};

use super::conv::{interleave, uninterleave};

/// Returns the eight voxels of each pooled voxel, in the order x, y, z: tensors of the pooled shape.
fn corners(x: &Tensor) -> Result<Vec<Tensor>> {
    let (_, nx, ny, nz, channels) = x.dims5()?;
    let even = x.narrow(1, 0, nx / 2 * 2)?.narrow(2, 0, ny / 2 * 2)?.narrow(3, 0, nz / 2 * 2)?.contiguous()?;
    let packed = uninterleave(&even)?;
    (0..8).map(|i| packed.narrow(D::Minus1, i * channels, channels)?.contiguous()).collect()
}

/// Returns the maximum of each 2 × 2 × 2 voxels.
pub(in crate::nn::ops) fn max_pool(x: &Tensor) -> Result<Tensor> {
    let corners = corners(x)?;
    corners[1..].iter().try_fold(corners[0].clone(), |largest, corner| largest.maximum(corner))
}

/// Computes the gradient of the input: each pooled voxel's gradient goes to its first maximal corner.
pub(in crate::nn::ops) fn max_pool_backward(x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let mut left = grad.clone();
    let mut parts = Vec::new();
    for corner in corners(x)? {
        let part = (corner.eq(y)?.to_dtype(grad.dtype())? * &left)?;
        left = (left - &part)?;
        parts.push(part);
    }
    let mut all = interleave(&Tensor::cat(&parts, D::Minus1)?)?;
    for dim in 1..4 {
        let odd = x.dim(dim)? % 2;
        all = all.pad_with_zeros(dim, 0, odd)?;
    }
    Ok(all)
}
