//! Swin UNETR, second version: the quality segmentor.
//!
//! A transformer encodes the volume in four stages of attention within windows of 7³ tokens, each stage after a residual
//! convolution block and before a halving; convolution blocks decode the volume and concatenate the encoder's features of each
//! size. Normalization layers use the statistics of each sample, so that the samples of a batch do not influence each other.
//!
//! | side | features | encoder | decoder |
//! |---|---|---|---|
//! | 1 | width | `encoder1` of the input | `decoder1`, `out` |
//! | 1/2 | width | `patch_embed`, `encoder2` | `decoder2` |
//! | 1/4 | 2 · width | `layers1c`, `layers1`, `encoder3` | `decoder3` |
//! | 1/8 | 4 · width | `layers2c`, `layers2`, `encoder4` | `decoder4` |
//! | 1/16 | 8 · width | `layers3c`, `layers3` | `decoder5` |
//! | 1/32 | 16 · width | `layers4c`, `layers4`, `encoder10` | |
//!
//! # Source
//!
//! Hatamizadeh et al., arXiv 2201.01266; He et al., *SwinUNETR-V2*, MICCAI 2023; names, shapes and details as in MONAI
//! 1.6 with `use_v2`: patch merging of the first version, and positions of small windows numbered as in a full window.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use freetumor::nn::fill;
//! use freetumor::nn::swin_unetr::{Config, SwinUnetr};
//!
//! let config = Config { width: 12, classes: 2, ..Config::default() };
//! let network = SwinUnetr::new(fill::builder("", DType::F32, &Device::Cpu), &config)?;
//! let x = Tensor::randn(0f32, 1.0, (1, 1, 64, 32, 32), &Device::Cpu)?;
//! assert_eq!(network.forward(&x)?.dims(), [1, 2, 64, 32, 32]);
//! let error = network.forward(&x.narrow(2, 0, 48)?).unwrap_err().to_string();
//! assert!(error.starts_with("swin_unetr: expected sides that are multiples of 32, got [48, 32, 32]"));
//! # Ok::<(), candle_core::Error>(())
//! ```

mod residual;
mod transformer;
mod windows;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use self::residual::{Residual, UpBlock};
use self::transformer::Stage;
use super::layers::{Conv3d, EPS, channels_first, channels_last};
use super::ops;

/// The number of which the sides of an input must be multiples.
pub const SIDE_DIVISOR: usize = 32;

/// The attention heads of the four stages.
const HEADS: [usize; 4] = [3, 6, 12, 24];

/// The configuration of a Swin UNETR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub classes: usize,
    /// Features of a token in the first stage, a multiple of 12 (MONAI's `feature_size`).
    pub width: usize,
}

impl Default for Config {
    /// Returns the published segmentor of the abdomen: one input channel, seven classes, width 48.
    fn default() -> Self {
        Self { in_channels: 1, classes: 7, width: 48 }
    }
}

/// Swin UNETR, second version.
#[derive(Clone, Debug)]
pub struct SwinUnetr {
    in_channels: usize,
    patch_embed: Conv3d,
    stages: Vec<Stage>,
    convolutions: Vec<Residual>,
    encoder1: Residual,
    encoder2: Residual,
    encoder3: Residual,
    encoder4: Residual,
    encoder10: Residual,
    decoder5: UpBlock,
    decoder4: UpBlock,
    decoder3: UpBlock,
    decoder2: UpBlock,
    decoder1: UpBlock,
    out: Conv3d,
}

