//! Decides which of several equal scans stands for all of them.
//!
//! Archives overlap: compilations hold scans of other data sets, in other formats and under other names. Only content digests tell. A
//! digest belongs to the first scan with it that was done: of the first epoch, and there by scan id. Those after it become
//! duplicates, without samples and without faults, since nothing more is done to them. A scan before it keeps its fault. The rule
//! is that of a loop over all scans in their order, so the answer depends neither on who asks nor on how many scans an
//! epoch holds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::sink::spool::ScanOutcome;

use super::Epoch;

/// The digests of the scans that are done, each with its epoch and scan id: 48 bytes a scan, since archives are long.
#[derive(Debug, Default)]
pub struct KnownScans(Mutex<HashMap<[u8; 32], (Epoch, u64)>>);

impl KnownScans {
    /// Takes note of a scan that is committed; `scan_id` has 16 hexadecimal digits.
    pub fn add(&self, digest: &str, epoch: Epoch, scan_id: &str) {
        let number = u64::from_str_radix(scan_id, 16).unwrap_or_default();
        self.with(|known| {
            known.entry(Sha256::digest(digest).into()).or_insert((epoch, number));
        });
    }

    /// The scan of an epoch before `epoch` that has this digest.
    pub fn before(&self, digest: &str, epoch: Epoch) -> Option<String> {
        let hash: [u8; 32] = Sha256::digest(digest).into();
        self.with(|known| {
            let first = known.get(&hash).filter(|(first, _)| *first < epoch);
            first.map(|(_, number)| format!("{number:016x}"))
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<[u8; 32], (Epoch, u64)>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Settles the duplicates of an epoch. `outcomes` come sorted by scan id, as an intake is; `known` learns the new ones.
pub fn settle(known: &KnownScans, epoch: Epoch, outcomes: &mut [ScanOutcome]) {
    let mut firsts: HashMap<String, String> = HashMap::new();
    for outcome in outcomes {
        let Some(digest) = outcome.scan.scan_digest.clone() else { continue };
        match known.before(&digest, epoch).or_else(|| firsts.get(&digest).cloned()) {
            Some(first) => mark_duplicate(outcome, first),
            None if outcome.scan.status == "done" => {
                known.add(&digest, epoch, &outcome.scan.scan_id);
                firsts.insert(digest, outcome.scan.scan_id.clone());
            }
            None => {}
        }
    }
}

/// Turns an outcome into that of a duplicate: a row of `scans`, nothing else.
pub fn mark_duplicate(outcome: &mut ScanOutcome, of: String) {
    outcome.samples.clear();
    outcome.files.clear();
    outcome.faults.clear();
    let scan = &mut outcome.scan;
    scan.organs.clear();
    (scan.accepted, scan.rejected) = (0, 0);
    scan.status = "duplicate".into();
    scan.duplicate_of = Some(of);
}
