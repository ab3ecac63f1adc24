//! The result of an export.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::select::WithoutPatch;
use super::target::JournalEntry;
use crate::id::{SampleId, ScanId};
use crate::record::Split;

/// Counts of an export.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ExportReport {
    /// The folder.
    pub folder: PathBuf,
    /// Samples in it.
    pub samples: usize,
    /// Samples of each split.
    pub splits: BTreeMap<String, usize>,
    /// Files that were written, without descriptions.
    pub written_files: usize,
    /// Files that an earlier export had written.
    pub kept_files: usize,
    /// Bytes of all these files.
    pub bytes: u64,
    /// Scans that were read and found to be those of the run.
    pub scans_read: usize,
    /// Scans whose samples are left out, sorted.
    pub refused: Vec<Refusal>,
    /// Selected samples that are left out because the run folder stores no patch of them.
    pub without_patch: WithoutPatch,
    /// Wall time.
    pub seconds: f64,
}

/// A scan of which no volume could be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    /// The scan.
    pub scan_id: ScanId,
    /// The samples, which are left out.
    pub samples: Vec<SampleId>,
    /// What was expected and what came.
    pub message: String,
}

impl ExportReport {
    /// Whether everything that was asked for is there.
    pub fn is_complete(&self) -> bool {
        self.refused.is_empty() && self.without_patch.samples == 0
    }

    /// Counts a file.
    pub(super) fn add_files(&mut self, done: &JournalEntry, kept: bool) {
        *(if kept { &mut self.kept_files } else { &mut self.written_files }) += done.files.len();
        self.bytes += done.files.iter().map(|file| file.digest.bytes).sum::<u64>();
    }

    pub(super) fn add_sample(&mut self, split: Split) {
        self.samples += 1;
        *self.splits.entry(split.name().to_owned()).or_default() += 1;
    }
}
