//! The base of a run folder: the earliest state that can be read, if earlier commits were removed.
//!
//! ```text
//! RUN/epochs/000000000012.checkpoint.json   the files after commit 12
//! RUN/epochs/000000000012.base.json         the scans and tombstones after commit 12
//! RUN/private/base-000000000012-….jsonl     the paths of these scans
//! ```
//!
//! Readers start from the base with the highest number; it replaces all manifests and commits up to its epoch. A base is durable before
//! anything is removed, and a writer that was stopped in between removes the rest at its next start.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::IngestEntry;
use crate::error::{Error, Result};
use crate::id::Tombstone;
use crate::record::epoch_name;
use crate::store::{DurableStorage, canonical};

/// The base of a run folder, the content of `epochs/N.base.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The epoch.
    pub epoch: u64,
    /// SHA-256 of the commit of the epoch.
    pub commit: String,
    /// The scans of the run after the epoch, sorted.
    pub entries: Vec<IngestEntry>,
    /// The tombstones of withdrawn scans.
    pub withdrawn: BTreeSet<Tombstone>,
    /// SHA-256 of the private file with the paths of the scans.
    pub private_sha256: String,
}

impl Base {
    /// Returns the name of the private file with the paths of the scans.
    pub(super) fn private_file_name(&self) -> String {
        format!("private/base-{}-{}.jsonl", epoch_name(self.epoch), self.private_sha256)
    }
}

/// Returns the name of the base of an epoch.
pub(super) fn base_name(epoch: u64) -> String {
    format!("epochs/{}.base.json", epoch_name(epoch))
}

/// Reads the base with the highest number; `None` if there is none.
///
/// # Errors
/// If the base cannot be read.
pub(super) fn read_last(store: &dyn DurableStorage) -> Result<Option<Base>> {
    let names = store.list("epochs")?;
    let Some(name) = names.iter().rev().find(|name| name.ends_with(".base.json")) else { return Ok(None) };
    let name = format!("epochs/{name}");
    let path = store.display_path(&name);
    let text = store.read(&name)?.ok_or_else(|| Error::new(format!("expected {path}, got none")))?;
    canonical::parse(&text, &path).map(Some)
}
