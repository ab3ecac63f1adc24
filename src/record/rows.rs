//! The rows of the tables, as the stages produce them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::Placement;
use crate::attempt::Outcome;
use crate::error::{Error, Fault, FaultKind, Stage};
use crate::id::{CandidateDigest, MaskDigest, PatientKey, SampleId, ScanDigest, ScanId, StageDigest};
use crate::ingest::Acquisition;
use crate::score::Scores;
use crate::synth::Geometry;

/// Declares an enum whose variant names are the values of a column.
macro_rules! column_values {
    ($(#[$about:meta])* $name:ident $noun:literal { $($(#[$variant_about:meta])* $variant:ident $value:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_about])* $variant,)* }

        impl $name {
            /// All values.
            pub const ALL: [Self; [$($value),*].len()] = [$(Self::$variant,)*];

            /// Returns the name used in tables and file lists.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $value,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::ALL.into_iter().find(|value| value.name() == text).ok_or_else(|| {
                    Error::new(format!("expected {} ({}), got {text:?}", $noun, [$($value),*].join(", ")))
                })
            }
        }
    };
}

column_values! {
    /// The part of a training set to which a patient belongs.
    Split "a split" {
        /// For training.
        Train "train",
        /// For tuning.
        Validation "validation",
        /// For one evaluation at the end.
        Test "test",
    }
}

column_values! {
    /// The kind of a sample.
    SampleKind "a kind of sample" {
        /// A scan with synthetic tumors.
        Synthetic "synthetic",
        /// An unchanged scan.
        Negative "negative",
    }
}

column_values! {
    /// The result of the processing of a scan.
    Status "a status of a scan" {
        /// Every stage processed the scan.
        Done "done",
        /// A fault ended the processing of the scan; the table `faults` names the fault.
        Fault "fault",
        /// Another scan of equal content was processed instead.
        Duplicate "duplicate",
        /// The machine or a change of the files, not the scan, prevented the processing; the next run processes the scan again.
        Pending "pending",
        /// The content of the scan is withdrawn from the run.
        Withdrawn "withdrawn",
    }
}

/// One attempt at a tumor, decided by one quality test, accepted or rejected, or one negative: a row of `samples`. Rows are unique by
/// sample id, branch and tumor id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// The id of the sample: that of the candidate if the sample has one tumor, else a hash of the ids of its candidates.
    pub sample_id: SampleId,
    /// The kind of the sample.
    pub kind: SampleKind,
    /// The index of the tumor among those requested for the sample, from 0.
    pub tumor_id: u32,
    /// A hash of all inputs of the attempt; absent for a negative.
    pub candidate_id: Option<SampleId>,
    /// The scan's id.
    pub scan_id: ScanId,
    /// The scan's content digest.
    pub scan_digest: ScanDigest,
    /// Digest of the organ mask's voxels.
    pub mask_digest: MaskDigest,
    /// The patient's keyed hash.
    pub patient_key: PatientKey,
    /// The data set's name.
    pub dataset: String,
    /// The epoch that committed the row.
    pub epoch: u64,
    /// The pipeline's seed.
    pub seed: u64,
    /// Name of the synthesis stage in the graph file.
    pub stage: String,
    /// Name of the quality test in the graph file.
    pub branch: String,
    /// The index of the tumor among the tumors requested in this organ, or of the sample among those of this scan if samples have
    /// several tumors.
    pub variant: u32,
    /// The index of the attempt at the tumor, from 0.
    pub attempt: u32,
    /// The organ's name; empty for a negative.
    pub organ: String,
    /// The label of the organ's tumors in label maps; 0 for a negative.
    pub tumor_label: u8,
    /// The patient's split.
    pub split: Split,
    /// The position and size of the tumor; absent if no site was found.
    pub geometry: Option<Geometry>,
    /// Digest of the boxes, voxels and labels of the sample: the same for all of its tumors; absent if there is no candidate.
    pub candidate_digest: Option<CandidateDigest>,
    /// The scores of the branch's stages.
    pub scores: Scores,
    /// The density ratio of real and synthetic tumors at the scores; absent without calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likeness: Option<f64>,
    /// The acceptance probability of the candidate; absent without calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceptance: Option<f64>,
    /// The outcome of the attempt.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Digest of the synthesis stage.
    pub stage_digest: StageDigest,
    /// The branch's score stages with their digests.
    pub score_stages: Vec<(String, StageDigest)>,
    /// Digest of the quality test's conditions.
    pub test_digest: StageDigest,
    /// The synthesis model: weights, or `rules` with its version.
    pub model: String,
    /// Digest of the pipeline that produced the row.
    pub pipeline_digest: String,
}

/// A row of `samples`.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// The values that the stages produced.
    pub record: SampleRecord,
    /// The location of the files of a candidate that is accepted, a kept rejection, or received by a sink; otherwise empty.
    pub placement: Placement,
}

