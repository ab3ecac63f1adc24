//! The training of a segmentor, on real tumors only, or on real and synthetic tumors.
//!
//! Without [`SyntheticConfig`] this is the first stage, whose segmentor scores synthetic tumors; with [`SyntheticConfig`] it is the last
//! stage, which trains the final segmentor.
//!
//! ```
//! use std::sync::Arc;
//! use candle_core::Device;
//! use freetumor::ingest::{Source, phantom::{LesionConfig, PhantomConfig, PhantomSource}};
//! use freetumor::mask::{LabelsConfig, LabelsMask, Mask, MaskedScan};
//! use freetumor::train::data::{CaseEntry, Cases, Sampler};
//! use freetumor::train::run::Learner;
//! use freetumor::train::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler};
//!
//! let config: SegmentationConfig = toml::from_str(
//!     "steps = 3\nlabeled = []\nnetwork.width = 2\npreprocess = { spacing_mm = [8, 8, 8], patch_voxels = [16, 16, 16] }",
//! )?;
//! // Two bodies with real tumors.
//! let lesions = Some(LesionConfig { diameter_mm: 30.0, ..LesionConfig::default() });
//! let bodies = PhantomConfig { count: 2, shape: [40, 36, 32], spacing_mm: [8.0; 3], lesions, ..PhantomConfig::default() };
//! let source = PhantomSource::new(bodies, "bodies").unwrap();
//! let mask: LabelsConfig = toml::from_str("organs.liver = { ids = [5], tumor_ids = [118] }")?;
//! let mask = LabelsMask::new(mask).unwrap();
//! let organs = mask.organs();
//! let masked = |entry| {
//!     let scan = Arc::new(source.read(&entry)?);
//!     Ok(CaseEntry::of(MaskedScan { mask: mask.mask(&scan)?, scan }))
//! };
//! let entries = source.list()?.into_iter().map(masked).collect::<Result<_, freetumor::error::Fault>>()?;
//! let cases = Arc::new(Cases::new(entries, config.preprocess.build().unwrap(), u64::MAX));
//!
//! let sampler = SegmentationSampler::new(&config, 7, organs.clone(), cases.clone(), Vec::new());
//! let mut learner = SegmentationLearner::new(&config, 7, organs, Some(cases), &Device::Cpu)?;
//! for step in 0..config.steps {
//!     let numbers = learner.learn(step, sampler.batch(step)?)?;
//!     assert!(numbers[0].0 == "loss" && (0.5..3.0).contains(&numbers[0].1));
//! }
//! assert_eq!(learner.validate()?[0].0, "dice liver");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod learner;
mod sampler;
mod source;
mod tumors;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use learner::{SegmentationLearner, class_count, segment};
pub use sampler::SegmentationSampler;
pub use source::SyntheticSource;
pub use tumors::TumorMaker;

use super::config::{OptimizerConfig, PreprocessConfig, TrainedNetworkConfig, at_least_one, within};
use super::data::{AugmentConfig, CropConfig, CutMixConfig, TumorSampling};
use super::run::Intervals;
use crate::error::ConfigError;

/// Settings for training a segmentor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentationConfig {
    /// Number of steps.
    pub steps: u64,
    /// Crops per step.
    #[serde(default = "two")]
    pub batch: usize,
    /// Mask stages whose scans have their tumors labeled.
    pub labeled: Vec<String>,
    /// Mask stages of the validation scans. Default: the validation share of the labeled patients.
    #[serde(default)]
    pub validation: Vec<String>,
    /// The preprocessing of scans for the network.
    #[serde(default)]
    pub preprocess: PreprocessConfig,
    /// The network.
    #[serde(default)]
    pub network: TrainedNetworkConfig,
    /// The optimizer.
    #[serde(default)]
    pub optimiser: OptimizerConfig,
    /// The kinds of voxels that crops are centred on.
    #[serde(default)]
    pub crops: CropConfig,
    /// The augmentation of crops.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// The mixing of crops.
    #[serde(default)]
    pub cut_mix: CutMixConfig,
    /// Overlap of neighbouring windows in validation, as a share of the window.
    #[serde(default = "half")]
    pub overlap: f64,
    /// The intervals of checkpoints, validations and pictures.
    #[serde(default)]
    pub every: Intervals,
    /// The synthetic tumors; not set in the first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<SyntheticConfig>,
}

/// The sources of synthetic tumors: fresh tumors from the stages of the file that feed a sink of kind `trainer`, and the tumors in the
/// run folders of finished pipelines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// Target share of crops with a synthetic tumor; 0.5 is one to one.
    pub share: f64,
    /// The method by which synthetic tumors are sampled: with `voxel` like real ones, with `candidate` each with equal probability.
    pub draw: TumorSampling,
    /// Run folders of pipelines.
    pub runs: Vec<RunPool>,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { share: 0.5, draw: TumorSampling::Voxel, runs: Vec::new() }
    }
}

/// The accepted tumors in the run folder of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunPool {
    /// The run folder.
    pub folder: PathBuf,
    /// The epoch whose state of the run folder is used, so that later epochs do not change the training run. Default: the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

fn two() -> usize {
    2
}

fn half() -> f64 {
    0.5
}

impl SegmentationConfig {
    /// Returns all errors in the settings that do not depend on the rest of the file.
    pub fn errors(&self) -> Vec<ConfigError> {
        let mut errors: Vec<ConfigError> = [("steps", self.steps), ("batch", self.batch as u64)]
            .into_iter()
            .filter_map(|(f, v)| at_least_one(f, v))
            .collect();
        if self.labeled.is_empty() {
            let error = ConfigError::new("labeled", "expected at least one mask stage, got none");
            errors.push(error.with_hint("use labeled = [\"organs\"] for the scans of [stages.organs]"));
        }
        errors.extend(within("preprocess", self.preprocess.build().err().unwrap_or_default()));
        errors.extend(within("preprocess", self.preprocess.patch_errors(self.network.model.model())));
        errors.extend(within("network", self.network.errors()));
        errors.extend(within("optimiser", self.optimiser.errors(self.steps)));
        errors.extend(within("crops", self.crops.errors()));
        errors.extend(within("augment", self.augment.errors()));
        errors.extend(within("cut_mix", self.cut_mix.errors()));
        errors.extend(within("every", self.every.errors()));
        if !(0.0..1.0).contains(&self.overlap) {
            let message = format!("expected a fraction of at least 0 and below 1, got {}", self.overlap);
            errors.push(ConfigError::new("overlap", message));
        }
        if let Some(synthetic) = &self.synthetic
            && !(0.0..=1.0).contains(&synthetic.share)
        {
            let message = format!("expected a fraction from 0 to 1, got {}", synthetic.share);
            errors.push(ConfigError::new("synthetic.share", message));
        }
        errors
    }
}
