//! Tar shards with an index, shared by patches and whole volumes.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::layout::Projection;
use super::pairs::{FileWriter, entry, read_index};
pub use super::shard::{Member, Shard};
use super::tar::TarWriter;
use super::{EpochStage, LayoutReport, PatchPart, SealedLayout, StagedSample};
use crate::error::Result;
use crate::id::{PatientKey, SampleId};
use crate::record::{DATA, FileEntry, Placement, Split, SplitGuard, epoch_name};
use crate::store::DurableStorage;
use crate::store::canonical::{self, ItemCallback, StreamedList};

/// Returns the bucket of a patient: all samples of a patient in an epoch share a shard, so removing a patient changes one shard per
/// epoch.
pub fn bucket(patient_key: PatientKey, buckets: u32) -> u32 {
    let hash: [u8; 32] = Sha256::digest(patient_key.to_string()).into();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    // The remainder is smaller than a u32.
    (u64::from_le_bytes(first) % u64::from(buckets.max(1))) as u32
}

/// Returns the label of a shard in its file name: `SPLIT-BUCKET`.
pub fn label(split: Split, patient_key: PatientKey, buckets: u32) -> String {
    format!("{split}-{:03}", bucket(patient_key, buckets))
}

/// Returns the file name of a shard; `table` is the name of the sink or of the table of patches.
pub fn file_name(epoch: u64, table: &str, label: &str, sha256: &str) -> String {
    format!("{}-{table}-{label}-{sha256}.tar", epoch_name(epoch))
}

/// Writes an archive of samples and returns the location of each; each item of `samples` has an index for `append`, which writes the
/// members of one sample.
///
/// # Errors
/// If `out` or `append` fails.
pub fn write_archive(
    out: &mut dyn Write,
    samples: &[(usize, SampleId, PatientKey)],
    mut append: impl FnMut(&mut TarWriter<&mut dyn Write>, usize) -> io::Result<()>,
) -> io::Result<Vec<Member>> {
    let mut archive = TarWriter::new(out);
    let mut members = Vec::with_capacity(samples.len());
    for &(index, key, patient_key) in samples {
        let offset_bytes = archive.written();
        append(&mut archive, index)?;
        members.push(Member { key, patient_key, offset_bytes, length_bytes: archive.written() - offset_bytes });
    }
    archive.finish()?;
    Ok(members)
}

/// A writer that publishes the shards of one epoch together.
pub(super) struct ShardWriter<'a> {
    stage: &'a EpochStage<'a>,
    table: &'a str,
    publications: Vec<(String, String)>,
    files: Vec<FileEntry>,
    /// Each shard with the indices of its samples.
    shards: Vec<(Shard, Vec<usize>)>,
    samples: usize,
}

impl<'a> ShardWriter<'a> {
    /// Creates a writer of shards of the given table for an epoch of `samples` samples.
    pub(super) fn new(stage: &'a EpochStage<'a>, table: &'a str, samples: usize) -> Self {
        Self { stage, table, publications: Vec::new(), files: Vec::new(), shards: Vec::new(), samples }
    }

    /// Writes a shard of the samples with the given indices; `append` writes the members of the sample with an index.
    ///
    /// # Errors
    /// If the shard cannot be written.
    pub(super) fn write(
        &mut self,
        label: &str,
        indices: &[usize],
        samples: &[StagedSample],
        append: impl Fn(&mut TarWriter<&mut dyn Write>, usize) -> io::Result<()>,
    ) -> Result<()> {
        let EpochStage { store, epoch, folder, .. } = *self.stage;
        let staged = format!("{folder}/shards/{}/{}.tar", self.table, self.publications.len());
        let mut members = Vec::new();
        let keys = indices.iter().map(|&index| (index, &samples[index].record));
        let keys: Vec<_> = keys.map(|(index, record)| (index, record.sample_id, record.patient_key)).collect();
        let digest = store.stage(&staged, &mut |out| {
            members = write_archive(out, &keys, &append)?;
            Ok(())
        })?;
        let path = format!("{DATA}/{}", file_name(epoch, self.table, label, &digest.sha256));
        self.publications.push((staged, path.clone()));
        self.files.push(entry(path.clone(), self.table, &digest, members.len() as u64));
        let split = indices.first().map_or(Split::Train, |&index| samples[index].record.split);
        let shard = Shard { path, split, bytes: digest.bytes, sha256: digest.sha256, samples: members };
        self.shards.push((shard, indices.to_vec()));
        Ok(())
    }