/// One scan: a row of `scans`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanRecord {
    /// The scan's id.
    pub scan_id: ScanId,
    /// The content digest; absent if the scan could not be read.
    pub scan_digest: Option<ScanDigest>,
    /// The patient's keyed hash.
    pub patient_key: PatientKey,
    /// The data set's name.
    pub dataset: String,
    /// The source's name.
    pub source: String,
    /// The epoch that committed the row.
    pub epoch: u64,
    /// The patient's split.
    pub split: Split,
    /// The result of the processing.
    pub status: Status,
    /// For a duplicate, the scan that was processed instead.
    pub duplicate_of: Option<ScanId>,
    /// The size on disk.
    pub bytes: u64,
    /// The number of voxels along [x, y, z].
    pub shape: Option<[u32; 3]>,
    /// Spacing along [x, y, z].
    pub spacing_mm: Option<[f64; 3]>,
    /// Axis codes such as `LPS`.
    pub orientation: Option<String>,
    /// Lowest HU.
    pub hu_min: Option<f64>,
    /// Highest HU.
    pub hu_max: Option<f64>,
    /// The volume of each organ in the mask in millilitres, sorted by name.
    pub organs: Vec<(String, f64)>,
    /// The smallest share of the scan's voxels that the files of a mask cover; absent without a mask.
    pub mask_coverage: Option<f64>,
    /// The acquisition of a DICOM series.
    #[serde(default)]
    pub acquisition: Acquisition,
    /// The number of accepted tumors.
    pub accepted: u32,
    /// The number of rejected attempts.
    pub rejected: u32,
}

/// A fault that ended the processing of a scan: a row of `faults`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// The scan's id.
    pub scan_id: ScanId,
    /// The data set's name.
    pub dataset: String,
    /// The source's name.
    pub source: String,
    /// The epoch that committed the row.
    pub epoch: u64,
    /// The fault.
    #[serde(flatten)]
    pub fault: Fault,
}

/// A group of attempts that are counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualityGroup {
    /// The data set's name.
    pub dataset: String,
    /// The organ's name.
    pub organ: String,
    /// The quality test's name.
    pub branch: String,
    /// The size class; empty if no site was found.
    pub size_class: String,
    /// The reason for the rejection; `None` for accepted attempts.
    pub reason: Option<String>,
}

impl QualityGroup {
    /// Returns the group of an attempt; `None` for a negative, which is not an attempt.
    pub fn of(record: &SampleRecord) -> Option<Self> {
        (record.kind == SampleKind::Synthetic).then(|| Self {
            dataset: record.dataset.clone(),
            organ: record.organ.clone(),
            branch: record.branch.clone(),
            size_class: record.geometry.as_ref().map(|geometry| geometry.size_class.clone()).unwrap_or_default(),
            reason: record.outcome.reason().map(str::to_owned),
        })
    }
}

/// A row of the table `quality`: how many attempts an epoch added to a group (negative: removed).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QualityRecord {
    /// The group.
    #[serde(flatten)]
    pub group: QualityGroup,
    /// The epoch.
    pub epoch: u64,
    /// The number of attempts that the epoch added; negative if the epoch removed attempts.
    pub attempts: i64,
}

impl SampleRecord {
    /// Returns a row with placeholder values, to be filled by readers.
    pub(super) fn empty() -> Self {
        Self {
            sample_id: SampleId::from_bytes([0; 8]),
            kind: SampleKind::Synthetic,
            tumor_id: 0,
            candidate_id: None,
            scan_id: ScanId::from_bytes([0; 8]),
            scan_digest: ScanDigest::from_bytes([0; 32]),
            mask_digest: MaskDigest::from_bytes([0; 32]),
            patient_key: PatientKey::from_bytes([0; 8]),
            dataset: String::new(),
            epoch: 0,
            seed: 0,
            stage: String::new(),
            branch: String::new(),
            variant: 0,
            attempt: 0,
            organ: String::new(),
            tumor_label: 0,
            split: Split::Train,
            geometry: None,
            candidate_digest: None,
            scores: Scores::default(),
            likeness: None,
            acceptance: None,
            outcome: Outcome::Accepted,
            stage_digest: StageDigest::from_bytes([0; 32]),
            score_stages: Vec::new(),
            test_digest: StageDigest::from_bytes([0; 32]),
            model: String::new(),
            pipeline_digest: String::new(),
        }
    }
}

impl ScanRecord {
    /// Returns a row with placeholder values, to be filled by readers.
    pub(super) fn empty() -> Self {
        Self {
            scan_id: ScanId::from_bytes([0; 8]),
            scan_digest: None,
            patient_key: PatientKey::from_bytes([0; 8]),
            dataset: String::new(),
            source: String::new(),
            epoch: 0,
            split: Split::Train,
            status: Status::Done,
            duplicate_of: None,
            bytes: 0,
            shape: None,
            spacing_mm: None,
            orientation: None,
            hu_min: None,
            hu_max: None,
            organs: Vec::new(),
            mask_coverage: None,
            acquisition: Acquisition::default(),
            accepted: 0,
            rejected: 0,
        }
    }
}

impl FaultRecord {
    /// Returns a row with placeholder values, to be filled by readers.
    pub(super) fn empty() -> Self {
        Self {
            scan_id: ScanId::from_bytes([0; 8]),
            dataset: String::new(),
            source: String::new(),
            epoch: 0,
            fault: Fault::new(Stage::Read, FaultKind::Io, ""),
        }
    }
}
