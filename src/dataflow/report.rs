//! What a run says when it is done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::inference::{InferenceCost, InferencePhase};
use crate::record::QualityGroup;

/// A run's summary. Counts are those of the whole run folder, earlier runs included.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunReport {
    /// The pipeline's name.
    pub pipeline: String,
    /// The run folder.
    pub folder: PathBuf,
    /// Epochs that are committed.
    pub epochs: u64,
    /// Scans that are committed.
    pub scans: u64,
    /// Scans that this run ingested.
    pub new_scans: u64,
    /// Scans that changed on disk since they were ingested; they are not ingested again.
    pub changed_scans: u64,
    /// Tumors accepted.
    pub accepted: u64,
    /// Attempts rejected.
    pub rejected: u64,
    /// Faults.
    pub faults: u64,
    /// How many faults there are of each class.
    pub fault_kinds: BTreeMap<String, u64>,
    /// Scans that are duplicates of others.
    pub duplicates: u64,
    /// Scans that are done, and in which no organ was found.
    pub scans_without_organs: u64,
    /// Attempts by group.
    pub quality: Vec<QualityCount>,
    /// The folder of each layout.
    pub layouts: Vec<(String, PathBuf)>,
    /// Wall time of this run.
    pub seconds: f64,
    /// Most bytes that were leased for open scans at once.
    pub peak_lease_bytes: u64,
    /// How often each step was done in this run, and the seconds it took over all threads.
    pub steps: Vec<StepSum>,
    /// Attempts of this run.
    pub new_attempts: u64,
    /// What the networks of this run cost, by node and by what they looked at.
    pub networks: Vec<NetworkUse>,
    /// Seconds over all threads that masks, syntheses and scores took in this run beside waiting for networks.
    pub other_seconds: f64,
    /// Share of the time since its first window in which the networks' device worked, 0 to 1.
    pub device_busy_share: f64,
    /// Share of the processors' time that this process had meanwhile, 0 to 1.
    pub processors_busy_share: f64,
}

/// How many attempts of a group there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QualityCount {
    /// The group.
    #[serde(flatten)]
    pub group: QualityGroup,
    /// The attempts.
    pub count: u64,
}

/// What one node's network cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkUse {
    /// The node of the graph.
    pub node: String,
    /// What it looked at.
    pub phase: InferencePhase,
    /// What that cost.
    #[serde(flatten)]
    pub effort: InferenceCost,
}

/// The time that one step took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSum {
    /// The step.
    pub step: &'static str,
    /// How often it was done.
    pub count: u64,
    /// Seconds over all threads.
    pub seconds: f64,
}
