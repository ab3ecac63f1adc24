//! Layers: each is a struct with its weights, a checked `new` and a `forward`.
//!
//! A constructor requests each parameter from its [`VarBuilder`] under PyTorch's name and shape. Volumes are
//! `[batch, x, y, z, channel]`.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use freetumor::nn::fill;
//! use freetumor::nn::layers::{Conv3d, NormLayer};
//! use freetumor::nn::ops::{Activation, NormScope};
//!
//! let vb = fill::builder("", DType::F32, &Device::Cpu);
//! let conv = Conv3d::new(vb.pp("conv"), 1, 4, 3, true)?;
//! let norm = NormLayer::new(vb.pp("norm"), 4, NormScope::Instance, Activation::LeakyRelu(0.0))?;
//! let x = Tensor::randn(0f32, 1.0, (2, 6, 5, 4, 1), &Device::Cpu)?;
//! let y = norm.forward(conv.forward(&x)?)?;
//! assert_eq!(y.dims(), [2, 6, 5, 4, 4]);
//! assert!(y.min_all()?.to_scalar::<f32>()? >= 0.0);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::ops::{self, Activation, NormScope};

/// The number that every normalization layer adds to a variance before its square root: PyTorch's default.
pub const EPS: f64 = 1e-5;

/// A convolution with a cubic kernel: `weight` `[c_out, c_in, k, k, k]`, `bias` `[c_out]`.
#[derive(Clone, Debug)]
pub struct Conv3d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: usize,
}

impl Conv3d {
    /// Creates a convolution that keeps the volume's sides: stride 1, padding of half the kernel.
    ///
    /// # Errors
    ///
    /// If the kernel is even or the source of weights lacks a parameter.
    pub fn new(vb: VarBuilder, c_in: usize, c_out: usize, kernel: usize, bias: bool) -> Result<Self> {
        if kernel.is_multiple_of(2) {
            bail!("{}: expected a kernel with an odd side, got {kernel}", vb.prefix())
        }
        Self::with(vb, [c_in, c_out, kernel], bias, 1, kernel / 2)
    }

    /// Creates a convolution over patches that do not overlap: the stride is the kernel's side, without padding.
    ///
    /// # Errors
    ///
    /// If the source of weights lacks a parameter.
    pub fn patches(vb: VarBuilder, c_in: usize, c_out: usize, side: usize, bias: bool) -> Result<Self> {
        Self::with(vb, [c_in, c_out, side], bias, side, 0)
    }

    fn with(vb: VarBuilder, [c_in, c_out, k]: [usize; 3], bias: bool, stride: usize, padding: usize) -> Result<Self> {
        let weight = vb.get((c_out, c_in, k, k, k), "weight")?;
        let bias = bias.then(|| vb.get(c_out, "bias")).transpose()?;
        Ok(Self { weight, bias, stride, padding })
    }

    /// Maps `[batch, x, y, z, c_in]` to `[batch, x', y', z', c_out]`.
    ///
    /// # Errors
    ///
    /// If the input has a wrong shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv3d(x, &self.weight, self.bias.as_ref(), [self.stride; 3], [self.padding; 3])
    }
}

/// A transposed convolution of kernel and stride 2: `weight` `[c_in, c_out, 2, 2, 2]`, `bias` `[c_out]`.
#[derive(Clone, Debug)]
pub struct ConvTranspose3d {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl ConvTranspose3d {
    /// Creates the layer with its weights.
    ///
    /// # Errors
    ///
    /// If the source of weights lacks a parameter.
    pub fn new(vb: VarBuilder, c_in: usize, c_out: usize, bias: bool) -> Result<Self> {
        let weight = vb.get((c_in, c_out, 2, 2, 2), "weight")?;
        let bias = bias.then(|| vb.get(c_out, "bias")).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Maps `[batch, x, y, z, c_in]` to `[batch, 2x, 2y, 2z, c_out]`.
    ///
    /// # Errors
    ///
    /// If the input has a wrong shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv_transpose3d(x, &self.weight, self.bias.as_ref())
    }
}

/// Batch or instance norm with the statistics of its input, in training and inference, and an activation.
#[derive(Clone, Debug)]
pub struct NormLayer {
    affine: Option<(Tensor, Tensor)>,
    scope: NormScope,
    activation: Activation,
}

impl NormLayer {
    /// Creates a normalization layer that scales by `weight` and shifts by `bias`, each `[channels]`.
    ///
    /// # Errors
    ///
    /// If the source of weights lacks a parameter.
    pub fn new(vb: VarBuilder, channels: usize, scope: NormScope, activation: Activation) -> Result<Self> {
        let affine = (vb.get(channels, "weight")?, vb.get(channels, "bias")?);
        Ok(Self { affine: Some(affine), scope, activation })
    }

