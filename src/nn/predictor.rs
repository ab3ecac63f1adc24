//! A network with the weights of a file, for inference on volumes.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::failed;
use super::network::{Config, Model, Network};
use super::ops::NormScope;
use super::parameters::from_tensors;
use super::weights::{NetworkPart, WeightsMetadata, fit, read, shape_of};
use crate::error::{Error, Result};

/// The maximum number of classes of a network: labels are 16-bit numbers.
const MAX_CLASSES: usize = 1 << 16;

/// The network that a file of weights is expected to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedNetwork {
    /// The kind.
    pub model: Model,
    /// The network to use, if the file contains several.
    pub part: NetworkPart,
    /// The number of channels of the output; `None` for the number that the weights determine.
    pub classes: Option<usize>,
    /// The number of features of the narrowest layer; `None` for the number that the weights determine.
    pub width: Option<usize>,
    /// The kind of the normalization layers; `None` for the kind that the file names, or else the kind of the published network.
    pub norm: Option<NormScope>,
}

/// A network with the weights of a file.
#[derive(Clone, Debug)]
pub struct Predictor {
    network: Network,
    config: Config,
    model: Model,
    device: Device,
    has_statistics: bool,
}

impl Predictor {
    /// Opens a file of weights. The file's metadata `norm` (`instance` or `batch`) selects the kind of the normalization layers, which
    /// cannot be derived from the weights.
    ///
    /// # Errors
    /// If the file cannot be read, or does not hold the expected network.
    ///
    /// ```
    /// use candle_core::Device;
    /// use freetumor::nn::fill;
    /// use freetumor::nn::network::{Config, Model};
    /// use freetumor::nn::predictor::{Predictor, ExpectedNetwork};
    /// use freetumor::nn::weights::{NetworkPart, Precision, write_safetensors};
    ///
    /// let config = Config { width: 2, classes: 4, ..Model::UNet3D.published() };
    /// let folder = tempfile::tempdir().unwrap();
    /// let path = folder.path().join("narrow.safetensors");
    /// let tensor = |(name, shape): (String, candle_core::Shape)| {
    ///     let values = fill::parameter(&name, shape.dims());
    ///     (name, candle_core::Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    /// };
    /// let weights = config.parameters().unwrap().into_iter().map(tensor).collect();
    /// write_safetensors(&mut std::fs::File::create(&path)?, &weights, &Default::default(), Precision::Single)?;
    ///
    /// let expected = ExpectedNetwork { model: Model::UNet3D, part: NetworkPart::Whole, classes: None, width: None, norm: None };
    /// let predictor = Predictor::open(&path, &expected, &Device::Cpu)?;
    /// assert_eq!((predictor.config().width, predictor.config().classes), (2, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: &Path, expected: &ExpectedNetwork, device: &Device) -> Result<Self> {
        let metadata = WeightsMetadata::of(path);
        metadata.check_weights(path)?;
        let raw = read(path, &Device::Cpu)?;
        let sizes = Sizes::of(&raw, expected);
        let has_statistics = raw.keys().any(|name| name.ends_with("running_mean"));
        let published = expected.model.published();
        let norm_of_file = match (expected.model, metadata.norm.as_deref()) {
            (Model::UNet3D, Some("instance")) => NormScope::Instance,
            (Model::UNet3D, Some("batch")) => NormScope::Batch,
            _ => published.norm,
        };
        let config = Config {
            norm: expected.norm.unwrap_or(norm_of_file),
            in_channels: sizes.in_channels.unwrap_or(published.in_channels),
            classes: expected.classes.or(sizes.classes).unwrap_or(published.classes),
            width: expected.width.or(sizes.width).unwrap_or(published.width),
            ..published
        };
        if config.classes > MAX_CLASSES {
            let (path, classes) = (path.display(), config.classes);
            return Err(Error::new(format!("{path}: expected at most {MAX_CLASSES} classes, got {classes}")));
        }
        let context = format!("cannot build the network of {}", path.display());
        let declared = config.parameters().map_err(failed(&context))?;
        let weights = fit(&raw, &declared, expected.part).map_err(|error| sizes.explain(&error, path, &config))?;
        let vb = from_tensors(weights, DType::F32, device);
        let network = Network::new(vb, &config).map_err(failed(&context))?;
        Ok(Self { network, config, model: expected.model, device: device.clone(), has_statistics })
    }

    /// Returns the kind of network.
    pub fn model(&self) -> Model {
        self.model
    }

    /// Returns the network's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether the weights contain running statistics, which inference ignores: normalization layers use the statistics of their
    /// input. The logits of a network that was trained with running statistics differ from those of its training.
    pub fn ignores_statistics(&self) -> bool {
        self.has_statistics
    }

    /// Returns whether the device is lost, that is, fails to compute a sum. The CPU is never lost.
    pub fn device_is_lost(&self) -> bool {
        let sum = || Tensor::ones(8, DType::F32, &self.device)?.sum_all()?.to_scalar::<f32>();
        !self.device.is_cpu() && sum().is_err()
    }

    /// Runs a forward pass and checks that the logits are finite.
    ///
    /// # Shapes
    /// `[batch, in_channels, x, y, z]` to `[batch, classes, x, y, z]`; sides are multiples of
    /// [`Model::side_divisor`].
    ///
    /// # Errors
    /// If the input has another shape, or a logit is NaN or infinite.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (divisor, channels) = (self.model.side_divisor(), self.config.in_channels);
        match *x.dims() {
            [batch, c, x, y, z]
                if batch > 0 && c == channels && [x, y, z].iter().all(|side| *side > 0 && side % divisor == 0) => {}
            ref dims => {
                return Err(Error::new(format!(
                    "{}: expected [batch, {channels}, x, y, z] with sides that are multiples of {divisor}, got {dims:?}",
                    self.model
                ))
                .with_hint(shape_hint(dims, channels)));
            }
        }
        let run = || {
            let logits = self.network.forward(&x.to_device(&self.device)?.to_dtype(DType::F32)?)?;
            // An infinite or NaN number makes the sum infinite or NaN: only then are the numbers counted.
            let sum: f32 = logits.sum_all()?.to_scalar()?;
            Ok((logits, sum.is_finite()))
        };
        let (logits, are_finite) = run().map_err(failed("the network failed"))?;
        if !are_finite {
            check_finite(&logits, "logits")
                .map_err(|error| error.with_hint("check that the weights were trained on inputs of this kind"))?;
        }
        Ok(logits)
    }

    /// Runs the network on the tensor `input` of a safetensors file, without preprocessing.
    ///
    /// # Errors
    /// If the file cannot be read, and the errors of [`forward`](Self::forward).
    pub fn forward_file(&self, path: &Path) -> Result<Tensor> {
        let mut tensors = read(path, &Device::Cpu)?;
        let Some(x) = tensors.remove("input") else {
            let names: Vec<_> = tensors.keys().take(8).map(String::as_str).collect();
            return Err(Error::new(format!("{}: expected a tensor `input`, got {}", path.display(), names.join(", ")))
                .with_hint("save the volume as `input`, of shape [batch, channel, x, y, z]"));
        };
        check_finite(&x, "numbers of `input`")?;
        self.forward(&x)
    }
}

