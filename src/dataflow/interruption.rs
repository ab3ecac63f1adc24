//! The end of the epochs of a run before their last one, to execute requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::run::requests::has_requests;
use crate::store::DurableStorage;

/// The decision whether a run ends its epochs early to execute requests: the same for all workers, which reach it at different times.
pub(super) struct Interruption {
    store: Arc<dyn DurableStorage>,
    /// Whether requests existed when this number of epochs had been fed to the dataflow.
    decided: Mutex<HashMap<usize, bool>>,
}

impl Interruption {
    pub fn new(store: Arc<dyn DurableStorage>) -> Self {
        Self { store, decided: Mutex::default() }
    }

    /// Returns whether a worker stops after `epochs` epochs.
    pub fn ends_after(&self, epochs: usize) -> bool {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        *decided.entry(epochs).or_insert_with(|| has_requests(&*self.store))
    }
}
