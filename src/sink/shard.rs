//! A tar shard as committed lists and indexes name it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::id::{PatientKey, SampleId};
use crate::record::Split;

/// A committed shard, as an index lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its file below the run folder.
    pub path: String,
    /// The split of its samples.
    pub split: Split,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
    /// Its samples, sorted by key.
    pub samples: Vec<Member>,
}

/// A sample of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The sample.
    pub key: SampleId,
    /// Its patient.
    pub patient_key: PatientKey,
    /// Where its first tar header begins.
    pub offset_bytes: u64,
    /// Its bytes, headers and padding included.
    pub length_bytes: u64,
}

impl Shard {
    /// The name of its file.
    pub fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The shard as the `wids` part of webdataset describes it.
    pub(super) fn described(&self) -> Value {
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
