//! Activations.

use candle_core::{Result, Shape, Tensor, bail};

use super::check;
use super::operator::{BackwardInputs, Native, Operator, apply};
use super::portable::one_or;

/// Computes the Gaussian error linear unit, `x · Φ(x)`, by the error function.
///
/// # Errors
///
/// If `x` is not of a floating-point type.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let y = ops::gelu(&Tensor::new(&[-1f64, 0., 1.], &Device::Cpu)?)?.to_vec1::<f64>()?;
/// assert!((y[0] + 0.15865525).abs() < 1e-8 && y[1] == 0. && (y[2] - 0.84134475).abs() < 1e-8);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    check::not_empty("gelu", "tensor", x)?;
    apply(Gelu { shape: x.shape().clone() }, &[x])
}

/// The operator of [`gelu`].
pub(super) struct Gelu {
    shape: Shape,
}

impl Operator for Gelu {
    const NAME: &'static str = "gelu";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        inputs[0].gelu_erf()
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let x = &call.inputs[0];
        let below = x.affine(std::f64::consts::FRAC_1_SQRT_2, 0.)?.erf()?.affine(0.5, 0.5)?;
        let density = x.sqr()?.affine(-0.5, 0.)?.exp()?.affine((0.5 / std::f64::consts::PI).sqrt(), 0.)?;
        call.gradients(|_| &call.grad * (&below + x * &density)?)
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}

/// Computes the hyperbolic tangent.
///
/// # Errors
///
/// If `x` is not of a floating-point type.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let y = ops::tanh(&Tensor::new(&[-1f32, 0., 50.], &Device::Cpu)?)?.to_vec1::<f32>()?;
/// assert!((y[0] + 0.7615942).abs() < 1e-6 && y[1] == 0. && y[2] == 1.);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    check::not_empty("tanh", "tensor", x)?;
    apply(Tanh { shape: x.shape().clone() }, &[x])
}

/// The operator of [`tanh`].
pub(super) struct Tanh {
    shape: Shape,
}

impl Operator for Tanh {
    const NAME: &'static str = "tanh";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        inputs[0].tanh()
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        call.gradients(|_| &call.grad * call.output.sqr()?.affine(-1., 1.)?)
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}

/// Computes the logistic function, `1 / (1 + e^−x)`.
///
/// # Errors
///
/// If `x` is not of a floating-point type.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let y = ops::sigmoid(&Tensor::new(&[-200f32, 0., 1.], &Device::Cpu)?)?.to_vec1::<f32>()?;
/// assert!(y[0] == 0. && y[1] == 0.5 && (y[2] - 0.7310586).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    check::not_empty("sigmoid", "tensor", x)?;
    apply(Sigmoid { shape: x.shape().clone() }, &[x])
}

/// The operator of [`sigmoid`].
pub(super) struct Sigmoid {
    shape: Shape,
}

impl Operator for Sigmoid {
    const NAME: &'static str = "sigmoid";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        (inputs[0].neg()?.exp()? + 1.)?.recip()
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let power = call.inputs[0].neg()?.exp()?;
        call.gradients(|_| (&call.grad / (&power + 1.)?.sqr()?)? * &power)
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}

/// Multiplies negative values by `slope`.
///
/// # Errors
///
/// If `x` is not of a floating-point type or the slope is not finite.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let y = ops::leaky_relu(&Tensor::new(&[-2f32, 0., 3.], &Device::Cpu)?, 0.5)?;
/// assert_eq!(y.to_vec1::<f32>()?, [-1., 0., 3.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    check::not_empty("leaky_relu", "tensor", x)?;
    if !slope.is_finite() {
        bail!("leaky_relu: expected a finite slope, got {slope}")
    }
    apply(LeakyRelu { shape: x.shape().clone(), slope }, &[x])
}

/// The operator of [`leaky_relu`].
pub(super) struct LeakyRelu {
    shape: Shape,
    pub slope: f64,
}

impl Operator for LeakyRelu {
    const NAME: &'static str = "leaky_relu";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let x = &inputs[0];
        x * one_or(&x.gt(0.)?, self.slope, x)?
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let x = &call.inputs[0];
        call.gradients(|_| &call.grad * one_or(&x.gt(0.)?, self.slope, x)?)
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
