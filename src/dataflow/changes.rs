//! The changes of the sources of a run since the last ingest.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::{Error, Result};
use crate::graph::{Plan, SourceNode};
use crate::id::{ScanDigest, ScanId};
use crate::ingest::{HeldOut, ScanEntry};
use crate::record::Status;
use crate::run::{IngestEntry, Tombstones};

use super::Epoch;

/// The scans of every source of a plan, in the order of the sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(Vec<Vec<ScanEntry>>);

impl Listing {
    /// Lists every source, with the versions of all files that results depend on.
    ///
    /// # Errors
    /// If a source cannot be listed.
    pub fn of(plan: &Plan) -> Result<Self> {
        (0..plan.sources.len()).map(|source| plan.list(source)).collect::<Result<_>>().map(Self)
    }

    /// Returns the number of scans of all sources.
    pub fn scans(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Iterates over the sources of the plan without scans.
    pub fn empty_sources<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = &'p SourceNode> {
        plan.sources.iter().zip(&self.0).filter(|(_, entries)| entries.is_empty()).map(|(node, _)| node)
    }

    /// Iterates over all scans.
    fn entries(&self) -> impl Iterator<Item = &ScanEntry> {
        self.0.iter().flatten()
    }
}

/// The committed row of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedScan {
    /// The epoch that committed the row.
    pub epoch: Epoch,
    /// The result of processing the scan.
    pub status: Status,
    /// The digest of the content of the scan; absent if the scan could not be read.
    pub digest: Option<ScanDigest>,
    /// For a duplicate, the scan that was processed instead.
    pub duplicate_of: Option<ScanId>,
    /// Whether the scan failed because its content was held out.
    pub is_held_out: bool,
}

/// The scans of a run folder.
#[derive(Clone, Debug, Default)]
pub struct RunScans {
    /// The scans of the ingest manifests.
    pub ingested: BTreeMap<ScanId, IngestEntry>,
    /// The rows of the table `scans`.
    pub committed: HashMap<ScanId, CommittedScan>,
    /// The withdrawn scans, which are not ingested again.
    pub withdrawn: Tombstones,
    /// The contents of the held-out scans.
    pub held_out: HeldOut,
    /// The differences of the graph from that of the last epoch; empty if it is the same.
    pub graph_change: Vec<String>,
    /// The first epoch of this version of freetumor: failed scans of earlier epochs are processed again.
    pub first_epoch_of_version: Epoch,
}

impl RunScans {
    /// Returns whether a committed scan was processed and is held out now, or failed as held out and is not held out now.
    pub(super) fn is_held_out_changed(&self, scan_id: ScanId) -> bool {
        let Some(scan) = self.committed.get(&scan_id) else { return false };
        let is_held_out = scan.digest.is_some_and(|digest| self.held_out.contains(digest));
        let is_done = matches!(scan.status, Status::Done | Status::Duplicate);
        (is_done && is_held_out) || (scan.is_held_out && !is_held_out)
    }
}

/// Returns the keys of ingested scans.
pub type KeysOf<'a> = &'a dyn Fn(&HashSet<ScanId>) -> Result<HashMap<ScanId, String>>;

/// The differences between a listing of the sources and the scans of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanChanges {
    /// Scans that the run has not ingested.
    pub new: Vec<ScanEntry>,
    /// Scans whose files have another version than the run has ingested.
    pub changed: Vec<ScanEntry>,
    /// Scans with the same version that a change of the graph or of the held-out scans affects.
    pub affected: Vec<ScanEntry>,
    /// Scans that a change of quality tests or sinks affects, whose stored candidates suffice for new decisions.
    pub retested: Vec<ScanId>,
    /// Scans that could not be processed because of a fault of the machine, and scans that failed in an earlier version of freetumor.
    pub pending: Vec<ScanEntry>,
    /// Duplicates of changed and removed scans, with the scan that was processed instead.
    pub duplicates: Vec<(ScanId, ScanEntry)>,
    /// Scans that are no longer in their source, or whose source is no longer in the graph.
    pub gone: Vec<ScanId>,
    /// Whether the graph changed, which is committed even if no scan is processed.
    pub is_graph_changed: bool,
}

impl ScanChanges {
    /// Compares a listing with the scans of a run. `keys_of` returns the keys of ingested scans, which are needed for scans that are no
    /// longer listed: a scan in a folder that cannot be listed is not gone.
    ///
    /// # Errors
    /// The error of `keys_of`.
    pub fn new(plan: &Plan, listing: &Listing, scans: &RunScans, keys_of: KeysOf<'_>) -> Result<Self> {
        let mut changes = Self { is_graph_changed: !scans.graph_change.is_empty(), ..Self::default() };
        let graphs = plan.source_graphs();
        let graph = |entry: &ScanEntry| graphs.get(&entry.source).map(|graph| graph.results);
        let is_retried = |scan: &CommittedScan| match scan.status {
            Status::Pending => true,
            Status::Fault => scan.epoch < scans.first_epoch_of_version,
            Status::Done | Status::Duplicate | Status::Withdrawn => false,
        };
        let mut listed: HashMap<ScanId, &ScanEntry> = HashMap::new();
        for entry in listing.entries().filter(|entry| !scans.withdrawn.contains_entry(entry)) {
            listed.insert(entry.scan_id, entry);
            let committed = scans.committed.get(&entry.scan_id);
            match scans.ingested.get(&entry.scan_id) {
                None => changes.new.push(entry.clone()),
                Some(ingested) if is_changed(ingested, entry) => changes.changed.push(entry.clone()),
                Some(ingested) if Some(ingested.graph) != graph(entry) => changes.affected.push(entry.clone()),
                Some(_) if scans.is_held_out_changed(entry.scan_id) => changes.affected.push(entry.clone()),
                Some(_) if committed.is_some_and(is_retried) => changes.pending.push(entry.clone()),
                Some(_) => {}
            }
        }
        changes.gone = find_gone(listing, scans, &listed, keys_of)?;
        changes.add_duplicates(scans, &listed);
        Ok(changes)
    }

