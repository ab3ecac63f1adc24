//! WebDataset: tar shards of whole volumes for sequential reading, with an index for distribution over ranks and for resuming.
//!
//! A shard contains the samples of one epoch, one split and one bucket, sorted by key; a sample is `KEY.image.nii.gz`, `KEY.json` and
//! `KEY.label.nii.gz`, in this order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shards::{self, Member, Shard, ShardLayout, ShardWriter};
use super::tar::{TarWriter, for_each_member};
use super::volume_files::DEFAULT_GZIP_LEVEL;
use super::{
    Content, EpochStage, Layout, LayoutReport, PatchPart, SealedLayout, StagedSample, StagedVolumes, check_gzip_level,
    check_name, pairs,
};
use crate::error::{ConfigError, Result};
use crate::id::SampleId;
use crate::record::{FileEntry, Placement, SampleRecord, SplitGuard};
use crate::store::{DurableStorage, canonical};

/// Settings of a sink of kind `webdataset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebDatasetConfig {
    /// Maximum number of shards per split and epoch, 1 to 1000. More shards allow more ranks, fewer shards are larger files.
    pub buckets: u32,
    /// Gzip level of `.nii.gz` files: 1 (fast) to 9 (small). The highest level of all sinks applies to all sinks.
    pub gzip_level: u32,
}

impl Default for WebDatasetConfig {
    fn default() -> Self {
        Self { buckets: 4, gzip_level: DEFAULT_GZIP_LEVEL }
    }
}

/// A training set as `RUN/layouts/NAME/{train,validation,test}/*.tar`, with one index per split (`train.json` and so on) in the format
/// of webdataset's `wids`: the digest of each shard and the offset of each sample.
#[derive(Debug)]
pub struct WebDatasetSink {
    name: String,
    config: WebDatasetConfig,
}

impl WebDatasetSink {
    /// Creates a sink.
    ///
    /// # Errors
    /// Returns every invalid setting.
    pub fn new(name: &str, config: WebDatasetConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        check_name(name, &mut errors);
        check_gzip_level(config.gzip_level, &mut errors);
        if !(1..=1000).contains(&config.buckets) {
            errors
                .push(ConfigError::new("buckets", format!("expected a number from 1 to 1000, got {}", config.buckets)));
        }
        if errors.is_empty() { Ok(Self { name: name.to_owned(), config }) } else { Err(errors) }
    }
}

/// The content of `ID.json`: the row, and the rows of the other tumors.
#[derive(Serialize)]
struct SampleDescription<'a> {
    #[serde(flatten)]
    record: &'a SampleRecord,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    other_tumors: &'a [SampleRecord],
}

/// Writes the members of a sample: the rows of all tumors of the sample, the image and the label. `image` and `label` are each a length in
/// bytes and a reader.
///
/// # Errors
/// If a length does not match or the archive cannot be written.
pub fn append_sample<W: Write>(
    archive: &mut TarWriter<W>,
    record: &SampleRecord,
    other_tumors: &[SampleRecord],
    image: (u64, &mut dyn Read),
    label: (u64, &mut dyn Read),
) -> io::Result<()> {
    let key = record.sample_id;
    let json = canonical::pretty(&SampleDescription { record, other_tumors }).map_err(io::Error::other)?;
    archive.append(&format!("{key}.image.nii.gz"), image.0, image.1)?;
    archive.append(&format!("{key}.json"), json.len() as u64, &mut &json[..])?;
    archive.append(&format!("{key}.label.nii.gz"), label.0, label.1)
}

/// Returns the parts of the committed shards of a sink, by sample.
fn committed_members(stage: &EpochStage<'_>, index: &str) -> Result<BTreeMap<SampleId, PatchPart>> {
    let shards = pairs::committed_lists::<Shard>(stage, index)?;
    let part = |shard: &Shard, member: &Member| PatchPart {
        path: shard.path.clone(),
        offset_bytes: member.offset_bytes,
        length_bytes: member.length_bytes,
    };
    let members = shards.iter().flat_map(|shard| shard.samples.iter().map(move |member| (shard, member)));
    Ok(members.map(|(shard, member)| (member.key, part(shard, member))).collect())
}

/// The source of the members of a sample.
enum MemberSource<'a> {
    /// Staged image and label.
    Staged(&'a StagedSample, &'a StagedVolumes),
    /// The members in a committed shard.
    Committed(&'a PatchPart, &'a StagedSample),
}

