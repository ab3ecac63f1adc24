//! Which scans make up which epoch.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::Result;
use crate::graph::Plan;
use crate::ingest::ScanEntry;

use super::Epoch;

/// The scans of one epoch, in the order of the intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochWork {
    /// The number of its commit.
    pub epoch: Epoch,
    /// Its scans.
    pub entries: Vec<Arc<ScanEntry>>,
}

/// The epochs that a run has to do, ascending and dense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(Vec<EpochWork>);

impl Schedule {
    /// The epochs that were begun but not committed, and after them those of the scans that no intake knows yet, at most `limit` of
    /// these.
    ///
    /// # Errors
    /// Where a source cannot be listed.
    pub fn new(
        plan: &Plan,
        begun: Vec<EpochWork>,
        next: Epoch,
        known: &HashSet<String>,
        limit: Option<usize>,
    ) -> Result<Self> {
        let mut fresh = Vec::new();
        for node in &plan.sources {
            fresh.extend(node.source.list()?.into_iter().filter(|entry| !known.contains(&entry.scan_id)));
        }
        fresh.truncate(limit.unwrap_or(usize::MAX));
        let next = begun.last().map_or(next, |work| work.epoch + 1);
        let mut epochs = begun;
        let fresh: Vec<_> = fresh.into_iter().map(Arc::new).collect();
        epochs.extend(
            fresh
                .chunks(plan.epoch_scans.max(1))
                .zip(next..)
                .map(|(entries, epoch)| EpochWork { epoch, entries: entries.to_vec() }),
        );
        Ok(Self(epochs))
    }

    /// The epochs.
    pub fn epochs(&self) -> &[EpochWork] {
        &self.0
    }

    /// Number of scans in all of them.
    pub fn scans(&self) -> usize {
        self.0.iter().map(|work| work.entries.len()).sum()
    }
}
