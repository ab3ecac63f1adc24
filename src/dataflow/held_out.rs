//! The contents of the held-out scans of a run, with their cache in the run folder.

use crate::error::Result;
use crate::graph::Plan;
use crate::ingest::{HeldOut, HeldOutCache};
use crate::store::{DurableStorage, canonical};

/// The digests of the held-out scans with the paths of their files.
const CACHE: &str = "private/held_out.json";

/// Returns the contents of the held-out scans. Scans whose files have not changed since the last run are not read again.
pub(super) fn held_out_contents(plan: &Plan, store: &dyn DurableStorage, threads: usize) -> Result<HeldOut> {
    if plan.never_train.is_empty() {
        return Ok(HeldOut::default());
    }
    let save = |cache: &HeldOutCache| {
        let text = canonical::pretty(cache)?;
        store.replace(CACHE, &mut |out| out.write_all(&text))
    };
    plan.never_train.digests(threads, &read_cache(store)?, &save)
}

/// Returns the contents of the held-out scans as [`held_out_contents`] does, and writes nothing.
pub(super) fn contents_without_saving(plan: &Plan, store: &dyn DurableStorage) -> Result<HeldOut> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    plan.never_train.digests(threads, &read_cache(store)?, &|_| Ok(()))
}

/// Returns the contents of the held-out scans if all of them are in the cache; otherwise `None`.
pub(super) fn cached_contents(plan: &Plan, store: &dyn DurableStorage) -> Result<Option<HeldOut>> {
    plan.never_train.cached_digests(&read_cache(store)?)
}

/// Reads the cache; a cache that cannot be parsed is computed again.
fn read_cache(store: &dyn DurableStorage) -> Result<HeldOutCache> {
    let text = store.read(CACHE)?;
    Ok(text.and_then(|text| canonical::parse(&text, &store.display_path(CACHE)).ok()).unwrap_or_default())
}
