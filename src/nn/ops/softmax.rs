//! Softmax over the last axis.

use candle_core::{D, Result, Shape, Tensor};

use super::check;
use super::operator::{BackwardInputs, Native, Operator, apply};
use super::portable;

/// Computes the exponentials over the last axis, scaled to sum to one.
///
/// # Shapes
///
/// `x` `[..., channel]`; returns the shape of `x`.
///
/// # Errors
///
/// If `x` has no axis or an empty axis.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let y = ops::softmax(&Tensor::new(&[[0f32, 0.], [1e4, 0.]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0.5, 0.5], [1., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let channels = check::last("softmax", x)?;
    apply(Softmax { shape: x.shape().clone(), channels }, &[x])
}

/// The operator of [`softmax`].
pub(super) struct Softmax {
    shape: Shape,
    pub channels: usize,
}

impl Operator for Softmax {
    const NAME: &'static str = "softmax";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        portable::softmax(&inputs[0])
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let along = (&call.grad * &call.output)?.sum_keepdim(D::Minus1)?;
        call.gradients(|_| &call.output * call.grad.broadcast_sub(&along)?)
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
