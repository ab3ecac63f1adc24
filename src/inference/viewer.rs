//! A network that looks at scans.

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
use crate::error::{ConfigError, Error, Fault, FaultKind, Result, Stage};
use crate::nn::device::DeviceKind;
use crate::nn::network::Model;
use crate::nn::ops::NormScope;
use crate::nn::predictor::{ExpectedNetwork, Predictor};
use crate::nn::service::{Batching, Service, WindowModel};
use crate::nn::windows::{SlidingWindows, VoxelBox};
use crate::simd::Class;
use crate::volume::{Array3, PreprocessedScan, Region, likeliest};

/// The networks of a process: each file of weights is read once, and all run on one device.
#[derive(Debug)]
pub struct Networks {
    service: Arc<Service>,
    opened: Mutex<BTreeMap<NetworkKey, Arc<Network>>>,
}

/// What tells one network in memory from another.
type NetworkKey = (PathBuf, Model, &'static str, Option<NormScope>);

struct Network {
    predictor: Arc<Predictor>,
    digest: String,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest)
    }
}

impl Networks {
    /// Networks that run on the device of `service`.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Arc<Self> {
        Arc::new(Self { service, opened: Mutex::default() })
    }

    /// The device on which they run.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Opens the network of a stage; `weights` is the path of its file, `default` the kind where the settings name none.
    ///
    /// # Errors
    /// Everything that is wrong with the settings, or what is wrong with the file.
    pub fn open(&self, config: &NetworkConfig, weights: &Path, default: Model) -> Result<Inference, Vec<ConfigError>> {
        let model = config.model.unwrap_or(default);
        let mut complaints = config.complaints(model.side_divisor());
        // A window that is looked at alone has the same statistics as its batch, and may share a batch with others all the same.
        let norm = match (model, config.windows) {
            (Model::UNet3D, Windows::Reference) => config.norm,
            _ => Some(NormScope::Instance),
        };
        let network = match self.network(weights, model, config, norm) {
            Ok(network) => Some(network),
            Err(error) => {
                let complaint = ConfigError::new("network.weights", error.to_string());
                complaints.push(match error.hint() {
                    Some(hint) => complaint.with_hint(hint),
                    None => complaint,
                });
                None
            }
        };
        if let Some(channels) = network.as_ref().map(|it| it.predictor.config().in_channels).filter(|it| *it != 1) {
            let message = format!("expected a network of one channel, the CT; these weights take {channels}");
            complaints.push(ConfigError::new("network.weights", message));
        }
        match network {
            Some(network) if complaints.is_empty() => {
                let Network { predictor, digest } = &*network;
                Ok(Inference::new(Arc::clone(predictor), config.clone(), Arc::clone(&self.service), digest.clone()))
            }
            _ => Err(complaints),
        }
    }

    fn network(
        &self,
        weights: &Path,
        model: Model,
        config: &NetworkConfig,
        norm: Option<NormScope>,
    ) -> Result<Arc<Network>> {
        let key = (weights.to_owned(), model, config.part.name(), norm);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = opened.get(&key) {
            return Ok(Arc::clone(network));
        }
        let digest = digest_of(weights)?;
        let wanted = ExpectedNetwork { model, part: config.part, classes: None, width: None, norm };
        let predictor = Arc::new(Predictor::open(weights, &wanted, &self.service.device()?)?);
        let network = Arc::new(Network { predictor, digest });
        opened.insert(key, Arc::clone(&network));
        Ok(network)
    }
}

/// SHA-256 of a file, in hexadecimal digits.
fn digest_of(path: &Path) -> Result<String> {
    let failed = |cause| Error::io("cannot read the weights", path, cause);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::new(format!("{} is no file", path.display())));
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

/// A network, the frame in which it looks at scans, and the device on which it runs.
#[derive(Clone)]
pub struct Inference {
    config: NetworkConfig,
    model: Model,
    classes: usize,
    digest: String,
    network: Arc<dyn WindowModel>,
    joining: Batching,
    service: Arc<Service>,
    meter: Arc<Mutex<BTreeMap<InferencePhase, InferenceCost>>>,
}

