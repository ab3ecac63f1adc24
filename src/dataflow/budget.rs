//! The memory budget: bytes are leased before use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use timely::scheduling::SyncActivator;

/// The memory budget of all open scans in bytes.
pub struct Budget {
    limit_bytes: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used_bytes: u64,
    peak_bytes: u64,
    waiting: Vec<SyncActivator>,
}

/// A part of the budget, released on drop.
pub struct Lease {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Creates a budget of `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, state: Mutex::default() })
    }

    /// Returns the size of the budget.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Returns the maximum number of bytes that were leased at once.
    pub fn peak_bytes(&self) -> u64 {
        self.state().peak_bytes
    }

    /// Leases `bytes`; `None` if fewer bytes are free now.
    pub fn lease(self: &Arc<Self>, bytes: u64) -> Option<Lease> {
        let mut state = self.state();
        if state.used_bytes.checked_add(bytes)? > self.limit_bytes {
            return None;
        }
        state.used_bytes += bytes;
        state.peak_bytes = state.peak_bytes.max(state.used_bytes);
        Some(Lease { budget: Arc::clone(self), bytes })
    }

    /// Registers an operator to be activated when bytes are released.
    pub fn wake_on_release(&self, activator: SyncActivator) {
        self.state().waiting.push(activator);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is always consistent, so a poisoned lock is harmless.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.used_bytes -= self.bytes;
        // Drop activators of ended workers.
        state.waiting.retain(|activator| activator.activate().is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_do_not_exceed_limit() {
        let budget = Budget::new(100);
        let first = budget.lease(60).unwrap();
        assert!(budget.lease(41).is_none());
        assert!(budget.lease(u64::MAX).is_none());
        let second = budget.lease(40).unwrap();
        drop(first);
        assert!(budget.lease(61).is_none());
        drop(second);
        assert_eq!(budget.peak_bytes(), 100);
        assert!(budget.lease(100).is_some());
    }
}
