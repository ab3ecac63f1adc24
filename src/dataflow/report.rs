//! The report of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::id::ScanId;
use crate::inference::{InferenceCost, InferencePhase};
use crate::record::{ExpectationResult, QualityGroup};
use crate::store::serialize_path;

use super::series_index::PartOfScan;
use super::shared_contents::SharedContent;

/// The summary of a run. Counts are those of the whole run folder, including earlier runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunReport {
    /// The pipeline's name.
    pub pipeline: String,
    /// The run folder; in JSON, bytes that are not UTF-8 are replaced.
    #[serde(serialize_with = "serialize_path")]
    pub folder: PathBuf,
    /// Committed epochs.
    pub epochs: u64,
    /// Committed scans.
    pub scans: u64,
    /// Scans that this run processed.
    pub processed_scans: u64,
    /// Scans that no earlier run processed.
    pub new_scans: u64,
    /// Scans that this run did not process because of the limit.
    pub left_out_scans: u64,
    /// Scans that this run processed again because their files changed.
    pub changed_scans: Vec<ScanId>,
    /// The differences of the graph of this run from that of the last run; empty if it was the same.
    pub graph_change: Vec<String>,
    /// Scans that this run processed again because the graph or the held-out scans changed.
    pub affected_scans: Vec<ScanId>,
    /// Scans whose stored candidates this run tested again because quality tests or sinks changed.
    pub retested_scans: Vec<ScanId>,
    /// Scans that this run processed again: pending scans, scans that failed in an earlier version of freetumor, and duplicates of changed
    /// or removed scans.
    pub retried_scans: Vec<ScanId>,
    /// Scans that are no longer in their source, whose rows and samples this run removed.
    pub removed_scans: Vec<ScanId>,
    /// Scans that failed in this run.
    pub newly_failed_scans: Vec<ScanId>,
    /// Scans that are pending after this run, which the next run processes again.
    pub newly_pending_scans: Vec<ScanId>,
    /// Accepted tumors.
    pub accepted: u64,
    /// Rejected attempts.
    pub rejected: u64,
    /// Negatives, once for each quality test.
    pub negatives: u64,
    /// Scans that failed, each with one or more faults.
    pub failed_scans: u64,
    /// Scans that are pending because of a fault of the machine or because files changed while they were read.
    pub pending_scans: u64,
    /// Faults.
    pub faults: u64,
    /// Number of faults of each kind.
    pub fault_kinds: BTreeMap<String, u64>,
    /// Scans that are duplicates of others.
    pub duplicates: u64,
    /// Scans that are done and have no organ.
    pub scans_without_organs: u64,
    /// Attempts by group.
    pub quality: Vec<QualityCount>,
    /// The folder of each layout.
    #[serde(serialize_with = "serialize_layouts")]
    pub layouts: Vec<(String, PathBuf)>,
    /// The picture of some of the newest samples; absent if no scan was processed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_optional_path")]
    pub contact_sheet: Option<PathBuf>,
    /// Duplicates of scans of another patient.
    pub shared_contents: Vec<SharedContent>,
    /// Scans of this run whose slices are consecutive slices of another scan of this run.
    pub parts_of_scans: Vec<PartOfScan>,
    /// The results of the expectations on the tables.
    pub expectations: Vec<ExpectationResult>,
    /// Warnings about the sources and the training sets, each a sentence.
    pub warnings: Vec<String>,
    /// Wall time of this run.
    pub seconds: f64,
    /// Maximum number of bytes that were leased for open scans at once.
    pub peak_lease_bytes: u64,
    /// Number and total time of each step in this run, over all threads.
    pub steps: Vec<StepSum>,
    /// Attempts of this run.
    pub new_attempts: u64,
    /// Cost of the networks in this run, by node and phase.
    pub networks: Vec<NetworkUse>,
    /// Seconds over all threads for masks, syntheses and scores in this run, without waiting for networks.
    pub other_seconds: f64,
    /// Fraction of the time since the first window in which the device of the networks was busy, 0 to 1.
    pub device_busy_share: f64,
    /// Fraction of the processor time that this process used in the same time, 0 to 1.
    pub processors_busy_share: f64,
}

fn serialize_layouts<S: Serializer>(layouts: &[(String, PathBuf)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(layouts.iter().map(|(name, path)| (name, path.to_string_lossy())))
}

fn serialize_optional_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

/// The number of attempts of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QualityCount {
    /// The group.
    #[serde(flatten)]
    pub group: QualityGroup,
    /// The number of attempts.
    pub count: u64,
}

/// The cost of the network of one node in one phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkUse {
    /// The node of the graph.
    pub node: String,
    /// The phase of the inference.
    pub phase: InferencePhase,
    /// The cost.
    #[serde(flatten)]
    pub cost: InferenceCost,
}

/// The total time of one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSum {
    /// The step.
    pub step: &'static str,
    /// Number of executions.
    pub count: u64,
    /// Seconds over all threads.
    pub seconds: f64,
}
