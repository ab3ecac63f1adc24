//! A network with the weights of a file, ready to look at volumes.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::failed;
use super::network::{Config, Model, Network};
use super::ops::NormScope;
use super::parameters::from_tensors;
use super::weights::{NetworkPart, WeightsMetadata, fit, read, shape_of};
use crate::error::{Error, Result};

/// Which network a file of weights is said to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedNetwork {
    /// The kind.
    pub model: Model,
    /// Which of a file's networks.
    pub part: NetworkPart,
    /// Channels of the output; `None` for what the weights have.
    pub classes: Option<usize>,
    /// Features where the network is narrowest; `None` for what the weights have.
    pub width: Option<usize>,
    /// Over what norms take their statistics; `None` for what the file says, or else what the published network does.
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
    /// Opens a file of weights. What the file says of itself under `norm` (`instance` or `batch`) is followed; the weights
    /// alone do not tell.
    ///
    /// # Errors
    /// Where the file cannot be read, holds no such network, or another than was wanted.
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
    /// let weights = config.declared().unwrap().into_iter().map(tensor).collect();
    /// write_safetensors(&mut std::fs::File::create(&path)?, &weights, &Default::default(), Precision::Single)?;
    ///
    /// let wanted = ExpectedNetwork { model: Model::UNet3D, part: NetworkPart::Whole, classes: None, width: None, norm: None };
    /// let predictor = Predictor::open(&path, &wanted, &Device::Cpu)?;
    /// assert_eq!((predictor.config().width, predictor.config().classes), (2, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: &Path, wanted: &ExpectedNetwork, device: &Device) -> Result<Self> {
        let said = WeightsMetadata::of(path);
        said.check_weights(path)?;
        let raw = read(path, &Device::Cpu)?;
        let sizes = Sizes::of(&raw, wanted);
        let has_statistics = raw.keys().any(|name| name.ends_with("running_mean"));
        let published = wanted.model.published();
        let stated = match (wanted.model, said.norm.as_deref()) {
            (Model::UNet3D, Some("instance")) => NormScope::Instance,
            (Model::UNet3D, Some("batch")) => NormScope::Batch,
            _ => published.norm,
        };
        let config = Config {
            norm: wanted.norm.unwrap_or(stated),
            in_channels: sizes.in_channels.unwrap_or(published.in_channels),
            classes: wanted.classes.or(sizes.classes).unwrap_or(published.classes),
            width: wanted.width.or(sizes.width).unwrap_or(published.width),
            ..published
        };
        let declared = config.declared().map_err(failed("there is no such network"))?;
        let weights = fit(&raw, &declared, wanted.part).map_err(|error| sizes.explain(&error, path, &config))?;
        let vb = from_tensors(weights, DType::F32, device);
        let network = Network::new(vb, &config).map_err(failed("cannot build the network"))?;
        Ok(Self { network, config, model: wanted.model, device: device.clone(), has_statistics })
    }

    /// The kind of network.
    pub fn model(&self) -> Model {
        self.model
    }

    /// What distinguishes this network from others.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the weights came with running statistics of norms, which are not used: norms take those of what they are
    /// given. A network that was trained for running statistics gives other logits here.
    pub fn ignores_statistics(&self) -> bool {
        self.has_statistics
    }

    /// Whether the device no longer does the simplest of sums. The processor always does.
    pub fn device_is_lost(&self) -> bool {
        let sum = || Tensor::ones(8, DType::F32, &self.device)?.sum_all()?.to_scalar::<f32>();
        !self.device.is_cpu() && sum().is_err()
    }

    /// One forward pass; the logits are finite.
    ///
    /// # Shapes
    /// `[batch, in_channels, x, y, z]` to `[batch, classes, x, y, z]`; sides are multiples of
    /// [`Model::side_divisor`].
    ///
    /// # Errors
    /// Where the shape is another, or a logit is NaN or infinite.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (divisor, channels) = (self.model.side_divisor(), self.config.in_channels);
        match *x.dims() {
            [batch, c, x, y, z]
                if batch > 0 && c == channels && [x, y, z].iter().all(|side| *side > 0 && side % divisor == 0) => {}
            ref dims => {
                return Err(Error::new(format!(
                    "{} takes [batch, {channels}, x, y, z] with sides that are multiples of {divisor}, got {dims:?}",
                    self.model
                ))
                .with_hint(misfit(dims, channels)));
            }
        }
        let run = || {
            let logits = self.network.forward(&x.to_device(&self.device)?.to_dtype(DType::F32)?)?;
            // The sum is finite where all numbers are; only then is there nothing to count.
            let sum: f32 = logits.sum_all()?.to_scalar()?;
            Ok((logits, sum.is_finite()))
        };
        let (logits, are_finite) = run().map_err(failed("the network failed"))?;
        if !are_finite {
            check_finite(&logits, "logits").map_err(|error| error.with_hint("are weights and input of one kind?"))?;
        }
        Ok(logits)
    }

    /// Runs the tensor `input` of a safetensors file through the network, nothing else.
    ///
    /// # Errors
    /// Where the file cannot be read, or as for [`forward`](Self::forward).
    pub fn forward_file(&self, path: &Path) -> Result<Tensor> {
        let mut tensors = read(path, &Device::Cpu)?;
        let Some(x) = tensors.remove("input") else {
            let names: Vec<_> = tensors.keys().take(8).map(String::as_str).collect();
            return Err(Error::new(format!("{} holds no tensor `input`, but {}", path.display(), names.join(", ")))
                .with_hint("save the volume as `input`, of shape [batch, channel, x, y, z]"));
        };
        check_finite(&x, "numbers of `input`")?;
        self.forward(&x)
    }
}

