//! The contents of the held-out scans of a training run, which are not trained on.

use std::path::Path;
use std::sync::Mutex;

use super::run::HELD_OUT_CACHE;
use crate::error::Result;
use crate::graph::Plan;
use crate::ingest::{HeldOut, HeldOutCache};
use crate::store::canonical;

/// The contents of held-out scans.
pub(super) struct HeldOutContents {
    /// The digests.
    pub contents: HeldOut,
    /// The content of the file of known digests, with which the training run resumes without reading the scans again.
    pub cache: Vec<u8>,
}

impl HeldOutContents {
    /// Computes the digests of the held-out scans of a file; those that the output folder `out` has are not computed again.
    ///
    /// # Errors
    /// Returns an error if a held-out scan cannot be read: copies of it would be trained on.
    pub fn of(plan: &Plan, out: &Path) -> Result<Self> {
        if plan.never_train.is_empty() {
            return Ok(Self { contents: HeldOut::default(), cache: Vec::new() });
        }
        let path = out.join("private").join(HELD_OUT_CACHE);
        let mut cache = std::fs::read(&path).unwrap_or_default();
        let known: HeldOutCache = canonical::parse(&cache, &path.display().to_string()).unwrap_or_default();
        let changed = Mutex::new(None);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let contents = plan.never_train.digests(threads, &known, &|cache| {
            if let Ok(mut changed) = changed.lock() {
                *changed = Some(canonical::pretty(cache)?);
            }
            Ok(())
        })?;
        if let Some(changed) = changed.into_inner().unwrap_or_default() {
            cache = changed;
        }
        Ok(Self { contents, cache })
    }
}
