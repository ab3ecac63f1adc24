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

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ingest_manifest::private_text;
use super::ingested::IngestedScans;
use super::reader::RunFolder;
use super::{IngestEntry, RunWriter, checkpoint_name, commit_name};
use crate::error::{Error, Result};
use crate::id::{ScanId, Tombstone};
use crate::ingest::ScanEntry;
use crate::record::{DATA, FileEntry, epoch_name};
use crate::sink::pairs::{self, Pair};
use crate::store::{FileDigest, canonical};

/// `epochs/N.base.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The epoch.
    pub epoch: u64,
    /// SHA-256 of the commit of the epoch.
    pub commit: String,
    /// The scans of the run, sorted.
    pub entries: Vec<IngestEntry>,
    /// The tombstones of withdrawn scans.
    pub withdrawn: BTreeSet<Tombstone>,
    /// SHA-256 of the private file with the paths of the scans.
    pub private_sha256: String,
}

impl Base {
    /// Returns the name of the private file with the paths of the scans.
    pub(super) fn private_name(&self) -> String {
        format!("private/base-{}-{}.jsonl", epoch_name(self.epoch), self.private_sha256)
    }
}

fn base_name(epoch: u64) -> String {
    format!("epochs/{}.base.json", epoch_name(epoch))
}

impl RunFolder {
    /// Reads the base with the highest number; `None` if there is none.
    pub(super) fn last_base(&self) -> Result<Option<Arc<Base>>> {
        let names = self.store().list("epochs")?;
        let Some(name) = names.iter().rev().find(|name| name.ends_with(".base.json")) else { return Ok(None) };
        let name = format!("epochs/{name}");
        let path = self.store().display_path(&name);
        let text = self.store().read(&name)?.ok_or_else(|| Error::new(format!("expected {path}, got none")))?;
        canonical::parse(&text, &path).map(|base| Some(Arc::new(base)))
    }
}

impl RunWriter {
    /// Removes the states before those of the last `keep_epochs` commits and the last one: they can no longer be read, and all files that
    /// no later state names are removed. Returns the paths of the removed files.
    ///
    /// # Errors
    /// If files cannot be read, written or removed.
    pub fn purge(&mut self, keep_epochs: u64) -> Result<Vec<String>> {
        let Some(epoch) = self.head().epoch.and_then(|head| head.checked_sub(keep_epochs)) else {
            return Ok(Vec::new());
        };
        if self.folder().base().is_some_and(|base| base.epoch >= epoch) {
            return finish_purge(self.folder());
        }
        let folder = self.folder();
        let IngestedScans { entries, withdrawn } = folder.ingested(epoch + 1)?;
        // The last entry of a scan is that of its current version.
        let mut scans: BTreeMap<ScanId, ScanEntry> = BTreeMap::new();
        folder.for_each_entry(epoch + 1, &mut |entry| {
            if entries.contains_key(&entry.scan_id) {
                scans.insert(entry.scan_id, entry);
            }
        })?;
        let head = folder.head_at(Some(epoch))?;
        self.write_checkpoint_of(epoch, &head)?;
        let scans: Vec<ScanEntry> = scans.into_values().collect();
        let text = private_text(&scans)?;
        let base = Base {
            epoch,
            commit: head.sha256,
            entries: entries.into_values().collect(),
            withdrawn,
            private_sha256: FileDigest::of(&text).sha256,
        };
        let store = folder.store();
        store.create(&base.private_name(), &text)?;
        store.create(&base_name(epoch), &canonical::pretty(&base)?)?;
        self.reopen()?;
        finish_purge(self.folder())
    }
}

