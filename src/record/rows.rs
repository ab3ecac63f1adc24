//! The rows of the tables, as the stages make them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::Placement;
use crate::attempt::Outcome;
use crate::error::{Error, Fault, FaultKind, Stage};
use crate::id::{CandidateDigest, MaskDigest, PatientKey, SampleId, ScanDigest, ScanId, StageDigest};
use crate::score::Scores;
use crate::synth::Geometry;

/// Declares an enumeration whose names are the words of a column.
macro_rules! words {
    ($(#[$about:meta])* $name:ident $noun:literal { $($(#[$variant_about:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_about])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant,)*];

            /// The name used in tables and file lists.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
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
                Self::ALL.into_iter().find(|it| it.name() == text).ok_or_else(|| {
                    Error::new(format!("expected {} ({}), got {text:?}", $noun, [$($word),*].join(", ")))
                })
            }
        }
    };
}

words! {
    /// Which part of a training set a patient belongs to.
    Split "a split" {
        /// Trained on.
        Train "train",
        /// Tuned on.
        Validation "validation",
        /// Evaluated on once, at the end.
        Test "test",
    }
}

words! {
    /// What became of a scan.
    Status "a status of a scan" {
        /// Every stage worked on it.
        Done "done",
        /// A fault ended the work on it; the table `faults` says which.
        Fault "fault",
        /// A scan of equal content was worked on in its place.
        Duplicate "duplicate",
    }
}

/// One attempt at a tumor, by one quality test: a row of `samples`, accepted or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// A hash of everything that decides the candidate.
    pub sample_id: SampleId,
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
    /// Which of the tumors asked for in this organ.
    pub variant: u32,
    /// Number of the attempt at it, from 0.
    pub attempt: u32,
    /// The organ's name.
    pub organ: String,
    /// The id of the organ's tumors in label maps.
    pub tumor_label: u8,
    /// The patient's split.
    pub split: Split,
    /// Where the tumor is and how large; absent where no site was found.
    pub geometry: Option<Geometry>,
    /// Digest of the candidate's box, voxels and labels; absent where there is no candidate.
    pub candidate_digest: Option<CandidateDigest>,
    /// The scores of the branch's stages.
    pub scores: Scores,
    /// How it ended.
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
    /// Digest of the pipeline that made the row.
    pub pipeline_digest: String,
}

/// A row of `samples`.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// What the stages say.
    pub record: SampleRecord,
    /// Where its files are: of accepted candidates, of rejected ones that are kept, and of those that a sink takes; else empty.
    pub placement: Placement,
}

/// One scan: a row of `scans`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanRecord {
    /// The scan's id.
    pub scan_id: ScanId,
    /// Its content digest; absent where it could not be read.
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
    /// What became of it.
    pub status: Status,
    /// For a duplicate, the scan that was worked on in its place.
    pub duplicate_of: Option<ScanId>,
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
    /// Millilitres of each organ found, sorted by name.
    pub organs: Vec<(String, f64)>,
    /// Tumors accepted.
    pub accepted: u32,
    /// Attempts rejected.
    pub rejected: u32,
}

/// What ended the work on a scan: a row of `faults`.
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
    /// What happened.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Attempts that are counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualityGroup {
    /// The data set's name.
    pub dataset: String,
    /// The organ's name.
    pub organ: String,
    /// The quality test's name.
    pub branch: String,
    /// The size class; empty where no site was found.
    pub size_class: String,
    /// Why they were rejected; `None` for accepted ones.
    pub reason: Option<String>,
}

impl QualityGroup {
    /// The group of an attempt.
    pub fn of(record: &SampleRecord) -> Self {
        Self {
            dataset: record.dataset.clone(),
            organ: record.organ.clone(),
            branch: record.branch.clone(),
            size_class: record.geometry.as_ref().map(|geometry| geometry.size_class.clone()).unwrap_or_default(),
            reason: record.outcome.reason().map(str::to_owned),
        }
    }
}

/// By how much an epoch changed the number of attempts of a group: a row of `quality`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QualityRecord {
    /// The group.
    #[serde(flatten)]
    pub group: QualityGroup,
    /// The epoch.
    pub epoch: u64,
    /// Attempts that it added, or, below zero, removed.
    pub attempts: i64,
}

impl SampleRecord {
    /// A row that readers fill.
    pub(super) fn empty() -> Self {
        Self {
            sample_id: SampleId::from_bytes([0; 8]),
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
    /// A row that readers fill.
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
            accepted: 0,
            rejected: 0,
        }
    }
}

impl FaultRecord {
    /// A row that readers fill.
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
