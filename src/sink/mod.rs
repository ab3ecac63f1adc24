//! Where samples go: tables of records, files for trainers.
//!
//! The way of an epoch: while its scans are worked on, each is spooled by whichever thread has it ([`spool`]): files of
//! its accepted samples, encoded once, and its rows. When all are done, every [`Sink`] seals the epoch: it publishes what
//! the commit will name, under names that follow from content. After the commit a sink may project what is committed
//! into a layout that other programs list by themselves. Spooling, sealing and projecting may be repeated at any time
//! with the same result; what is spooled or sealed but not committed does not exist for a reader.

pub mod canonical;
mod decathlon;
pub mod durable;
mod layout;
pub mod nifti;
mod nnunet;
pub mod pairs;
pub mod parquet;
mod record;
pub mod schema;
mod split;
pub mod spool;
pub mod stream;
mod trainer;
mod webdataset;

use serde::{Deserialize, Serialize};

pub use decathlon::{DecathlonConfig, DecathlonSink};
pub use nnunet::{NnunetConfig, NnunetSink};
pub use record::{FaultRecord, Outcome, QualityRecord, SampleRecord, ScanRecord, Split};
pub use stream::{StreamConfig, StreamSink};
pub use trainer::{TrainerConfig, TrainerSink};
pub use webdataset::{WebDatasetConfig, WebDatasetSink};

use crate::error::{Complaint, Result};
use crate::mask::MaskedScan;
use crate::synth::Candidate;
use durable::{Durable, FileDigest};

/// One accepted tumor with everything that a file of it needs.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The untouched scan and its organs.
    pub masked: &'a MaskedScan,
    /// The tumor in its box.
    pub candidate: &'a Candidate,
    /// Its row.
    pub record: &'a SampleRecord,
}

/// An accepted sample as a sink gets it: its row and its spooled files.
#[derive(Clone, Debug, PartialEq)]
pub struct Spooled {
    /// Its row.
    pub record: SampleRecord,
    /// Staged name of the image.
    pub image_path: String,
    /// Length and content of the image.
    pub image: FileDigest,
    /// Staged name of the label.
    pub label_path: String,
    /// Length and content of the label.
    pub label: FileDigest,
}

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

/// Where a sample lies in the run folder: columns of `samples`.
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
}

impl Placement {
    /// Takes over what `other` says and this one does not.
    pub fn merge(&mut self, other: Self) {
        let Self { image_path, image_sha256, label_path, label_sha256, shard, .. } = other;
        if self.shard.is_none() && shard.is_some() {
            self.shard_offset_bytes = other.shard_offset_bytes;
            self.shard_length_bytes = other.shard_length_bytes;
            self.shard = shard;
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

/// What a sink made of an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sealed {
    /// Durable files for the commit to name.
    pub files: Vec<FileEntry>,
    /// Where each sample lies, in the order in which they were given.
    pub placements: Vec<Placement>,
}

/// A kind of training set.
pub trait Sink: Send + Sync {
    /// The sink's name in the graph file, and the folder of its layout.
    fn name(&self) -> &str;

    /// The `table` of the committed lists by which it knows what is in it: `NAME.index`, or `pairs.NAME` for sinks that
    /// share image and label files.
    fn index(&self) -> String;

    /// The level at which it wants `.nii.gz` files compressed.
    fn gzip_level(&self) -> u32;

    /// Publishes the accepted samples of one epoch, sorted by sample_id, under names that follow from their content.
    /// Repeating it changes nothing.
    ///
    /// # Errors
    /// Where files cannot be written, or where a patient is in two splits.
    fn seal(&self, store: &dyn Durable, epoch: u64, samples: &[Spooled]) -> Result<Sealed>;

    /// Brings the sink's layout in line with what is committed: `index` are the committed files whose `table` is
    /// [`Sink::index`]. Repeating it changes nothing; a layout that was damaged or removed is made again.
    ///
    /// # Errors
    /// Where files cannot be read or written, or where a patient is in two splits.
    fn project(&self, store: &dyn Durable, index: &[FileEntry]) -> Result<()>;

    /// Whose samples it streams, where it is a stream.
    fn streams(&self) -> Option<Split> {
        None
    }

    /// Whether it stands for a training, which takes tumors and no files.
    fn trains(&self) -> bool {
        false
    }
}

/// Twelve digits, so that names sort like numbers.
pub fn epoch_name(epoch: u64) -> String {
    format!("{epoch:012}")
}

/// Names of `table` that are no sinks.
pub const RESERVED_TABLES: [&str; 6] = ["samples", "scans", "faults", "quality", "pairs", "train"];

fn check_name(name: &str, complaints: &mut Vec<Complaint>) {
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if !plain {
        let message = format!(
            "a sink's name becomes a folder: lower-case letters, digits, `_` and `-` are allowed, got {name:?}"
        );
        complaints.push(Complaint::new("", message));
    } else if RESERVED_TABLES.contains(&name) {
        let hint = format!("call it `{name}_set`");
        complaints.push(Complaint::new("", format!("{name:?} is the name of a table")).with_hint(hint));
    }
}

fn check_gzip_level(level: u32, complaints: &mut Vec<Complaint>) {
    if !(1..=9).contains(&level) {
        complaints.push(Complaint::new("gzip_level", format!("gzip knows levels 1 (fast) to 9 (small), got {level}")));
    }
}
