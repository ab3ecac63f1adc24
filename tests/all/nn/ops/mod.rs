//! The operators, compared with PyTorch, with finite differences, and between both backends.

use candle_core::{DType, Device, Result, Tensor, Var};

mod backends;
mod finite_differences;
mod invalid_inputs;
mod pytorch;

/// Returns the largest difference, divided by the largest value (at least 0.1).
fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let largest = |x: Tensor| x.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
    let error = || -> Result<f64> {
        let (got, expected) = (got.to_dtype(DType::F64)?, expected.to_dtype(DType::F64)?);
        Ok(largest((got - &expected)?)? / largest(expected)?.max(0.1))
    };
    error().expect("comparable tensors")
}

/// Moves the channel of a volume `[batch, channel, ...]` to the last axis.
fn channels_last(x: &Tensor) -> Result<Tensor> {
    let mut axes: Vec<usize> = (0..x.rank()).collect();
    let channel = axes.remove(1);
    axes.push(channel);
    x.permute(axes)?.contiguous()
}

/// Returns the output of `f` and the gradients of `sum(y · g)`.
fn gradients(inputs: &[Tensor], g: &Tensor, f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
    let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let y = f(&vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>())?;
    let grads = (&y * g)?.sum_all()?.backward()?;
    let grads = vars.iter().map(|v| grads.get(v).expect("a gradient for every input").clone()).collect();
    Ok((y.detach(), grads))
}

/// Returns pseudorandom numbers in -1..1 that depend on the seed alone.
fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E3779B97F4A7C15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.
    };
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count + 8).map(|_| next()).skip(8).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
}
