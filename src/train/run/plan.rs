//! The plan, the progress and the report of a training run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::ConfigError;
use crate::nn::weights::Precision;
use crate::train::used_samples::UsedSample;

/// The intervals of checkpoints, validations and pictures, in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Intervals {
    /// Steps between checkpoints with tables and curves: at most this many steps are lost in a crash.
    pub checkpoint: u64,
    /// Steps between validations.
    pub validation: u64,
    /// Steps between pictures of a slice.
    pub picture: u64,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { checkpoint: 500, validation: 1000, picture: 1000 }
    }
}

impl Intervals {
    /// Returns all errors in the settings.
    pub fn errors(&self) -> Vec<ConfigError> {
        let named = [("checkpoint", self.checkpoint), ("validation", self.validation), ("picture", self.picture)];
        let zero = named.into_iter().filter(|(_, steps)| *steps == 0);
        zero.map(|(name, _)| ConfigError::new(name, "expected at least 1 step, got 0")).collect()
    }
}

/// A training run to start or to resume.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// `segmentor`, `synthesis` or `segmentation`.
    pub stage: &'static str,
    /// The settings with their defaults: everything that determines the result.
    pub settings: Json,
    /// The seed of all random streams.
    pub seed: u64,
    /// The number of steps.
    pub steps: u64,
    /// The intervals of checkpoints, validations and pictures.
    pub every: Intervals,
    /// The output folder.
    pub out: PathBuf,
    /// Whether to resume from a checkpoint in the folder.
    pub resume: bool,
    /// The class of the compute kernels.
    pub kernel_class: String,
    /// Threads that make batches.
    pub loader_threads: usize,
    /// The maximum number of steps before the training run stops with a checkpoint, for tests; `None` for all steps.
    pub limit: Option<u64>,
    /// The precision of the weights for inference; checkpoints keep all bits.
    pub precision: Precision,
    /// The content of `private/held_out.json`, the known digests of held-out scans; empty to write no such file.
    pub held_out_cache: Vec<u8>,
    /// The lines of `private/scans.jsonl`, which name the file of each scan; empty to write no such file.
    pub scan_files: Vec<u8>,
    /// The rows of `samples.parquet`, the samples of run folders; empty to write no such file.
    pub used_samples: Vec<UsedSample>,
}

impl RunPlan {
    /// Returns whether the folder has a checkpoint.
    pub fn has_checkpoint(&self) -> bool {
        self.checkpoint().exists()
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.out.join("checkpoint.safetensors")
    }
}

/// The progress of a training run.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// Steps taken.
    pub step: u64,
    /// The number of steps.
    pub steps: u64,
    /// The losses and rates of the last step.
    pub numbers: &'a [(String, f64)],
    /// The scores of the last validation.
    pub scores: &'a [(String, f64)],
    /// Time since the training run was started or resumed.
    pub elapsed: Duration,
    /// The estimated remaining time.
    pub remaining: Duration,
}

/// The result of a training run.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingReport {
    /// The stage.
    pub stage: &'static str,
    /// Steps taken, including those before the training run was resumed.
    pub step: u64,
    /// The number of steps.
    pub steps: u64,
    /// Steps taken since the training run was started or resumed.
    pub new_steps: u64,
    /// Seconds since the training run was started or resumed, including validations and pictures.
    pub seconds: f64,
    /// Share of that time in which the loop waited for a batch.
    pub waiting_share: f64,
    /// The scores of the last validation.
    pub scores: BTreeMap<String, f64>,
    /// The best validation score and its step.
    pub best: Option<(f64, u64)>,
    /// The output folder; in JSON, bytes that are not UTF-8 are replaced.
    #[serde(serialize_with = "crate::store::serialize_path")]
    pub folder: PathBuf,
}
