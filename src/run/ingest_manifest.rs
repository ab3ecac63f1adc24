//! The scans of an epoch. The manifest is durable before the epoch starts, so that a restart processes the same scans.

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
    /// The size on disk.
    pub bytes: u64,
    /// The modification time in seconds since 1970.
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
    /// Creates the manifest of these scans.
    ///
    /// # Errors
    /// If two entries have one scan id.
    pub fn new(epoch: u64, entries: &[ScanEntry]) -> Result<Self> {
        let mut entries: Vec<IngestEntry> = entries.iter().map(IngestEntry::from).collect();
        entries.sort_unstable();
        if let Some(duplicates) = entries.windows(2).find(|pair| pair[0].scan_id == pair[1].scan_id) {
            return Err(Error::new(format!(
                "expected each scan once in epoch {epoch}, got scan {} twice",
                duplicates[0].scan_id
            )));
        }
        Ok(Self { epoch, entries })
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

    /// Returns the scans with the keys of the private file.
    pub(super) fn with_private(&self, text: &[u8], path: &str) -> Result<Vec<ScanEntry>> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let private = lines.map(|line| canonical::parse::<PrivateEntry>(line, path)).collect::<Result<Vec<_>>>()?;
        let keys: std::collections::HashMap<_, _> =
            private.into_iter().map(|entry| (entry.scan_id, entry.key)).collect();
        self.entries
            .iter()
            .cloned()
            .map(|IngestEntry { scan_id, source, dataset, patient_key, bytes, modified_s }| {
                let key = keys.get(&scan_id).cloned();
                let key =
                    key.ok_or_else(|| Error::new(format!("expected the path of scan {scan_id} in {path}, got none")))?;
                Ok(ScanEntry { scan_id, source, key, dataset, patient_key, bytes, modified_s })
            })
            .collect()
    }
}
