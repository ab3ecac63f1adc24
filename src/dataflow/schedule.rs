//! The assignment of scans to epochs.

use std::collections::HashSet;
use std::sync::Arc;

use crate::graph::Plan;
use crate::id::{ScanId, Tombstone};
use crate::ingest::ScanEntry;
use crate::run::{EpochChanges, IngestEntry, graph_after};

use super::Epoch;
use super::changes::{RunScans, ScanChanges};

/// The changes of one epoch, in the order of its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochWork {
    /// The epoch.
    pub epoch: Epoch,
    /// The scans to process.
    pub entries: Vec<Arc<ScanEntry>>,
    /// The scans of earlier epochs whose stored candidates are tested again.
    pub retested: Vec<IngestEntry>,
    /// The scans that are removed from the run.
    pub removed: Vec<ScanId>,
    /// The tombstones of withdrawn scans.
    pub withdrawn: Vec<Tombstone>,
    /// Whether the commit removes rows of earlier epochs, which must be durable before.
    pub replaces: bool,
}

impl EpochWork {
    /// Iterates over the ids of all scans whose earlier rows are removed.
    pub fn scan_ids(&self) -> impl Iterator<Item = ScanId> {
        self.entries.iter().map(|entry| entry.scan_id).chain(self.removed.iter().copied())
    }
}

/// The epochs to be processed in a run, consecutive and ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    epochs: Vec<EpochWork>,
    left_out_scans: usize,
    /// Whether the epochs are processed even if there are requests.
    is_uninterrupted: bool,
}

impl Schedule {
    /// Creates the schedule: first the epochs that are ingested but not committed, then epochs of the changes, at most `limit` scans. The
    /// first epoch of the changes also removes scans.
    pub fn new(
        plan: &Plan,
        open: Vec<EpochWork>,
        next: Epoch,
        scans: &RunScans,
        changes: &ScanChanges,
        limit: Option<usize>,
    ) -> Self {
        let mut entries = changes.in_order();
        let left_out_scans = entries.len().saturating_sub(limit.unwrap_or(usize::MAX));
        entries.truncate(limit.unwrap_or(usize::MAX));
        let mut next = open.last().map_or(next, |work| work.epoch + 1);
        let mut epochs = open;
        if !changes.retested.is_empty() {
            let graphs = plan.source_graphs();
            let ingested = changes.retested.iter().filter_map(|scan_id| scans.ingested.get(scan_id));
            let retested =
                |entry: &IngestEntry| IngestEntry { graph: graph_after(&graphs, &entry.source), ..entry.clone() };
            epochs.push(EpochWork { epoch: next, retested: ingested.map(retested).collect(), ..EpochWork::default() });
            next += 1;
        }
        let entries: Vec<_> = entries.into_iter().map(Arc::new).collect();
        let mut chunks = in_epochs(entries, plan.epoch_scans, plan.epoch_bytes);
        let is_recorded = !changes.is_graph_changed || !changes.retested.is_empty();
        if chunks.is_empty() && (!changes.gone.is_empty() || !is_recorded) {
            chunks.push(Vec::new());
        }
        for (index, (entries, epoch)) in chunks.into_iter().zip(next..).enumerate() {
            let removed = if index == 0 { changes.gone.clone() } else { Vec::new() };
            epochs.push(EpochWork { epoch, entries, removed, ..EpochWork::default() });
        }
        Self { epochs, left_out_scans, is_uninterrupted: false }.with_replacements(scans)
    }

    /// Creates a schedule of one epoch, which is processed even if there are requests.
    pub fn of_epoch(epoch: Epoch, changes: EpochChanges, scans: &RunScans) -> Self {
        let EpochChanges { entries, retested, removed, withdrawn } = changes;
        let entries = entries.into_iter().map(Arc::new).collect();
        let work = EpochWork { epoch, entries, retested, removed, withdrawn, replaces: true };
        Self { epochs: vec![work], left_out_scans: 0, is_uninterrupted: true }.with_replacements(scans)
    }

    /// Marks the epochs that replace rows of earlier epochs.
    fn with_replacements(self, scans: &RunScans) -> Self {
        let Self { mut epochs, left_out_scans, is_uninterrupted } = self;
        let mut earlier: HashSet<ScanId> = scans.committed.keys().copied().collect();
        for work in &mut epochs {
            let replaces = !work.retested.is_empty() || work.scan_ids().any(|scan_id| earlier.contains(&scan_id));
            work.replaces = replaces;
            earlier.extend(work.scan_ids());
        }
        Self { epochs, left_out_scans, is_uninterrupted }
    }

    /// Returns a schedule whose epochs are processed without a pause for requests.
    #[must_use]
    pub fn without_interruption(self) -> Self {
        Self { is_uninterrupted: true, ..self }
    }

    /// Returns whether the epochs are processed even if there are requests.
    pub fn is_uninterrupted(&self) -> bool {
        self.is_uninterrupted
    }

    /// Returns the number of scans that are not processed because of the limit.
    pub fn left_out_scans(&self) -> usize {
        self.left_out_scans
    }

    /// Returns the epochs.
    pub fn epochs(&self) -> &[EpochWork] {
        &self.epochs
    }

    /// Returns the number of scans and their total size on disk for each source of a plan.
    pub fn by_source(&self, plan: &Plan) -> Vec<(usize, u64)> {
        let mut totals: Vec<(usize, u64)> = vec![(0, 0); plan.sources.len()];
        for entry in self.epochs.iter().flat_map(|work| &work.entries) {
            if let Some(index) = plan.source_index(&entry.source) {
                totals[index] = (totals[index].0 + 1, totals[index].1.saturating_add(entry.bytes));
            }
        }
        totals
    }

    /// Returns the number of scans in all epochs.
    pub fn scans(&self) -> usize {
        self.epochs.iter().map(|work| work.entries.len()).sum()
    }

    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }
}

/// Divides scans into epochs of at most `scans` scans and `bytes` bytes on disk, each of at least one scan.
fn in_epochs(entries: Vec<Arc<ScanEntry>>, scans: usize, bytes: u64) -> Vec<Vec<Arc<ScanEntry>>> {
    let mut epochs: Vec<Vec<Arc<ScanEntry>>> = Vec::new();
    let mut size = 0u64;
    for entry in entries {
        let next = size.saturating_add(entry.bytes);
        match epochs.last_mut().filter(|epoch| epoch.len() < scans && next <= bytes) {
            Some(epoch) => {
                size = next;
                epoch.push(entry);
            }
            None => {
                size = entry.bytes;
                epochs.push(vec![entry]);
            }
        }
    }
    epochs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Source;
    use crate::ingest::phantom::{PhantomConfig, PhantomSource};

    #[test]
    fn epochs_end_by_scans_or_bytes() {
        let config = PhantomConfig { count: 6, ..PhantomConfig::default() };
        let listed = PhantomSource::new(config, "phantoms").unwrap().list().unwrap();
        let lengths = |scans, bytes| {
            let sizes = [10, 20, 30, 100, 5, 5];
            let entries = listed.iter().zip(sizes).map(|(entry, bytes)| Arc::new(ScanEntry { bytes, ..entry.clone() }));
            in_epochs(entries.collect(), scans, bytes).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(4, u64::MAX), [4, 2]);
        assert_eq!(lengths(4, 60), [3, 1, 2]);
        assert_eq!(lengths(1, u64::MAX), [1; 6]);
        assert_eq!(lengths(100, 1), [1; 6]);
    }
}
