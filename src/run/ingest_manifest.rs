//! The scans of an epoch. The manifest is durable before the epoch starts, so that a restart processes the same scans.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::SourceGraph;
use crate::error::{Error, Result};
use crate::id::{GraphDigest, PatientKey, ScanId, ScanVersion, Tombstone};
use crate::ingest::ScanEntry;
use crate::record::epoch_name;
use crate::store::FileDigest;
use crate::store::canonical;

/// A scan of an epoch, without its path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestEntry {
    /// The scan's id.
    pub scan_id: ScanId,
    /// The source's name.
    pub source: String,
    /// The data set's name.
    pub dataset: String,
    /// The patient's keyed hash.
    pub patient_key: PatientKey,
    /// The size on disk.
    pub bytes: u64,
    /// The modification time in seconds since 1970.
    pub modified_s: i64,
    /// The version of all files that the results of the scan depend on.
    pub version: ScanVersion,
    /// The digest of the graph that the scan passed.
    pub graph: GraphDigest,
}

/// Returns the digest of the stages and sinks that the scans of a source pass; zeros if the graph has no such source.
pub fn graph_after(graphs: &BTreeMap<String, SourceGraph>, source: &str) -> GraphDigest {
    graphs.get(source).map(|graph| graph.results).unwrap_or_default()
}

impl IngestEntry {
    /// Creates the entry of a scan, with the digest of the graph that it passes.
    pub fn new(entry: &ScanEntry, graph: GraphDigest) -> Self {
        let ScanEntry { scan_id, source, key: _, dataset, patient_key, bytes, modified_s, version } = entry.clone();
        Self { scan_id, source, dataset, patient_key, bytes, modified_s, version, graph }
    }
}

/// An ingest manifest, the content of `ingest/N.json`: the changes of the scans of a run in one epoch.
///
/// An entry of a scan that an earlier epoch ingested replaces the results of the scan. The commit of the epoch removes the earlier rows and
/// samples of replaced and removed scans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestManifest {
    /// The epoch.
    pub epoch: u64,
    /// The scans to process, sorted.
    pub entries: Vec<IngestEntry>,
    /// The scans of earlier epochs whose stored candidates are tested by changed quality tests, or listed by changed sinks; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retested: Vec<IngestEntry>,
    /// The scans that are removed from the run, sorted.
    pub removed: Vec<ScanId>,
    /// The tombstones of withdrawn scans, sorted.
    pub withdrawn: Vec<Tombstone>,
}

/// The changes of the scans of a run in one epoch, with the paths of scans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochChanges {
    /// The scans to process.
    pub entries: Vec<ScanEntry>,
    /// The scans of earlier epochs whose stored candidates are tested again.
    pub retested: Vec<IngestEntry>,
    /// The scans that are removed from the run.
    pub removed: Vec<ScanId>,
    /// The tombstones of withdrawn scans.
    pub withdrawn: Vec<Tombstone>,
}

impl EpochChanges {
    /// Creates changes that only process scans.
    pub fn of_entries(entries: impl Into<Vec<ScanEntry>>) -> Self {
        Self { entries: entries.into(), ..Self::default() }
    }
}

/// A line of `private/N-DIGEST.jsonl`: the only file with the paths of scans.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrivateEntry {
    scan_id: ScanId,
    key: String,
}

impl IngestManifest {
    /// Creates the manifest of these changes; `graphs` are the digests of the stages and sinks that the scans of each source pass.
    ///
    /// # Errors
    /// If a scan is named twice.
    pub fn new(epoch: u64, changes: &EpochChanges, graphs: &BTreeMap<String, SourceGraph>) -> Result<Self> {
        let EpochChanges { entries, retested, removed, withdrawn } = changes;
        let entry = |entry: &ScanEntry| IngestEntry::new(entry, graph_after(graphs, &entry.source));
        let mut entries: Vec<IngestEntry> = entries.iter().map(entry).collect();
        entries.sort_unstable();
        let (mut retested, mut removed, mut withdrawn) = (retested.clone(), removed.clone(), withdrawn.clone());
        retested.sort_unstable();
        removed.sort_unstable();
        withdrawn.sort_unstable();
        withdrawn.dedup();
        let mut ids: Vec<ScanId> =
            entries.iter().chain(&retested).map(|entry| entry.scan_id).chain(removed.iter().copied()).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::new(format!("expected each scan once in epoch {epoch}, got scan {} twice", pair[0])));
        }
        Ok(Self { epoch, entries, retested, removed, withdrawn })
    }

    /// Returns the content of the file and its digest, which the commit of the epoch stores.
    ///
    /// # Errors
    /// None in practice: a manifest always has a JSON form.
    pub fn text(&self) -> Result<(Vec<u8>, String)> {
        let text = canonical::pretty(self)?;
        let digest = FileDigest::of(&text).sha256;
        Ok((text, digest))
    }

    /// Returns the name of the private file of this manifest.
    pub(super) fn private_file_name(&self, digest: &str) -> String {
        format!("private/{}-{digest}.jsonl", epoch_name(self.epoch))
    }
}

/// Returns the content of a private file: a line for each scan.
pub(super) fn private_text(entries: &[ScanEntry]) -> Result<Vec<u8>> {
    let mut entries: Vec<&ScanEntry> = entries.iter().collect();
    entries.sort_unstable_by_key(|entry| entry.scan_id);
    let mut text = Vec::new();
    for ScanEntry { scan_id, key, .. } in entries {
        text.extend(canonical::line(&PrivateEntry { scan_id: *scan_id, key: key.clone() })?);
    }
    Ok(text)
}

/// Returns scans with the keys of a private file.
///
/// # Errors
/// If the file has no key of a scan.
pub(super) fn with_keys(entries: &[IngestEntry], text: &[u8], path: &str) -> Result<Vec<ScanEntry>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let private = lines.map(|line| canonical::parse::<PrivateEntry>(line, path)).collect::<Result<Vec<_>>>()?;
    let keys: HashMap<_, _> = private.into_iter().map(|entry| (entry.scan_id, entry.key)).collect();
    entries
        .iter()
        .cloned()
        .map(|IngestEntry { scan_id, source, dataset, patient_key, bytes, modified_s, version, graph: _ }| {
            let key = keys.get(&scan_id).cloned();
            let key =
                key.ok_or_else(|| Error::new(format!("expected the path of scan {scan_id} in {path}, got none")))?;
            Ok(ScanEntry { scan_id, source, key, dataset, patient_key, bytes, modified_s, version })
        })
        .collect()
}
