//! The convolution blocks around the transformer: all with instance norm without weights, and leaky ReLU of slope 0.01.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::layers::{Conv3d, ConvTranspose3d, NormLayer};
use crate::nn::ops::{self, Activation, NormScope};

const SLOPE: f64 = 0.01;

/// Two convolutions and a shortcut; if the number of features changes, the shortcut is a convolution of kernel 1.
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

    /// Maps `[batch, x, y, z, c_in]` to `[batch, x, y, z, c_out]`.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let [activated, plain] =
            [Activation::LeakyRelu(SLOPE), Activation::None].map(|a| NormLayer::plain(NormScope::Instance, a));
        // `&{ y }` moves a volume into the statement, which frees the volume before the next one is allocated.
        let y = self.conv1.forward(&x)?;
        let y = activated.forward(y)?;
        let y = self.conv2.forward(&{ y })?;
        let y = plain.forward(y)?;
        let x = match &self.shortcut {
            Some(conv) => {
                let x = conv.forward(&{ x })?;
                plain.forward(x)?
            }
            None => x,
        };
        ops::add(y, x, Activation::LeakyRelu(SLOPE))
    }
}

/// A layer that doubles the volume, concatenates the encoder's features, and applies a residual block to both.
#[derive(Clone, Debug)]
pub(super) struct UpBlock {
    double: ConvTranspose3d,
    blend: Residual,
}

impl UpBlock {
    pub fn new(vb: VarBuilder, c_in: usize, c_out: usize) -> Result<Self> {
        let double = ConvTranspose3d::new(vb.pp("transp_conv").pp("conv"), c_in, c_out, false)?;
        let blend = Residual::new(vb.pp("conv_block"), 2 * c_out, c_out)?;
        Ok(Self { double, blend })
    }

    /// Maps `[batch, x, y, z, c_in]` and `[batch, 2x, 2y, 2z, c_out]` to `[batch, 2x, 2y, 2z, c_out]`.
    pub fn forward(&self, x: Tensor, skip: Tensor) -> Result<Tensor> {
        let doubled = self.double.forward(&{ x })?;
        let concatenated = ops::concat(&{ doubled }, &{ skip })?;
        self.blend.forward(concatenated)
    }
}
