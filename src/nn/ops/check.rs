//! Checks of what comes in: each names the operator, what it expects and what it got.

use candle_core::{Result, Tensor, bail};

/// `x` is a volume `[batch, x, y, z, channel]` without an empty axis; gives its sizes.
pub(super) fn volume(op: &str, x: &Tensor) -> Result<[usize; 5]> {
    let Ok(dims) = <[usize; 5]>::try_from(x.dims()) else {
        bail!("{op}: expected a volume [batch, x, y, z, channel], got {:?}", x.dims())
    };
    not_empty(op, "volume", x)?;
    Ok(dims)
}

/// `x` has no axis of size zero.
pub(super) fn not_empty(op: &str, what: &str, x: &Tensor) -> Result<()> {
    if x.elem_count() == 0 {
        bail!("{op}: expected a {what} without empty axes, got {:?}", x.dims())
    }
    Ok(())
}

/// `x` has exactly these sizes.
pub(super) fn dims(op: &str, what: &str, x: &Tensor, expected: &[usize]) -> Result<()> {
    if x.dims() != expected {
        bail!("{op}: expected a {what} of shape {expected:?}, got {:?}", x.dims())
    }
    Ok(())
}

/// `x` has a last axis, no axis is empty; gives the size of the last one.
pub(super) fn last(op: &str, x: &Tensor) -> Result<usize> {
    not_empty(op, "tensor", x)?;
    match x.dims().last() {
        Some(&size) => Ok(size),
        None => bail!("{op}: expected a tensor with at least one axis, got a scalar"),
    }
}

/// All inputs are of one floating-point type on one device.
pub(super) fn alike(op: &str, inputs: &[&Tensor]) -> Result<()> {
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

/// A positive finite number.
pub(super) fn positive(op: &str, what: &str, value: f64) -> Result<()> {
    if !(value.is_finite() && value > 0.) {
        bail!("{op}: expected a positive {what}, got {value}")
    }
    Ok(())
}
