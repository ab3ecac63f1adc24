//! The linear layer.

use candle_core::{Result, Shape, Tensor, bail};

use super::check;
use super::operator::{BackwardInputs, Native, Operator, Slices, apply};
use super::portable::sum_rows;
use crate::nn::kernel::{self, Accuracy, Class, Geometry};

/// Multiplies the last axis by a matrix: `y = x · weightᵀ + bias`.
///
/// # Shapes
///
/// `x` `[..., c_in]`, `weight` `[c_out, c_in]`, `bias` `[c_out]`; returns `[..., c_out]`.
///
/// # Errors
///
/// If the shapes are incompatible.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[10f32, 1.]], &Device::Cpu)?;
/// let bias = Tensor::new(&[0.5f32], &Device::Cpu)?;
/// assert_eq!(ops::linear(&x, &weight, Some(&bias))?.to_vec2::<f32>()?, [[12.5], [34.5]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let c_in = check::last("linear", x)?;
    let c_out = match *weight.dims() {
        [c_out, c] if c == c_in && c_out > 0 => c_out,
        ref got => bail!("linear: expected a weight of shape [c_out, {c_in}], got {got:?}"),
    };
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(c_out);
    let linear = Linear { c_in, c_out, shape: Shape::from(shape) };
    match bias {
        Some(bias) => {
            check::dims("linear", "bias", bias, &[c_out])?;
            apply(linear, &[x, weight, bias])
        }
        None => apply(linear, &[x, weight]),
    }
}

/// The geometry of one linear layer.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub c_in: usize,
    pub c_out: usize,
    shape: Shape,
}

impl Linear {
    /// Returns the geometry of the convolution with one tap that equals the linear layer.
    fn geometry(&self) -> Geometry {
        Geometry {
            batch: 1,
            input: [1, 1, self.shape.elem_count() / self.c_out],
            channels_in: self.c_in,
            channels_out: self.c_out,
            kernel: [1; 3],
            stride: [1; 3],
            padding: [0; 3],
        }
    }
}

impl Native for Linear {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let mut y = kernel::zeros(self.shape.elem_count());
        let bias = inputs.get(2).copied();
        kernel::conv3d(Class::current(), Accuracy::Direct, &self.geometry(), inputs[0], inputs[1], bias, &mut y);
        Ok(y)
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let (class, geometry, [x, weight]) = (Class::current(), self.geometry(), [call.inputs[0], call.inputs[1]]);
        Ok(call.gradients(|input, gradient| match input {
            0 => kernel::conv3d_input_gradient(class, Accuracy::Direct, &geometry, call.grad, weight, gradient),
            1 => kernel::conv3d_weight_gradient(class, &geometry, x, call.grad, gradient),
            _ => kernel::bias_gradient(call.grad, gradient),
        }))
    }
}

impl Operator for Linear {
    const NAME: &'static str = "linear";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let y = inputs[0].reshape(((), self.c_in))?.matmul(&inputs[1].t()?)?;
        let y = match inputs.get(2) {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        y.reshape(&self.shape)
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let (x, weight, grad) = (&call.inputs[0], &call.inputs[1], call.grad.reshape(((), self.c_out))?);
        let gradient = |i: usize| match i {
            0 => grad.matmul(weight)?.reshape(x.shape()),
            1 => grad.t()?.matmul(&x.reshape(((), self.c_in))?),
            _ => sum_rows(&grad),
        };
        call.gradients(gradient)
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
