//! Memory, counted in bytes before it is used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use timely::scheduling::SyncActivator;

/// The bytes that open scans may hold together.
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

/// A part of the budget, given back when dropped.
pub struct Lease {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, state: Mutex::default() })
    }

    /// All the bytes there are.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// The most bytes that were ever leased at once.
    pub fn peak_bytes(&self) -> u64 {
        self.state().peak_bytes
    }

    /// Leases `bytes`, or says that they are not free now.
    pub fn lease(self: &Arc<Self>, bytes: u64) -> Option<Lease> {
        let mut state = self.state();
        if state.used_bytes.checked_add(bytes)? > self.limit_bytes {
            return None;
        }
        state.used_bytes += bytes;
        state.peak_bytes = state.peak_bytes.max(state.used_bytes);
        Some(Lease { budget: Arc::clone(self), bytes })
    }

    /// Asks that an operator be woken whenever bytes come back.
    pub fn wake_on_release(&self, activator: SyncActivator) {
        self.state().waiting.push(activator);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is a few numbers, whole at every moment: a panic elsewhere cannot have torn it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.used_bytes -= self.bytes;
        // A worker that has ended needs no waking.
        state.waiting.retain(|activator| activator.activate().is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_never_pass_the_limit() {
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
