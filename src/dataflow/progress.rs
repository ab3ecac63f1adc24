//! Running totals of a run, for progress displays, and the request to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters that can be read at any time. Attempts on a scan that fails later are subtracted; all other counters only grow.
#[derive(Debug, Default)]
pub struct Progress {
    scans: AtomicU64,
    finished: AtomicU64,
    faulted: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    committed: AtomicU64,
    stop: AtomicBool,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// Scans of this run.
    pub scans: u64,
    /// Finished scans, including failed scans.
    pub finished: u64,
    /// Failed scans.
    pub faulted: u64,
    /// Accepted tumors.
    pub accepted: u64,
    /// Rejected attempts.
    pub rejected: u64,
    /// Committed epochs.
    pub committed: u64,
}

impl Progress {
    pub(super) fn expect_scans(&self, scans: u64) {
        self.scans.fetch_add(scans, Ordering::Relaxed);
    }

    pub(super) fn scan_finished(&self, faulted: bool) {
        self.finished.fetch_add(1, Ordering::Relaxed);
        self.faulted.fetch_add(u64::from(faulted), Ordering::Relaxed);
    }

    pub(super) fn attempt(&self, accepted: bool) {
        let counter = if accepted { &self.accepted } else { &self.rejected };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Subtracts the attempts of a scan that failed later.
    pub(super) fn discard(&self, accepted: u64, rejected: u64) {
        self.accepted.fetch_sub(accepted, Ordering::Relaxed);
        self.rejected.fetch_sub(rejected, Ordering::Relaxed);
    }

    pub(super) fn epoch_committed(&self) {
        self.committed.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that the run stops: work in progress is finished or discarded, committed epochs stay, and the run ends with an error of
    /// kind [`Stopped`](crate::error::ErrorKind::Stopped).
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Returns whether a stop was requested.
    pub fn is_stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Returns the current counters.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressSnapshot {
            scans: read(&self.scans),
            finished: read(&self.finished),
            faulted: read(&self.faulted),
            accepted: read(&self.accepted),
            rejected: read(&self.rejected),
            committed: read(&self.committed),
        }
    }
}
