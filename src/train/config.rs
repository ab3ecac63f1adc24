//! Settings that all stages of training share.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::{RateCurve, ScheduleConfig};
use crate::error::ConfigError;
use crate::nn::network::{Config, Model};
use crate::nn::ops::NormScope;
use crate::nn::optimize::AdamConfig;
use crate::volume::{HuWindow, Preprocess};

/// The setting `preprocess` of a training file: how scans are preprocessed for a network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreprocessConfig {
    /// Millimetres between voxels along [x, y, z].
    pub spacing_mm: [f64; 3],
    /// HU that are mapped to 0 and 1.
    pub window_hu: [f32; 2],
    /// Voxels of a crop along [x, y, z].
    pub patch_voxels: [usize; 3],
}

impl Default for PreprocessConfig {
    /// Returns the preprocessing for the abdomen.
    fn default() -> Self {
        Self { spacing_mm: [1.5; 3], window_hu: [-175.0, 250.0], patch_voxels: [96; 3] }
    }
}

impl PreprocessConfig {
    /// Builds the preprocessing.
    ///
    /// # Errors
    /// Returns all errors in the settings.
    pub fn build(&self) -> Result<Preprocess, Vec<ConfigError>> {
        let [low_hu, high_hu] = self.window_hu;
        Preprocess::new(self.spacing_mm, HuWindow { low_hu, high_hu }, self.patch_voxels)
    }

    /// Returns an error if a network of architecture `model` cannot process crops of this size.
    pub fn patch_errors(&self, model: Model) -> Vec<ConfigError> {
        let divisor = model.side_divisor();
        if self.patch_voxels.iter().all(|side| *side > 0 && side % divisor == 0) {
            return Vec::new();
        }
        let message = format!("expected multiples of {divisor} for {model}, got {:?}", self.patch_voxels);
        vec![ConfigError::new("patch_voxels", message)]
    }
}

/// The maximum number of features of the first level; the published networks have 32 and 48.
const MAX_FEATURES: usize = 256;

/// The setting `model` of a training file: the architecture of a network.
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
    /// Returns the architecture.
    pub fn model(self) -> Model {
        match self {
            Self::UNet3d => Model::UNet3D,
            Self::SwinUnetr => Model::SwinUnetr,
        }
    }
}

/// The setting `norm` of a training file: the kind of the normalization layers of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Instance norm, which normalizes each sample separately: a prediction does not depend on the rest of the batch.
    #[default]
    Instance,
    /// Batch norm, which normalizes over the whole batch, as in the published generator and discriminator.
    Batch,
}

/// A network to be trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainedNetworkConfig {
    /// The architecture.
    pub model: ModelName,
    /// Features of the first level; 4 results in levels of 8, 16, 32 and 64 features. The published U-Net has 32, the published
    /// Swin UNETR has 48. Default: the published width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// The kind of the normalization layers.
    pub norm: Norm,
    /// The initial weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

impl TrainedNetworkConfig {
    /// Returns the configuration of a network with `classes` classes.
    pub fn build(&self, classes: usize) -> Config {
        let published = self.model.model().published();
        let norm = match self.norm {
            Norm::Instance => NormScope::Instance,
            Norm::Batch => NormScope::Batch,
        };
        Config { classes, width: self.width.unwrap_or(published.width), norm, ..published }
    }

    /// Returns all errors in the settings.
    pub fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.model == ModelName::SwinUnetr && self.norm == Norm::Batch {
            errors.push(ConfigError::new("norm", "expected instance for swin_unetr, got batch"));
        }
        match (self.model, self.width) {
            (_, Some(width)) if !(1..=MAX_FEATURES).contains(&width) => {
                let message = format!("expected 1 to {MAX_FEATURES} features, got {width}");
                errors.push(ConfigError::new("width", message));
            }
            (ModelName::SwinUnetr, Some(width)) if width % 12 != 0 => {
                let message = format!("expected a multiple of 12 for swin_unetr, got {width}");
                errors.push(ConfigError::new("width", message));
            }
            _ => {}
        }
        errors
    }
}

