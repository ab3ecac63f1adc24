//! The networks of a process, and inference on the windows of a scan.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use candle_core::{Device, Tensor};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::layout::within;
use super::{Layout, NetworkConfig, Roi, RoiChange, Windows};
use crate::error::{ConfigError, Error, Fault, FaultKind, Result, Stage, file_type_name};
use crate::nn::device::DeviceKind;
use crate::nn::network::Model;
use crate::nn::ops::NormScope;
use crate::nn::predictor::{ExpectedNetwork, Predictor};
use crate::nn::service::{Batching, Service, WindowModel};
use crate::nn::windows::{SlidingWindows, VoxelBox};
use crate::simd::Class;
use crate::volume::{Array3, PreprocessedScan, Region, likeliest};

/// The networks of a process: each file of weights is read once, and all networks run on one device.
#[derive(Debug)]
pub struct Networks {
    service: Arc<Service>,
    loaded: Mutex<BTreeMap<NetworkKey, Arc<LoadedNetwork>>>,
}

/// Identifies a network in memory.
type NetworkKey = (PathBuf, Model, &'static str, Option<NormScope>);

struct LoadedNetwork {
    predictor: Arc<Predictor>,
    digest: String,
}

impl fmt::Debug for LoadedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest)
    }
}

impl Networks {
    /// Creates an empty set of networks that run on the device of `service`.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Arc<Self> {
        Arc::new(Self { service, loaded: Mutex::default() })
    }

    /// Returns the service of the device on which the networks run.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Opens the network of a stage; `weights` is the path of its file, `default` the kind of network if the settings name none.
    ///
    /// # Errors
    /// All errors in the settings, or the error in the file.
    pub fn open(&self, config: &NetworkConfig, weights: &Path, default: Model) -> Result<Inference, Vec<ConfigError>> {
        let model = config.model.unwrap_or(default);
        let mut errors = config.errors(model.side_divisor());
        // For a window that is computed alone, batch norm and instance norm are equal; with instance norm, the window can share a batch.
        let norm = match (model, config.windows) {
            (Model::UNet3D, Windows::Reference) => config.norm,
            _ => Some(NormScope::Instance),
        };
        let network = match self.network(weights, model, config, norm) {
            Ok(network) => Some(network),
            Err(error) => {
                let config_error = ConfigError::new("network.weights", error.to_string());
                errors.push(match error.hint() {
                    Some(hint) => config_error.with_hint(hint),
                    None => config_error,
                });
                None
            }
        };
        let channels = network.as_ref().map(|network| network.predictor.config().in_channels);
        if let Some(channels) = channels.filter(|channels| *channels != 1) {
            let message = format!("expected a network with one input channel, the CT; these weights have {channels}");
            errors.push(ConfigError::new("network.weights", message));
        }
        match network {
            Some(network) if errors.is_empty() => {
                let LoadedNetwork { predictor, digest } = &*network;
                Ok(Inference::new(Arc::clone(predictor), config.clone(), Arc::clone(&self.service), digest.clone()))
            }
            _ => Err(errors),
        }
    }

    fn network(
        &self,
        weights: &Path,
        model: Model,
        config: &NetworkConfig,
        norm: Option<NormScope>,
    ) -> Result<Arc<LoadedNetwork>> {
        let key = (weights.to_owned(), model, config.part.name(), norm);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = loaded.get(&key) {
            return Ok(Arc::clone(network));
        }
        let digest = digest_of(weights)?;
        let expected = ExpectedNetwork { model, part: config.part, classes: None, width: None, norm };
        let predictor = Arc::new(Predictor::open(weights, &expected, &self.service.device()?)?);
        let network = Arc::new(LoadedNetwork { predictor, digest });
        loaded.insert(key, Arc::clone(&network));
        Ok(network)
    }
}

/// Returns the SHA-256 of a file, in hexadecimal digits.
fn digest_of(path: &Path) -> Result<String> {
    let failed = |cause| Error::io("cannot read the weights", path, cause);
    let file_type = std::fs::metadata(path).map_err(failed)?.file_type();
    if !file_type.is_file() {
        let got = file_type_name(file_type);
        return Err(Error::new(format!("cannot read the weights {}: expected a file, got {got}", path.display())));
    }
    let (mut file, mut hash) = (File::open(path).map_err(failed)?, Sha256::new());
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(hex::encode(hash.finalize())),
            bytes => hash.update(&block[..bytes]),
        }
    }
}

