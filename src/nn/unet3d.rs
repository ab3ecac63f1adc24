//! The 3-D U-Net of the generator and the discriminator.
//!
//! The network has four levels of two convolutions each. The encoder halves the volume by max pooling; the decoder doubles the
//! volume by transposed convolutions and concatenates the encoder's features of the same level. Every normalization layer uses the
//! statistics of its input, in training and inference; with [`NormScope::Batch`] the samples of a batch therefore influence each other.
//!
//! | level | side | features | parameter names |
//! |---|---|---|---|
//! | 0 | 1 | 2 · width | `down_tr64`, `up_tr64` |
//! | 1 | 1/2 | 4 · width | `down_tr128`, `up_tr128` |
//! | 2 | 1/4 | 8 · width | `down_tr256`, `up_tr256` |
//! | 3 | 1/8 | 16 · width | `down_tr512` |
//!
//! # Source
//!
//! The network of FreeTumor (arXiv 2406.01264), at width 32; the names are its checkpoints' and do not change with the
//! width. Width 4 with [`NormScope::Instance`] is the narrow network (levels of 8, 16, 32 and 64 features) for quick
//! training.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use freetumor::nn::fill;
//! use freetumor::nn::ops::NormScope;
//! use freetumor::nn::unet3d::{Config, UNet3D};
//!
//! let narrow = Config { width: 4, classes: 2, norm: NormScope::Instance, ..Config::default() };
//! let network = UNet3D::new(fill::builder("", DType::F32, &Device::Cpu), &narrow)?;
//! let x = Tensor::randn(0f32, 1.0, (1, 1, 16, 8, 24), &Device::Cpu)?;
//! assert_eq!(network.forward(&x)?.dims(), [1, 2, 16, 8, 24]);
//! let error = network.forward(&x.narrow(2, 0, 12)?).unwrap_err().to_string();
//! assert!(error.starts_with("unet3d: expected sides that are multiples of 8, got [12, 8, 24]"));
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::layers::{Conv3d, ConvTranspose3d, NormLayer, channels_first, channels_last};
use super::ops::{self, Activation, NormScope};

/// The number of which the sides of an input must be multiples.
pub const SIDE_DIVISOR: usize = 8;

/// The configuration of a 3-D U-Net.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub classes: usize,
    /// Features of the first convolution; the levels have 2, 4, 8 and 16 times as many.
    pub width: usize,
    /// The kind of the normalization layers.
    pub norm: NormScope,
}

impl Default for Config {
    /// Returns the published network: one input channel, three output channels, width 32, batch norm.
    fn default() -> Self {
        Self { in_channels: 1, classes: 3, width: 32, norm: NormScope::Batch }
    }
}

/// The 3-D U-Net.
#[derive(Clone, Debug)]
pub struct UNet3D {
    in_channels: usize,
    down: Vec<DoubleConv>,
    up: Vec<UpBlock>,
    out: Conv3d,
}

impl UNet3D {
    /// Creates the network with its weights.
    ///
    /// # Errors
    ///
    /// If a number in `config` is zero, or the source of weights lacks a parameter.
    pub fn new(vb: VarBuilder, config: &Config) -> Result<Self> {
        let Config { in_channels, classes, width, norm } = *config;
        if in_channels == 0 || classes == 0 || width == 0 {
            bail!(
                "unet3d: expected channels, classes and width of at least 1, got {in_channels}, {classes} and {width}"
            )
        }
        let mut down = vec![];
        let mut c_in = in_channels;
        for (depth, name) in ["down_tr64", "down_tr128", "down_tr256", "down_tr512"].into_iter().enumerate() {
            let features = (2 * width) << depth;
            down.push(DoubleConv::new(vb.pp(name).pp("ops"), [c_in, features / 2, features], norm)?);
            c_in = features;
        }
        let mut up = vec![];
        for (depth, name) in ["up_tr64", "up_tr128", "up_tr256"].into_iter().enumerate().rev() {
            let features = (2 * width) << depth;
            up.push(UpBlock::new(vb.pp(name), c_in, features, norm)?);
            c_in = features;
        }
        let out = Conv3d::new(vb.pp("out_tr").pp("final_conv"), c_in, classes, 1, true)?;
        Ok(Self { in_channels, down, up, out })
    }

    /// Computes the logits of each voxel.
    ///
    /// # Shapes
    ///
    /// `[batch, in_channels, x, y, z]` to `[batch, classes, x, y, z]`; sides are multiples of [`SIDE_DIVISOR`].
    ///
    /// # Errors
    ///
    /// If the input has another shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = channels_last(x, "unet3d", self.in_channels, SIDE_DIVISOR)?;
        let mut skips = vec![];
        for (depth, level) in self.down.iter().enumerate() {
            if depth > 0 {
                let pooled = ops::max_pool3d(&x)?;
                skips.push(std::mem::replace(&mut x, pooled));
            }
            x = level.forward(x)?;
        }
        for (up, skip) in self.up.iter().zip(skips.into_iter().rev()) {
            x = up.forward(x, skip)?;
        }
        channels_first(&self.out.forward(&x)?)
    }
}

/// Two convolutions, each with normalization and ReLU.
#[derive(Clone, Debug)]
struct DoubleConv([ConvNorm; 2]);

impl DoubleConv {
    fn new(vb: VarBuilder, [c_in, middle, c_out]: [usize; 3], norm: NormScope) -> Result<Self> {
        Ok(Self([ConvNorm::new(vb.pp("0"), c_in, middle, norm)?, ConvNorm::new(vb.pp("1"), middle, c_out, norm)?]))
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        self.0[1].forward(self.0[0].forward(x)?)
    }
}

/// A convolution of kernel 3, normalization and ReLU. The bias of the convolution affects only the last bits: the normalization subtracts
/// the bias again.
#[derive(Clone, Debug)]
struct ConvNorm {
    conv: Conv3d,
    norm: NormLayer,
}

impl ConvNorm {
    fn new(vb: VarBuilder, c_in: usize, c_out: usize, norm: NormScope) -> Result<Self> {
        let conv = Conv3d::new(vb.pp("conv1"), c_in, c_out, 3, true)?;
        let norm = NormLayer::new(vb.pp("bn1"), c_out, norm, Activation::LeakyRelu(0.0))?;
        Ok(Self { conv, norm })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let y = self.conv.forward(&x)?;
        drop(x); // the widest volumes are here: each is freed before the next is allocated
        self.norm.forward(y)
    }
}

/// Doubles the volume, concatenates the encoder's features of the level, and convolves twice.
#[derive(Clone, Debug)]
struct UpBlock {
    double: ConvTranspose3d,
    level: DoubleConv,
}

impl UpBlock {
    fn new(vb: VarBuilder, c_in: usize, features: usize, norm: NormScope) -> Result<Self> {
        let double = ConvTranspose3d::new(vb.pp("up_conv"), c_in, c_in, true)?;
        let level = DoubleConv::new(vb.pp("ops"), [c_in + features, features, features], norm)?;
        Ok(Self { double, level })
    }

    fn forward(&self, x: Tensor, skip: Tensor) -> Result<Tensor> {
        let doubled = self.double.forward(&x)?;
        drop(x);
        let concatenated = ops::concat(&doubled, &skip)?;
        drop((doubled, skip));
        self.level.forward(concatenated)
    }
}
