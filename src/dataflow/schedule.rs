//! Which scans make up which epoch.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::graph::Plan;
use crate::id::ScanId;
use crate::ingest::ScanEntry;

use super::Epoch;

/// The scans of one epoch, in the order of its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochWork {
    /// The number of its commit.
    pub epoch: Epoch,
    /// The scans.
    pub entries: Vec<Arc<ScanEntry>>,
}

/// The epochs that a run has to do, ascending and dense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    epochs: Vec<EpochWork>,
    changed: usize,
}

/// The version of a scan: its bytes on disk, and the time of their last change.
pub type Version = (u64, i64);

impl Schedule {
    /// The epochs that were ingested but not committed, and after them those of the scans that no manifest has yet, at most `limit` of
    /// these, by scan id: so it does not depend on the length of epochs which of several equal scans comes first.
    ///
    /// A scan that changed since it was ingested is not ingested again: rows of it are committed, and files that follow
    /// from them are in use. It is counted.
    ///
    /// # Errors
    /// If a source cannot be listed.
    pub fn new(
        plan: &Plan,
        open: Vec<EpochWork>,
        next: Epoch,
        known: &HashMap<ScanId, Version>,
        limit: Option<usize>,
    ) -> Result<Self> {
        let (mut fresh, mut changed) = (Vec::new(), 0);
        for node in &plan.sources {
            for entry in node.source.list()? {
                match known.get(&entry.scan_id) {
                    None => fresh.push(entry),
                    Some(&version) => changed += usize::from(version != (entry.bytes, entry.modified_s)),
                }
            }
        }
        fresh.sort_by_key(|entry| entry.scan_id);
        fresh.truncate(limit.unwrap_or(usize::MAX));
        let next = open.last().map_or(next, |work| work.epoch + 1);
        let mut epochs = open;
        let fresh: Vec<_> = fresh.into_iter().map(Arc::new).collect();
        epochs.extend(
            fresh
                .chunks(plan.epoch_scans.max(1))
                .zip(next..)
                .map(|(entries, epoch)| EpochWork { epoch, entries: entries.to_vec() }),
        );
        Ok(Self { epochs, changed })
    }

    /// The epochs.
    pub fn epochs(&self) -> &[EpochWork] {
        &self.epochs
    }

    /// Number of scans that changed on disk since they were ingested.
    pub fn changed(&self) -> usize {
        self.changed
    }

    /// Scans, and their bytes on disk, by the sources of a plan.
    pub fn by_source(&self, plan: &Plan) -> Vec<(usize, u64)> {
        let mut found: Vec<(usize, u64)> = vec![(0, 0); plan.sources.len()];
        for entry in self.epochs.iter().flat_map(|work| &work.entries) {
            if let Some(place) = plan.sources.iter().position(|node| node.name == entry.source) {
                found[place] = (found[place].0 + 1, found[place].1.saturating_add(entry.bytes));
            }
        }
        found
    }

    /// Number of scans in all of them.
    pub fn scans(&self) -> usize {
        self.epochs.iter().map(|work| work.entries.len()).sum()
    }
}
