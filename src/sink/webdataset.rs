//! WebDataset: tar shards that are read from front to back, with an index by which ranks split and resume.
//!
//! A shard holds the samples of one epoch, one split and one bucket, sorted by key; a sample is `KEY.image.nii.gz`,
//! `KEY.json` and `KEY.label.nii.gz`, one after the other. The bucket follows from the patient, so a patient's samples of
//! an epoch share a shard, and taking a patient out touches one shard an epoch.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::canonical::{Streamed, Take};
use super::durable::{Durable, FileDigest};
use super::layout::Layout;
use super::nifti::DEFAULT_GZIP_LEVEL;
use super::split::SplitGuard;
use super::{
    FileEntry, Placement, Sealed, Sink, Split, Spooled, canonical, check_gzip_level, check_name, epoch_name, pairs,
    spool,
};
use crate::error::{Complaint, Result};

/// Settings of a sink of kind `webdataset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebDatasetConfig {
    /// Shards of each split in each epoch, at most: 1 to 1000. More let more ranks read apart, fewer make larger files.
    pub buckets: u32,
    /// How hard `.nii.gz` files are compressed: 1 (fast) to 9 (small). The highest of all sinks holds for all.
    pub gzip_level: u32,
}

impl Default for WebDatasetConfig {
    fn default() -> Self {
        Self { buckets: 4, gzip_level: DEFAULT_GZIP_LEVEL }
    }
}

/// A training set as `RUN/layouts/NAME/{train,validation,test}/*.tar`, with `train.json` and so on beside them: the
/// index that the `wids` part of webdataset reads, with each shard's digest and where each sample begins.
pub struct WebDatasetSink {
    name: String,
    config: WebDatasetConfig,
}

impl WebDatasetSink {
    /// A sink.
    ///
    /// # Errors
    /// Every bad setting.
    pub fn new(name: &str, config: WebDatasetConfig) -> Result<Self, Vec<Complaint>> {
        let mut complaints = Vec::new();
        check_name(name, &mut complaints);
        check_gzip_level(config.gzip_level, &mut complaints);
        if !(1..=1000).contains(&config.buckets) {
            complaints.push(Complaint::new(
                "buckets",
                format!("a number from 1 to 1000 is expected, got {}", config.buckets),
            ));
        }
        if complaints.is_empty() { Ok(Self { name: name.to_owned(), config }) } else { Err(complaints) }
    }

    fn bucket(&self, patient_key: &str) -> u32 {
        let hash: [u8; 32] = Sha256::digest(patient_key).into();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        // The remainder is smaller than a u32.
        (u64::from_le_bytes(first) % u64::from(self.config.buckets)) as u32
    }
}

/// A committed shard, as the sink remembers it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shard {
    path: String,
    split: Split,
    bytes: u64,
    sha256: String,
    samples: Vec<Member>,
}

/// A sample of a shard.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    key: String,
    patient_key: String,
    offset_bytes: u64,
    length_bytes: u64,
}

