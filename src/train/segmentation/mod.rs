//! Training a segmentor: on real tumors alone, or on real and synthetic ones.
//!
//! Without [`SyntheticConfig`] this is the first stage, whose segmentor judges synthetic tumors; with it the last one,
//! for which all others are there.
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
//! // Two bodies with tumors of their own.
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
mod tumors;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use learner::{SegmentationLearner, classes_of, segmented};
pub use sampler::{SegmentationSampler, Synthetic};
pub use tumors::Tumors;

use super::config::{NetworkConfig, OptimiserConfig, PreprocessConfig, at_least_one, within};
use super::data::{AugmentConfig, CropConfig, CutMixConfig};
use super::run::Intervals;
use crate::error::ConfigError;

/// How a segmentor is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentationConfig {
    /// Steps in all.
    pub steps: u64,
    /// Crops of a step.
    #[serde(default = "two")]
    pub batch: usize,
    /// Mask stages whose scans have their tumors labeled.
    pub labeled: Vec<String>,
    /// Mask stages whose scans are for validation; unless set, the validation share of the labeled patients.
    #[serde(default)]
    pub validation: Vec<String>,
    /// What the network sees of a scan.
    #[serde(default)]
    pub preprocess: PreprocessConfig,
    /// The network.
    #[serde(default)]
    pub network: NetworkConfig,
    /// How it learns.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// What crops lie around.
    #[serde(default)]
    pub crops: CropConfig,
    /// How crops are changed.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// How crops are mixed.
    #[serde(default)]
    pub cut_mix: CutMixConfig,
    /// How much of a window the next one shares in validation.
    #[serde(default = "half")]
    pub overlap: f64,
    /// What happens beside the steps.
    #[serde(default)]
    pub every: Intervals,
    /// Synthetic tumors; none in the first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<SyntheticConfig>,
}

/// Where synthetic tumors come from: fresh ones by the stages of the file that feed a sink of kind `trainer`, and those of
/// finished runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// Share of crops that shall hold a synthetic tumor; 0.5 is one to one.
    pub share: f64,
    /// Run folders of pipelines.
    pub runs: Vec<RunPool>,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { share: 0.5, runs: Vec::new() }
    }
}

/// The accepted tumors of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunPool {
    /// The run folder.
    pub folder: PathBuf,
    /// The epoch after which it is looked at, so that a run that grows changes nothing; the last one unless set.
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
    /// Everything that is wrong with the settings by themselves.
    pub fn complaints(&self) -> Vec<ConfigError> {
        let mut complaints: Vec<ConfigError> = [("steps", self.steps), ("batch", self.batch as u64)]
            .into_iter()
            .filter_map(|(f, v)| at_least_one(f, v))
            .collect();
        if self.labeled.is_empty() {
            let complaint = ConfigError::new("labeled", "expected at least one mask stage, got none");
            complaints.push(complaint.with_hint("labeled = [\"organs\"] takes the scans of [stages.organs]"));
        }
        complaints.extend(within("preprocess", self.preprocess.build().err().unwrap_or_default()));
        complaints.extend(within("preprocess", self.preprocess.complaints_for(self.network.model.model())));
        complaints.extend(within("network", self.network.complaints()));
        complaints.extend(within("optimiser", self.optimiser.complaints(self.steps)));
        complaints.extend(within("crops", self.crops.complaints()));
        complaints.extend(within("augment", self.augment.complaints()));
        complaints.extend(within("cut_mix", self.cut_mix.complaints()));
        complaints.extend(within("every", self.every.complaints()));
        if !(0.0..1.0).contains(&self.overlap) {
            let message = format!("expected a share from 0 and below 1, got {}", self.overlap);
            complaints.push(ConfigError::new("overlap", message));
        }
        if let Some(synthetic) = &self.synthetic
            && !(0.0..=1.0).contains(&synthetic.share)
        {
            let message = format!("expected a share from 0 to 1, got {}", synthetic.share);
            complaints.push(ConfigError::new("synthetic.share", message));
        }
        complaints
    }
}