impl<'a> MemberSource<'a> {
    /// Returns the source of a sample.
    ///
    /// # Errors
    /// If the sample is not committed and has no staged volumes.
    fn of(sample: &'a StagedSample, committed: &'a BTreeMap<SampleId, PatchPart>) -> Result<Self> {
        match committed.get(&sample.record.sample_id) {
            Some(part) => Ok(Self::Committed(part, sample)),
            None => Ok(Self::Staged(sample, sample.volumes()?)),
        }
    }

    fn append(&self, store: &dyn DurableStorage, archive: &mut TarWriter<&mut dyn Write>) -> io::Result<()> {
        match self {
            Self::Staged(sample, volumes) => {
                let mut image = shards::open_staged(store, &volumes.image.path)?;
                let mut label = shards::open_staged(store, &volumes.label.path)?;
                let image = (volumes.image.digest.bytes, &mut image as &mut dyn Read);
                let label = (volumes.label.digest.bytes, &mut label as &mut dyn Read);
                append_sample(archive, &sample.record, &sample.others, image, label)
            }
            Self::Committed(part, sample) if sample.is_retested => {
                let (mut image, mut label) = (Vec::new(), Vec::new());
                for_each_member(shards::open_part(store, part)?, &mut |name, content| {
                    let member = match name {
                        name if name.ends_with(".image.nii.gz") => &mut image,
                        name if name.ends_with(".label.nii.gz") => &mut label,
                        _ => return Ok(()),
                    };
                    content.read_to_end(member).map(drop)
                })?;
                let (image, label) = (
                    (image.len() as u64, &mut &image[..] as &mut dyn Read),
                    (label.len() as u64, &mut &label[..] as &mut dyn Read),
                );
                append_sample(archive, &sample.record, &sample.others, image, label)
            }
            Self::Committed(part, _) => archive.append_part(part.length_bytes, &mut shards::open_part(store, part)?),
        }
    }

    /// Returns the digests of image and label.
    fn sha256(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Staged(_, volumes) => {
                (Some(volumes.image.digest.sha256.clone()), Some(volumes.label.digest.sha256.clone()))
            }
            Self::Committed(_, sample) => sample
                .committed
                .as_ref()
                .map_or((None, None), |placement| (placement.image_sha256.clone(), placement.label_sha256.clone())),
        }
    }
}

impl Layout for WebDatasetSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> String {
        format!("{}.index", self.name)
    }

    fn content(&self) -> Content {
        Content::Volumes { gzip_level: self.config.gzip_level }
    }

    fn committed_samples(&self, stage: &EpochStage<'_>) -> Result<Option<BTreeSet<SampleId>>> {
        committed_members(stage, &self.index()).map(|members| Some(members.into_keys().collect()))
    }

    fn seal(&self, stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<SealedLayout> {
        let mut guard = SplitGuard::default();
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, StagedSample { record, .. }) in samples.iter().enumerate() {
            guard.admit(record.patient_key, record.split)?;
            let label = shards::label(record.split, record.patient_key, self.config.buckets);
            groups.entry(label).or_default().push(index);
        }
        let committed = committed_members(stage, &self.index())?;
        let sources = samples.iter().map(|sample| MemberSource::of(sample, &committed)).collect::<Result<Vec<_>>>()?;
        let mut writer = ShardWriter::new(stage, &self.name, samples.len());
        for (label, indices) in groups {
            writer.write(&label, &indices, samples, |archive, index| sources[index].append(stage.store, archive))?;
        }
        let (mut sealed, shards) = writer.finish(|index, shard, member| Placement {
            image_sha256: sources[index].sha256().0,
            label_sha256: sources[index].sha256().1,
            shard: Some(shard.path.clone()),
            shard_offset_bytes: Some(member.offset_bytes),
            shard_length_bytes: Some(member.length_bytes),
            ..Placement::default()
        })?;
        if !shards.is_empty() {
            let index = pairs::publish_index(&self.index(), stage.store, stage.epoch, &shards, samples.len())?;
            sealed.files.push(index);
        }
        Ok(sealed)
    }

    fn project(&self, store: &dyn DurableStorage, index: &[FileEntry]) -> Result<LayoutReport> {
        ShardLayout { name: &self.name, store, index }.project()
    }
}
