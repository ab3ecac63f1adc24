//! Deletion of earlier states of a run folder.

use std::collections::{BTreeMap, HashSet};

use super::base::{Base, base_name};
use super::ingest_manifest::private_text;
use super::ingested::IngestedScans;
use super::reader::{RunFolder, RunHead};
use super::{checkpoint_name, commit_name};
use crate::error::{Error, Result};
use crate::id::ScanId;
use crate::ingest::ScanEntry;
use crate::record::{DATA, FileEntry, epoch_of_name};
use crate::sink::pairs::{self, Pair};
use crate::store::{FileDigest, canonical};

/// Writes the base of an epoch; `head` is the state after its commit, whose checkpoint must exist.
///
/// # Errors
/// If files cannot be read or written.
pub(super) fn write_base(folder: &RunFolder, epoch: u64, head: &RunHead) -> Result<()> {
    let IngestedScans { entries, withdrawn } = folder.ingested(epoch + 1)?;
    // The last entry of a scan is that of its current version.
    let mut scans: BTreeMap<ScanId, ScanEntry> = BTreeMap::new();
    folder.for_each_entry(epoch + 1, &mut |entry| {
        if entries.contains_key(&entry.scan_id) {
            scans.insert(entry.scan_id, entry);
        }
    })?;
    let scans: Vec<ScanEntry> = scans.into_values().collect();
    let text = private_text(&scans)?;
    let base = Base {
        epoch,
        commit: head.sha256.clone(),
        entries: entries.into_values().collect(),
        withdrawn,
        private_sha256: FileDigest::of(&text).sha256,
    };
    let store = folder.store();
    store.create(&base.private_file_name(), &text)?;
    store.create(&base_name(epoch), &canonical::pretty(&base)?)
}

/// Removes everything that the base of a run replaces, and the files that no later state names. Returns the paths of the removed files.
///
/// # Errors
/// If files cannot be listed or removed.
pub(super) fn finish_purge(folder: &RunFolder) -> Result<Vec<String>> {
    let Some(base) = folder.base() else { return Ok(Vec::new()) };
    let store = folder.store();
    let is_earlier = |name: &str| epoch_of_name(name).is_some_and(|epoch| epoch <= base.epoch);
    // The commit and the checkpoint of the base are read; its ingest manifest may name withdrawn scans.
    let kept = [commit_name(base.epoch), checkpoint_name(base.epoch), base_name(base.epoch)];
    let epochs: Vec<String> = store.list("epochs")?.into_iter().map(|name| format!("epochs/{name}")).collect();
    let is_replaced = |name: &&String| is_earlier(name.trim_start_matches("epochs/")) && !kept.contains(name);
    let ingest: Vec<String> = store.list("ingest")?.into_iter().filter(|name| is_earlier(name)).collect();
    // These files are removed last: as long as they exist, the purge is incomplete.
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
        let is_open = epoch_of_name(&name).is_some_and(|epoch| Some(epoch) > folder.head());
        let path = format!("{DATA}/{name}");
        if !named.contains(&path) && !is_open {
            remove(path)?;
        }
    }
    for name in store.list("private")? {
        let is_earlier_base = name.starts_with("base-") && format!("private/{name}") != base.private_file_name();
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
