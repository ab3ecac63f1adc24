//! The result of an export.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::select::SamplesWithoutPatch;
use super::target::JournalEntry;
use crate::id::{SampleId, ScanId};
use crate::record::Split;
use crate::store::serialize_path;

/// Counts of an export.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ExportReport {
    /// The folder; in JSON, bytes that are not UTF-8 are replaced.
    #[serde(serialize_with = "serialize_path")]
    pub folder: PathBuf,
    /// Number of samples in the folder.
    pub samples: usize,
    /// Number of samples of each split.
    pub splits: BTreeMap<String, usize>,
    /// Number of written files, without descriptions.
    pub written_files: usize,
    /// Number of kept files of an earlier export.
    pub kept_files: usize,
    /// Total size of the written and kept files.
    pub bytes: u64,
    /// Number of scans that were read and verified.
    pub scans_read: usize,
    /// Scans whose samples could not be exported, sorted.
    pub refused: Vec<Refusal>,
    /// Samples that meet the conditions but cannot be exported, because the run folder stores no patch of them.
    pub without_patch: SamplesWithoutPatch,
    /// Wall time.
    pub seconds: f64,
}

/// A scan whose samples could not be exported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    /// The id of the scan.
    pub scan_id: ScanId,
    /// The samples that were not exported.
    pub samples: Vec<SampleId>,
    /// The error, with expected and actual state.
    pub message: String,
}

impl ExportReport {
    /// Returns whether all selected samples were exported.
    pub fn is_complete(&self) -> bool {
        self.refused.is_empty() && self.without_patch.samples == 0
    }

    /// Counts the files of an entry.
    pub(super) fn add_files(&mut self, done: &JournalEntry, kept: bool) {
        *(if kept { &mut self.kept_files } else { &mut self.written_files }) += done.files.len();
        self.bytes += done.files.iter().map(|file| file.digest.bytes).sum::<u64>();
    }

    pub(super) fn add_sample(&mut self, split: Split) {
        self.samples += 1;
        *self.splits.entry(split.name().to_owned()).or_default() += 1;
    }
}
