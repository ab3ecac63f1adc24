//! Networks on the command line, and inference on a scan.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::messages::style;
use super::scan::{triple, window};
use crate::error::{Error, Fault, Result, Stage};
use crate::inference::{Inference, MAX_VOXELS, NetworkConfig, ScanResampler};
use crate::nn::device::DeviceKind;
use crate::nn::network::Model;
use crate::nn::ops::NormScope;
use crate::nn::predictor::{ExpectedNetwork, Predictor};
use crate::nn::service::Service;
use crate::nn::weights::{NetworkPart, WeightsMetadata};
use crate::nn::windows::{Importance, SlidingWindows, WindowGrouping, WindowPlan};
use crate::volume::{Array3, Grid, HuWindow, Preprocess, Volume};

// A doc comment on a flattened struct would replace the help of the whole command.
#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "options for weights and preprocessing")]
pub struct NetworkArgs {
    /// The network to use, if the file contains several
    #[arg(long, value_enum)]
    pub part: Option<PartName>,
    /// Output channels of the network [default: as in the weights]
    #[arg(long, value_name = "N")]
    pub classes: Option<usize>,
    /// Features at the narrowest level of the network [default: as in the weights]
    #[arg(long, value_name = "W")]
    pub width: Option<usize>,
    /// Normalization layers of a U-Net, relevant for tensors of several samples [default: as in the weights, else batch]
    #[arg(long, value_enum)]
    pub norm: Option<NormName>,
    /// Voxels of a window: one number, or three separated by commas [default: as in the weights, else 96]
    #[arg(long, value_name = "N|X,Y,Z", allow_hyphen_values = true, value_parser = triple::<usize>)]
    pub roi: Option<Triple<usize>>,
    /// Overlap of neighbouring windows, as a share of the window
    #[arg(long, default_value_t = 0.5, allow_hyphen_values = true)]
    pub overlap: f64,
    /// Device that runs the network
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
    /// HU that are mapped to 0 and 1 [default: as in the weights, else -175,250]
    #[arg(long, value_name = "LOW,HIGH", allow_hyphen_values = true, value_parser = window)]
    pub window: Option<HuWindow>,
    /// Spacing of the network's input in millimetres [default: as in the weights, else 1.5]
    #[arg(long, value_name = "MM|X,Y,Z", value_parser = triple::<f64>)]
    pub spacing: Option<Triple<f64>>,
}

/// Three numbers, along [x, y, z].
pub type Triple<T> = [T; 3];

/// The kinds of networks, as values of the option `--model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelName {
    /// The 3-D U-Net of generator and discriminator.
    #[value(name = "unet3d")]
    UNet3d,
    /// Swin UNETR, second version: the segmentor.
    #[value(name = "swin_unetr")]
    SwinUnetr,
}

/// The networks that training saves in one file, as values of the option `--part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    /// Weights under `netG`
    Generator,
    /// Weights under `netD`
    Discriminator,
    /// Weights under `netSeg`
    Segmentor,
}

/// The normalization layers of a network, as values of the option `--norm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NormName {
    /// Batch norm, over all samples of a batch, as published
    Batch,
    /// Instance norm, over each sample separately
    Instance,
}

/// The devices for networks, as values of the option `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// The CPU, with all threads
    Cpu,
    /// The first NVIDIA GPU, in a build with CUDA
    Cuda,
}

impl DeviceName {
    /// Returns the kind of device.
    pub fn kind(self) -> DeviceKind {
        match self {
            Self::Cpu => DeviceKind::Cpu,
            Self::Cuda => DeviceKind::Cuda,
        }
    }
}

/// The preprocessing of a scan, from the options of the command line and the metadata of the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanPreprocessing {
    /// Voxels of a window.
    pub roi: Triple<usize>,
    /// HU that are mapped to 0 and 1.
    pub window: HuWindow,
    /// Spacing in millimetres.
    pub spacing: Triple<f64>,
}

/// A network with its weights, on its device.
pub struct LoadedNetwork {
    /// The network.
    pub predictor: Arc<Predictor>,
    inference: Inference,
    preprocessing: ScanPreprocessing,
}

