//! The shared error that stops a run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// The first error that stops the run; workers check for it between steps.
#[derive(Default)]
pub struct Abort {
    set: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Abort {
    /// Stops the run. Only the first error is kept.
    pub fn set(&self, error: Error) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.set.store(true, Ordering::Release);
    }

    /// Returns whether the run must stop.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Removes and returns the error; `None` if no error was stored.
    pub fn take(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