/// Removes everything that the base of a run replaces, and the files that no later state names. Returns the paths of the removed files.
///
/// # Errors
/// If files cannot be listed or removed.
pub(super) fn finish_purge(folder: &RunFolder) -> Result<Vec<String>> {
    let Some(base) = folder.base() else { return Ok(Vec::new()) };
    let store = folder.store();
    let is_earlier = |name: &str| epoch_of(name).is_some_and(|epoch| epoch <= base.epoch);
    // The commit and the checkpoint of the base are read; its ingest manifest may name withdrawn scans.
    let kept = [commit_name(base.epoch), checkpoint_name(base.epoch), base_name(base.epoch)];
    let epochs: Vec<String> = store.list("epochs")?.into_iter().map(|name| format!("epochs/{name}")).collect();
    let is_replaced = |name: &&String| is_earlier(name.trim_start_matches("epochs/")) && !kept.contains(name);
    let ingest: Vec<String> = store.list("ingest")?.into_iter().filter(|name| is_earlier(name)).collect();
    // These are removed last, so that their presence shows what is left to remove.
    if ingest.is_empty() && !epochs.iter().any(|name| is_replaced(&name)) {
        return Ok(Vec::new());
    }
    let mut removed = Vec::new();
    let mut remove = |name: String| {
        store.purge(&name)?;
        removed.push(name);
        Ok::<_, Error>(())
    };
    if !base.withdrawn.is_empty() {
        // Timings and results of requests name scans.
        store.remove("telemetry")?;
        for name in store.list("requests")?.into_iter().filter(|name| name.ends_with(".result.json")) {
            store.remove(&format!("requests/{name}"))?;
        }
    }
    let named = named_files(folder, base.epoch)?;
    for name in store.list(DATA)?.into_iter() {
        // Files of an epoch that is being sealed are not named yet.
        let is_open = epoch_of(&name).is_some_and(|epoch| Some(epoch) > folder.head());
        let path = format!("{DATA}/{name}");
        if !named.contains(&path) && !is_open {
            remove(path)?;
        }
    }
    for name in store.list("private")? {
        let is_earlier_base = name.starts_with("base-") && format!("private/{name}") != base.private_name();
        if is_earlier(&name) || is_earlier_base {
            remove(format!("private/{name}"))?;
        }
    }
    ["data", "private"].into_iter().try_for_each(|folder| store.sync_folder(folder))?;
    for name in epochs.iter().filter(is_replaced) {
        remove(name.clone())?;
    }
    for name in ingest {
        remove(format!("ingest/{name}"))?;
    }
    ["epochs", "ingest"].into_iter().try_for_each(|folder| store.sync_folder(folder))?;
    Ok(removed)
}

/// Returns the number of an epoch with which a name starts; `None` for another name, such as one that starts with the id of a sample.
fn epoch_of(name: &str) -> Option<u64> {
    let number = name.split(['-', '.']).next()?;
    number.parse().ok().filter(|epoch| epoch_name(*epoch) == number)
}

/// Returns the paths of all files that the states from an epoch on name.
fn named_files(folder: &RunFolder, first: u64) -> Result<HashSet<String>> {
    let mut named = HashSet::new();
    let mut lists: Vec<FileEntry> = Vec::new();
    let mut add = |file: FileEntry| {
        named.insert(file.path.clone());
        if pairs::is_index(&file.table) {
            lists.push(file);
        }
    };
    folder.for_each_file(Some(first), &mut |file| {
        add(file);
        Ok(())
    })?;
    for epoch in first + 1..=folder.head().unwrap_or(first) {
        folder.commit(epoch)?.0.add.into_iter().for_each(&mut add);
    }
    let pairs = pairs::read_pairs(&**folder.store(), &lists)?;
    named.extend(pairs.iter().flat_map(Pair::files).map(|file| file.path));
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_epochs_are_read_from_names() {
        assert_eq!(epoch_of("000000000012-abc.parquet"), Some(12));
        assert_eq!(epoch_of("000000000012.checkpoint.json"), Some(12));
        // The id of a sample may start with digits only.
        assert_eq!(epoch_of("734509123412abcd-00ff.image.nii.gz"), None);
        assert_eq!(epoch_of("7345091234121234-00ff.image.nii.gz"), None);
        assert_eq!(epoch_of("base-000000000012-abc.jsonl"), None);
    }
}
