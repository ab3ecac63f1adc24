//! Normalization over a volume, with an activation, and over channels.

use std::sync::OnceLock;

use candle_core::{Result, Shape, Tensor, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check;
use super::moments::Moments;
use super::operator::{BackwardInputs, Native, Operator, apply};
use super::overwrite::{can_overwrite, overwrite};
use super::portable::norm as portable;

/// The values of a channel that [`normalize`] normalizes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormScope {
    /// Batch norm: all voxels of all samples of a batch.
    Batch,
    /// Instance norm: all voxels of each sample.
    Instance,
}

/// The activation that [`normalize`] applies to its result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// No activation.
    None,
    /// Multiplies negative values by the slope; a slope of 0 is ReLU.
    LeakyRelu(f64),
}

impl Activation {
    /// Returns the factor of negative values: 1 for no activation.
    pub(super) fn slope(self, op: &str) -> Result<f64> {
        match self {
            Self::None => Ok(1.),
            Self::LeakyRelu(slope) if slope.is_finite() && slope >= 0. => Ok(slope),
            Self::LeakyRelu(slope) => bail!("{op}: expected a slope of at least 0, got {slope}"),
        }
    }
}

/// Normalizes each channel of a volume to mean 0 and variance 1 (biased, as PyTorch does), then scales, shifts and
/// activates it.
///
/// # Shapes
///
/// `x` `[batch, x, y, z, channel]`; `affine` is weight and bias, each `[channel]`; returns the shape of `x`.
///
/// # Errors
///
/// If the shapes are incompatible, `eps` is not positive, or the slope is negative or not finite.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops::{self, Activation, NormScope};
///
/// let x = Tensor::new(&[1f32, 3.], &Device::Cpu)?.reshape((1, 2, 1, 1, 1))?;
/// let y = ops::normalize(&x, None, NormScope::Instance, 1e-12, Activation::LeakyRelu(0.5))?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [-0.5, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn normalize(
    x: &Tensor,
    affine: Option<(&Tensor, &Tensor)>,
    scope: NormScope,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let normalize = Normalize::new(x, affine, scope, eps, activation)?;
    match affine {
        Some((weight, bias)) => apply(normalize, &[x, weight, bias]),
        None => apply(normalize, &[x]),
    }
}

/// Normalizes a volume like [`normalize`]; without gradients, the result overwrites the volume's memory.
///
/// Every other tensor that shares the memory of `x` is overwritten, too.
///
/// # Shapes
///
/// The shapes of [`normalize`].
///
/// # Errors
///
/// The errors of [`normalize`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops::{self, Activation, NormScope};
///
/// let x = Tensor::new(&[1f32, 3.], &Device::Cpu)?.reshape((1, 2, 1, 1, 1))?;
/// let y = ops::normalize_owned(x, None, NormScope::Instance, 1e-12, Activation::LeakyRelu(0.5))?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [-0.5, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn normalize_owned(
    x: Tensor,
    affine: Option<(&Tensor, &Tensor)>,
    scope: NormScope,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let parameters: Vec<&Tensor> = affine.into_iter().flat_map(|(weight, bias)| [weight, bias]).collect();
    if !can_overwrite(&x, &parameters) {
        return normalize(&x, affine, scope, eps, activation);
    }
    let operator = Normalize::new(&x, affine, scope, eps, activation)?;
    overwrite(x, &parameters, |x, parameters| {
        operator.overwrite(x, parameters.first().copied(), parameters.get(1).copied())
    })
}

impl Normalize {
    fn new(
        x: &Tensor,
        affine: Option<(&Tensor, &Tensor)>,
        scope: NormScope,
        eps: f64,
        activation: Activation,
    ) -> Result<Self> {
        let [batch, nx, ny, nz, channels] = check::volume("normalize", x)?;
        check::positive("normalize", "eps", eps)?;
        let slope = activation.slope("normalize")?;
        let (groups, rows) = match scope {
            NormScope::Batch => (1, batch * nx * ny * nz),
            NormScope::Instance => (batch, nx * ny * nz),
        };
        if let Some((weight, bias)) = affine {
            check::dims("normalize", "weight", weight, &[channels])?;
            check::dims("normalize", "bias", bias, &[channels])?;
        }
        Ok(Self { shape: x.shape().clone(), groups, rows, channels, eps, slope, moments: OnceLock::new() })
    }
}

/// The operator of [`normalize`]: `groups` of `rows` channel vectors that share their statistics.
pub(super) struct Normalize {
    shape: Shape,
    pub groups: usize,
    pub rows: usize,
    pub channels: usize,
    pub eps: f64,
    /// The activation's slope for negative values; 1 for no activation.
    pub slope: f64,
    /// The statistics, which the native forward pass keeps for the backward pass.
    pub moments: OnceLock<Vec<Moments>>,
}

impl Operator for Normalize {
    const NAME: &'static str = "normalize";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let x = inputs[0].reshape((self.groups, self.rows, self.channels))?;
        portable::normalize(&x, &inputs[1..], self.eps, self.slope)?.reshape(&self.shape)
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let shape = (self.groups, self.rows, self.channels);
        let [x, y, grad] = [&call.inputs[0], &call.output, &call.grad].map(|t| t.reshape(shape));
        let [dx, dw, db] = portable::normalize_backward(&x?, call.inputs.get(1), &y?, &grad?, self.eps, self.slope)?;
        let gradients = [dx.reshape(&self.shape)?, dw, db];
        call.gradients(|i| Ok(gradients[i].clone()))
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}

/// Normalizes the last axis to mean 0 and variance 1 (biased), then scales and shifts it.
///
/// # Shapes
///
/// `x` `[..., channel]`, `weight` and `bias` `[channel]`; returns the shape of `x`.
///
/// # Errors
///
/// If the shapes are incompatible or `eps` is not positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops;
///
/// let x = Tensor::new(&[[1f32, 3.], [7., 5.]], &Device::Cpu)?;
/// let (one, zero) = (Tensor::new(&[1f32, 1.], &Device::Cpu)?, Tensor::new(&[0f32, 0.], &Device::Cpu)?);
/// assert_eq!(ops::layer_norm(&x, &one, &zero, 1e-12)?.to_vec2::<f32>()?, [[-1., 1.], [1., -1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let channels = check::last("layer_norm", x)?;
    check::dims("layer_norm", "weight", weight, &[channels])?;
    check::dims("layer_norm", "bias", bias, &[channels])?;
    check::positive("layer_norm", "eps", eps)?;
    apply(LayerNorm { shape: x.shape().clone(), channels, eps }, &[x, weight, bias])
}

/// The operator of [`layer_norm`].
pub(super) struct LayerNorm {
    shape: Shape,
    pub channels: usize,
    pub eps: f64,
}

impl Operator for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        portable::layer_norm(&inputs[0], &inputs[1], &inputs[2], self.eps)
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        let gradients = portable::layer_norm_backward(&call.inputs[0], &call.inputs[1], &call.grad, self.eps)?;
        call.gradients(|i| Ok(gradients[i].clone()))
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}