    /// Creates a normalization layer without parameters.
    pub fn plain(scope: NormScope, activation: Activation) -> Self {
        Self { affine: None, scope, activation }
    }

    /// Normalizes a volume; keeps the shape `[batch, x, y, z, channel]`. Without gradients, the result overwrites the volume's memory.
    ///
    /// # Errors
    ///
    /// If the input has a wrong shape.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let affine = self.affine.as_ref().map(|(weight, bias)| (weight, bias));
        ops::normalize_owned(x, affine, self.scope, EPS, self.activation)
    }
}

/// Layer norm over the last axis: `weight` and `bias` `[channels]`.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Creates the layer with its weights.
    ///
    /// # Errors
    ///
    /// If the source of weights lacks a parameter.
    pub fn new(vb: VarBuilder, channels: usize) -> Result<Self> {
        Ok(Self { weight: vb.get(channels, "weight")?, bias: vb.get(channels, "bias")? })
    }

    /// Normalizes the last axis; keeps the shape `[..., channels]`.
    ///
    /// # Errors
    ///
    /// If the input has a wrong shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, EPS)
    }
}

/// A linear layer over the last axis: `weight` `[c_out, c_in]`, `bias` `[c_out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Creates the layer with its weights.
    ///
    /// # Errors
    ///
    /// If the source of weights lacks a parameter.
    pub fn new(vb: VarBuilder, c_in: usize, c_out: usize, bias: bool) -> Result<Self> {
        let weight = vb.get((c_out, c_in), "weight")?;
        let bias = bias.then(|| vb.get(c_out, "bias")).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Maps `[..., c_in]` to `[..., c_out]`.
    ///
    /// # Errors
    ///
    /// If the input has a wrong shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }
}

/// Converts a network's input `[batch, channel, x, y, z]` to `[batch, x, y, z, channel]`.
///
/// # Errors
///
/// If the shape is not as expected, or a side is zero or not a multiple of `divisor`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::layers::channels_last;
///
/// let x = Tensor::zeros((1, 2, 8, 16, 24), DType::F32, &Device::Cpu)?;
/// assert_eq!(channels_last(&x, "unet3d", 2, 8)?.dims(), [1, 8, 16, 24, 2]);
/// let error = channels_last(&x, "swin_unetr", 2, 32).unwrap_err().to_string();
/// assert!(error.starts_with("swin_unetr: expected sides that are multiples of 32, got [8, 16, 24]"));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn channels_last(x: &Tensor, network: &str, channels: usize, divisor: usize) -> Result<Tensor> {
    match *x.dims() {
        [batch, c, nx, ny, nz] if batch > 0 && c == channels => {
            let sides = [nx, ny, nz];
            if sides.iter().any(|&side| side == 0 || !side.is_multiple_of(divisor)) {
                bail!("{network}: expected sides that are multiples of {divisor}, got {sides:?}")
            }
            x.permute((0, 2, 3, 4, 1))?.contiguous()
        }
        ref got => bail!("{network}: expected an input of shape [batch, {channels}, x, y, z], got {got:?}"),
    }
}

/// Converts a network's output `[batch, x, y, z, channel]` to `[batch, channel, x, y, z]`.
///
/// # Errors
///
/// If the tensor does not have five axes.
pub fn channels_first(y: &Tensor) -> Result<Tensor> {
    y.permute((0, 4, 1, 2, 3))?.contiguous()
}
