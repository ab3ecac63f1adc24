//! Deduplication of scans of equal content.
//!
//! Archives overlap: compilations contain scans of other data sets in other formats and under other names, which only content digests
//! detect. Of the scans with one digest, the first scan that is done, by epoch and then by scan id, is kept. Later scans become
//! duplicates without samples and faults, as they are not processed further. An earlier scan keeps its fault. The rule is that of a
//! loop over all scans in order, so the result does not depend on the number of workers or the number of scans per epoch.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::id::{ScanDigest, ScanId};
use crate::ingest::HeldOut;
use crate::record::Status;
use crate::run::Tombstones;
use crate::run::spool::ScanOutcome;

use super::Epoch;

/// The digests of done scans, each with its epoch and scan id: about 50 bytes per scan, to support large archives.
#[derive(Debug, Default)]
pub struct KnownScans(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The done scans of each digest: one, except for a scan that replaces its earlier version.
    scans: HashMap<ScanDigest, Vec<(Epoch, ScanId)>>,
    /// The epochs in which scans are processed again or removed.
    replaced: HashMap<ScanId, Vec<Epoch>>,
    withdrawn: Tombstones,
    held_out: HeldOut,
}

impl Known {
    /// Returns whether the rows that `first` committed for a scan are current before the commit of `epoch` adds rows.
    fn is_current(&self, scan_id: ScanId, first: Epoch, epoch: Epoch) -> bool {
        let replaced = self.replaced.get(&scan_id);
        first < epoch && !replaced.is_some_and(|epochs| epochs.iter().any(|&at| first < at && at <= epoch))
    }
}

impl KnownScans {
    /// Creates a set without scans that knows the withdrawn and the held-out contents.
    pub fn new(withdrawn: Tombstones, held_out: HeldOut) -> Self {
        Self(Mutex::new(Known { withdrawn, held_out, ..Known::default() }))
    }

    /// Returns whether scans of this content are held out.
    pub fn is_held_out(&self, digest: ScanDigest) -> bool {
        self.with(|known| known.held_out.contains(digest))
    }

    /// Returns whether scans of this content are withdrawn.
    pub fn is_withdrawn(&self, digest: ScanDigest) -> bool {
        self.with(|known| known.withdrawn.contains_content(digest))
    }

    /// Adds a done scan; the first current scan of a digest is kept.
    pub fn add(&self, digest: ScanDigest, epoch: Epoch, scan_id: ScanId) {
        self.with(|known| {
            known.scans.entry(digest).or_default().push((epoch, scan_id));
        });
    }

    /// Records that an epoch processes a scan again or removes the scan: from this epoch on, the earlier rows of the scan do not exist.
    /// Call this method before the epoch starts.
    pub fn replace(&self, scan_id: ScanId, epoch: Epoch) {
        self.with(|known| known.replaced.entry(scan_id).or_default().push(epoch));
    }

    /// Returns the scan with this digest in an epoch before `epoch`; `None` if no current scan has this digest.
    pub fn find_before(&self, digest: ScanDigest, epoch: Epoch) -> Option<ScanId> {
        self.with(|known| {
            let scans = known.scans.get(&digest)?;
            let current = scans.iter().filter(|(first, scan_id)| known.is_current(*scan_id, *first, epoch));
            current.min().map(|(_, scan_id)| *scan_id)
        })
    }

    fn with<T>(&self, access: impl FnOnce(&mut Known) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Marks the duplicates of an epoch and adds new digests to `known`. `outcomes` must be sorted by scan id.
pub fn deduplicate(known: &KnownScans, epoch: Epoch, outcomes: &mut [ScanOutcome]) {
    let mut firsts: HashMap<ScanDigest, ScanId> = HashMap::new();
    for outcome in outcomes {
        // A held-out scan keeps its fault, also if an earlier version of another scan had this content.
        let digest = outcome.scan.scan_digest.filter(|digest| !known.is_held_out(*digest));
        let Some(digest) = digest else { continue };
        match known.find_before(digest, epoch).or_else(|| firsts.get(&digest).copied()) {
            Some(first) => mark_duplicate(outcome, first),
            None if outcome.scan.status == Status::Done => {
                known.add(digest, epoch, outcome.scan.scan_id);
                firsts.insert(digest, outcome.scan.scan_id);
            }
            None => {}
        }
    }
}

/// Converts an outcome to that of a duplicate, which has only a row of `scans`.
pub fn mark_duplicate(outcome: &mut ScanOutcome, original: ScanId) {
    outcome.samples.clear();
    outcome.files.clear();
    outcome.faults.clear();
    let scan = &mut outcome.scan;
    scan.organs.clear();
    // A duplicate that is found before masking has no mask.
    scan.mask_coverage = None;
    (scan.accepted, scan.rejected) = (0, 0);
    scan.status = Status::Duplicate;
    scan.duplicate_of = Some(original);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_scan_is_known_only_until_the_epoch_that_replaces_it() {
        let digest = |byte| ScanDigest::from_bytes([byte; 32]);
        let scan = |byte| ScanId::from_bytes([byte; 8]);
        let known = KnownScans::default();
        known.add(digest(1), 0, scan(7));
        known.replace(scan(7), 3);
        assert_eq!(known.find_before(digest(1), 0), None);
        assert_eq!(known.find_before(digest(1), 2), Some(scan(7)));
        assert_eq!(known.find_before(digest(1), 3), None);
        // The new version has the same content, and another scan the old one.
        known.add(digest(1), 3, scan(7));
        assert_eq!(known.find_before(digest(1), 4), Some(scan(7)));
        known.add(digest(2), 4, scan(8));
        assert_eq!(known.find_before(digest(2), 4), None);
        assert_eq!(known.find_before(digest(2), 5), Some(scan(8)));
    }
}
