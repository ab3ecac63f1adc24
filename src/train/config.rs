//! Settings that the stages share.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::{RateCurve, ScheduleConfig};
use crate::error::ConfigError;
use crate::nn::network::{Config, Model};
use crate::nn::ops::NormScope;
use crate::nn::optimise::AdamConfig;
use crate::volume::{HuWindow, Preprocess};

/// What a network sees of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreprocessConfig {
    /// Millimetres between voxels along [x, y, z].
    pub spacing_mm: [f64; 3],
    /// HU that become 0 and 1.
    pub window_hu: [f32; 2],
    /// Voxels of a crop along [x, y, z].
    pub patch_voxels: [usize; 3],
}

impl Default for PreprocessConfig {
    /// The abdomen's.
    fn default() -> Self {
        Self { spacing_mm: [1.5; 3], window_hu: [-175.0, 250.0], patch_voxels: [96; 3] }
    }
}

impl PreprocessConfig {
    /// The preprocessing itself.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn build(&self) -> Result<Preprocess, Vec<ConfigError>> {
        let [low_hu, high_hu] = self.window_hu;
        Preprocess::new(self.spacing_mm, HuWindow { low_hu, high_hu }, self.patch_voxels)
    }

    /// What is wrong with crops of this size for a network.
    pub fn complaints_for(&self, model: Model) -> Vec<ConfigError> {
        let divisor = model.side_divisor();
        if self.patch_voxels.iter().all(|side| *side > 0 && side % divisor == 0) {
            return Vec::new();
        }
        let message = format!("{model} takes sides that are multiples of {divisor}, got {:?}", self.patch_voxels);
        vec![ConfigError::new("patch_voxels", message)]
    }
}

/// Features of the widest network that is trained: the published ones have 32 and 48.
const MOST_FEATURES: usize = 256;

/// The kinds of networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModelName {
    /// The 3-D U-Net.
    #[default]
    #[serde(rename = "unet3d")]
    UNet3d,
    /// Swin UNETR, second version.
    #[serde(rename = "swin_unetr")]
    SwinUnetr,
}

impl ModelName {
    /// The kind itself.
    pub fn model(self) -> Model {
        match self {
            Self::UNet3d => Model::UNet3D,
            Self::SwinUnetr => Model::SwinUnetr,
        }
    }
}

/// Over what norms take their statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Each sample by itself: an answer does not depend on what else is in the batch.
    #[default]
    Instance,
    /// The whole batch, as the published generator and discriminator do.
    Batch,
}

/// A network to be trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The kind.
    pub model: ModelName,
    /// Features where it is narrowest: 4 gives levels of 8, 16, 32 and 64; the published U-Net has 32, the published
    /// Swin UNETR 48. The published one's unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Over what its norms take their statistics.
    pub norm: Norm,
    /// Weights to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

impl NetworkConfig {
    /// The network of so many classes.
    pub fn build(&self, classes: usize) -> Config {
        let published = self.model.model().published();
        let norm = match self.norm {
            Norm::Instance => NormScope::Instance,
            Norm::Batch => NormScope::Batch,
        };
        Config { classes, width: self.width.unwrap_or(published.width), norm, ..published }
    }

    /// Everything that is wrong with the settings.
    pub fn complaints(&self) -> Vec<ConfigError> {
        let mut complaints = Vec::new();
        if self.model == ModelName::SwinUnetr && self.norm == Norm::Batch {
            complaints.push(ConfigError::new("norm", "swin_unetr has norms per instance only, got batch"));
        }
        match (self.model, self.width) {
            (_, Some(width)) if !(1..=MOST_FEATURES).contains(&width) => {
                let message = format!("expected 1 to {MOST_FEATURES} features, got {width}");
                complaints.push(ConfigError::new("width", message));
            }
            (ModelName::SwinUnetr, Some(width)) if width % 12 != 0 => {
                let message = format!("swin_unetr takes a width that is a multiple of 12, got {width}");
                complaints.push(ConfigError::new("width", message));
            }
            _ => {}
        }
        complaints
    }
}

