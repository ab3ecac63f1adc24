//! Commits: an epoch exists if and only if its commit exists.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

use serde::{Deserialize, Serialize};

use crate::record::{FileEntry, QualityGroup};

/// Counts of scans and attempts of an epoch or a run, by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Accepted attempts.
    pub accepted: u64,
    /// Scans that are duplicates of others.
    pub duplicates: u64,
    /// Faults, by `STAGE/KIND`.
    pub faults: BTreeMap<String, u64>,
    /// Negatives, once for each quality test.
    pub negatives: u64,
    /// Rejected attempts, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Ingested scans.
    pub scans: u64,
    /// Scans that are done and have no organ.
    pub without_organs: u64,
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.scans += other.scans;
        self.duplicates += other.duplicates;
        self.without_organs += other.without_organs;
        self.accepted += other.accepted;
        self.negatives += other.negatives;
        for (own, others) in [(&mut self.rejected, &other.rejected), (&mut self.faults, &other.faults)] {
            for (reason, count) in others {
                *own.entry(reason.clone()).or_default() += count;
            }
        }
    }
}

impl SubAssign<&Self> for Counts {
    /// Subtracts counts; a count below zero, which only a damaged commit can cause, becomes zero.
    fn sub_assign(&mut self, other: &Self) {
        let subtract = |own: &mut u64, other: u64| *own = own.saturating_sub(other);
        subtract(&mut self.scans, other.scans);
        subtract(&mut self.duplicates, other.duplicates);
        subtract(&mut self.without_organs, other.without_organs);
        subtract(&mut self.accepted, other.accepted);
        subtract(&mut self.negatives, other.negatives);
        for (own, others) in [(&mut self.rejected, &other.rejected), (&mut self.faults, &other.faults)] {
            for (reason, count) in others {
                subtract(own.entry(reason.clone()).or_default(), *count);
            }
            own.retain(|_, count| *count > 0);
        }
    }
}

/// A commit, the content of `epochs/N.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The epoch; commits have no gaps.
    pub epoch: u64,
    /// SHA-256 of the previous commit, or of `run.json` for the first commit.
    pub parent: String,
    /// SHA-256 of the epoch's ingest manifest.
    pub ingest: String,
    /// SHA-256 of the run manifest by which the epoch was processed: that of `run.json`, or of `settings/SHA256.json`.
    pub settings: String,
    /// Files that the commit adds, sorted.
    pub add: Vec<FileEntry>,
    /// Files that the commit removes, sorted.
    pub remove: Vec<FileEntry>,
    /// Counts of the scans and attempts that the commit adds.
    pub counts: Counts,
    /// Counts of the scans and attempts of earlier epochs that the commit removes.
    pub removed: Counts,
}

/// Numbers of attempts by group.
pub type QualityCounts = BTreeMap<QualityGroup, i64>;

/// A checkpoint, the content of `epochs/N.checkpoint.json`: the result of replaying all commits up to N.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The last epoch of the checkpoint.
    pub epoch: u64,
    /// SHA-256 of that epoch's commit.
    pub commit: String,
    /// All current files, sorted.
    pub files: Vec<FileEntry>,
    /// Counts of all epochs.
    pub counts: Counts,
    /// The number of attempts of each group, sorted.
    pub quality: Vec<(QualityGroup, i64)>,
}
