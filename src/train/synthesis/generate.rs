//! The differentiable blend of the output of a generator with an image.

use candle_core::{DType, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::nn::failed;
use crate::nn::ops;

/// The activation of the output of a generator, and whether the result is subtracted from the image or added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GeneratorActivation {
    /// The hyperbolic tangent, subtracted from the image: for the abdomen.
    #[default]
    Tanh,
    /// The logistic function, added to the image: for the chest.
    Sigmoid,
}

/// The blend of the method: `x ∓ stencil · smooth(activation(G(x)) · organ)`.
///
/// The stencil is the softened shape times the texture, zero outside of the healthy organ.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::train::synthesis::{GeneratorActivation, Blend};
///
/// let blend = Blend::new(GeneratorActivation::Tanh, &Device::Cpu)?;
/// let shape = (1, 1, 8, 8, 8);
/// let (x, one) = (Tensor::zeros(shape, DType::F32, &Device::Cpu)?, Tensor::ones(shape, DType::F32, &Device::Cpu)?);
/// let logits = Tensor::cat(&[&x, &(&one * 20.0)?], 1)?;
/// // The channel of the organ is the second; far from the edges its difference is one.
/// let y = blend.apply(&x, &logits, &[1], &one, &(&one * 0.5)?)?;
/// let middle = y.narrow(2, 4, 1)?.narrow(3, 4, 1)?.narrow(4, 4, 1)?.flatten_all()?.to_vec1::<f32>()?;
/// assert!((middle[0] + 0.5).abs() < 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Blend {
    activation: GeneratorActivation,
    /// The smoothing weights along each axis: seven weights, sigma 1.
    weights: [Tensor; 3],
}

impl Blend {
    /// Creates a blend on a device.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    pub fn new(activation: GeneratorActivation, device: &Device) -> Result<Self> {
        let weights: Vec<f64> = (-3..=3).map(|k| libm::exp(-0.5 * f64::from(k * k))).collect();
        let sum: f64 = weights.iter().sum();
        let weights: Vec<f32> = weights.iter().map(|weight| (weight / sum) as f32).collect();
        let along = |axis: usize| {
            let mut shape = [1; 5];
            shape[2 + axis] = 7;
            Tensor::from_vec(weights.clone(), &shape[..], &Device::Cpu)?.to_device(device)
        };
        let weights = || Ok([along(0)?, along(1)?, along(2)?]);
        Ok(Self { activation, weights: weights().map_err(failed("cannot create the smoothing weights"))? })
    }

    /// Returns the images with their tumors.
    ///
    /// # Shapes
    /// `images`, `organ` (1 in the healthy organ) and `stencil` `[batch, 1, x, y, z]`, `logits` `[batch, organs, x, y, z]`;
    /// `channels` is the channel of the organ of each sample.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn apply(
        &self,
        images: &Tensor,
        logits: &Tensor,
        channels: &[usize],
        organ: &Tensor,
        stencil: &Tensor,
    ) -> Result<Tensor> {
        let blend = || {
            let organ_logits = select_channels(logits, channels)?;
            let difference = match self.activation {
                GeneratorActivation::Tanh => ops::tanh(&organ_logits)?,
                GeneratorActivation::Sigmoid => ops::sigmoid(&organ_logits)?,
            };
            let change = (self.smooth(&(difference * organ)?)? * stencil)?;
            match self.activation {
                GeneratorActivation::Tanh => images - change,
                GeneratorActivation::Sigmoid => images + change,
            }
        };
        blend().map_err(failed("cannot put tumors into a batch"))
    }

    /// Smooths `[batch, 1, x, y, z]` along one axis after the other, with zeros outside.
    fn smooth(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, _, nx, ny, nz) = x.dims5()?;
        let mut y = x.contiguous()?.reshape((batch, nx, ny, nz, 1))?;
        for (axis, weights) in self.weights.iter().enumerate() {
            let mut padding = [0; 3];
            padding[axis] = 3;
            y = ops::conv3d(&y, weights, None, [1; 3], padding)?;
        }
        y.reshape((batch, 1, nx, ny, nz))
    }
}

/// Selects one channel of each sample.
fn select_channels(logits: &Tensor, channels: &[usize]) -> candle_core::Result<Tensor> {
    if let Some(&first) = channels.first()
        && channels.iter().all(|channel| *channel == first)
    {
        return logits.narrow(1, first, 1);
    }
    let each = channels.iter().enumerate().map(|(sample, channel)| logits.narrow(0, sample, 1)?.narrow(1, *channel, 1));
    Tensor::cat(&each.collect::<candle_core::Result<Vec<_>>>()?, 0)
}

/// Returns a tensor that is 1 where a label `[batch, x, y, z]` is in `of`, else 0.
pub(super) fn indicator(labels: &[u8], of: &[u8], batch: usize, shape: [usize; 3], device: &Device) -> Result<Tensor> {
    let values = labels.iter().map(|label| f32::from(u8::from(of.contains(label)))).collect();
    let tensor = crate::train::data::volumes_on(values, batch, shape, device)?;
    tensor.to_dtype(DType::F32).map_err(failed("cannot copy labels to the device"))
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::fill::uniform;
    use crate::volume::Gaussian;

    fn tensor(values: &[f32], channels: usize) -> Tensor {
        Tensor::from_slice(values, (values.len() / channels / 512, channels, 8, 8, 8), &Device::Cpu).unwrap()
    }

    #[test]
    fn differentiable_blur_equals_blur_of_inference() {
        let values = uniform("difference", 512, -1.0, 1.0);
        let blend = Blend::new(GeneratorActivation::Tanh, &Device::Cpu).unwrap();
        let smooth = blend.smooth(&tensor(&values, 1)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut array = crate::train::data::array_of(&values, [8; 3]);
        Gaussian::difference_blur().smooth(&mut array, &mut Default::default());
        let mut expected = Vec::new();
        crate::train::data::append(&mut expected, &array);
        assert!(smooth.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn gradients_reach_only_selected_channels() {
        let logits = Var::from_tensor(&tensor(&uniform("logits", 2 * 3 * 512, -1.0, 1.0), 3)).unwrap();
        let one = tensor(&[1.0; 1024], 1);
        for activation in [GeneratorActivation::Tanh, GeneratorActivation::Sigmoid] {
            let blend = Blend::new(activation, &Device::Cpu).unwrap();
            let y = blend.apply(&one, logits.as_tensor(), &[2, 0], &one, &one).unwrap();
            let gradients = y.sum_all().unwrap().backward().unwrap();
            let gradient = gradients.get(logits.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let has_gradient: Vec<bool> =
                gradient.chunks(512).map(|channel| channel.iter().any(|g| *g != 0.0)).collect();
            assert_eq!(has_gradient, [false, false, true, true, false, false]);
            let sign = if activation == GeneratorActivation::Tanh { -1.0 } else { 1.0 };
            assert!(gradient.iter().all(|g| g * sign >= 0.0));
        }
    }
}
