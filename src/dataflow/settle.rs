//! Decides which of several equal scans stands for all of them.
//!
//! Archives overlap: compilations hold scans of other data sets, in other formats and under other names. Only content digests tell. A
//! digest belongs to the first epoch in which a scan with it was done, and in that epoch to the first such scan of the intake; the others
//! become duplicates, without samples. The rule looks at nothing but what is committed and what the epoch holds, so it
//! gives the same answer whoever asks and however often.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::sink::spool::ScanOutcome;

use super::Epoch;

/// The digests of the scans that are done, each with its epoch and scan id.
#[derive(Debug, Default)]
pub struct KnownScans(Mutex<HashMap<String, (Epoch, String)>>);

impl KnownScans {
    /// Takes note of a scan that is committed.
    pub fn add(&self, digest: &str, epoch: Epoch, scan_id: &str) {
        self.with(|known| {
            known.entry(digest.to_owned()).or_insert_with(|| (epoch, scan_id.to_owned()));
        });
    }

    /// The scan of an epoch before `epoch` that has this digest.
    pub fn before(&self, digest: &str, epoch: Epoch) -> Option<String> {
        self.with(|known| known.get(digest).filter(|(first, _)| *first < epoch).map(|(_, scan_id)| scan_id.clone()))
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<String, (Epoch, String)>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Settles the duplicates of an epoch. `outcomes` come sorted by scan id, as an intake is; `known` learns the new ones.
pub fn settle(known: &KnownScans, epoch: Epoch, outcomes: &mut [ScanOutcome]) {
    let mut firsts: HashMap<String, String> = HashMap::new();
    for outcome in outcomes.iter() {
        if let Some(digest) = outcome.scan.scan_digest.as_ref().filter(|_| outcome.scan.status == "done") {
            firsts.entry(digest.clone()).or_insert_with(|| outcome.scan.scan_id.clone());
        }
    }
    for outcome in outcomes {
        let Some(digest) = outcome.scan.scan_digest.clone() else { continue };
        let first = known.before(&digest, epoch).or_else(|| firsts.get(&digest).cloned());
        match first {
            Some(first) if first != outcome.scan.scan_id => mark_duplicate(outcome, first),
            Some(first) => known.add(&digest, epoch, &first),
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