/// The optimizer of a network: AdamW, by default with AMSGrad.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The learning rate after the warm-up.
    pub rate: f64,
    /// The decay rates of the two moments.
    pub betas: [f64; 2],
    /// The weight decay: each step subtracts this share of a parameter, times the learning rate, from the parameter.
    pub weight_decay: f64,
    /// Whether the second moment never decreases (AMSGrad).
    pub amsgrad: bool,
    /// The schedule of the learning rate.
    pub schedule: ScheduleConfig,
}

impl Default for OptimizerConfig {
    /// Returns the optimizer of the segmentor: learning rate 3e-4, weight decay 0.01, AMSGrad, cosine schedule.
    fn default() -> Self {
        Self { rate: 3e-4, betas: [0.9, 0.999], weight_decay: 0.01, amsgrad: true, schedule: ScheduleConfig::default() }
    }
}

impl OptimizerConfig {
    /// Returns the configuration of Adam.
    pub fn adam(&self) -> AdamConfig {
        let Self { betas, weight_decay, amsgrad, .. } = *self;
        AdamConfig { betas, weight_decay, amsgrad, ..AdamConfig::default() }
    }

    /// Returns all errors in the settings, for a training run of `steps` steps.
    pub fn errors(&self, steps: u64) -> Vec<ConfigError> {
        let mut errors = within("schedule", self.schedule.errors(steps));
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            errors.push(ConfigError::new(
                "rate",
                format!("expected a learning rate above 0 and up to 1, got {}", self.rate),
            ));
        }
        if self.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) {
            let message = format!("expected two numbers of at least 0 and below 1, got {:?}", self.betas);
            errors.push(ConfigError::new("betas", message));
        }
        if !(0.0..=1.0).contains(&self.weight_decay) {
            let message = format!("expected a weight decay from 0 to 1, got {}", self.weight_decay);
            errors.push(ConfigError::new("weight_decay", message));
        }
        errors
    }
}

/// The optimizer of the generator and the discriminator: Adam.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdversarialConfig {
    /// The learning rate of both networks after the warm-up.
    pub rate: f64,
    /// The decay rates of the two moments.
    pub betas: [f64; 2],
    /// The curve of the learning rate after the warm-up: `constant`, `cosine` or `reference`.
    pub course: RateCurve,
    /// Steps of the warm-up, over which the learning rate increases linearly to its maximum.
    pub warmup_steps: u64,
}

impl Default for AdversarialConfig {
    /// Returns the published settings: constant learning rate 1e-4, betas 0 and 0.999.
    fn default() -> Self {
        Self { rate: 1e-4, betas: [0.0, 0.999], course: RateCurve::Constant, warmup_steps: 0 }
    }
}

impl AdversarialConfig {
    /// Returns the same settings as an [`OptimizerConfig`].
    pub fn optimizer(&self) -> OptimizerConfig {
        let Self { rate, betas, course, warmup_steps } = *self;
        let schedule = ScheduleConfig { course, warmup_steps, final_share: 0.0 };
        OptimizerConfig { rate, betas, weight_decay: 0.0, amsgrad: false, schedule }
    }

    /// Returns all errors in the settings, for a training run of `steps` steps.
    pub fn errors(&self, steps: u64) -> Vec<ConfigError> {
        let errors = self.optimizer().errors(steps).into_iter();
        errors.map(|error| ConfigError { field: error.field.replace("schedule.", ""), ..error }).collect()
    }
}

/// Prefixes the fields of errors with the name of their table.
pub(super) fn within(table: &str, errors: Vec<ConfigError>) -> Vec<ConfigError> {
    let moved = errors.into_iter().map(|error| {
        let field = format!("{table}.{}", error.field);
        ConfigError { field: field.trim_end_matches('.').to_owned(), ..error }
    });
    moved.collect()
}

/// Returns an error if a count is 0, otherwise `None`.
pub(super) fn at_least_one(field: &str, value: u64) -> Option<ConfigError> {
    (value == 0).then(|| ConfigError::new(field, "expected at least 1, got 0"))
}
