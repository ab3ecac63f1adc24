//! The description of a tar shard in committed lists and indexes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::id::{PatientKey, SampleId};
use crate::record::Split;

/// A committed shard in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// The path relative to the run folder.
    pub path: String,
    /// The split of the samples.
    pub split: Split,
    /// The length in bytes.
    pub bytes: u64,
    /// SHA-256 of the shard.
    pub sha256: String,
    /// The samples, sorted by key.
    pub samples: Vec<Member>,
}

/// A sample of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The sample id.
    pub key: SampleId,
    /// The patient key.
    pub patient_key: PatientKey,
    /// The offset of the sample's first tar header.
    pub offset_bytes: u64,
    /// The length of the sample, headers and padding included.
    pub length_bytes: u64,
}

impl Shard {
    /// Returns the file name.
    pub fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Returns the entry of the shard in an index of webdataset's `wids`.
    pub(super) fn wids_entry(&self) -> Value {
        let samples = self
            .samples
            .iter()
            .map(|member| json!({ "key": member.key, "offset": member.offset_bytes, "length": member.length_bytes }));
        json!({
            "url": format!("{}/{}", self.split, self.file()),
            "nsamples": self.samples.len(),
            "filesize": self.bytes,
            "sha256": self.sha256,
            "samples": samples.collect::<Vec<_>>(),
        })
    }
}