/// A network with the settings of its preprocessing and windows, and the device on which it runs.
#[derive(Clone)]
pub struct Inference {
    config: NetworkConfig,
    model: Model,
    classes: usize,
    digest: String,
    network: Arc<dyn WindowModel>,
    batching: Batching,
    service: Arc<Service>,
    costs: Arc<Mutex<BTreeMap<InferencePhase, InferenceCost>>>,
}

/// The purpose of an inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InferencePhase {
    /// A whole scan, for its organs.
    Mask,
    /// The unchanged scan at a site, for a difference map.
    Generate,
    /// The unchanged scan at a site, as the baseline of the scores.
    Before,
    /// A candidate.
    After,
}

/// The cost of inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct InferenceCost {
    /// The number of inferences; each computes all windows of a layout or scan.
    #[serde(rename = "looks")]
    pub calls: u64,
    /// The number of windows that were computed.
    pub windows: u64,
    /// Seconds in which the device computed.
    pub device_seconds: f64,
    /// Seconds of waiting for the device, summed over all threads.
    pub waited_seconds: f64,
}

impl fmt::Debug for Inference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inference").field("model", &self.model).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// A network's prediction for a box of a region of interest: logits, averaged over overlapping windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The box.
    pub region: Region,
    /// The logits of the box, one array for each channel of the network.
    pub logits: Vec<Array3<f32>>,
}

impl Inference {
    /// Creates an inference of an opened network with its settings and its device; `digest` is the digest of its weights.
    pub fn new(predictor: Arc<Predictor>, config: NetworkConfig, service: Arc<Service>, digest: String) -> Self {
        Self {
            config,
            model: predictor.model(),
            classes: predictor.config().classes,
            digest,
            batching: if predictor.config().norm == NormScope::Batch { Batching::Never } else { Batching::Allowed },
            network: predictor,
            service,
            costs: Arc::default(),
        }
    }

    /// Returns the settings.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// Returns the kind of network and the digest of its weights, as tables record them.
    pub fn name(&self) -> String {
        format!("{}:{:.16}", self.model, self.digest)
    }

    /// Returns the SHA-256 of the file of weights.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the kernels that compute the network: `portable`, `avx2`, `avx512` or a device. Results of two classes differ in the
    /// last bits.
    pub fn kernel_class(&self) -> String {
        match self.service.device_kind() {
            DeviceKind::Cpu => Class::current().name().to_owned(),
            DeviceKind::Cuda => "cuda".to_owned(),
        }
    }

    /// Returns an estimate of the operations of one score relative to those of a stage without a network, by the voxels of a window and the
    /// architecture.
    pub fn cost(&self) -> f64 {
        let voxels = self.config.roi_voxels.iter().product::<usize>() as f64;
        let per_voxel = if self.model == Model::SwinUnetr { 4.0 } else { 1.0 };
        100.0 + per_voxel * voxels / 100.0
    }