impl ModelName {
    fn model(self) -> Model {
        match self {
            Self::UNet3d => Model::UNet3D,
            Self::SwinUnetr => Model::SwinUnetr,
        }
    }
}

impl NetworkArgs {
    /// Returns the preprocessing: each setting from its flag, else from the metadata of the weights, else the published default.
    pub fn preprocessing(&self, weights: &Path) -> ScanPreprocessing {
        let metadata = WeightsMetadata::of(weights);
        let window = metadata.window_hu.map(|[low_hu, high_hu]| HuWindow { low_hu, high_hu });
        ScanPreprocessing {
            roi: self.roi.or(metadata.patch_voxels).unwrap_or([96; 3]),
            window: self.window.or(window).unwrap_or(HuWindow::ABDOMEN),
            spacing: self.spacing.or(metadata.spacing_mm).unwrap_or([1.5; 3]),
        }
    }

    /// Checks the size and overlap of windows.
    ///
    /// # Errors
    /// If the network does not support windows of this size, or the overlap is not below 1.
    pub fn check_windows(&self, model: ModelName, weights: &Path) -> Result<()> {
        let (model, roi) = (model.model(), self.preprocessing(weights).roi);
        let divisor = model.side_divisor();
        if !(0.0..1.0).contains(&self.overlap) {
            return Err(Error::new(format!(
                "--overlap {}: expected a fraction of at least 0 and below 1",
                self.overlap
            )));
        }
        let voxels = roi.iter().try_fold(1usize, |all, side| all.checked_mul(*side));
        if voxels.is_none_or(|voxels| voxels > MAX_VOXELS) {
            return Err(Error::new(format!("--roi {roi:?}: expected a window of at most {MAX_VOXELS} voxels (256³)")));
        }
        if roi.iter().all(|side| *side > 0 && side % divisor == 0) {
            return Ok(());
        }
        Err(Error::new(format!("--roi {roi:?}: expected sides that are multiples of {divisor} for {model}"))
            .with_hint(format!("pass --roi {}", roi[0].next_multiple_of(divisor).max(divisor))))
    }

    /// Opens the network of a file of weights.
    ///
    /// # Errors
    /// The errors of [`Predictor::open`], or an error if the device does not exist.
    pub fn open(&self, model: ModelName, weights: &Path) -> Result<LoadedNetwork> {
        let part = match self.part {
            None => NetworkPart::Whole,
            Some(PartName::Generator) => NetworkPart::Generator,
            Some(PartName::Discriminator) => NetworkPart::Discriminator,
            Some(PartName::Segmentor) => NetworkPart::Segmentor,
        };
        let norm = match (self.norm, model) {
            (Some(NormName::Batch), ModelName::SwinUnetr) => {
                return Err(Error::new("--norm batch: swin_unetr supports only instance norm").with_hint("omit --norm"));
            }
            (Some(NormName::Batch), ModelName::UNet3d) => Some(NormScope::Batch),
            (Some(NormName::Instance), _) => Some(NormScope::Instance),
            (None, _) => None,
        };
        let expected = ExpectedNetwork { model: model.model(), part, classes: self.classes, width: self.width, norm };
        let service = Service::new(self.device.kind(), 1);
        let predictor = Arc::new(Predictor::open(weights, &expected, &service.device()?)?);
        if predictor.ignores_statistics() {
            tracing::warn!(
                "{}: the running statistics in the weights are ignored: normalization layers use the statistics of their input, as published",
                weights.display()
            );
        }
        let inference = Inference::new(Arc::clone(&predictor), NetworkConfig::new(weights), service, String::new());
        Ok(LoadedNetwork { predictor, inference, preprocessing: self.preprocessing(weights) })
    }

