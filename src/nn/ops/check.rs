//! Checks of an operator's inputs: each error names the operator, the expectation and the actual value.

use candle_core::{Result, Tensor, bail};

/// Checks that `x` is a volume `[batch, x, y, z, channel]` without an empty axis; returns its sizes.
pub(super) fn volume(op: &str, x: &Tensor) -> Result<[usize; 5]> {
    let Ok(dims) = <[usize; 5]>::try_from(x.dims()) else {
        bail!("{op}: expected a volume [batch, x, y, z, channel], got {:?}", x.dims())
    };
    not_empty(op, "volume", x)?;
    Ok(dims)
}

/// Checks that `x` has no axis of size zero.
pub(super) fn not_empty(op: &str, name: &str, x: &Tensor) -> Result<()> {
    if x.elem_count() == 0 {
        bail!("{op}: expected a {name} without empty axes, got {:?}", x.dims())
    }
    Ok(())
}

/// Checks that `x` has exactly these sizes.
pub(super) fn dims(op: &str, name: &str, x: &Tensor, expected: &[usize]) -> Result<()> {
    if x.dims() != expected {
        bail!("{op}: expected a {name} of shape {expected:?}, got {:?}", x.dims())
    }
    Ok(())
}

/// Checks that `x` has a last axis and no empty axis; returns the size of the last axis.
pub(super) fn last(op: &str, x: &Tensor) -> Result<usize> {
    not_empty(op, "tensor", x)?;
    match x.dims().last() {
        Some(&size) => Ok(size),
        None => bail!("{op}: expected a tensor with at least one axis, got a scalar"),
    }
}

/// Checks that all inputs are of one floating-point type on one device.
pub(super) fn same_type_and_device(op: &str, inputs: &[&Tensor]) -> Result<()> {
    let first = inputs[0];
    if !first.dtype().is_float() {
        bail!("{op}: expected floating-point tensors, got {:?}", first.dtype())
    }
    for other in &inputs[1..] {
        if other.dtype() != first.dtype() {
            bail!("{op}: expected tensors of one type, got {:?} and {:?}", first.dtype(), other.dtype())
        }
        if !other.device().same_device(first.device()) {
            let (a, b) = (first.device().location(), other.device().location());
            bail!("{op}: expected tensors on one device, got {a:?} and {b:?}")
        }
    }
    Ok(())
}

/// Checks that a number is positive and finite.
pub(super) fn positive(op: &str, name: &str, value: f64) -> Result<()> {
    if !(value.is_finite() && value > 0.) {
        bail!("{op}: expected a positive {name}, got {value}")
    }
    Ok(())
}
