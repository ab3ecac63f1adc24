//! The settings of the pipeline as a whole.

use std::path::PathBuf;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SplitShares;
use crate::error::ConfigError;

/// Default number of scans per commit.
const EPOCH_SCANS: usize = 16;

/// Default share of the scans of a source that may be gone.
const MAX_MISSING: f64 = 0.1;

/// Maximum number of scans per commit: all accepted samples of an epoch are staged until its commit.
const MAX_EPOCH_SCANS: usize = 100_000;

/// Settings of the pipeline as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// The pipeline's name: letters, digits, `_` and `-`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// Seed of all random numbers: the same seed produces the same tumors.
    #[serde(default)]
    pub seed: u64,
    /// Scans per commit (1 to 100000): the most that a crash can lose, and the interval at which readers get new samples.
    #[serde(default = "epoch_scans")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epoch_scans: usize,
    /// Size of the files of the scans of a commit, such as `64 GiB`: a commit has fewer scans if they are larger. Without it, only `epoch_scans`
    /// bounds a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_bytes: Option<String>,
    /// Shares of patients for training, validation and test; they add up to 1.
    #[serde(default)]
    pub split: SplitShares,
    /// Largest share of the scans of a source that may be gone since the last run, 0 to 1. The rows and samples of these scans are
    /// removed. If more scans are gone, probably because a disk is not mounted, the run stops before it changes anything. Not part of the
    /// pipeline's digest.
    #[serde(default = "max_missing", skip_serializing)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_missing: f64,
    /// Held-out scans, which are never in a training set: files, and folders with all scans below them; a relative path starts at the
    /// folder of the graph file. A scan of a source with the content of one of them, under any name and in any format, fails with a fault
    /// of kind `held_out`. A path that cannot be read stops the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never_train: Vec<PathBuf>,
}

fn max_missing() -> f64 {
    MAX_MISSING
}

fn epoch_scans() -> usize {
    EPOCH_SCANS
}

impl PipelineConfig {
    /// Returns the size of the files of the scans of a commit in bytes; `None` if it is not bounded, or not a size.
    pub fn epoch_size(&self) -> Option<u64> {
        self.epoch_bytes.as_ref()?.parse::<ByteSize>().ok().map(|size| size.as_u64())
    }

    /// Returns all errors of the settings.
    pub fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || !self.name.chars().all(is_plain) {
            let message = format!("expected a name of letters, digits, `_` and `-`, got `{}`", self.name);
            errors.push(ConfigError::new("name", message));
        }
        if !(1..=MAX_EPOCH_SCANS).contains(&self.epoch_scans) {
            let message = format!("expected 1 to {MAX_EPOCH_SCANS} scans per commit, got {}", self.epoch_scans);
            errors.push(ConfigError::new("epoch_scans", message));
        }
        if let Some(text) = &self.epoch_bytes
            && self.epoch_size().is_none_or(|bytes| bytes == 0)
        {
            let message = format!("expected a size, got {text:?}");
            errors.push(ConfigError::new("epoch_bytes", message).with_hint("for example \"64 GiB\""));
        }
        if !(0.0..=1.0).contains(&self.max_missing) {
            let message = format!("expected a share from 0 to 1, got {}", self.max_missing);
            errors.push(ConfigError::new("max_missing", message));
        }
        for error in self.split.errors() {
            let field = format!("split.{}", error.field);
            errors.push(ConfigError { field: field.trim_end_matches('.').to_owned(), ..error });
        }
        errors
    }
}