/// How a network learns: AdamW with amsgrad unless set otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserConfig {
    /// The full learning rate.
    pub rate: f64,
    /// How fast the two moments forget.
    pub betas: [f64; 2],
    /// The share of a parameter, times the rate, that each step takes from it.
    pub weight_decay: f64,
    /// Whether the second moment never falls.
    pub amsgrad: bool,
    /// How the rate changes.
    pub schedule: ScheduleConfig,
}

impl Default for OptimiserConfig {
    /// The segmentor's: 3e-4, decay 0.01, amsgrad, cosine.
    fn default() -> Self {
        Self { rate: 3e-4, betas: [0.9, 0.999], weight_decay: 0.01, amsgrad: true, schedule: ScheduleConfig::default() }
    }
}

impl OptimiserConfig {
    /// The optimiser's own numbers.
    pub fn adam(&self) -> AdamConfig {
        let Self { betas, weight_decay, amsgrad, .. } = *self;
        AdamConfig { betas, weight_decay, amsgrad, ..AdamConfig::default() }
    }

    /// Everything that is wrong with the settings, for a run of so many steps.
    pub fn complaints(&self, steps: u64) -> Vec<ConfigError> {
        let mut complaints = within("schedule", self.schedule.complaints(steps));
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            complaints
                .push(ConfigError::new("rate", format!("expected a rate above 0 and up to 1, got {}", self.rate)));
        }
        if self.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) {
            let message = format!("expected two numbers from 0 and below 1, got {:?}", self.betas);
            complaints.push(ConfigError::new("betas", message));
        }
        if !(0.0..=1.0).contains(&self.weight_decay) {
            let message = format!("expected a share from 0 to 1, got {}", self.weight_decay);
            complaints.push(ConfigError::new("weight_decay", message));
        }
        complaints
    }
}

/// How generator and discriminator learn: Adam.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdversarialConfig {
    /// The full learning rate of both.
    pub rate: f64,
    /// How fast the two moments forget.
    pub betas: [f64; 2],
    /// How the rate goes on after the warm-up.
    pub course: RateCurve,
    /// Steps over which the rate rises to its full height.
    pub warmup_steps: u64,
}

impl Default for AdversarialConfig {
    /// As published: 1e-4, betas 0 and 0.999, a rate that stays.
    fn default() -> Self {
        Self { rate: 1e-4, betas: [0.0, 0.999], course: RateCurve::Constant, warmup_steps: 0 }
    }
}

impl AdversarialConfig {
    /// The same as an optimiser of any kind.
    pub fn optimiser(&self) -> OptimiserConfig {
        let Self { rate, betas, course, warmup_steps } = *self;
        let schedule = ScheduleConfig { course, warmup_steps, final_share: 0.0 };
        OptimiserConfig { rate, betas, weight_decay: 0.0, amsgrad: false, schedule }
    }

    /// Everything that is wrong with the settings, for a run of so many steps.
    pub fn complaints(&self, steps: u64) -> Vec<ConfigError> {
        let complaints = self.optimiser().complaints(steps).into_iter();
        let own = complaints.map(|it| ConfigError { field: it.field.replace("schedule.", ""), ..it });
        own.collect()
    }
}

/// Complaints about a table inside of another.
pub(super) fn within(table: &str, complaints: Vec<ConfigError>) -> Vec<ConfigError> {
    let moved = complaints.into_iter().map(|complaint| {
        let field = format!("{table}.{}", complaint.field);
        ConfigError { field: field.trim_end_matches('.').to_owned(), ..complaint }
    });
    moved.collect()
}

/// A complaint about a number that has to be at least one.
pub(super) fn at_least_one(field: &str, value: u64) -> Option<ConfigError> {
    (value == 0).then(|| ConfigError::new(field, "expected at least 1, got 0"))
}