/// Checks that all numbers of a tensor are finite.
///
/// # Errors
/// If numbers of the tensor are NaN or infinite; the error contains their count.
fn check_finite(tensor: &Tensor, name: &str) -> Result<()> {
    let numbers = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
    let numbers = numbers.map_err(failed(&format!("cannot copy the {name} from the device")))?;
    match numbers.iter().filter(|number| !number.is_finite()).count() {
        0 => Ok(()),
        count => Err(Error::new(format!("{count} of {} {name} are NaN or infinite", numbers.len()))),
    }
}

/// The sizes of a network, as far as they follow from the shapes of its weights.
#[derive(Clone, Copy, Default)]
struct Sizes {
    in_channels: Option<usize>,
    classes: Option<usize>,
    width: Option<usize>,
}

impl Sizes {
    fn of(raw: &BTreeMap<String, Tensor>, expected: &ExpectedNetwork) -> Self {
        let (first, last) = match expected.model {
            Model::UNet3D => ("down_tr64.ops.0.conv1.weight", "out_tr.final_conv.weight"),
            Model::SwinUnetr => ("swinViT.patch_embed.proj.weight", "out.conv.conv.weight"),
        };
        let size = |name, axis| shape_of(raw, name, expected.part).and_then(|dims: Vec<usize>| dims.get(axis).copied());
        Self { in_channels: size(first, 1), classes: size(last, 0), width: size(first, 0) }
    }

    /// Adds the path to an error about weights that do not fit, and a hint if these sizes explain the error.
    fn explain(self, error: &Error, path: &Path, config: &Config) -> Error {
        let wrapped = Error::new(format!("{}: {error}", path.display()));
        let different = |size: Option<usize>, expected| size.filter(|size| *size != expected);
        let mut options = Vec::new();
        if let Some(classes) = different(self.classes, config.classes) {
            options.push(format!("--classes {classes}"));
        }
        if let Some(width) = different(self.width, config.width) {
            options.push(format!("--width {width}"));
        }
        match (error.hint(), options.is_empty(), self.width) {
            (_, false, _) => wrapped.with_hint(format!("these weights need {}", options.join(" "))),
            (Some(hint), ..) => wrapped.with_hint(hint),
            (None, true, None) => wrapped.with_hint(format!("check that these are weights of {}", config.model)),
            (None, true, Some(_)) => wrapped,
        }
    }
}

/// Returns a hint on a tensor of a wrong shape.
fn shape_hint(dims: &[usize], channels: usize) -> &'static str {
    match *dims {
        [0, ..] => "pass a batch of at least one volume",
        [_, c, ..] if dims.len() == 5 && c != channels => "pass as many channels as the weights have",
        [_, _, _, _, _] => "pad or crop the volume",
        _ => "pass five axes: a batch of one volume and a single channel are axes, too",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::weights::{Precision, write_safetensors};

    /// Opens the weights of a narrow network with `classes` classes, all of them zero.
    fn open(classes: usize) -> Result<Predictor> {
        let config = Config { width: 2, classes, ..Model::UNet3D.published() };
        let tensor = |(name, shape): (String, candle_core::Shape)| {
            (name, Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap())
        };
        let weights = config.parameters().unwrap().into_iter().map(tensor).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let mut file = std::fs::File::create(&path).unwrap();
        write_safetensors(&mut file, &weights, &BTreeMap::new(), Precision::Single).unwrap();
        let whole = NetworkPart::Whole;
        let expected = ExpectedNetwork { model: Model::UNet3D, part: whole, classes: None, width: None, norm: None };
        Predictor::open(&path, &expected, &Device::Cpu)
    }

    #[test]
    fn open_fails_on_more_classes_than_labels_of_16_bits() {
        assert_eq!(open(MAX_CLASSES).unwrap().config().classes, 65_536);
        let error = open(MAX_CLASSES + 1).unwrap_err().to_string();
        assert!(error.contains("expected at most 65536 classes, got 65537"), "{error}");
    }
}
