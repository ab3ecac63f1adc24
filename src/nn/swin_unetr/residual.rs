//! The convolution blocks around the transformer: all with instance norm without weights, and leaky ReLU of slope 0.01.

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::layers::{Conv3d, ConvTranspose3d, Normalize};
use crate::nn::ops::{self, Activation, Over};

const SLOPE: f64 = 0.01;

/// Two convolutions beside a shortcut; where the number of features changes, the shortcut is a convolution of kernel 1.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    conv1: Conv3d,
    conv2: Conv3d,
    shortcut: Option<Conv3d>,
}

impl Residual {
    pub fn new(vb: VarBuilder, c_in: usize, c_out: usize) -> Result<Self> {
        let conv1 = Conv3d::new(vb.pp("conv1").pp("conv"), c_in, c_out, 3, false)?;
        let conv2 = Conv3d::new(vb.pp("conv2").pp("conv"), c_out, c_out, 3, false)?;
        let shortcut = (c_in != c_out).then(|| Conv3d::new(vb.pp("conv3").pp("conv"), c_in, c_out, 1, false));
        Ok(Self { conv1, conv2, shortcut: shortcut.transpose()? })
    }

    /// `[batch, x, y, z, c_in]` to `[batch, x, y, z, c_out]`.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let norm = |activation| Normalize::plain(Over::Instance, activation);
        let y = norm(Activation::LeakyRelu(SLOPE)).forward(&self.conv1.forward(&x)?)?;
        let y = norm(Activation::None).forward(&self.conv2.forward(&{ y })?)?;
        let x = match &self.shortcut {
            Some(conv) => norm(Activation::None).forward(&conv.forward(&{ x })?)?,
            None => x,
        };
        ops::leaky_relu(&(y + x)?, SLOPE)
    }
}

/// Doubles the volume, lays the encoder's features beside, and blends both.
#[derive(Clone, Debug)]
pub(super) struct Up {
    double: ConvTranspose3d,
    blend: Residual,
}

impl Up {
    pub fn new(vb: VarBuilder, c_in: usize, c_out: usize) -> Result<Self> {
        let double = ConvTranspose3d::new(vb.pp("transp_conv").pp("conv"), c_in, c_out, false)?;
        let blend = Residual::new(vb.pp("conv_block"), 2 * c_out, c_out)?;
        Ok(Self { double, blend })
    }

    /// `[batch, x, y, z, c_in]` and `[batch, 2x, 2y, 2z, c_out]` to `[batch, 2x, 2y, 2z, c_out]`.
    pub fn forward(&self, x: Tensor, skip: Tensor) -> Result<Tensor> {
        let doubled = self.double.forward(&{ x })?;
        self.blend.forward(Tensor::cat(&[doubled, skip], D::Minus1)?)
    }
}
