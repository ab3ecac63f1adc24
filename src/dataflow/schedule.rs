//! The assignment of scans to epochs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::graph::{Plan, SourceNode};
use crate::id::ScanId;
use crate::ingest::ScanEntry;

use super::Epoch;

/// The scans of one epoch, in the order of its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochWork {
    /// The epoch.
    pub epoch: Epoch,
    /// The scans.
    pub entries: Vec<Arc<ScanEntry>>,
}

/// The epochs to be processed in a run, consecutive and ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    epochs: Vec<EpochWork>,
    changed: usize,
    left_out_scans: usize,
}

/// The scans of every source of a plan, in the order of the sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(Vec<Vec<ScanEntry>>);

impl Listing {
    /// Lists every source.
    ///
    /// # Errors
    /// If a source cannot be listed.
    pub fn of(plan: &Plan) -> Result<Self> {
        plan.sources.iter().map(|node| node.source.list()).collect::<Result<_>>().map(Self)
    }

    /// Returns the number of scans of all sources.
    pub fn scans(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Iterates over the sources of the plan without scans.
    pub fn empty_sources<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = &'p SourceNode> {
        plan.sources.iter().zip(&self.0).filter(|(_, entries)| entries.is_empty()).map(|(node, _)| node)
    }
}

/// The version of a scan: size on disk and modification time.
pub type Version = (u64, i64);

impl Schedule {
    /// Creates the schedule: first the epochs that are ingested but not committed, then epochs of new scans, at most `limit` scans by scan
    /// id. The order by scan id decides which of several equal scans is first, independent of the size of epochs.
    ///
    /// A scan that changed since it was ingested is counted but not ingested again, as its rows are committed and files that depend on
    /// them are in use.
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
        Ok(Self::of_listing(plan, &Listing::of(plan)?, open, next, known, limit))
    }

    /// Creates the schedule as [`Schedule::new`] does, from a listing of the sources.
    pub fn of_listing(
        plan: &Plan,
        listing: &Listing,
        open: Vec<EpochWork>,
        next: Epoch,
        known: &HashMap<ScanId, Version>,
        limit: Option<usize>,
    ) -> Self {
        let (mut new_scans, mut changed) = (Vec::new(), 0);
        for entry in listing.0.iter().flatten() {
            match known.get(&entry.scan_id) {
                None => new_scans.push(entry.clone()),
                Some(&version) => changed += usize::from(version != (entry.bytes, entry.modified_s)),
            }
        }
        new_scans.sort_by_key(|entry| entry.scan_id);
        let left_out_scans = new_scans.len().saturating_sub(limit.unwrap_or(usize::MAX));
        new_scans.truncate(limit.unwrap_or(usize::MAX));
        let next = open.last().map_or(next, |work| work.epoch + 1);
        let mut epochs = open;
        let new_scans: Vec<_> = new_scans.into_iter().map(Arc::new).collect();
        epochs.extend(
            new_scans
                .chunks(plan.epoch_scans.max(1))
                .zip(next..)
                .map(|(entries, epoch)| EpochWork { epoch, entries: entries.to_vec() }),
        );
        Self { epochs, changed, left_out_scans }
    }

    /// Returns the number of new scans that the limit leaves out.
    pub fn left_out_scans(&self) -> usize {
        self.left_out_scans
    }

    /// Returns the epochs.
    pub fn epochs(&self) -> &[EpochWork] {
        &self.epochs
    }

    /// Returns the number of scans that changed on disk since they were ingested.
    pub fn changed(&self) -> usize {
        self.changed
    }

    /// Returns the number of scans and their total size on disk for each source of a plan.
    pub fn by_source(&self, plan: &Plan) -> Vec<(usize, u64)> {
        let mut totals: Vec<(usize, u64)> = vec![(0, 0); plan.sources.len()];
        for entry in self.epochs.iter().flat_map(|work| &work.entries) {
            if let Some(index) = plan.sources.iter().position(|node| node.name == entry.source) {
                totals[index] = (totals[index].0 + 1, totals[index].1.saturating_add(entry.bytes));
            }
        }
        totals
    }

    /// Returns the number of scans in all epochs.
    pub fn scans(&self) -> usize {
        self.epochs.iter().map(|work| work.entries.len()).sum()
    }
}
