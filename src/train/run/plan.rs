//! What a run is to do, and how it stands.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::ConfigError;
use crate::nn::weights::Precision;

/// How often something happens beside the steps themselves, in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Intervals {
    /// A checkpoint with tables and curves: what a crash may cost.
    pub checkpoint: u64,
    /// A validation.
    pub validation: u64,
    /// A picture of a slice.
    pub picture: u64,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { checkpoint: 500, validation: 1000, picture: 1000 }
    }
}

impl Intervals {
    /// Everything that is wrong with the settings.
    pub fn complaints(&self) -> Vec<ConfigError> {
        let named = [("checkpoint", self.checkpoint), ("validation", self.validation), ("picture", self.picture)];
        let zero = named.into_iter().filter(|(_, steps)| *steps == 0);
        zero.map(|(name, _)| ConfigError::new(name, "expected at least 1 step, got 0")).collect()
    }
}

/// A run that is to be made or to go on.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// `segmentor`, `synthesis` or `segmentation`.
    pub stage: &'static str,
    /// What is trained, defaults filled in: everything that decides the result.
    pub settings: Json,
    /// What all randomness is derived from.
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// What happens beside them.
    pub every: Intervals,
    /// Where it is written.
    pub out: PathBuf,
    /// Whether it goes on from a checkpoint that is there.
    pub resume: bool,
    /// Which kernels compute.
    pub kernel_class: String,
    /// Threads that make batches.
    pub loader_threads: usize,
    /// Stops after this many steps of this call, as if it were killed behind a checkpoint; for tests and short looks.
    pub limit: Option<u64>,
    /// How precisely weights are written for inference; checkpoints hold all of their bits.
    pub precision: Precision,
    /// Lines that say which file each scan is, for `private/scans.jsonl`; none where nobody needs them.
    pub places: Vec<u8>,
}

impl RunPlan {
    /// Whether there is a checkpoint from which it could go on.
    pub fn has_begun(&self) -> bool {
        self.checkpoint().exists()
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.out.join("checkpoint.safetensors")
    }
}

/// How a run stands, for those who wait.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// Steps taken.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// What the last step found.
    pub numbers: &'a [(String, f64)],
    /// What the last validation found.
    pub scores: &'a [(String, f64)],
    /// Time since the start of this call.
    pub elapsed: Duration,
    /// Time that the rest will take, as the steps so far went.
    pub left: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingReport {
    /// What was trained.
    pub stage: &'static str,
    /// Steps taken in all.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Steps taken by this call.
    pub new_steps: u64,
    /// Time that this call took, validations and pictures included.
    pub seconds: f64,
    /// Share of that time in which the loop waited for a batch.
    pub waiting_share: f64,
    /// The last validation.
    pub scores: BTreeMap<String, f64>,
    /// The best validation score and its step.
    pub best: Option<(f64, u64)>,
    /// Where everything lies.
    pub folder: PathBuf,
}
