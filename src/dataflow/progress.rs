//! Running totals for whoever watches.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, to be read at any time. Attempts on a scan that something spoils later are taken back; all else only grows.
#[derive(Debug, Default)]
pub struct Progress {
    scans: AtomicU64,
    finished: AtomicU64,
    faulted: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    committed: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Scans to be done in this run.
    pub scans: u64,
    /// Scans done, faulted ones included.
    pub finished: u64,
    /// Scans that were spoiled.
    pub faulted: u64,
    /// Tumors accepted.
    pub accepted: u64,
    /// Attempts rejected.
    pub rejected: u64,
    /// Epochs committed.
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

    /// Takes attempts back that do not count, as something spoiled their scan after them.
    pub(super) fn discard(&self, accepted: u64, rejected: u64) {
        self.accepted.fetch_sub(accepted, Ordering::Relaxed);
        self.rejected.fetch_sub(rejected, Ordering::Relaxed);
    }

    pub(super) fn epoch_committed(&self) {
        self.committed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            scans: read(&self.scans),
            finished: read(&self.finished),
            faulted: read(&self.faulted),
            accepted: read(&self.accepted),
            rejected: read(&self.rejected),
            committed: read(&self.committed),
        }
    }
}
