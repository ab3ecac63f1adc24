//! A network that a command is given, and what it makes of a scan.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

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

// Text in front of a flattened struct would become that of the whole command.
#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "how weights are read, and how scans are shown to their network")]
pub struct NetworkArgs {
    /// Which network, where the file holds several
    #[arg(long, value_enum)]
    pub part: Option<PartName>,
    /// Channels of the network's output [default: what the weights have]
    #[arg(long, value_name = "N")]
    pub classes: Option<usize>,
    /// Features where the network is narrowest [default: what the weights have]
    #[arg(long, value_name = "W")]
    pub width: Option<usize>,
    /// Over what the norms of a U-Net take their statistics; it matters for tensors of several samples [default: batch]
    #[arg(long, value_enum)]
    pub norm: Option<NormName>,
    /// Voxels of a window: one number, or three with commas between them [default: what the weights say, else 96]
    #[arg(long, value_name = "N|X,Y,Z", allow_hyphen_values = true, value_parser = triple::<usize>)]
    pub roi: Option<Triple<usize>>,
    /// How much of a window the next one shares
    #[arg(long, default_value_t = 0.5, allow_hyphen_values = true)]
    pub overlap: f64,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
    /// HU that become 0 and 1 [default: what the weights say, else -175,250]
    #[arg(long, value_name = "LOW,HIGH", allow_hyphen_values = true, value_parser = window)]
    pub window: Option<HuWindow>,
    /// Millimetres between the voxels that the network sees [default: what the weights say, else 1.5]
    #[arg(long, value_name = "MM|X,Y,Z", value_parser = triple::<f64>)]
    pub spacing: Option<Triple<f64>>,
}

/// Three numbers, along [x, y, z].
pub type Triple<T> = [T; 3];

/// The kinds of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelName {
    /// The 3-D U-Net of generator and discriminator.
    #[value(name = "unet3d")]
    UNet3d,
    /// Swin UNETR, second version: the segmentor.
    #[value(name = "swin_unetr")]
    SwinUnetr,
}

/// The networks that training saves together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    /// What is under `netG`.
    Generator,
    /// What is under `netD`.
    Discriminator,
    /// What is under `netSeg`.
    Segmentor,
}

/// Over what norms take their statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NormName {
    /// Over all samples of a batch, as published.
    Batch,
    /// Over each sample by itself.
    Instance,
}

/// Where networks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// The processor, all its threads.
    Cpu,
    /// The first NVIDIA card, in a build with CUDA.
    Cuda,
}

impl DeviceName {
    /// The device of that name.
    pub fn place(self) -> DeviceKind {
        match self {
            Self::Cpu => DeviceKind::Cpu,
            Self::Cuda => DeviceKind::Cuda,
        }
    }
}

/// How scans are shown to a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanPreprocessing {
    /// Voxels of a window.
    pub roi: Triple<usize>,
    /// HU that become 0 and 1.
    pub window: HuWindow,
    /// Millimetres between voxels.
    pub spacing: Triple<f64>,
}

/// A network with its weights, on its device.
pub struct LoadedNetwork {
    /// The network by itself.
    pub predictor: Arc<Predictor>,
    viewer: Inference,
    frame: ScanPreprocessing,
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
    /// What the flags say, else what training wrote into the weights, else the published numbers.
    pub fn frame(&self, weights: &Path) -> ScanPreprocessing {
        let said = WeightsMetadata::of(weights);
        let window = said.window_hu.map(|[low_hu, high_hu]| HuWindow { low_hu, high_hu });
        ScanPreprocessing {
            roi: self.roi.or(said.patch_voxels).unwrap_or([96; 3]),
            window: self.window.or(window).unwrap_or(HuWindow::ABDOMEN),
            spacing: self.spacing.or(said.spacing_mm).unwrap_or([1.5; 3]),
        }
    }

    /// # Errors
    /// Where the network cannot be shown such windows.
    pub fn check_windows(&self, model: ModelName, weights: &Path) -> Result<()> {
        let (model, roi) = (model.model(), self.frame(weights).roi);
        let divisor = model.side_divisor();
        if !(0.0..1.0).contains(&self.overlap) {
            return Err(Error::new(format!("--overlap {}: expected a share from 0 to below 1", self.overlap)));
        }
        let voxels = roi.iter().try_fold(1usize, |all, side| all.checked_mul(*side));
        if voxels.is_none_or(|voxels| voxels > MAX_VOXELS) {
            return Err(Error::new(format!("--roi {roi:?}: expected a window of at most {MAX_VOXELS} voxels (256³)")));
        }
        if roi.iter().all(|side| *side > 0 && side % divisor == 0) {
            return Ok(());
        }
        Err(Error::new(format!("--roi {roi:?}: {model} takes sides that are multiples of {divisor}"))
            .with_hint(format!("for example --roi {}", roi[0].next_multiple_of(divisor).max(divisor))))
    }

