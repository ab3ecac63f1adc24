//! The settings of the pipeline as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SplitShares;
use crate::error::ConfigError;

/// Scans of one commit where the graph file does not say.
const EPOCH_SCANS: usize = 16;

/// Most scans of one commit: all accepted samples of an epoch wait in staging for it.
const MAX_EPOCH_SCANS: usize = 100_000;

/// What holds for the pipeline as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// The pipeline's name: letters, digits, `_` and `-`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// What all randomness is derived from: the same seed gives the same tumors.
    #[serde(default)]
    pub seed: u64,
    /// Scans per commit (1 to 100000): what a crash may cost, and how long a reader waits for something new.
    #[serde(default = "epoch_scans")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epoch_scans: usize,
    /// Shares of patients for training, validation and test; they add up to 1.
    #[serde(default)]
    pub split: SplitShares,
}

fn epoch_scans() -> usize {
    EPOCH_SCANS
}

impl PipelineConfig {
    /// Everything that is wrong with the settings.
    pub fn complaints(&self) -> Vec<ConfigError> {
        let mut complaints = Vec::new();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || !self.name.chars().all(is_plain) {
            let message = format!("expected a name of letters, digits, `_` and `-`, got `{}`", self.name);
            complaints.push(ConfigError::new("name", message));
        }
        if !(1..=MAX_EPOCH_SCANS).contains(&self.epoch_scans) {
            let message = format!("expected 1 to {MAX_EPOCH_SCANS} scans per commit, got {}", self.epoch_scans);
            complaints.push(ConfigError::new("epoch_scans", message));
        }
        for complaint in self.split.complaints() {
            let field = format!("split.{}", complaint.field);
            complaints.push(ConfigError { field: field.trim_end_matches('.').to_owned(), ..complaint });
        }
        complaints
    }
}