    /// Runs a network on a scan; `path` names the scan in errors.
    ///
    /// # Errors
    /// If the options contradict each other, the scan cannot be preprocessed, or the output is not finite.
    pub fn infer(&self, network: &LoadedNetwork, scan: &Volume, path: &Path) -> Result<ScanPrediction> {
        let ScanPreprocessing { roi, window, spacing } = network.preprocessing;
        let preprocess = Preprocess::new(spacing, window, roi).map_err(|errors| {
            let message =
                errors.first().map_or(String::new(), |error| format!("--{}: {}", flag(&error.field), error.message));
            Error::new(message)
        })?;
        let path: PathBuf = path.to_owned();
        let failed = |fault: Fault| Error::new(format!("{}: {}", path.display(), fault.message)).with_source(fault);
        let prepared = preprocess.apply(scan, None).map_err(failed)?;
        let plan = WindowPlan::new(prepared.image.shape(), roi, [self.overlap; 3])?;
        let windows = SlidingWindows { plan, importance: Importance::Constant, grouping: WindowGrouping::Alone };
        let scanned = [0, 1, 2].map(|axis| prepared.scanned.start[axis]..prepared.scanned.end()[axis]);
        let calls = windows.call_count(1, &scanned);
        let bar = if style().has_bar() { ProgressBar::new(calls as u64) } else { ProgressBar::hidden() };
        let logits =
            network.inference.predict_scan(Stage::Mask, &prepared, &windows, || bar.inc(1)).map_err(|fault| {
                bar.abandon();
                failed(fault).with_hint("check that the weights were trained on scans of this kind")
            })?;
        bar.finish_and_clear();
        let resampler = ScanResampler::new(&scan.grid, &prepared).map_err(failed)?;
        Ok(ScanPrediction { resampler, probabilities: ScanResampler::softmax(logits), windows: calls })
    }
}

/// Returns the flag for a setting of preprocessing.
fn flag(field: &str) -> &str {
    match field.split('.').next().unwrap_or(field) {
        "spacing_mm" => "spacing",
        "window_hu" => "window",
        "patch_voxels" => "roi",
        other => other,
    }
}

/// The prediction of a network for a scan, which is resampled to the scan's own grid.
pub struct ScanPrediction {
    resampler: ScanResampler,
    probabilities: Vec<Array3<f32>>,
    /// The number of windows that the network computed.
    pub windows: usize,
}

impl ScanPrediction {
    /// Returns the scan's grid.
    pub fn grid(&self) -> Grid {
        self.resampler.grid()
    }

    /// Returns the number of classes.
    pub fn num_classes(&self) -> usize {
        self.probabilities.len()
    }

    /// Iterates over the probabilities of each class on the scan's grid.
    pub fn classes(&self) -> impl Iterator<Item = Array3<f32>> + '_ {
        self.resampler.classes(&self.probabilities)
    }

    /// Returns the most probable class of each voxel of the scan.
    pub fn labels(&self) -> Array3<u16> {
        self.resampler.labels(&self.probabilities)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;
    use crate::nn::weights::{Precision, write_safetensors};

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        network: NetworkArgs,
    }

    #[test]
    fn preprocessing_uses_flags_then_weights_then_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let write = |metadata: &[(&str, &str)]| {
            let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut file = std::fs::File::create(&path).unwrap();
            write_safetensors(&mut file, &BTreeMap::new(), &metadata, Precision::Single).unwrap();
        };
        let preprocessing =
            |flags: &[&str]| Flags::parse_from([&["command"], flags].concat()).network.preprocessing(&path);
        let published = ScanPreprocessing { roi: [96; 3], window: HuWindow::ABDOMEN, spacing: [1.5; 3] };
        assert_eq!(preprocessing(&[]), published, "without a file");
        write(&[("norm", "instance"), ("window_hu", "[250.0,-175.0]")]);
        assert_eq!(preprocessing(&[]), published, "without valid metadata");
        write(&[("window_hu", "[-1000.0,500.0]"), ("spacing_mm", "[4.0,4.0,5.0]"), ("patch_voxels", "[32,32,16]")]);
        let own = ScanPreprocessing { roi: [32, 32, 16], window: HuWindow::CHEST, spacing: [4.0, 4.0, 5.0] };
        assert_eq!(preprocessing(&[]), own);
        assert_eq!(
            preprocessing(&["--spacing", "2", "--roi", "64"]),
            ScanPreprocessing { roi: [64; 3], spacing: [2.0; 3], ..own }
        );
    }
}
