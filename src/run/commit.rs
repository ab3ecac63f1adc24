//! The only point at which an epoch comes to exist.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::record::FileEntry;

/// How an epoch, or a run, ended: scans and attempts by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Attempts that were accepted.
    pub accepted: u64,
    /// Scans that an equal one stands for.
    pub duplicates: u64,
    /// Faults, by `STAGE/KIND`.
    pub faults: BTreeMap<String, u64>,
    /// Attempts that were rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Scans that were ingested.
    pub scans: u64,
    /// Scans that are done, and in which no organ was found.
    pub without_organs: u64,
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.scans += other.scans;
        self.duplicates += other.duplicates;
        self.without_organs += other.without_organs;
        self.accepted += other.accepted;
        for (own, others) in [(&mut self.rejected, &other.rejected), (&mut self.faults, &other.faults)] {
            for (reason, count) in others {
                *own.entry(reason.clone()).or_default() += count;
            }
        }
    }
}

/// `epochs/N.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The epoch; commits have no gaps.
    pub epoch: u64,
    /// SHA-256 of the commit before, or of `run.json` for the first.
    pub parent: String,
    /// SHA-256 of the epoch's ingest manifest.
    pub ingest: String,
    /// Files that exist from here on, sorted.
    pub add: Vec<FileEntry>,
    /// Files that do not count from here on, sorted.
    pub remove: Vec<FileEntry>,
    /// How the epoch ended.
    pub counts: Counts,
}

/// `epochs/N.checkpoint.json`: what replaying every commit up to N gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The last epoch in it.
    pub epoch: u64,
    /// SHA-256 of that epoch's commit.
    pub commit: String,
    /// All files that count, sorted.
    pub files: Vec<FileEntry>,
    /// All epochs together.
    pub counts: Counts,
}
