//! The one place where an error that must stop the run waits to be found.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Set once, by whoever fails first; the workers look at it between steps.
#[derive(Default)]
pub struct Abort {
    set: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Abort {
    /// Asks the run to stop. Only the first error is kept.
    pub fn set(&self, error: Error) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.set.store(true, Ordering::Release);
    }

    /// Whether the run must stop.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Takes the error out.
    pub fn take(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