    /// Adds the duplicates of changed and removed scans: one of the duplicates may be processed instead.
    fn add_duplicates(&mut self, scans: &RunScans, listed: &HashMap<ScanId, &ScanEntry>) {
        let removed: HashSet<ScanId> = self
            .changed
            .iter()
            .chain(&self.affected)
            .map(|entry| entry.scan_id)
            .chain(self.gone.iter().copied())
            .collect();
        let known: HashSet<ScanId> =
            removed.iter().copied().chain(self.pending.iter().map(|entry| entry.scan_id)).collect();
        for (scan_id, scan) in scans.committed.iter().filter(|(scan_id, _)| !known.contains(scan_id)) {
            let Some(original) = scan.duplicate_of else { continue };
            // Also if an earlier run that removed the original ended before it processed the duplicate.
            let is_current = scans
                .committed
                .get(&original)
                .is_some_and(|original| original.status == Status::Done && original.digest == scan.digest);
            if let Some(entry) = listed.get(scan_id).filter(|_| removed.contains(&original) || !is_current) {
                self.duplicates.push((original, (*entry).clone()));
            }
        }
    }

    /// Returns the scans to process, in their order: by scan id, and duplicates after the scan that was processed instead. The order does
    /// not depend on the number of scans per epoch.
    pub fn in_order(&self) -> Vec<ScanEntry> {
        let first = self
            .new
            .iter()
            .chain(&self.changed)
            .chain(&self.affected)
            .chain(&self.pending)
            .map(|entry| (entry.scan_id, false, entry));
        let duplicates = self.duplicates.iter().map(|(original, entry)| (*original, true, entry));
        let mut ordered: Vec<_> = first.chain(duplicates).collect();
        ordered.sort_by_key(|(original, is_duplicate, entry)| (*original, *is_duplicate, entry.scan_id));
        ordered.into_iter().map(|(_, _, entry)| entry.clone()).collect()
    }
}

/// Returns the ingested scans that are not listed, except for those in folders that could not be listed.
fn find_gone(
    listing: &Listing,
    scans: &RunScans,
    listed: &HashMap<ScanId, &ScanEntry>,
    keys_of: KeysOf<'_>,
) -> Result<Vec<ScanId>> {
    let is_missing = |entry: &&IngestEntry| !listed.contains_key(&entry.scan_id);
    let missing: HashSet<ScanId> = scans.ingested.values().filter(is_missing).map(|entry| entry.scan_id).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    // A folder that cannot be listed, or a broken link, is an entry; no other listed entry is below it.
    let unlisted: HashSet<(&str, &str)> = listing
        .entries()
        .filter(|entry| is_unreadable(entry))
        .map(|entry| (entry.source.as_str(), entry.key.as_str()))
        .collect();
    let keys = keys_of(&missing)?;
    let is_gone = |scan_id: &ScanId| {
        let source = scans.ingested.get(scan_id).map_or("", |entry| entry.source.as_str());
        let key = keys.get(scan_id).map_or("", String::as_str);
        !key.match_indices(['/', '#']).any(|(end, _)| unlisted.contains(&(source, &key[..end])))
    };
    let mut gone: Vec<ScanId> = missing.into_iter().filter(is_gone).collect();
    gone.sort_unstable();
    Ok(gone)
}

/// Returns whether the files of a scan changed, or its patient or data set, which a list of scans may correct.
fn is_changed(ingested: &IngestEntry, entry: &ScanEntry) -> bool {
    ingested.version != entry.version || ingested.patient_key != entry.patient_key || ingested.dataset != entry.dataset
}

/// Returns whether the files of a listed path cannot be read: a broken link, a folder that cannot be listed, or a missing image of a list.
fn is_unreadable(entry: &ScanEntry) -> bool {
    entry.bytes == 0 && entry.modified_s == 0
}

/// Checks that no source has lost more than the fraction of its scans that the plan allows: a disk that is not mounted must not remove its
/// scans from the run. A scan is lost if it is gone, or if its file or all of its label files cannot be read although the scan was
/// processed.
///
/// # Errors
/// An error that names the source.
pub fn check_missing(plan: &Plan, scans: &RunScans, changes: &ScanChanges) -> Result<()> {
    for node in &plan.sources {
        let of_source = |scan_id: &&ScanId| scans.ingested.get(scan_id).is_some_and(|entry| entry.source == node.name);
        let is_lost = |entry: &&ScanEntry| {
            let was_done = scans.committed.get(&entry.scan_id).is_some_and(|scan| scan.status == Status::Done);
            entry.source == node.name && was_done && (is_unreadable(entry) || plan.is_without_labels(entry))
        };
        let missing = changes.gone.iter().filter(of_source).count() + changes.changed.iter().filter(is_lost).count();
        let known = scans.ingested.values().filter(|entry| entry.source == node.name).count();
        if missing as f64 > plan.max_missing * known as f64 {
            let (name, most) = (&node.name, 100.0 * plan.max_missing);
            let message = format!(
                "the source `{name}` has lost {missing} of {known} scans: expected at most {most}% (`max_missing`); nothing was changed"
            );
            return Err(Error::new(message).with_hint(
                "check that the disk of the source is mounted; to remove these scans from the run, repeat the command with `--set pipeline.max_missing=1.0`",
            ));
        }
    }
    Ok(())
}
