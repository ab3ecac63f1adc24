//! Sinks: the layouts in which samples are written for trainers.
//!
//! This module owns the file formats of all kinds of sinks.
//!
//! While a scan is in memory, its thread stages the files of its samples ([`crate::run::spool`]): the patch of each kept candidate
//! and, if a layout requires whole volumes, image and label. When all scans of an epoch are done, every [`Layout`] seals the epoch: the
//! layout publishes the files of the commit under names that are derived from their content. After the commit the layout projects the
//! committed files into a folder for other programs. Sealing and projecting are idempotent; staged or sealed files that are not
//! committed do not exist for readers.
//!
//! When scans are removed from the run, the epochs of these scans are sealed again: a layout copies the files of the other samples from the
//! committed files.

mod decathlon;
mod gzip;
mod layout;
mod nnunet;
mod output;
pub mod pairs;
pub mod patch;
mod patches;
mod shard;
pub mod shards;
pub mod stream;
pub mod tar;
pub mod volume_files;
mod webdataset;

pub use decathlon::{DecathlonConfig, DecathlonSink};
pub use nnunet::{NnunetConfig, NnunetSink};
pub use output::{Output, TrainerConfig, trainer};
pub use patches::{BUCKETS, PATCHES, PatchesConfig, PatchesSink, seal_patches, seal_unsplit};
pub use stream::{StreamConfig, StreamSink};
pub use webdataset::{WebDatasetConfig, WebDatasetSink, append_sample};

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{ConfigError, Error, Result};
use crate::id::SampleId;
use crate::record::{FileEntry, Placement, SampleRecord, Split};
use crate::store::{DurableStorage, FileDigest};

/// The content that a layout requires of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The patch alone.
    Patches,
    /// Whole image and label files, compressed at least at this level of gzip.
    Volumes {
        /// 1 to 9.
        gzip_level: u32,
    },
}

/// A file in the staging folder of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// The path in the staging folder.
    pub path: String,
    /// The length and digest.
    pub digest: FileDigest,
}

/// The patch of a sample: a staged file, or a part of a committed shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchPart {
    /// The path relative to the run folder.
    pub path: String,
    /// The offset of the first byte.
    pub offset_bytes: u64,
    /// The number of bytes.
    pub length_bytes: u64,
}

impl From<StagedFile> for PatchPart {
    fn from(file: StagedFile) -> Self {
        Self { path: file.path, offset_bytes: 0, length_bytes: file.digest.bytes }
    }
}

/// The staged image and label of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedVolumes {
    /// The image.
    pub image: StagedFile,
    /// The label.
    pub label: StagedFile,
}

/// A sample as a layout receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedSample {
    /// The row; of several tumors, that of the first.
    pub record: SampleRecord,
    /// The rows of the other tumors of the sample, by the same quality test.
    pub others: Vec<SampleRecord>,
    /// The patch: the members that [`patch::encode_patch`] encodes.
    pub patch: Option<PatchPart>,
    /// The image and label, if a layout requires whole volumes.
    pub volumes: Option<StagedVolumes>,
    /// The location of the committed files, if the epoch of the sample is sealed again.
    pub committed: Option<Placement>,
    /// Whether the rows differ from those that the committed files describe.
    pub is_retested: bool,
}

impl StagedSample {
    /// Returns the image and label.
    ///
    /// # Errors
    /// If image and label were not staged.
    pub fn volumes(&self) -> Result<&StagedVolumes> {
        let missing =
            || Error::new(format!("expected staged image and label of sample {}, got none", self.record.sample_id));
        self.volumes.as_ref().ok_or_else(missing)
    }
}

/// An epoch that is being sealed.
#[derive(Clone, Copy)]
pub struct EpochStage<'a> {
    /// The run folder.
    pub store: &'a dyn DurableStorage,
    /// The epoch.
    pub epoch: u64,
    /// The staging folder, relative to the run folder.
    pub folder: &'a str,
    /// The shards of patches: all samples of a shard have the same `patches` sinks.
    pub patches: &'a [shard::Shard],
    /// The committed files of the epoch, if the epoch is sealed again; otherwise empty.
    pub committed: &'a [FileEntry],
}

/// The files of a layout for one epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SealedLayout {
    /// Durable files, to be listed in the commit.
    pub files: Vec<FileEntry>,
    /// The location of each sample, in the order of the samples.
    pub placements: Vec<Placement>,
}

/// The result of synchronizing a layout folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutReport {
    /// The number of samples of each split.
    pub samples: BTreeMap<Split, usize>,
    /// Files of other origin among the samples, which are kept: paths relative to the run folder.
    pub foreign: Vec<String>,
}

/// A file layout of a training set.
pub trait Layout: Send + Sync {
    /// Returns the name of the sink in the graph file, which is also the name of its layout folder.
    fn name(&self) -> &str;

    /// Returns the `table` of the committed lists of samples: `NAME.index`, or `pairs.NAME` for layouts that share image and label files.
    fn index(&self) -> String;

    /// Returns the content that the layout requires of each sample.
    fn content(&self) -> Content;

    /// Returns the samples whose files an epoch that is sealed again has; `None` if the layout needs only patches.
    ///
    /// # Errors
    /// If a committed list cannot be read.
    fn committed_samples(&self, _stage: &EpochStage<'_>) -> Result<Option<BTreeSet<SampleId>>> {
        Ok(None)
    }

    /// Publishes the samples of one epoch, sorted by sample_id, under names that are derived from their content. The files of committed
    /// samples are copied or listed again. This operation is idempotent.
    ///
    /// # Errors
    /// If files cannot be written or if a patient is in two splits.
    fn seal(&self, stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<SealedLayout>;

    /// Synchronizes the folder of the layout with the committed files: `index` are the committed files whose `table` is
    /// [`Layout::index`]. This operation is idempotent; damaged or removed files are recreated, and files of other origin are kept.
    ///
    /// # Errors
    /// If files cannot be read or written or if a patient is in two splits.
    fn project(&self, store: &dyn DurableStorage, index: &[FileEntry]) -> Result<LayoutReport>;
}

/// Reserved values of `table` that a sink may not use as its name.
pub const RESERVED_TABLES: [&str; 7] = ["samples", "scans", "faults", "quality", "pairs", "patches", "train"];

fn check_name(name: &str, errors: &mut Vec<ConfigError>) {
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if !plain {
        let message = format!("expected a folder name of lower-case letters, digits, `_` and `-`, got {name:?}");
        errors.push(ConfigError::new("", message));
    } else if RESERVED_TABLES.contains(&name) {
        let hint = format!("rename the sink, for example to `{name}_set`");
        errors.push(ConfigError::new("", format!("expected a name that is not a table, got {name:?}")).with_hint(hint));
    }
}

fn check_gzip_level(level: u32, errors: &mut Vec<ConfigError>) {
    if !(1..=9).contains(&level) {
        errors
            .push(ConfigError::new("gzip_level", format!("expected a level from 1 (fast) to 9 (small), got {level}")));
    }
}
