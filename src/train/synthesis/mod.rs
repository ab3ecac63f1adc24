//! The training of a generator and a discriminator, with a frozen segmentor.
//!
//! A tumor is put into every crop: shape and texture are sampled as in the rules, the difference comes from the generator. The loss of
//! the generator comes from a discriminator, which is trained at the same time, and from a segmentor, which is frozen.
//!
//! # Source
//! FreeTumor, arXiv 2406.01264, with corrections: labels are merged and the channel of the organ is used in both steps, the segmentor has
//! to find the tumor of *this* organ, the gradients of one step do not reach the update of another, and no gradients are computed for the
//! weights of the segmentor.

mod generate;
mod learner;
mod sampler;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use generate::{Blend, GeneratorActivation};
pub use learner::{Networks, SynthesisLearner};
pub use sampler::{SynthesisBatch, SynthesisSampler};

use super::config::{AdversarialConfig, ModelName, PreprocessConfig, TrainedNetworkConfig, at_least_one, within};
use super::data::AugmentConfig;
use super::losses::{self, ClassSet, Logits, Loss};
use super::run::Intervals;
use crate::error::ConfigError;
use crate::mask::Organ;
use crate::synth::{Rules, RulesConfig};
use crate::volume::HuWindow;

/// Settings for training a generator and a discriminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SynthesisConfig {
    /// Number of steps.
    pub steps: u64,
    /// Crops per step.
    #[serde(default = "four")]
    pub batch: usize,
    /// Mask stages whose scans have their tumors labeled: the real tumors for the discriminator.
    pub labeled: Vec<String>,
    /// Mask stages whose scans have organs only.
    #[serde(default)]
    pub unlabeled: Vec<String>,
    /// Share of labeled crops in a batch, at least one crop; without unlabeled scans, all crops are labeled.
    #[serde(default = "half")]
    pub labeled_share: f64,
    /// The preprocessing of scans for the networks.
    #[serde(default)]
    pub preprocess: PreprocessConfig,
    /// The generator.
    #[serde(default)]
    pub generator: TrainedNetworkConfig,
    /// The discriminator.
    #[serde(default)]
    pub discriminator: TrainedNetworkConfig,
    /// The frozen segmentor.
    pub segmentor: FrozenSegmentorConfig,
    /// The activation of the output of the generator.
    #[serde(default)]
    pub activation: GeneratorActivation,
    /// Weight of the adversarial loss relative to the segmentor loss: 0.1 for the abdomen, 0.5 for the chest.
    #[serde(default = "tenth")]
    pub adversarial: f64,
    /// The adversarial loss of the generator.
    #[serde(default)]
    pub adversarial_loss: AdversarialLoss,
    /// Whether a tumor also counts as found if the segmentor predicts the tumor of another organ, as published.
    #[serde(default)]
    pub any_tumor: bool,
    /// The optimizer of both networks.
    #[serde(default)]
    pub optimiser: AdversarialConfig,
    /// Sites, sizes, shapes, textures and margins of the tumors; the generator computes the contrasts.
    #[serde(default)]
    pub shapes: RulesConfig,
    /// The augmentation of crops.
    #[serde(default = "symmetries")]
    pub augment: AugmentConfig,
    /// Number of validation crops.
    #[serde(default = "sixteen")]
    pub validation_crops: usize,
    /// The intervals of checkpoints, validations and pictures.
    #[serde(default)]
    pub every: Intervals,
}

/// The adversarial loss over the voxels of synthetic tumors, where p is the probability of class "real" from the discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdversarialLoss {
    /// `1 − p`, as published: the gradient vanishes if the discriminator is certain.
    #[default]
    Linear,
    /// `−log p`: the gradient does not vanish if the discriminator is certain.
    Log,
}

impl AdversarialLoss {
    /// Returns the loss over the voxels of label `of` ([`losses::linear_loss`] or [`losses::log_loss`]).
    fn of(self, logits: &Logits<'_>, labels: &[u8], of: u8, classes: &[ClassSet]) -> Loss {
        match self {
            Self::Linear => losses::linear_loss(logits, labels, of, classes),
            Self::Log => losses::log_loss(logits, labels, of, classes),
        }
    }
}

/// Settings of the trained segmentor that guides the generator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FrozenSegmentorConfig {
    /// The architecture.
    #[serde(default)]
    pub model: ModelName,
    /// The weights.
    pub weights: PathBuf,
}

fn four() -> usize {
    4
}

fn sixteen() -> usize {
    16
}

fn half() -> f64 {
    0.5
}

fn tenth() -> f64 {
    0.1
}

/// Returns flips and turns without changes of brightness, which the generator has to match.
fn symmetries() -> AugmentConfig {
    AugmentConfig { scale: 0.0, shift: 0.0, ..AugmentConfig::default() }
}

impl SynthesisConfig {
    /// Returns all errors in the shapes for `organs`.
    pub fn shape_errors(&self, organs: &[Organ]) -> Vec<ConfigError> {
        // The width of the window affects only contrasts, which come from the generator.
        let rules = Rules::new(self.shapes.clone(), organs, HuWindow::ABDOMEN);
        within("shapes", rules.err().unwrap_or_default())
    }

    /// Returns all errors in the settings that do not depend on the rest of the file.
    pub fn errors(&self) -> Vec<ConfigError> {
        let counts =
            [("steps", self.steps), ("batch", self.batch as u64), ("validation_crops", self.validation_crops as u64)];
        let mut errors: Vec<ConfigError> = counts.into_iter().filter_map(|(f, v)| at_least_one(f, v)).collect();
        if self.labeled.is_empty() {
            let error = ConfigError::new("labeled", "expected at least one mask stage, got none");
            errors.push(
                error.with_hint("add mask stages with labeled tumors: the discriminator learns from real tumors"),
            );
        }
        errors.extend(within("preprocess", self.preprocess.build().err().unwrap_or_default()));
        for model in [self.generator.model, self.discriminator.model, self.segmentor.model] {
            for error in within("preprocess", self.preprocess.patch_errors(model.model())) {
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
        }
        errors.extend(within("generator", self.generator.errors()));
        errors.extend(within("discriminator", self.discriminator.errors()));
        errors.extend(within("optimiser", self.optimiser.errors(self.steps)));
        errors.extend(within("augment", self.augment.errors()));
        errors.extend(within("every", self.every.errors()));
        if !(0.0..=1.0).contains(&self.labeled_share) {
            let message = format!("expected a fraction from 0 to 1, got {}", self.labeled_share);
            errors.push(ConfigError::new("labeled_share", message));
        }
        if !(0.0..=100.0).contains(&self.adversarial) {
            let message = format!("expected a weight from 0 to 100, got {}", self.adversarial);
            errors.push(ConfigError::new("adversarial", message));
        }
        if !self.shapes.contrast_hu.is_empty() {
            let error = ConfigError::new("shapes.contrast_hu", "expected no contrasts: the generator learns them");
            errors.push(error.with_hint("remove `contrast_hu`, or make tumors by rules"));
        }
        errors
    }
}