/// # Errors
/// Where some of a tensor's numbers are NaN or infinite, and how many.
fn check_finite(tensor: &Tensor, what: &str) -> Result<()> {
    let numbers = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
    let numbers = numbers.map_err(failed("cannot read numbers"))?;
    match numbers.iter().filter(|number| !number.is_finite()).count() {
        0 => Ok(()),
        count => Err(Error::new(format!("{count} of {} {what} are NaN or infinite", numbers.len()))),
    }
}

/// What weights say of their network's sizes.
#[derive(Clone, Copy, Default)]
struct Sizes {
    in_channels: Option<usize>,
    classes: Option<usize>,
    width: Option<usize>,
}

impl Sizes {
    fn of(raw: &BTreeMap<String, Tensor>, wanted: &ExpectedNetwork) -> Self {
        let (first, last) = match wanted.model {
            Model::UNet3D => ("down_tr64.ops.0.conv1.weight", "out_tr.final_conv.weight"),
            Model::SwinUnetr => ("swinViT.patch_embed.proj.weight", "out.conv.conv.weight"),
        };
        let size = |name, axis| shape_of(raw, name, wanted.part).and_then(|dims: Vec<usize>| dims.get(axis).copied());
        Self { in_channels: size(first, 1), classes: size(last, 0), width: size(first, 0) }
    }

    /// An error about weights that do not fit, with a word on why, where these sizes say it.
    fn explain(self, error: &Error, path: &Path, config: &Config) -> Error {
        let wrapped = Error::new(format!("{}: {error}", path.display()));
        let differ = |seen: Option<usize>, wanted| seen.filter(|seen| *seen != wanted);
        let mut hints = Vec::new();
        if let Some(classes) = differ(self.classes, config.classes) {
            hints.push(format!("--classes {classes}"));
        }
        if let Some(width) = differ(self.width, config.width) {
            hints.push(format!("--width {width}"));
        }
        match (error.hint(), hints.is_empty(), self.width) {
            (_, false, _) => wrapped.with_hint(format!("these weights were made with {}", hints.join(" "))),
            (Some(hint), ..) => wrapped.with_hint(hint),
            (None, true, None) => wrapped.with_hint(format!("are these weights of {}?", config.model)),
            (None, true, Some(_)) => wrapped,
        }
    }
}
/// What to do about a tensor of a wrong shape.
fn misfit(dims: &[usize], channels: usize) -> &'static str {
    match *dims {
        [0, ..] => "the batch is empty",
        [_, c, ..] if dims.len() == 5 && c != channels => "the number of channels is another than that of the weights",
        [_, _, _, _, _] => "pad the volume, or cut it",
        _ => "it takes five axes: a batch of one, and one channel, are axes, too",
    }
}
