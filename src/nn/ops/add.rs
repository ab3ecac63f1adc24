//! The sum of two volumes.

use candle_core::{Result, Shape, Tensor};

use super::check;
use super::norm::Activation;
use super::operator::{BackwardInputs, Native, Operator, apply};
use super::overwrite::{can_overwrite, overwrite};
use super::portable::one_or;

/// Adds two tensors and activates the sum: the last step of a residual block.
///
/// Without gradients, the sum overwrites the memory of `a`, and with it every tensor that shares that memory.
///
/// # Shapes
///
/// `a`, `b` and the sum have the same shape.
///
/// # Errors
///
/// If the shapes differ, or the slope is negative or not finite.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops::{self, Activation};
///
/// let a = Tensor::new(&[1f32, -3.], &Device::Cpu)?;
/// let b = Tensor::new(&[1f32, 1.], &Device::Cpu)?;
/// assert_eq!(ops::add(a, b, Activation::LeakyRelu(0.5))?.to_vec1::<f32>()?, [2., -1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn add(a: Tensor, b: Tensor, activation: Activation) -> Result<Tensor> {
    check::not_empty("add", "tensor", &a)?;
    check::dims("add", "second tensor", &b, a.dims())?;
    let add = Add { shape: a.shape().clone(), slope: activation.slope("add")? };
    if can_overwrite(&a, &[&b]) {
        return overwrite(a, &[&b], |a, others| add.overwrite(a, others[0]));
    }
    apply(add, &[&a, &b])
}

/// The operator of [`add`].
pub(super) struct Add {
    shape: Shape,
    pub slope: f64,
}

impl Operator for Add {
    const NAME: &'static str = "add";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let sum = (&inputs[0] + &inputs[1])?;
        &sum * one_or(&sum.gt(0.)?, self.slope, &sum)?
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let sum = (&call.inputs[0] + &call.inputs[1])?;
        let grad = (&call.grad * one_or(&sum.gt(0.)?, self.slope, &sum)?)?;
        call.gradients(|_| Ok(grad.clone()))
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