/// What a network looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InferencePhase {
    /// A whole scan, for its organs.
    Mask,
    /// The untouched scan at a site, for a difference map.
    Generate,
    /// The untouched scan at a site, to be compared with.
    Before,
    /// A candidate.
    After,
}

/// What looking cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct InferenceCost {
    /// How often it was looked.
    pub looks: u64,
    /// Windows that were answered.
    pub windows: u64,
    /// Seconds of the device.
    pub device_seconds: f64,
    /// Seconds that were waited for the device, over all threads.
    pub waited_seconds: f64,
}

impl fmt::Debug for Inference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").field("model", &self.model).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// What a network said of a box of a field: logits, averaged where windows overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The box.
    pub region: Region,
    /// One array of the box a channel of the network.
    pub logits: Vec<Array3<f32>>,
}

impl Inference {
    /// A network that was opened, with its settings and its device; `digest` is that of its weights.
    pub fn new(predictor: Arc<Predictor>, config: NetworkConfig, service: Arc<Service>, digest: String) -> Self {
        Self {
            config,
            model: predictor.model(),
            classes: predictor.config().classes,
            digest,
            joining: if predictor.config().norm == NormScope::Batch { Batching::Never } else { Batching::Freely },
            network: predictor,
            service,
            meter: Arc::default(),
        }
    }

    /// The settings.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// The kind of network and the digest of its weights, as tables record them.
    pub fn name(&self) -> String {
        format!("{}:{:.16}", self.model, self.digest)
    }

    /// SHA-256 of the file of weights.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The kernels that compute it: `portable`, `avx2`, `avx512` or a device. They decide the last bits of its results.
    pub fn kernel_class(&self) -> String {
        match self.service.place() {
            DeviceKind::Cpu => Class::current().name().to_owned(),
            DeviceKind::Cuda => "cuda".to_owned(),
        }
    }

    /// Channels of what it says.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The device on which it runs.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// What looking cost so far.
    pub fn efforts(&self) -> BTreeMap<InferencePhase, InferenceCost> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The windows for a tumor in the box `tumor` of a field.
    ///
    /// # Errors
    /// A fault of the stage where there is nothing to look at.
    pub fn layout(&self, stage: Stage, field: &Roi, tumor: Region) -> Result<Layout, Fault> {
        Layout::new(&self.config, field, tumor)
            .map_err(|error| Fault::new(stage, FaultKind::Geometry, error.to_string()))
    }

    /// Looks at the windows of a layout, and averages where they overlap over the box `region` of the field.
    ///
    /// # Errors
    /// A fault of the stage: of kind `network` where the network gives no finite numbers, of kind `device` where its device is gone.
    pub fn look(
        &self,
        stage: Stage,
        field: &Roi,
        layout: &Layout,
        change: Option<&RoiChange>,
        region: Region,
    ) -> Result<Prediction, Fault> {
        let image = field.image(layout.volume, self.config.window(), change);
        let inside = within(region, layout.volume);
        let phase = match (stage, change) {
            (Stage::Score, Some(_)) => InferencePhase::After,
            (Stage::Score, None) => InferencePhase::Before,
            _ => InferencePhase::Generate,
        };
        let looking =
            InferenceCall { stage, phase, windows: &layout.sliding(), which: &layout.windows, answered: &|| () };
        let seen = self.seen(looking, &image, &inside)?;
        Ok(Prediction { region, logits: seen })
    }