impl SwinUnetr {
    /// Creates the network with its weights.
    ///
    /// # Errors
    ///
    /// If a number in `config` is zero or the width not a multiple of 12, or the source of weights lacks a parameter.
    pub fn new(vb: VarBuilder, config: &Config) -> Result<Self> {
        let Config { in_channels, classes, width } = *config;
        if in_channels == 0 || classes == 0 {
            bail!("swin_unetr: expected at least 1 channel and 1 class, got {in_channels} and {classes}")
        }
        if width == 0 || !width.is_multiple_of(12) {
            bail!("swin_unetr: expected a width that is a multiple of 12, got {width}")
        }
        let transformer = vb.pp("swinViT");
        let patch_embed = Conv3d::patches(transformer.pp("patch_embed").pp("proj"), in_channels, width, 2, true)?;
        let stage = |i: usize| Stage::new(transformer.pp(format!("layers{}", i + 1)).pp("0"), width << i, HEADS[i]);
        let stages = (0..4).map(stage).collect::<Result<_>>()?;
        let residual = |vb: VarBuilder, c_in, c_out| Residual::new(vb.pp("layer"), c_in, c_out);
        let convolution =
            |i: usize| residual(transformer.pp(format!("layers{}c", i + 1)).pp("0"), width << i, width << i);
        Ok(Self {
            in_channels,
            patch_embed,
            stages,
            convolutions: (0..4).map(convolution).collect::<Result<_>>()?,
            encoder1: residual(vb.pp("encoder1"), in_channels, width)?,
            encoder2: residual(vb.pp("encoder2"), width, width)?,
            encoder3: residual(vb.pp("encoder3"), 2 * width, 2 * width)?,
            encoder4: residual(vb.pp("encoder4"), 4 * width, 4 * width)?,
            encoder10: residual(vb.pp("encoder10"), 16 * width, 16 * width)?,
            decoder5: UpBlock::new(vb.pp("decoder5"), 16 * width, 8 * width)?,
            decoder4: UpBlock::new(vb.pp("decoder4"), 8 * width, 4 * width)?,
            decoder3: UpBlock::new(vb.pp("decoder3"), 4 * width, 2 * width)?,
            decoder2: UpBlock::new(vb.pp("decoder2"), 2 * width, width)?,
            decoder1: UpBlock::new(vb.pp("decoder1"), width, width)?,
            out: Conv3d::new(vb.pp("out").pp("conv").pp("conv"), width, classes, 1, true)?,
        })
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
        let x = channels_last(x, "swin_unetr", self.in_channels, SIDE_DIVISOR)?;
        let [half, quarter, eighth, sixteenth, coarsest] = self.encode(&x)?;
        // An encoder runs only when its features are needed: the finest are the largest volumes.
        let y = self.decoder5.forward(self.encoder10.forward(coarsest)?, sixteenth)?;
        let y = self.decoder4.forward(y, self.encoder4.forward(eighth)?)?;
        let y = self.decoder3.forward(y, self.encoder3.forward(quarter)?)?;
        let y = self.decoder2.forward(y, self.encoder2.forward(half)?)?;
        let y = self.decoder1.forward(y, self.encoder1.forward(x)?)?;
        channels_first(&self.out.forward(&y)?)
    }

    /// Returns the transformer's features of each size, finest first.
    fn encode(&self, x: &Tensor) -> Result<[Tensor; 5]> {
        let stage = |i: usize, tokens| self.stages[i].forward(self.convolutions[i].forward(tokens)?);
        let tokens = self.patch_embed.forward(x)?;
        let half = normalized(&tokens)?;
        let tokens = stage(0, tokens)?;
        let quarter = normalized(&tokens)?;
        let tokens = stage(1, tokens)?;
        let eighth = normalized(&tokens)?;
        let tokens = stage(2, tokens)?;
        let sixteenth = normalized(&tokens)?;
        let tokens = stage(3, tokens)?;
        Ok([half, quarter, eighth, sixteenth, normalized(&tokens)?])
    }
}

/// Computes a layer norm without weights.
fn normalized(x: &Tensor) -> Result<Tensor> {
    let channels = x.dim(candle_core::D::Minus1)?;
    let one = Tensor::ones(channels, x.dtype(), x.device())?;
    ops::layer_norm(x, &one, &one.zeros_like()?, EPS)
}