    /// Returns the number of output channels.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the service of the device on which the network runs.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Returns the cost of inference so far, by phase.
    pub fn costs(&self) -> BTreeMap<InferencePhase, InferenceCost> {
        self.costs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Selects the windows for a tumor in the box `tumor` of a region of interest.
    ///
    /// # Errors
    /// A fault of the stage if the region of interest has no voxels.
    pub fn layout(&self, stage: Stage, roi: &Roi, tumor: Region) -> Result<Layout, Fault> {
        Layout::new(&self.config, roi, tumor).map_err(|error| Fault::new(stage, FaultKind::Geometry, error.to_string()))
    }

    /// Infers on the windows of a layout, and averages overlapping predictions over the box `region` of the region of interest.
    ///
    /// # Errors
    /// A fault of the stage: of kind `network` if the network returns numbers that are not finite, of kind `device` if the device is lost.
    pub fn predict(
        &self,
        stage: Stage,
        roi: &Roi,
        layout: &Layout,
        change: Option<&RoiChange>,
        region: Region,
    ) -> Result<Prediction, Fault> {
        let image = roi.image(layout.volume, self.config.window(), change);
        let inside = within(region, layout.volume);
        let phase = match (stage, change) {
            (Stage::Score, Some(_)) => InferencePhase::After,
            (Stage::Score, None) => InferencePhase::Before,
            _ => InferencePhase::Generate,
        };
        let call =
            InferenceCall { stage, phase, windows: &layout.sliding(), indices: &layout.windows, on_group: &|| () };
        Ok(Prediction { region, logits: self.infer(call, &image, &inside)? })
    }

    /// Infers on all windows of a preprocessed scan: returns the logits of the scan without its padding, one array for each channel.
    /// `on_group` is called after each group of windows.
    ///
    /// # Errors
    /// The faults of [`predict`](Self::predict).
    pub fn predict_scan(
        &self,
        stage: Stage,
        preprocessed: &PreprocessedScan,
        windows: &SlidingWindows,
        on_group: impl Fn(),
    ) -> Result<Vec<Array3<f32>>, Fault> {
        let scanned = preprocessed.scanned;
        let inside = [0, 1, 2].map(|axis| scanned.start[axis]..scanned.end()[axis]);
        let indices = &windows.plan.overlapping(&inside);
        self.infer(
            InferenceCall { stage, phase: InferencePhase::Mask, windows, indices, on_group: &on_group },
            &preprocessed.image,
            &inside,
        )
    }

    fn infer(
        &self,
        call: InferenceCall<'_>,
        image: &Array3<f32>,
        inside: &VoxelBox,
    ) -> Result<Vec<Array3<f32>>, Fault> {
        let InferenceCall { stage, phase, windows, indices, on_group } = call;
        let fault = |error: Error| {
            let kind = if self.service.is_lost() { FaultKind::Device } else { FaultKind::Network };
            Fault::new(stage, kind, error.to_string())
        };
        let not_arranged = |error: candle_core::Error| fault(Error::new(format!("cannot arrange windows: {error}")));
        let [x, y, z] = image.shape();
        let volume = Tensor::from_slice(image.as_slice(), (1, 1, z, y, x), &Device::Cpu)
            .and_then(|volume| volume.permute((0, 1, 4, 3, 2))?.contiguous())
            .map_err(not_arranged)?;
        let cost = RefCell::new(InferenceCost { calls: 1, ..InferenceCost::default() });
        let submit = |window: &Tensor| {
            let start = Instant::now();
            let pending = self.service.submit(&self.network, window.clone(), self.batching)?;
            cost.borrow_mut().waited_seconds += start.elapsed().as_secs_f64();
            Ok(|| {
                let start = Instant::now();
                let prediction = pending.wait()?;
                let mut cost = cost.borrow_mut();
                cost.waited_seconds += start.elapsed().as_secs_f64();
                cost.device_seconds += prediction.device_seconds;
                cost.windows += prediction.logits.dims().first().map_or(0, |&count| count as u64);
                on_group();
                Ok(prediction.logits)
            })
        };
        // Enough pending submissions to fill the next batch while the device computes the current one.
        let ahead = 2 * self.service.batch();
        let logits = windows.predict_windows(&volume, inside, indices, ahead, submit).map_err(fault)?;
        self.add_cost(phase, *cost.borrow());
        let shape = inside.clone().map(|range| range.len());
        let logits = logits.permute((0, 1, 4, 3, 2)).and_then(|logits| logits.flatten_all()?.to_vec1::<f32>());
        let logits = logits.map_err(not_arranged)?;
        let voxels: usize = shape.iter().product();
        Ok(logits.chunks_exact(voxels).map(|class| Array3::from_vec(shape, class.to_vec())).collect())
    }

    fn add_cost(&self, phase: InferencePhase, cost: InferenceCost) {
        let mut costs = self.costs.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = costs.entry(phase).or_default();
        sum.calls += cost.calls;
        sum.windows += cost.windows;
        sum.device_seconds += cost.device_seconds;
        sum.waited_seconds += cost.waited_seconds;
    }
}

/// The windows of one inference, and its purpose.
struct InferenceCall<'l> {
    stage: Stage,
    phase: InferencePhase,
    windows: &'l SlidingWindows,
    indices: &'l [usize],
    on_group: &'l dyn Fn(),
}

impl Prediction {
    /// Returns the likeliest class of each voxel of the box.
    pub fn ids(&self) -> Array3<u16> {
        likeliest(self.logits.iter().cloned()).unwrap_or_else(|| Array3::filled(self.region.shape, 0))
    }

    /// Returns the probability that a voxel, by its index in the box, is of one of `classes`: the sum of their softmax.
    pub fn probability(&self, voxel: usize, classes: &[usize]) -> f64 {
        let logit = |class: &Array3<f32>| class.as_slice()[voxel];
        let highest = self.logits.iter().map(logit).fold(f32::NEG_INFINITY, f32::max);
        let kernels = Class::current();
        let power = |class: &Array3<f32>| kernels.exp_f64(f64::from(logit(class) - highest));
        let all: f64 = self.logits.iter().map(power).sum();
        classes.iter().filter_map(|&class| self.logits.get(class)).map(power).sum::<f64>() / all
    }
}
