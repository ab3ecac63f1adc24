//! Linear doubling along one axis at a time, composed of tensor operations.

use candle_core::{Result, Tensor};

/// Reshapes to `[before, n, after]` around axis `dim`.
fn around(x: &Tensor, dim: usize) -> Result<Tensor> {
    let dims = x.dims();
    x.reshape((dims[..dim].iter().product::<usize>(), dims[dim], dims[dim + 1..].iter().product::<usize>()))
}

/// Returns the previous and the next neighbour of each value along axis 1; the ends are their own neighbours.
fn neighbours(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let n = x.dim(1)?;
    let (first, last) = (x.narrow(1, 0, 1)?, x.narrow(1, n - 1, 1)?);
    if n == 1 {
        return Ok((first, last));
    }
    Ok((Tensor::cat(&[&first, &x.narrow(1, 0, n - 1)?], 1)?, Tensor::cat(&[&x.narrow(1, 1, n - 1)?, &last], 1)?))
}

/// Doubles along `dim`: each value becomes two values, interpolated by a quarter towards its two neighbours.
pub(in crate::nn::ops) fn double(x: &Tensor, dim: usize) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    dims[dim] *= 2;
    let x = around(x, dim)?;
    let (before, after) = neighbours(&x)?;
    let near = x.affine(0.75, 0.)?;
    let even = (&near + before.affine(0.25, 0.)?)?;
    let odd = (&near + after.affine(0.25, 0.)?)?;
    Tensor::stack(&[even, odd], 2)?.reshape(dims)
}

/// Computes the gradient of the input of [`double`].
pub(in crate::nn::ops) fn double_backward(grad: &Tensor, dim: usize) -> Result<Tensor> {
    let mut dims = grad.dims().to_vec();
    dims[dim] /= 2;
    let grad = around(grad, dim)?;
    let (before, doubled, after) = grad.dims3()?;
    let (n, pairs) = (doubled / 2, grad.reshape((before, doubled / 2, 2, after))?);
    let even = pairs.narrow(2, 0, 1)?.squeeze(2)?.contiguous()?;
    let odd = pairs.narrow(2, 1, 1)?.squeeze(2)?.contiguous()?;
    // A value contributes three quarters to its own pair and one quarter to the next even and the previous odd value; at the ends,
    // where a value is its own neighbour, it receives that quarter itself.
    let (from_next, from_previous) = if n == 1 {
        (even.clone(), odd.clone())
    } else {
        (
            Tensor::cat(&[&even.narrow(1, 1, n - 1)?, &odd.narrow(1, n - 1, 1)?], 1)?,
            Tensor::cat(&[&even.narrow(1, 0, 1)?, &odd.narrow(1, 0, n - 1)?], 1)?,
        )
    };
    let near = (even + odd)?.affine(0.75, 0.)?;
    (near + (from_next + from_previous)?.affine(0.25, 0.)?)?.reshape(dims)
}
