//! Committed files and where samples are in them.

use serde::{Deserialize, Serialize};

/// The folder of everything that commits name.
pub const DATA: &str = "data";

/// A file that a commit adds or removes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name below the run folder.
    pub path: String,
    /// What it belongs to: a table, the name of a sink, or one of their lists (`NAME.index`).
    pub table: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
    /// Rows of a table, samples of a shard or list.
    pub rows: u64,
}

/// Where the files of a sample are in the run folder: columns of `samples`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The image file.
    pub image_path: Option<String>,
    /// SHA-256 of the image file, also of the one inside a shard.
    pub image_sha256: Option<String>,
    /// The label file.
    pub label_path: Option<String>,
    /// SHA-256 of the label file, also of the one inside a shard.
    pub label_sha256: Option<String>,
    /// The tar shard.
    pub shard: Option<String>,
    /// Where the sample's first tar header begins in the shard.
    pub shard_offset_bytes: Option<u64>,
    /// Bytes of the sample in the shard, headers and padding included.
    pub shard_length_bytes: Option<u64>,
    /// The tar shard of patches.
    pub patch_shard: Option<String>,
    /// Where the patch's first tar header begins in its shard.
    pub patch_offset_bytes: Option<u64>,
    /// Bytes of the patch in its shard, headers and padding included.
    pub patch_length_bytes: Option<u64>,
}

impl Placement {
    /// Adds the places that `other` has and this one lacks.
    pub fn merge(&mut self, other: Self) {
        let Self { image_path, image_sha256, label_path, label_sha256, .. } = other;
        if self.shard.is_none() {
            self.shard_offset_bytes = other.shard_offset_bytes;
            self.shard_length_bytes = other.shard_length_bytes;
            self.shard = other.shard;
        }
        if self.patch_shard.is_none() {
            self.patch_offset_bytes = other.patch_offset_bytes;
            self.patch_length_bytes = other.patch_length_bytes;
            self.patch_shard = other.patch_shard;
        }
        for (own, others) in [
            (&mut self.image_path, image_path),
            (&mut self.image_sha256, image_sha256),
            (&mut self.label_path, label_path),
            (&mut self.label_sha256, label_sha256),
        ] {
            *own = own.take().or(others);
        }
    }
}

/// Twelve digits, so that names sort like numbers.
pub fn epoch_name(epoch: u64) -> String {
    format!("{epoch:012}")
}
