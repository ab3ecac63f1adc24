//! Shards of patches: a few kilobytes a sample in place of whole volumes.
//!
//! A shard holds the patches of one epoch, one split and one bucket, sorted by key. The run folder keeps the same shards for every
//! pipeline; a sink of kind `patches` lists them with an index, as `RUN/layouts/NAME/{train,validation,test}/*.tar`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shards::{self, Shard, ShardLayout};
use super::tar::TarWriter;
use super::{Content, EpochStage, Layout, Sealed, StagedSample, check_name};
use crate::error::{ConfigError, Error, Result};
use crate::record::{FileEntry, Placement, SplitGuard};
use crate::store::Durable;

/// The table of patch shards.
pub const PATCHES: &str = "patches";

/// Shards of each split in each epoch, at most. Fixed: file names follow from it.
pub const BUCKETS: u32 = 4;

/// Settings of a sink of kind `patches`: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchesConfig {}

/// The patches of samples as tar shards with an index.
#[derive(Debug)]
pub struct PatchesSink {
    name: String,
}

impl PatchesSink {
    /// A sink.
    ///
    /// # Errors
    /// A bad name.
    pub fn new(name: &str, _config: &PatchesConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        check_name(name, &mut errors);
        if errors.is_empty() { Ok(Self { name: name.to_owned() }) } else { Err(errors) }
    }
}

impl Layout for PatchesSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> String {
        format!("{}.index", self.name)
    }

    fn content(&self) -> Content {
        Content::Patches
    }

    fn seal(&self, stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<Sealed> {
        let (mut sealed, shards) = seal_patches(stage, samples)?;
        if !shards.is_empty() {
            sealed.files.push(super::pairs::publish_index(
                &self.index(),
                stage.store,
                stage.epoch,
                &shards,
                samples.len(),
            )?);
        }
        Ok(sealed)
    }

    fn project(&self, store: &dyn Durable, index: &[FileEntry]) -> Result<()> {
        ShardLayout { name: &self.name, store, index }.project()
    }
}

/// Publishes the patches of samples as shards by split and bucket.
///
/// # Errors
/// Where a sample has no patch, a patient is in two splits, or files cannot be written.
pub fn seal_patches(stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<(Sealed, Vec<Shard>)> {
    let mut guard = SplitGuard::default();
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, StagedSample { record, .. }) in samples.iter().enumerate() {
        guard.admit(record.patient_key, record.split)?;
        groups.entry(shards::label(record.split, record.patient_key, BUCKETS)).or_default().push(index);
    }
    write_shards(stage, samples, groups)
}

/// Publishes patches as one shard of the given label, without regard to splits: those of rejected candidates.
///
/// # Errors
/// As for [`seal_patches`].
pub fn seal_unsplit(stage: &EpochStage<'_>, label: &str, samples: &[StagedSample]) -> Result<Sealed> {
    let groups = BTreeMap::from([(label.to_owned(), (0..samples.len()).collect::<Vec<_>>())]);
    let groups = groups.into_iter().filter(|(_, indices)| !indices.is_empty()).collect();
    write_shards(stage, samples, groups).map(|(sealed, _)| sealed)
}

fn write_shards(
    stage: &EpochStage<'_>,
    samples: &[StagedSample],
    groups: BTreeMap<String, Vec<usize>>,
) -> Result<(Sealed, Vec<Shard>)> {
    let mut writer = shards::ShardWriter::new(stage, PATCHES, samples.len());
    for (label, indices) in groups {
        let missing = indices.iter().find(|&&index| samples[index].patch.is_none());
        if let Some(&index) = missing {
            return Err(Error::new(format!("no patch was staged of sample {}", samples[index].record.sample_id)));
        }
        writer.write(&label, &indices, samples, |archive: &mut TarWriter<_>, sample| {
            let Some(patch) = &sample.patch else { return Ok(()) };
            archive.append_part(patch.digest.bytes, &mut shards::staged(stage.store, &patch.path)?)
        })?;
    }
    writer.finish(|_, shard, member| Placement {
        patch_shard: Some(shard.path.clone()),
        patch_offset_bytes: Some(member.offset_bytes),
        patch_length_bytes: Some(member.length_bytes),
        ..Placement::default()
    })
}
