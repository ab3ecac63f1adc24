//! The settings of a stage's network.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::nn::network::Model;
use crate::nn::ops::NormScope;
use crate::nn::weights::NetworkPart;
use crate::volume::HuWindow;

/// Voxels of a window: beyond, the features of one layer alone are gigabytes.
pub const MOST_VOXELS: usize = 256 * 256 * 256;

/// A network, and how it looks at scans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// File of its weights: safetensors, or a checkpoint of PyTorch (.pt). Relative to the graph file; `${NAME}` is an environment
    /// variable.
    pub weights: PathBuf,
    /// The kind of network; the stage's default where absent: `swin_unetr` for segmentors, `unet3d` for the others.
    #[serde(default)]
    pub model: Option<Model>,
    /// Which of the networks in the file, where training saved several together.
    #[serde(default)]
    pub part: NetworkPart,
    /// Over what the norms of a U-Net take their statistics, `batch` or `instance`; where absent, what the file of weights says, or else
    /// `batch` as published. Windows that are looked at alone are the same in both.
    #[serde(default)]
    pub norm: Option<NormScope>,
    /// HU that become 0 and 1.
    #[serde(default = "abdomen_hu")]
    pub window_hu: [f32; 2],
    /// Millimetres between the voxels that it sees, along [x, y, z] of RAS.
    #[serde(default = "abdomen_mm")]
    pub spacing_mm: [f64; 3],
    /// Voxels of one window along [x, y, z].
    #[serde(default = "patch")]
    pub roi_voxels: [usize; 3],
    /// Which windows it looks at.
    #[serde(default)]
    pub windows: Windows,
    /// How much of a window the next one shares, 0 to below 1.
    #[serde(default = "published_overlap")]
    pub overlap: f64,
    /// Windows that it sees together with `windows = "reference"`, in scan order: norms per batch mix them.
    #[serde(default = "published_group")]
    pub group: usize,
}

/// The windows on which a network infers for one tumor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Windows {
    /// One window with the tumor in its middle; several, at the overlap, where the tumor is larger than a window.
    #[default]
    Centred,
    /// Of the windows that cover the organ's box at the overlap, those that reach the tumor's box, each by itself: inside of the box the
    /// same numbers as from all of them.
    Reaching,
    /// All windows that cover the organ's box, in groups in scan order, as published: with norms per batch a window's answer depends on the
    /// others of its group.
    Reference,
}

fn abdomen_hu() -> [f32; 2] {
    [HuWindow::ABDOMEN.low_hu, HuWindow::ABDOMEN.high_hu]
}

fn abdomen_mm() -> [f64; 3] {
    [1.5; 3]
}

fn patch() -> [usize; 3] {
    [96; 3]
}

fn published_overlap() -> f64 {
    0.75
}

fn published_group() -> usize {
    4
}

impl NetworkConfig {
    /// The settings of a published network of the abdomen.
    pub fn new(weights: impl Into<PathBuf>) -> Self {
        Self {
            weights: weights.into(),
            model: None,
            part: NetworkPart::Whole,
            norm: None,
            window_hu: abdomen_hu(),
            spacing_mm: abdomen_mm(),
            roi_voxels: patch(),
            windows: Windows::default(),
            overlap: published_overlap(),
            group: published_group(),
        }
    }

    /// The HU that become 0 and 1.
    pub fn window(&self) -> HuWindow {
        let [low_hu, high_hu] = self.window_hu;
        HuWindow { low_hu, high_hu }
    }

    /// Everything that is wrong with the settings themselves, for a network whose windows have sides that are multiples of `divisor`.
    pub(super) fn complaints(&self, divisor: usize) -> Vec<ConfigError> {
        let mut complaints = Vec::new();
        let mut say =
            |field: &str, message: String| complaints.push(ConfigError::new(format!("network.{field}"), message));
        let [low, high] = self.window_hu;
        if !(low < high && low.is_finite() && high.is_finite()) {
            say("window_hu", format!("expected a lower and a higher number of HU, got [{low}, {high}]"));
        }
        if !self.spacing_mm.iter().all(|mm| (0.1..=20.0).contains(mm)) {
            say("spacing_mm", format!("expected three numbers from 0.1 to 20 mm, got {:?}", self.spacing_mm));
        }
        if self.roi_voxels.iter().any(|&side| side == 0 || side % divisor > 0) {
            let message = format!("expected sides that are multiples of {divisor}, got {:?}", self.roi_voxels);
            say("roi_voxels", message);
        }
        let voxels = self.roi_voxels.iter().try_fold(1usize, |all, side| all.checked_mul(*side));
        if voxels.is_none_or(|voxels| voxels > MOST_VOXELS) {
            let message =
                format!("expected a window of at most {MOST_VOXELS} voxels (256³), got {:?}", self.roi_voxels);
            say("roi_voxels", message);
        }
        if !(0.0..1.0).contains(&self.overlap) {
            say("overlap", format!("expected a share from 0 to below 1, got {}", self.overlap));
        }
        if !(1..=64).contains(&self.group) {
            say("group", format!("expected 1 to 64 windows, got {}", self.group));
        }
        complaints
    }
}
