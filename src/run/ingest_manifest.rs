//! The scans of an epoch: durable before its work starts, so that a restart does the same work again.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::{PatientKey, ScanId};
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
    /// Bytes on disk.
    pub bytes: u64,
    /// Time of its last change, in seconds since 1970.
    pub modified_s: i64,
}

impl From<&ScanEntry> for IngestEntry {
    fn from(entry: &ScanEntry) -> Self {
        let ScanEntry { scan_id, source, key: _, dataset, patient_key, bytes, modified_s } = entry.clone();
        Self { scan_id, source, dataset, patient_key, bytes, modified_s }
    }
}

/// `ingest/N.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestManifest {
    /// The epoch.
    pub epoch: u64,
    /// The scans, sorted.
    pub entries: Vec<IngestEntry>,
}

/// A line of `private/N-DIGEST.jsonl`: the only file with the paths of scans.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrivateEntry {
    scan_id: ScanId,
    key: String,
}

impl IngestManifest {
    /// The manifest of these scans.
    ///
    /// # Errors
    /// If a scan is there twice.
    pub fn new(epoch: u64, entries: &[ScanEntry]) -> Result<Self> {
        let mut entries: Vec<IngestEntry> = entries.iter().map(IngestEntry::from).collect();
        entries.sort_unstable();
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].scan_id == pair[1].scan_id) {
            return Err(Error::new(format!("scan {} is twice in epoch {epoch}", twice[0].scan_id)));
        }
        Ok(Self { epoch, entries })
    }

    /// The file's text and its digest, which the epoch's commit names.
    ///
    /// # Errors
    /// None in practice: a manifest is always JSON.
    pub fn text(&self) -> Result<(Vec<u8>, String)> {
        let text = canonical::pretty(self)?;
        let digest = FileDigest::of(&text).sha256;
        Ok((text, digest))
    }

    /// The name of the private file that belongs to this manifest.
    pub(super) fn private_name(&self, digest: &str) -> String {
        format!("private/{}-{digest}.jsonl", epoch_name(self.epoch))
    }

    pub(super) fn private_text(&self, entries: &[ScanEntry]) -> Result<Vec<u8>> {
        let mut entries: Vec<&ScanEntry> = entries.iter().collect();
        entries.sort_unstable_by_key(|entry| entry.scan_id);
        let mut text = Vec::new();
        for ScanEntry { scan_id, key, .. } in entries {
            text.extend(canonical::line(&PrivateEntry { scan_id: *scan_id, key: key.clone() })?);
        }
        Ok(text)
    }

    /// The scans with their keys.
    pub(super) fn with_private(&self, text: &[u8], place: &str) -> Result<Vec<ScanEntry>> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let private = lines.map(|line| canonical::parse::<PrivateEntry>(line, place)).collect::<Result<Vec<_>>>()?;
        let keys: std::collections::HashMap<_, _> =
            private.into_iter().map(|entry| (entry.scan_id, entry.key)).collect();
        self.entries
            .iter()
            .cloned()
            .map(|IngestEntry { scan_id, source, dataset, patient_key, bytes, modified_s }| {
                let key = keys.get(&scan_id).cloned();
                let key = key.ok_or_else(|| Error::new(format!("{place} has no path of scan {scan_id}")))?;
                Ok(ScanEntry { scan_id, source, key, dataset, patient_key, bytes, modified_s })
            })
            .collect()
    }
}