    /// Publishes all shards; `locate` returns the location of a sample with the given index.
    ///
    /// # Errors
    /// If the shards cannot be written.
    pub(super) fn finish(
        self,
        locate: impl Fn(usize, &Shard, &Member) -> Placement,
    ) -> Result<(SealedLayout, Vec<Shard>)> {
        self.stage.store.publish(&self.publications)?;
        let mut placements = vec![Placement::default(); self.samples];
        for (shard, indices) in &self.shards {
            for (&index, member) in indices.iter().zip(&shard.samples) {
                placements[index] = locate(index, shard, member);
            }
        }
        let shards = self.shards.into_iter().map(|(shard, _)| shard).collect();
        Ok((SealedLayout { files: self.files, placements }, shards))
    }
}

/// Opens a staged file, to be copied into a shard.
pub(super) fn open_staged(store: &dyn DurableStorage, path: &str) -> io::Result<Box<dyn Read + Send>> {
    let file = store.open(path).map_err(io::Error::other)?;
    file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("expected the staged file {path}, got none")))
}

/// Opens a part of a committed shard, or a whole staged file.
///
/// # Errors
/// If the file does not exist or cannot be opened.
pub fn open_part(store: &dyn DurableStorage, part: &PatchPart) -> io::Result<impl Read> {
    let file = store.open_at(&part.path, part.offset_bytes).map_err(io::Error::other)?;
    let missing = || format!("expected {}, got none", store.display_path(&part.path));
    Ok(file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing()))?.take(part.length_bytes))
}

/// The layout of shards by split, with an index for webdataset's `wids`.
pub(super) struct ShardLayout<'a> {
    /// The sink's name.
    pub name: &'a str,
    /// The run folder.
    pub store: &'a dyn DurableStorage,
    /// The committed lists of the sink's shards.
    pub index: &'a [FileEntry],
}

impl ShardLayout<'_> {
    /// Links the shards and writes one index per split.
    ///
    /// # Errors
    /// If files cannot be read or written, or a patient is in two splits.
    pub(super) fn project(&self) -> Result<LayoutReport> {
        let mut layout = Projection::open(self.store, self.name, &Split::ALL.map(Split::name))?;
        let (mut guard, mut projected) = (SplitGuard::default(), LayoutReport::default());
        self.for_each_shard(&mut |shard| {
            shard.samples.iter().try_for_each(|member| guard.admit(member.patient_key, shard.split))?;
            *projected.samples.entry(shard.split).or_default() += shard.samples.len();
            layout.link(shard.split.name(), shard.file(), &shard.path)
        })?;
        projected.foreign = layout.remove_stale()?;
        describe(self.name, &|name, fill| layout.write(name, fill), &|visit| self.for_each_shard(visit))?;
        Ok(projected)
    }

    fn for_each_shard(&self, visit: ItemCallback<'_, Shard>) -> Result<()> {
        self.index.iter().try_for_each(|file| {
            let mut shards = read_index::<Vec<Shard>>(self.store, file)?;
            shards.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            shards.into_iter().try_for_each(&mut *visit)
        })
    }
}

/// Writes the index of each split; `for_each` visits every shard, by epoch and then by path.
///
/// # Errors
/// If files cannot be written.
pub fn describe(
    name: &str,
    write: FileWriter<'_>,
    for_each: &dyn Fn(ItemCallback<'_, Shard>) -> Result<()>,
) -> Result<()> {
    for split in Split::ALL {
        let shardlist = StreamedList::of::<Value>(|visit: ItemCallback<'_, Value>| {
            for_each(&mut |shard| if shard.split == split { visit(shard.wids_entry()) } else { Ok(()) })
        });
        let list =
            ShardIndex { kind: "wids-shard-index-v1", name: format!("{name}/{split}"), shardlist, wids_version: 1 };
        write(&format!("{split}.json"), &mut |out| canonical::write_pretty(out, &list))?;
    }
    Ok(())
}

/// The index of one split in the format of `wids`.
#[derive(Serialize)]
struct ShardIndex<L> {
    #[serde(rename = "__kind__")]
    kind: &'static str,
    name: String,
    shardlist: L,
    wids_version: u32,
}