    /// Opens the network of a file of weights.
    ///
    /// # Errors
    /// As for [`Predictor::open`], and where there is no such device.
    pub fn open(&self, model: ModelName, weights: &Path) -> Result<LoadedNetwork> {
        let part = match self.part {
            None => NetworkPart::Whole,
            Some(PartName::Generator) => NetworkPart::Generator,
            Some(PartName::Discriminator) => NetworkPart::Discriminator,
            Some(PartName::Segmentor) => NetworkPart::Segmentor,
        };
        let norm = match (self.norm, model) {
            (Some(NormName::Batch), ModelName::SwinUnetr) => {
                return Err(Error::new("--norm batch: swin_unetr has norms per instance").with_hint("leave --norm out"));
            }
            (Some(NormName::Batch), ModelName::UNet3d) => Some(NormScope::Batch),
            (Some(NormName::Instance), _) => Some(NormScope::Instance),
            (None, _) => None,
        };
        let wanted = ExpectedNetwork { model: model.model(), part, classes: self.classes, width: self.width, norm };
        let service = Service::new(self.device.place(), 1);
        let predictor = Arc::new(Predictor::open(weights, &wanted, &service.device()?)?);
        if predictor.ignores_statistics() {
            tracing::warn!(
                "{}: running statistics of norms are not used: norms take those of what they are given, as published",
                weights.display()
            );
        }
        let viewer = Inference::new(Arc::clone(&predictor), NetworkConfig::new(weights), service, String::new());
        Ok(LoadedNetwork { predictor, viewer, frame: self.frame(weights) })
    }

    /// Shows a scan to a network; `path` is what the scan is called in errors.
    ///
    /// # Errors
    /// Where the options contradict each other, the scan cannot be prepared, or the network gives no numbers.
    pub fn look(&self, network: &LoadedNetwork, scan: &Volume, path: &Path) -> Result<ScanPrediction> {
        let ScanPreprocessing { roi, window, spacing } = network.frame;
        let preprocess = Preprocess::new(spacing, window, roi).map_err(|complaints| {
            let message =
                complaints.first().map_or(String::new(), |it| format!("--{}: {}", flag(&it.field), it.message));
            Error::new(message)
        })?;
        let place: PathBuf = path.to_owned();
        let failed = |fault: Fault| Error::new(format!("{}: {}", place.display(), fault.message)).with_source(fault);
        let prepared = preprocess.apply(scan, None).map_err(failed)?;
        let plan = WindowPlan::new(prepared.image.shape(), roi, [self.overlap; 3])?;
        let windows = SlidingWindows { plan, importance: Importance::Constant, grouping: WindowGrouping::Alone };
        let scanned = [0, 1, 2].map(|axis| prepared.scanned.start[axis]..prepared.scanned.end()[axis]);
        let calls = windows.call_count(1, &scanned);
        // Drawn on a terminal only.
        let bar = ProgressBar::new(calls as u64);
        let logits = network.viewer.predict_scan(Stage::Mask, &prepared, &windows, || bar.inc(1)).map_err(|fault| {
            bar.abandon();
            failed(fault).with_hint("are weights and input of one kind?")
        })?;
        bar.finish_and_clear();
        let on_scan = ScanResampler::new(&scan.grid, &prepared).map_err(failed)?;
        Ok(ScanPrediction { on_scan, probabilities: ScanResampler::softmax(logits), windows: calls })
    }
}

/// The flag for a setting of preprocessing.
fn flag(field: &str) -> &str {
    match field.split('.').next().unwrap_or(field) {
        "spacing_mm" => "spacing",
        "window_hu" => "window",
        "patch_voxels" => "roi",
        other => other,
    }
}

/// What a network saw in a scan, and the way back to the scan's own grid.
pub struct ScanPrediction {
    on_scan: ScanResampler,
    probabilities: Vec<Array3<f32>>,
    /// Windows that the network looked at.
    pub windows: usize,
}

impl ScanPrediction {
    /// The scan's grid.
    pub fn grid(&self) -> Grid {
        self.on_scan.grid()
    }

    /// Number of classes.
    pub fn count(&self) -> usize {
        self.probabilities.len()
    }

    /// How probable each class is, one class after the other, on the scan's grid.
    pub fn classes(&self) -> impl Iterator<Item = Array3<f32>> + '_ {
        self.on_scan.classes(&self.probabilities)
    }

    /// The likeliest class of each voxel of the scan.
    pub fn labels(&self) -> Array3<u16> {
        self.on_scan.labels(&self.probabilities)
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
    fn scans_are_shown_as_flags_say_then_weights_then_the_paper() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let written = |about: &[(&str, &str)]| {
            let about = about.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut file = std::fs::File::create(&path).unwrap();
            write_safetensors(&mut file, &BTreeMap::new(), &about, Precision::Single).unwrap();
        };
        let frame = |flags: &[&str]| Flags::parse_from([&["it"], flags].concat()).network.frame(&path);
        let published = ScanPreprocessing { roi: [96; 3], window: HuWindow::ABDOMEN, spacing: [1.5; 3] };
        assert_eq!(frame(&[]), published, "where there is no file");
        written(&[("norm", "instance"), ("window_hu", "[250.0,-175.0]")]);
        assert_eq!(frame(&[]), published, "what says nothing of it, or nonsense");
        written(&[("window_hu", "[-1000.0,500.0]"), ("spacing_mm", "[4.0,4.0,5.0]"), ("patch_voxels", "[32,32,16]")]);
        let own = ScanPreprocessing { roi: [32, 32, 16], window: HuWindow::CHEST, spacing: [4.0, 4.0, 5.0] };
        assert_eq!(frame(&[]), own);
        assert_eq!(
            frame(&["--spacing", "2", "--roi", "64"]),
            ScanPreprocessing { roi: [64; 3], spacing: [2.0; 3], ..own }
        );
    }
}
