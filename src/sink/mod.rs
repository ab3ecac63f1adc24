//! Layouts: what becomes of samples as files for trainers.
//!
//! This room owns the files of every kind of sink, down to their bytes.
//!
//! While a scan is in memory, whichever thread has it stages the files of its samples ([`crate::run::spool`]): the patch of each kept
//! candidate and, where a layout asks for whole volumes, image and label. When all scans of an epoch are done, every [`Layout`] seals
//! the epoch: it publishes what the commit will name, under names that follow from content. After the commit it projects what is
//! committed into a folder that other programs list by themselves. Sealing and projecting may be repeated at any time with the same
//! result; what is staged or sealed but not committed does not exist for a reader.

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

use crate::error::{ConfigError, Error, Result};
use crate::record::{FileEntry, Placement, SampleRecord};
use crate::store::{Durable, FileDigest};

/// What a layout needs of each sample.
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

/// A staged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// Its staged name.
    pub path: String,
    /// Its length and content.
    pub digest: FileDigest,
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
    /// Its row.
    pub record: SampleRecord,
    /// Its patch: the members of [`patch::encode_patch`].
    pub patch: Option<StagedFile>,
    /// Its image and label, where some layout takes whole volumes.
    pub volumes: Option<StagedVolumes>,
}

impl StagedSample {
    /// Its image and label.
    ///
    /// # Errors
    /// Where they were not staged.
    pub fn volumes(&self) -> Result<&StagedVolumes> {
        let missing = || Error::new(format!("no image and label were staged of sample {}", self.record.sample_id));
        self.volumes.as_ref().ok_or_else(missing)
    }
}

/// An epoch that is being sealed.
#[derive(Clone, Copy)]
pub struct EpochStage<'a> {
    /// The run folder.
    pub store: &'a dyn Durable,
    /// The epoch.
    pub epoch: u64,
    /// Its staging folder, below the run folder.
    pub folder: &'a str,
    /// The shards of its patches: a shard has samples that the same sinks of patches take.
    pub patches: &'a [shard::Shard],
}

/// What a layout made of an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SealedLayout {
    /// Durable files for the commit to name.
    pub files: Vec<FileEntry>,
    /// Where each sample is, in the order in which they were given.
    pub placements: Vec<Placement>,
}

/// A kind of training set as files.
pub trait Layout: Send + Sync {
    /// The sink's name in the graph file, and the folder of its layout.
    fn name(&self) -> &str;

    /// The `table` of the committed lists that name its samples: `NAME.index`, or `pairs.NAME` for layouts that share image and
    /// label files.
    fn index(&self) -> String;

    /// What it needs of each sample.
    fn content(&self) -> Content;

    /// Publishes the samples of one epoch, sorted by sample_id, under names that follow from their content. Repeating it changes
    /// nothing.
    ///
    /// # Errors
    /// Where files cannot be written, or where a patient is in two splits.
    fn seal(&self, stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<SealedLayout>;

    /// Brings the folder of the layout in line with what is committed: `index` are the committed files whose `table` is
    /// [`Layout::index`]. Repeating it changes nothing; a folder that was damaged or removed is made again.
    ///
    /// # Errors
    /// Where files cannot be read or written, or where a patient is in two splits.
    fn project(&self, store: &dyn Durable, index: &[FileEntry]) -> Result<()>;
}

/// Names of `table` that are no sinks.
pub const RESERVED_TABLES: [&str; 7] = ["samples", "scans", "faults", "quality", "pairs", "patches", "train"];

fn check_name(name: &str, errors: &mut Vec<ConfigError>) {
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if !plain {
        let message = format!(
            "expected a name of lower-case letters, digits, `_` and `-`, as it becomes that of a folder, got {name:?}"
        );
        errors.push(ConfigError::new("", message));
    } else if RESERVED_TABLES.contains(&name) {
        let hint = format!("call it `{name}_set`");
        errors.push(ConfigError::new("", format!("{name:?} is the name of a table")).with_hint(hint));
    }
}

fn check_gzip_level(level: u32, errors: &mut Vec<ConfigError>) {
    if !(1..=9).contains(&level) {
        errors.push(ConfigError::new("gzip_level", format!("gzip knows levels 1 (fast) to 9 (small), got {level}")));
    }
}
