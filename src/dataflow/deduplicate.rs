//! Decides which of several scans of equal content is worked on.
//!
//! Archives overlap: compilations hold scans of other data sets, in other formats and under other names. Only content digests show it.
//! A digest belongs to the first scan with it that was done: of the first epoch, and there by scan id. Those after it become
//! duplicates, without samples and without faults, since nothing more is done to them. A scan before it keeps its fault. The rule
//! is that of a loop over all scans in their order, so the result depends neither on the number of workers nor on how many scans an
//! epoch holds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::id::{ScanDigest, ScanId};
use crate::record::Status;
use crate::run::spool::ScanOutcome;

use super::Epoch;

/// The digests of the scans that are done, each with its epoch and scan id: 48 bytes a scan, since archives are long.
#[derive(Debug, Default)]
pub struct KnownScans(Mutex<HashMap<ScanDigest, (Epoch, ScanId)>>);

impl KnownScans {
    /// Adds a scan that is committed; the first one of a digest stays.
    pub fn add(&self, digest: ScanDigest, epoch: Epoch, scan_id: ScanId) {
        self.with(|known| {
            known.entry(digest).or_insert((epoch, scan_id));
        });
    }

    /// The scan of an epoch before `epoch` that has this digest.
    pub fn before(&self, digest: ScanDigest, epoch: Epoch) -> Option<ScanId> {
        self.with(|known| known.get(&digest).filter(|(first, _)| *first < epoch).map(|(_, scan_id)| *scan_id))
    }

    fn with<T>(&self, access: impl FnOnce(&mut HashMap<ScanDigest, (Epoch, ScanId)>) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Marks the duplicates of an epoch. `outcomes` come sorted by scan id, as a manifest is; `known` learns the new digests.
pub fn deduplicate(known: &KnownScans, epoch: Epoch, outcomes: &mut [ScanOutcome]) {
    let mut firsts: HashMap<ScanDigest, ScanId> = HashMap::new();
    for outcome in outcomes {
        let Some(digest) = outcome.scan.scan_digest else { continue };
        match known.before(digest, epoch).or_else(|| firsts.get(&digest).copied()) {
            Some(first) => mark_duplicate(outcome, first),
            None if outcome.scan.status == Status::Done => {
                known.add(digest, epoch, outcome.scan.scan_id);
                firsts.insert(digest, outcome.scan.scan_id);
            }
            None => {}
        }
    }
}

/// Turns an outcome into that of a duplicate: a row of `scans`, nothing else.
pub fn mark_duplicate(outcome: &mut ScanOutcome, of: ScanId) {
    outcome.samples.clear();
    outcome.files.clear();
    outcome.faults.clear();
    let scan = &mut outcome.scan;
    scan.organs.clear();
    (scan.accepted, scan.rejected) = (0, 0);
    scan.status = Status::Duplicate;
    scan.duplicate_of = Some(of);
}