    /// Looks at all of a prepared scan: logits of the part that is no padding, an array a channel. `answered` is called after each
    /// group of windows.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn look_at_all(
        &self,
        stage: Stage,
        prepared: &PreprocessedScan,
        windows: &SlidingWindows,
        answered: impl Fn(),
    ) -> Result<Vec<Array3<f32>>, Fault> {
        let scanned = prepared.scanned;
        let inside = [0, 1, 2].map(|axis| scanned.start[axis]..scanned.end()[axis]);
        let which = &windows.plan.reaching(&inside);
        self.seen(
            InferenceCall { stage, phase: InferencePhase::Mask, windows, which, answered: &answered },
            &prepared.image,
            &inside,
        )
    }

    fn seen(
        &self,
        looking: InferenceCall<'_>,
        image: &Array3<f32>,
        inside: &VoxelBox,
    ) -> Result<Vec<Array3<f32>>, Fault> {
        let InferenceCall { stage, phase, windows, which, answered } = looking;
        let fault = |error: Error| {
            let kind = if self.service.is_lost() { FaultKind::Device } else { FaultKind::Network };
            Fault::new(stage, kind, error.to_string())
        };
        let arranged = |error: candle_core::Error| fault(Error::new(format!("cannot arrange windows: {error}")));
        let [x, y, z] = image.shape();
        let volume = Tensor::from_slice(image.as_slice(), (1, 1, z, y, x), &Device::Cpu)
            .and_then(|volume| volume.permute((0, 1, 4, 3, 2))?.contiguous())
            .map_err(arranged)?;
        let effort = RefCell::new(InferenceCost { looks: 1, ..InferenceCost::default() });
        let ask = |window: &Tensor| {
            let start = Instant::now();
            let pending = self.service.ask(&self.network, window.clone(), self.joining)?;
            effort.borrow_mut().waited_seconds += start.elapsed().as_secs_f64();
            Ok(|| {
                let start = Instant::now();
                let answer = pending.wait()?;
                let mut effort = effort.borrow_mut();
                effort.waited_seconds += start.elapsed().as_secs_f64();
                effort.device_seconds += answer.device_seconds;
                effort.windows += answer.logits.dims().first().map_or(0, |&count| count as u64);
                answered();
                Ok(answer.logits)
            })
        };
        // Enough on their way to fill the next batch while this one is worked on.
        let ahead = 2 * self.service.batch();
        let logits = windows.over(&volume, inside, which, ahead, ask).map_err(fault)?;
        self.note(phase, *effort.borrow());
        let shape = inside.clone().map(|range| range.len());
        let logits = logits.permute((0, 1, 4, 3, 2)).and_then(|logits| logits.flatten_all()?.to_vec1::<f32>());
        let logits = logits.map_err(arranged)?;
        let voxels: usize = shape.iter().product();
        Ok(logits.chunks_exact(voxels).map(|class| Array3::from_vec(shape, class.to_vec())).collect())
    }
}

/// What is looked at, and how.
struct InferenceCall<'l> {
    stage: Stage,
    phase: InferencePhase,
    windows: &'l SlidingWindows,
    which: &'l [usize],
    answered: &'l dyn Fn(),
}

impl Inference {
    fn note(&self, phase: InferencePhase, effort: InferenceCost) {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = meter.entry(phase).or_default();
        sum.looks += effort.looks;
        sum.windows += effort.windows;
        sum.device_seconds += effort.device_seconds;
        sum.waited_seconds += effort.waited_seconds;
    }
}

impl Prediction {
    /// The likeliest class of each voxel of the box.
    pub fn ids(&self) -> Array3<u16> {
        likeliest(self.logits.iter().cloned()).unwrap_or_else(|| Array3::filled(self.region.shape, 0))
    }

    /// How probable it is that a voxel, by its index in the box, is of one of `classes`: their softmax.
    pub fn probability(&self, voxel: usize, classes: &[usize]) -> f64 {
        let logit = |class: &Array3<f32>| class.as_slice()[voxel];
        let highest = self.logits.iter().map(logit).fold(f32::NEG_INFINITY, f32::max);
        let kernels = Class::current();
        let power = |class: &Array3<f32>| kernels.exp_f64(f64::from(logit(class) - highest));
        let all: f64 = self.logits.iter().map(power).sum();
        classes.iter().filter_map(|&class| self.logits.get(class)).map(power).sum::<f64>() / all
    }
}
