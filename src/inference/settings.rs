//! The settings of a stage's network.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::nn::network::Model;
use crate::nn::ops::NormScope;
use crate::nn::weights::NetworkPart;
use crate::volume::HuWindow;

/// The maximum number of voxels of a window: the features of one layer of a larger window take gigabytes.
pub const MAX_VOXELS: usize = 256 * 256 * 256;

/// The settings of a stage's network: its weights, and the preprocessing and windows of its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// The file of the network's weights: safetensors, or a checkpoint of PyTorch (.pt). Relative to the graph file; `${NAME}` is an
    /// environment variable.
    pub weights: PathBuf,
    /// The kind of network; by default, `swin_unetr` for segmentors and `unet3d` for the other stages.
    #[serde(default)]
    pub model: Option<Model>,
    /// The network to read, if training saved several networks in one file.
    #[serde(default)]
    pub part: NetworkPart,
    /// The kind of a U-Net's normalization layers: `batch` (batch norm) or `instance` (instance norm); by default, the kind that the file
    /// of weights names, or else `batch` as published. For a window that is computed alone, both kinds return the same prediction.
    #[serde(default)]
    pub norm: Option<NormScope>,
    /// The HU that are mapped to 0 and 1.
    #[serde(default = "abdomen_hu")]
    pub window_hu: [f32; 2],
    /// The voxel spacing of the network's input in millimetres, along [x, y, z] of RAS.
    #[serde(default = "abdomen_mm")]
    pub spacing_mm: [f64; 3],
    /// The voxels of one window along [x, y, z].
    #[serde(default = "published_window")]
    pub roi_voxels: [usize; 3],
    /// The windows on which the network infers.
    #[serde(default)]
    pub windows: Windows,
    /// The fraction of a window that overlaps the next window, 0 to below 1.
    #[serde(default = "published_overlap")]
    pub overlap: f64,
    /// The number of windows in one batch with `windows = "reference"`, in scan order: with batch norm,
    /// the prediction for a window depends on the other windows of its batch.
    #[serde(default = "published_group")]
    pub group: usize,
}

/// The windows on which a network infers for one tumor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Windows {
    /// One window centred on the tumor; several overlapping windows if the tumor is larger than a window.
    #[default]
    Centred,
    /// Only the windows that overlap the tumor's box, of the windows that cover the organ's box, each computed alone: inside the tumor's
    /// box, the numbers are the same as from all windows.
    Reaching,
    /// All windows that cover the organ's box, in groups in scan order, as published: with batch norm, the prediction for a window
    /// depends on the other windows of its group.
    Reference,
}

fn abdomen_hu() -> [f32; 2] {
    [HuWindow::ABDOMEN.low_hu, HuWindow::ABDOMEN.high_hu]
}

fn abdomen_mm() -> [f64; 3] {
    [1.5; 3]
}

fn published_window() -> [usize; 3] {
    [96; 3]
}

fn published_overlap() -> f64 {
    0.75
}

fn published_group() -> usize {
    4
}

impl NetworkConfig {
    /// Returns the settings of a published network of the abdomen.
    pub fn new(weights: impl Into<PathBuf>) -> Self {
        Self {
            weights: weights.into(),
            model: None,
            part: NetworkPart::Whole,
            norm: None,
            window_hu: abdomen_hu(),
            spacing_mm: abdomen_mm(),
            roi_voxels: published_window(),
            windows: Windows::default(),
            overlap: published_overlap(),
            group: published_group(),
        }
    }

    /// Returns the HU that are mapped to 0 and 1.
    pub fn window(&self) -> HuWindow {
        let [low_hu, high_hu] = self.window_hu;
        HuWindow { low_hu, high_hu }
    }

    /// Returns all errors in the settings, for a network whose windows have sides that are multiples of `divisor`.
    pub(super) fn errors(&self, divisor: usize) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut push =
            |field: &str, message: String| errors.push(ConfigError::new(format!("network.{field}"), message));
        let [low, high] = self.window_hu;
        if !(low < high && low.is_finite() && high.is_finite()) {
            push("window_hu", format!("expected two numbers of HU in ascending order, got [{low}, {high}]"));
        }
        if !self.spacing_mm.iter().all(|mm| (0.1..=20.0).contains(mm)) {
            push("spacing_mm", format!("expected three numbers from 0.1 to 20 mm, got {:?}", self.spacing_mm));
        }
        if self.roi_voxels.iter().any(|&side| side == 0 || side % divisor > 0) {
            let message = format!("expected sides that are multiples of {divisor}, got {:?}", self.roi_voxels);
            push("roi_voxels", message);
        }
        let voxels = self.roi_voxels.iter().try_fold(1usize, |all, side| all.checked_mul(*side));
        if voxels.is_none_or(|voxels| voxels > MAX_VOXELS) {
            let message = format!("expected a window of at most {MAX_VOXELS} voxels (256³), got {:?}", self.roi_voxels);
            push("roi_voxels", message);
        }
        if !(0.0..1.0).contains(&self.overlap) {
            push("overlap", format!("expected a fraction of at least 0 and below 1, got {}", self.overlap));
        }
        if !(1..=64).contains(&self.group) {
            push("group", format!("expected 1 to 64 windows, got {}", self.group));
        }
        errors
    }
}
