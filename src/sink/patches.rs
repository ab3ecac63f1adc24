//! Shards of patches: tens of kilobytes per sample instead of whole volumes.
//!
//! A shard contains the patches of one epoch, one split, one bucket and one set of receiving sinks, sorted by key. The run folder stores
//! patches for every pipeline; a sink of kind `patches` lists its shards with an index, as
//! `RUN/layouts/NAME/{train,validation,test}/*.tar`.

use std::collections::{BTreeMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shards::{self, Shard, ShardLayout};
use super::tar::TarWriter;
use super::{Content, EpochStage, Layout, LayoutReport, SealedLayout, StagedSample, check_name};
use crate::error::{ConfigError, Error, Result};
use crate::id::SampleId;
use crate::record::{FileEntry, Placement, SplitGuard};
use crate::store::DurableStorage;

/// The table of patch shards.
pub const PATCHES: &str = "patches";

/// Maximum number of shards per split and epoch. The number is fixed because file names depend on it.
pub const BUCKETS: u32 = 4;

/// Settings of a sink of kind `patches`: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchesConfig {}

/// A sink of patches as tar shards with an index.
#[derive(Debug)]
pub struct PatchesSink {
    name: String,
}

impl PatchesSink {
    /// Creates a sink.
    ///
    /// # Errors
    /// If the name is invalid.
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

    fn seal(&self, stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<SealedLayout> {
        let mut guard = SplitGuard::default();
        samples.iter().try_for_each(|sample| guard.admit(sample.record.patient_key, sample.record.split))?;
        let selected: HashSet<SampleId> = samples.iter().map(|sample| sample.record.sample_id).collect();
        let is_selected = |member: &shards::Member| selected.contains(&member.key);
        let shards: Vec<&Shard> = stage.patches.iter().filter(|shard| shard.samples.iter().any(is_selected)).collect();
        let members = || shards.iter().flat_map(|shard| &shard.samples);
        if !members().all(is_selected) || members().count() != samples.len() {
            let (name, epoch) = (&self.name, stage.epoch);
            return Err(Error::new(format!(
                "expected shards of epoch {epoch} with only samples of the sink `{name}`, got a mixed shard"
            )));
        }
        let mut sealed =
            SealedLayout { placements: vec![Placement::default(); samples.len()], ..SealedLayout::default() };
        if !shards.is_empty() {
            let index = super::pairs::publish_index(&self.index(), stage.store, stage.epoch, &shards, samples.len())?;
            sealed.files.push(index);
        }
        Ok(sealed)
    }

    fn project(&self, store: &dyn DurableStorage, index: &[FileEntry]) -> Result<LayoutReport> {
        ShardLayout { name: &self.name, store, index }.project()
    }
}

/// Publishes the patches of samples as shards by split, bucket and receiving sinks: `recipients` states for each sample and each
/// `patches` sink whether the sink receives the sample. So every sink lists whole shards and no patch is written twice.
///
/// # Errors
/// If a sample has no patch, a patient is in two splits, or files cannot be written.
pub fn seal_patches(
    stage: &EpochStage<'_>,
    samples: &[StagedSample],
    recipients: &[Vec<bool>],
) -> Result<(SealedLayout, Vec<Shard>)> {
    let mut guard = SplitGuard::default();
    let mut groups: BTreeMap<(String, &[bool]), Vec<usize>> = BTreeMap::new();
    for (index, (StagedSample { record, .. }, recipients)) in samples.iter().zip(recipients).enumerate() {
        guard.admit(record.patient_key, record.split)?;
        let label = shards::label(record.split, record.patient_key, BUCKETS);
        groups.entry((label, recipients)).or_default().push(index);
    }
    write_shards(stage, samples, groups.into_iter().map(|((label, _), indices)| (label, indices)))
}

/// Publishes the patches of rejected candidates as one shard with the given label, regardless of splits.
///
/// # Errors
/// The same errors as [`seal_patches`].
pub fn seal_unsplit(stage: &EpochStage<'_>, label: &str, samples: &[StagedSample]) -> Result<SealedLayout> {
    let group = (label.to_owned(), (0..samples.len()).collect::<Vec<_>>());
    let groups = (!samples.is_empty()).then_some(group);
    write_shards(stage, samples, groups).map(|(sealed, _)| sealed)
}

fn write_shards(
    stage: &EpochStage<'_>,
    samples: &[StagedSample],
    groups: impl IntoIterator<Item = (String, Vec<usize>)>,
) -> Result<(SealedLayout, Vec<Shard>)> {
    let mut writer = shards::ShardWriter::new(stage, PATCHES, samples.len());
    for (label, indices) in groups {
        let missing = indices.iter().find(|&&index| samples[index].patch.is_none());
        if let Some(&index) = missing {
            return Err(Error::new(format!(
                "expected a staged patch of sample {}, got none",
                samples[index].record.sample_id
            )));
        }
        writer.write(&label, &indices, samples, |archive: &mut TarWriter<_>, index| {
            let Some(patch) = &samples[index].patch else { return Ok(()) };
            archive.append_part(patch.length_bytes, &mut shards::open_part(stage.store, patch)?)
        })?;
    }
    writer.finish(|_, shard, member| Placement {
        patch_shard: Some(shard.path.clone()),
        patch_offset_bytes: Some(member.offset_bytes),
        patch_length_bytes: Some(member.length_bytes),
        ..Placement::default()
    })
}
