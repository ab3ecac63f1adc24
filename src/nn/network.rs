//! One interface to the networks: a network is created by the name of its kind, and inference does not depend on its kind.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use freetumor::nn::fill;
//! use freetumor::nn::network::{Config, Model, Network};
//!
//! let model: Model = "unet3d".parse()?;
//! let config = Config { width: 2, ..model.published() };
//! assert_eq!(config.parameters()?[0].0, "down_tr64.ops.0.conv1.weight");
//! let network = Network::new(fill::builder("", DType::F32, &Device::Cpu), &config)?;
//! let side = model.side_divisor();
//! let x = Tensor::zeros((1, 1, side, side, side), DType::F32, &Device::Cpu)?;
//! assert_eq!(network.forward(&x)?.dims(), [1, 3, side, side, side]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::fmt;
use std::str::FromStr;

use candle_core::{Result, Shape, Tensor, bail};
use candle_nn::VarBuilder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ops::NormScope;
use super::parameters::declared_parameters;
use super::{swin_unetr, unet3d};

/// The kinds of networks, by their names in settings and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Model {
    /// The 3-D U-Net of the generator and the discriminator.
    #[serde(rename = "unet3d")]
    UNet3D,
    /// Swin UNETR, second version: the segmentor.
    #[serde(rename = "swin_unetr")]
    SwinUnetr,
}

impl Model {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::UNet3D, Self::SwinUnetr];

    /// Returns the name in files and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::UNet3D => "unet3d",
            Self::SwinUnetr => "swin_unetr",
        }
    }

    /// Returns the number of which the sides of an input must be multiples.
    pub fn side_divisor(self) -> usize {
        match self {
            Self::UNet3D => unet3d::SIDE_DIVISOR,
            Self::SwinUnetr => swin_unetr::SIDE_DIVISOR,
        }
    }

    /// Returns the configuration of the published network of this kind.
    pub fn published(self) -> Config {
        match self {
            Self::UNet3D => {
                let unet3d::Config { in_channels, classes, width, norm } = unet3d::Config::default();
                Config { model: self, in_channels, classes, width, norm }
            }
            Self::SwinUnetr => {
                let swin_unetr::Config { in_channels, classes, width } = swin_unetr::Config::default();
                Config { model: self, in_channels, classes, width, norm: NormScope::Instance }
            }
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = candle_core::Error;

    /// Returns the kind of that name.
    ///
    /// ```
    /// use freetumor::nn::network::Model;
    ///
    /// assert_eq!("swin_unetr".parse::<Model>()?, Model::SwinUnetr);
    /// let error = "unet".parse::<Model>().unwrap_err();
    /// assert!(error.to_string().starts_with("expected a model named unet3d or swin_unetr, got \"unet\""));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|model| model.name() == name) {
            Some(model) => Ok(model),
            None => bail!("expected a model named {}, got {name:?}", Self::ALL.map(Self::name).join(" or ")),
        }
    }
}

/// The configuration of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The kind.
    pub model: Model,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub classes: usize,
    /// Features of the narrowest layer; a multiple of 12 for [`Model::SwinUnetr`].
    pub width: usize,
    /// The kind of the normalization layers; always [`NormScope::Instance`] for [`Model::SwinUnetr`].
    pub norm: NormScope,
}

impl Config {
    /// Returns the names and shapes of the network's parameters, in the network's order.
    ///
    /// # Errors
    ///
    /// If there is no network with this configuration.
    pub fn parameters(&self) -> Result<Vec<(String, Shape)>> {
        declared_parameters(|vb| Network::new(vb, self))
    }
}

/// A network of any kind.
#[derive(Clone, Debug)]
pub enum Network {
    /// A 3-D U-Net.
    UNet3D(unet3d::UNet3D),
    /// A Swin UNETR, second version.
    SwinUnetr(Box<swin_unetr::SwinUnetr>),
}

impl Network {
    /// Creates the network with its weights.
    ///
    /// # Errors
    ///
    /// If there is no network with this configuration, or the source of weights lacks a parameter.
    pub fn new(vb: VarBuilder, config: &Config) -> Result<Self> {
        let Config { model, in_channels, classes, width, norm } = *config;
        match (model, norm) {
            (Model::UNet3D, norm) => {
                let config = unet3d::Config { in_channels, classes, width, norm };
                Ok(Self::UNet3D(unet3d::UNet3D::new(vb, &config)?))
            }
            (Model::SwinUnetr, NormScope::Instance) => {
                let config = swin_unetr::Config { in_channels, classes, width };
                Ok(Self::SwinUnetr(Box::new(swin_unetr::SwinUnetr::new(vb, &config)?)))
            }
            (Model::SwinUnetr, NormScope::Batch) => {
                bail!("swin_unetr: expected instance norm, got batch norm")
            }
        }
    }

    /// Computes the logits of each voxel.
    ///
    /// # Shapes
    ///
    /// `[batch, in_channels, x, y, z]` to `[batch, classes, x, y, z]`; sides are multiples of
    /// [`Model::side_divisor`].
    ///
    /// # Errors
    ///
    /// If the input has another shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::UNet3D(network) => network.forward(x),
            Self::SwinUnetr(network) => network.forward(x),
        }
    }
}
