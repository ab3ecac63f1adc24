//! Deduplication of scans of equal content.
//!
//! Archives overlap: compilations contain scans of other data sets in other formats and under other names, which only content digests
//! detect. Of the scans with one digest, the first scan that is done, by epoch and then by scan id, is kept. Later scans become
//! duplicates without samples and faults, as they are not processed further. An earlier scan keeps its fault. The rule is that of a
//! loop over all scans in order, so the result does not depend on the number of workers or the number of scans per epoch.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::id::{ScanDigest, ScanId};
use crate::record::Status;
use crate::run::spool::ScanOutcome;

use super::Epoch;

/// The digests of done scans, each with its epoch and scan id: 48 bytes per scan, to support large archives.
#[derive(Debug, Default)]
pub struct KnownScans(Mutex<HashMap<ScanDigest, (Epoch, ScanId)>>);

impl KnownScans {
    /// Adds a done scan; the first scan of a digest is kept.
    pub fn add(&self, digest: ScanDigest, epoch: Epoch, scan_id: ScanId) {
        self.with(|known| {
            known.entry(digest).or_insert((epoch, scan_id));
        });
    }

    /// Returns the scan with this digest in an epoch before `epoch`, or `None` if no earlier epoch contains the digest.
    pub fn find_before(&self, digest: ScanDigest, epoch: Epoch) -> Option<ScanId> {
        self.with(|known| known.get(&digest).filter(|(first, _)| *first < epoch).map(|(_, scan_id)| *scan_id))
    }

    fn with<T>(&self, access: impl FnOnce(&mut HashMap<ScanDigest, (Epoch, ScanId)>) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Marks the duplicates of an epoch and adds new digests to `known`. `outcomes` must be sorted by scan id.
pub fn deduplicate(known: &KnownScans, epoch: Epoch, outcomes: &mut [ScanOutcome]) {
    let mut firsts: HashMap<ScanDigest, ScanId> = HashMap::new();
    for outcome in outcomes {
        let Some(digest) = outcome.scan.scan_digest else { continue };
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
    (scan.accepted, scan.rejected) = (0, 0);
    scan.status = Status::Duplicate;
    scan.duplicate_of = Some(original);
}
