//! Training generator and discriminator, with a segmentor that stays as it is.
//!
//! Every crop gets a tumor: its shape and texture are drawn as the rules draw them, its difference comes from the
//! generator. What the generator makes is judged by a discriminator, which learns beside it, and by a segmentor, which
//! does not.
//!
//! # Source
//! FreeTumor, arXiv 2406.01264, put right: labels are merged and the organ's own channel is used in both steps, the
//! segmentor has to find *this* organ's tumor, no step's gradients reach another's update, and none are computed for
//! the segmentor's weights.

mod generate;
mod learner;
mod sampler;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use generate::{Activation, Blend};
pub use learner::{Networks, SynthesisLearner};
pub use sampler::{SynthesisBatch, SynthesisSampler};

use super::config::{AdversarialConfig, ModelName, NetworkConfig, PreprocessConfig, at_least_one, within};
use super::data::AugmentConfig;
use super::losses::{self, ClassSet, Logits, Loss};
use super::run::Intervals;
use crate::error::ConfigError;
use crate::mask::Organ;
use crate::synth::{Rules, RulesConfig};
use crate::volume::HuWindow;

/// How generator and discriminator are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SynthesisConfig {
    /// Steps in all.
    pub steps: u64,
    /// Crops of a step.
    #[serde(default = "four")]
    pub batch: usize,
    /// Mask stages whose scans have their tumors labeled: from them the discriminator learns what is real.
    pub labeled: Vec<String>,
    /// Mask stages whose scans have organs only.
    #[serde(default)]
    pub unlabeled: Vec<String>,
    /// Share of labeled crops in a batch, of which there is one at least; all of them without unlabeled scans.
    #[serde(default = "half")]
    pub labeled_share: f64,
    /// What the networks see of a scan.
    #[serde(default)]
    pub preprocess: PreprocessConfig,
    /// The generator.
    #[serde(default)]
    pub generator: NetworkConfig,
    /// The discriminator.
    #[serde(default)]
    pub discriminator: NetworkConfig,
    /// The segmentor that judges and does not learn.
    pub segmentor: SegmentorConfig,
    /// What becomes of the generator's output.
    #[serde(default)]
    pub activation: Activation,
    /// How much the discriminator counts beside the segmentor: 0.1 for the abdomen, 0.5 for the chest.
    #[serde(default = "tenth")]
    pub adversarial: f64,
    /// What the generator is told where the discriminator sees through it.
    #[serde(default)]
    pub adversarial_loss: AdversarialLoss,
    /// Whether the segmentor may take the tumor for that of any organ, as published.
    #[serde(default)]
    pub any_tumor: bool,
    /// How both learn.
    #[serde(default)]
    pub optimiser: AdversarialConfig,
    /// Sites, sizes, shapes, textures and margins of the tumors; contrasts are the generator's.
    #[serde(default)]
    pub shapes: RulesConfig,
    /// How crops are changed.
    #[serde(default = "symmetries")]
    pub augment: AugmentConfig,
    /// Crops on which a validation looks.
    #[serde(default = "sixteen")]
    pub validation_crops: usize,
    /// What happens beside the steps.
    #[serde(default)]
    pub every: Intervals,
}

/// How far synthetic voxels are from being taken for real, with p the discriminator's probability that they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdversarialLoss {
    /// `1 − p`, as published: nothing is learned from a discriminator that is sure.
    #[default]
    Linear,
    /// `−log p`: the surer the discriminator, the more there is to learn.
    Log,
}

impl AdversarialLoss {
    /// The loss of the voxels of label `of` ([`losses::missed`] or [`losses::unlikely`]).
    fn of(self, logits: &Logits<'_>, labels: &[u8], of: u8, classes: &[ClassSet]) -> Loss {
        match self {
            Self::Linear => losses::missed(logits, labels, of, classes),
            Self::Log => losses::unlikely(logits, labels, of, classes),
        }
    }
}

/// A segmentor that is there already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentorConfig {
    /// The kind.
    #[serde(default)]
    pub model: ModelName,
    /// Its weights.
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

/// Flips and turns; brightness stays, as it is what the generator has to match.
fn symmetries() -> AugmentConfig {
    AugmentConfig { scale: 0.0, shift: 0.0, ..AugmentConfig::default() }
}

impl SynthesisConfig {
    /// What is wrong with the shapes for these organs.
    pub fn shape_complaints(&self, organs: &[Organ]) -> Vec<ConfigError> {
        // The width of the window decides contrasts only, which are the generator's.
        let rules = Rules::new(self.shapes.clone(), organs, HuWindow::ABDOMEN);
        within("shapes", rules.err().unwrap_or_default())
    }

    /// Everything that is wrong with the settings by themselves.
    pub fn complaints(&self) -> Vec<ConfigError> {
        let counts =
            [("steps", self.steps), ("batch", self.batch as u64), ("validation_crops", self.validation_crops as u64)];
        let mut complaints: Vec<ConfigError> = counts.into_iter().filter_map(|(f, v)| at_least_one(f, v)).collect();
        if self.labeled.is_empty() {
            let complaint = ConfigError::new("labeled", "expected at least one mask stage, got none");
            complaints.push(complaint.with_hint("without real tumors the discriminator has nothing to learn from"));
        }
        complaints.extend(within("preprocess", self.preprocess.build().err().unwrap_or_default()));
        for model in [self.generator.model, self.discriminator.model, self.segmentor.model] {
            for complaint in within("preprocess", self.preprocess.complaints_for(model.model())) {
                if !complaints.contains(&complaint) {
                    complaints.push(complaint);
                }
            }
        }
        complaints.extend(within("generator", self.generator.complaints()));
        complaints.extend(within("discriminator", self.discriminator.complaints()));
        complaints.extend(within("optimiser", self.optimiser.complaints(self.steps)));
        complaints.extend(within("augment", self.augment.complaints()));
        complaints.extend(within("every", self.every.complaints()));
        if !(0.0..=1.0).contains(&self.labeled_share) {
            let message = format!("expected a share from 0 to 1, got {}", self.labeled_share);
            complaints.push(ConfigError::new("labeled_share", message));
        }
        if !(0.0..=100.0).contains(&self.adversarial) {
            let message = format!("expected a weight from 0 to 100, got {}", self.adversarial);
            complaints.push(ConfigError::new("adversarial", message));
        }
        if !self.shapes.contrast_hu.is_empty() {
            let complaint = ConfigError::new("shapes.contrast_hu", "contrasts are what the generator learns");
            complaints.push(complaint.with_hint("leave it out, or make tumors by rules"));
        }
        complaints
    }
}
