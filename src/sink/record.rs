//! The rows of the tables, as the stages make them; `sink::schema` says how they are stored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::score::Scores;
use crate::synth::Geometry;

/// Which part of a training set a patient belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Trained on.
    Train,
    /// Tuned on.
    Validation,
    /// Touched once.
    Test,
}

impl Split {
    /// The name used in tables and file lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Outcome {
    /// It passed every condition.
    Accepted,
    /// It did not; `reason` is the condition as the graph file has it, or a code such as `no_site`.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// One attempt at a tumor: a row of `samples`, accepted or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// 16 hexadecimal digits, a hash of everything that defines the attempt.
    pub sample_id: String,
    /// The scan's id.
    pub scan_id: String,
    /// The scan's content digest.
    pub scan_digest: String,
    /// The patient's keyed hash.
    pub patient_key: String,
    /// The data set's name.
    pub dataset: String,
    /// The epoch that committed the row.
    pub epoch: u64,
    /// The pipeline's seed.
    pub seed: u64,
    /// Name of the synthesis stage in the graph file.
    pub stage: String,
    /// Which of the tumors asked for in this organ.
    pub variant: u32,
    /// Which try at it, from 0.
    pub attempt: u32,
    /// The organ's name.
    pub organ: String,
    /// The patient's split.
    pub split: Split,
    /// Where and how large; absent where no site was found.
    pub geometry: Option<Geometry>,
    /// What the score stages gave.
    pub scores: Scores,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The pipeline's digest.
    pub pipeline_digest: String,
    /// Digest of the synthesis model: weights, or `rules` with its version.
    pub model: String,
}

/// One scan: a row of `scans`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanRecord {
    /// The scan's id.
    pub scan_id: String,
    /// Its content digest; absent where it could not be read.
    pub scan_digest: Option<String>,
    /// The patient's keyed hash.
    pub patient_key: String,
    /// The data set's name.
    pub dataset: String,
    /// The source's name.
    pub source: String,
    /// The epoch that committed the row.
    pub epoch: u64,
    /// The patient's split.
    pub split: Split,
    /// `done`, `fault` or `duplicate`.
    pub status: String,
    /// For a duplicate, the scan that stands for it.
    pub duplicate_of: Option<String>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Voxels along [x, y, z].
    pub shape: Option<[u32; 3]>,
    /// Spacing along [x, y, z].
    pub spacing_mm: Option<[f64; 3]>,
    /// Axis codes such as `LPS`.
    pub orientation: Option<String>,
    /// Lowest HU.
    pub hu_min: Option<f64>,
    /// Highest HU.
    pub hu_max: Option<f64>,
    /// Millilitres of each organ found, in the order of the graph file.
    pub organs: Vec<(String, f64)>,
    /// Tumors accepted.
    pub accepted: u32,
    /// Attempts rejected.
    pub rejected: u32,
}

/// What spoiled a scan: a row of `faults`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// The scan's id.
    pub scan_id: String,
    /// The data set's name.
    pub dataset: String,
    /// The source's name.
    pub source: String,
    /// The epoch that committed the row.
    pub epoch: u64,
    /// What happened.
    #[serde(flatten)]
    pub fault: Fault,
}

/// How many attempts of a group there are, over all epochs: a row of `quality`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QualityRecord {
    /// The data set's name.
    pub dataset: String,
    /// The organ's name.
    pub organ: String,
    /// The size class; empty where no site was found.
    pub size_class: String,
    /// Why they were rejected; `None` for accepted ones.
    pub reason: Option<String>,
    /// How many.
    pub count: u64,
}