impl Sink for WebDatasetSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> String {
        format!("{}.index", self.name)
    }

    fn gzip_level(&self) -> u32 {
        self.config.gzip_level
    }

    fn seal(&self, store: &dyn Durable, epoch: u64, samples: &[Spooled]) -> Result<Sealed> {
        let mut guard = SplitGuard::default();
        let mut buckets: BTreeMap<(Split, u32), Vec<usize>> = BTreeMap::new();
        for (index, Spooled { record, .. }) in samples.iter().enumerate() {
            guard.admit(&record.patient_key, record.split)?;
            buckets.entry((record.split, self.bucket(&record.patient_key))).or_default().push(index);
        }
        let mut sealed = Sealed { files: Vec::new(), placements: vec![Placement::default(); samples.len()] };
        let mut shards = Vec::new();
        let mut publications = Vec::new();
        for ((split, bucket), indices) in buckets {
            let label = format!("{}-{bucket:03}", split.name());
            let staged = format!("{}/sinks/{}/{label}.tar", spool::epoch_folder(epoch), self.name);
            let mut members = Vec::new();
            let digest = store.stage(&staged, &mut |out| {
                members = write_shard(store, indices.iter().map(|&index| &samples[index]), out)?;
                Ok(())
            })?;
            let path = format!("samples/{}/{}-{label}-{}.tar", self.name, epoch_name(epoch), digest.sha256);
            for (&index, member) in indices.iter().zip(&members) {
                sealed.placements[index] = Placement {
                    image_sha256: Some(samples[index].image.sha256.clone()),
                    label_sha256: Some(samples[index].label.sha256.clone()),
                    shard: Some(path.clone()),
                    shard_offset_bytes: Some(member.offset_bytes),
                    shard_length_bytes: Some(member.length_bytes),
                    ..Placement::default()
                };
            }
            publications.push((staged, path.clone()));
            sealed.files.push(pairs::entry(path.clone(), &self.name, &digest, members.len() as u64));
            let FileDigest { bytes, sha256 } = digest;
            shards.push(Shard { path, split, bytes, sha256, samples: members });
        }
        store.publish(&publications)?;
        if !shards.is_empty() {
            sealed.files.push(pairs::publish_index(&self.index(), store, epoch, &shards, samples.len())?);
        }
        Ok(sealed)
    }

    fn project(&self, store: &dyn Durable, index: &[FileEntry]) -> Result<()> {
        let each_shard = |take: Take<'_, Shard>| -> Result<()> {
            index.iter().try_for_each(|file| {
                let mut shards = pairs::read_index::<Vec<Shard>>(store, file)?;
                shards.sort_unstable_by(|a, b| a.path.cmp(&b.path));
                shards.into_iter().try_for_each(&mut *take)
            })
        };
        let splits = [Split::Train, Split::Validation, Split::Test];
        let mut layout = Layout::open(store, &self.name, &splits.map(Split::name))?;
        let mut guard = SplitGuard::default();
        each_shard(&mut |shard| {
            shard.samples.iter().try_for_each(|member| guard.admit(&member.patient_key, shard.split))?;
            layout.link(shard.split.name(), shard.file(), &shard.path)
        })?;
        layout.tidy()?;
        for split in splits {
            let shardlist = Streamed::of::<Value>(|take: Take<'_, Value>| {
                each_shard(&mut |shard| if shard.split == split { take(shard.described()) } else { Ok(()) })
            });
            let name = format!("{}/{}", self.name, split.name());
            let list = ShardIndex { kind: "wids-shard-index-v1", name, shardlist, wids_version: 1 };
            layout.json(&format!("{}.json", split.name()), &list)?;
        }
        Ok(())
    }
}

/// The index of one split, as `wids` reads it.
#[derive(Serialize)]
struct ShardIndex<L> {
    #[serde(rename = "__kind__")]
    kind: &'static str,
    name: String,
    shardlist: L,
    wids_version: u32,
}

impl Shard {
    fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    fn described(&self) -> Value {
        let samples = self
            .samples
            .iter()
            .map(|member| json!({ "key": member.key, "offset": member.offset_bytes, "length": member.length_bytes }));
        json!({
            "url": format!("{}/{}", self.split.name(), self.file()),
            "nsamples": self.samples.len(),
            "filesize": self.bytes,
            "sha256": self.sha256,
            "samples": samples.collect::<Vec<_>>(),
        })
    }
}

/// Writes a whole shard, and tells where its samples lie.
fn write_shard<'a>(
    store: &dyn Durable,
    samples: impl Iterator<Item = &'a Spooled>,
    out: &mut dyn Write,
) -> io::Result<Vec<Member>> {
    let mut tar = Tar { out, written: 0 };
    let mut members = Vec::new();
    for Spooled { record, image_path, image, label_path, label } in samples {
        let key = &record.sample_id;
        let offset_bytes = tar.written;
        let json = canonical::pretty(record).map_err(io::Error::other)?;
        tar.append(&format!("{key}.image.nii.gz"), image.bytes, &mut staged(store, image_path)?)?;
        tar.append(&format!("{key}.json"), json.len() as u64, &mut &json[..])?;
        tar.append(&format!("{key}.label.nii.gz"), label.bytes, &mut staged(store, label_path)?)?;
        members.push(Member {
            key: key.clone(),
            patient_key: record.patient_key.clone(),
            offset_bytes,
            length_bytes: tar.written - offset_bytes,
        });
    }
    tar.finish()?;
    Ok(members)
}

fn staged(store: &dyn Durable, path: &str) -> io::Result<Box<dyn Read + Send>> {
    let file = store.open(path).map_err(io::Error::other)?;
    file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the spooled file {path} is gone")))
}

/// Tar with nothing in its headers but names and lengths.
struct Tar<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Tar<'_> {
    fn append(&mut self, name: &str, length: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(length);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        let copied = io::copy(&mut content.take(length + 1), self.out)?;
        if copied != length {
            return Err(io::Error::other(format!("{name} should have {length} bytes, got {copied}")));
        }
        let padding = length.next_multiple_of(512) - length;
        // Less than one block.
        self.out.write_all(&[0; 512][..padding as usize])?;
        self.written += 512 + length + padding;
        Ok(())
    }

    /// Two empty blocks end an archive.
    fn finish(self) -> io::Result<()> {
        self.out.write_all(&[0; 1024])
    }
}
