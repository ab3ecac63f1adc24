//! Committed files, and the location of a sample in them.

use serde::{Deserialize, Serialize};

/// The folder of all files that commits name.
pub const DATA: &str = "data";

/// A file that a commit adds or removes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// The path relative to the run folder.
    pub path: String,
    /// The owner of the file: a table, a sink, or the lists of a sink (`NAME.index`).
    pub table: String,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the content of the file.
    pub sha256: String,
    /// The number of rows of a table, or of samples of a shard or list.
    pub rows: u64,
}

/// The location of a sample's files in the run folder: columns of `samples`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The image file.
    pub image_path: Option<String>,
    /// SHA-256 of the image file, or of the file inside a shard.
    pub image_sha256: Option<String>,
    /// The label file.
    pub label_path: Option<String>,
    /// SHA-256 of the label file, or of the file inside a shard.
    pub label_sha256: Option<String>,
    /// The tar shard.
    pub shard: Option<String>,
    /// The offset of the sample's first tar header in the shard.
    pub shard_offset_bytes: Option<u64>,
    /// Bytes of the sample in the shard, headers and padding included.
    pub shard_length_bytes: Option<u64>,
    /// The tar shard of patches.
    pub patch_shard: Option<String>,
    /// The offset of the patch's first tar header in its shard.
    pub patch_offset_bytes: Option<u64>,
    /// Bytes of the patch in its shard, headers and padding included.
    pub patch_length_bytes: Option<u64>,
}

impl Placement {
    /// Adds the locations that `other` has and `self` lacks.
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

/// The number of digits of an epoch in names of files.
const EPOCH_DIGITS: usize = 12;

/// Formats an epoch with twelve digits, so that names sort like numbers.
pub fn epoch_name(epoch: u64) -> String {
    format!("{epoch:0EPOCH_DIGITS$}")
}

/// Returns the number of the epoch with which the name of a file starts, or `None` for another name, such as one that starts with the id of
/// a sample.
///
/// ```
/// use freetumor::record::epoch_of_name;
/// assert_eq!(epoch_of_name("000000000012-00ff.parquet"), Some(12));
/// assert_eq!(epoch_of_name("000000000012.checkpoint.json"), Some(12));
/// // Ids of samples have sixteen digits, and may have no letters.
/// assert_eq!(epoch_of_name("734509123412abcd-00ff.image.nii.gz"), None);
/// assert_eq!(epoch_of_name("7345091234121234-00ff.image.nii.gz"), None);
/// ```
pub fn epoch_of_name(name: &str) -> Option<u64> {
    let number = name.split(['-', '.']).next()?;
    number.parse().ok().filter(|epoch| number.len() == EPOCH_DIGITS && epoch_name(*epoch) == number)
}
