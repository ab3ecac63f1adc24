//! Images and labels as files of their own, published once however many sinks list them.
//!
//! A commit names one list of them a sink and epoch, `data/EPOCH-pairs.SINK-SHA256.json`, which names the files with their
//! digests: so commits stay small however many samples there are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::layout::{FOLDERS, Projection, folders};
use super::{Content, EpochStage, Layout, SealedLayout, StagedSample, StagedVolumes};
use crate::error::{Error, Result};
use crate::id::{PatientKey, SampleId};
use crate::mask::Organ;
use crate::record::SplitGuard;
use crate::record::{DATA, FileEntry, Placement, Split, epoch_name};
use crate::store::canonical;
use crate::store::canonical::{Streamed, Take};
use crate::store::{Durable, FileDigest, Fill};

/// The table of image and label files.
pub const PAIRS: &str = "pairs";

/// The table of the lists by which one sink names its own.
pub fn index_of(sink: &str) -> String {
    format!("{PAIRS}.{sink}")
}

/// Whether a table holds lists of some sink.
pub fn is_index(table: &str) -> bool {
    table.strip_prefix(PAIRS).is_some_and(|rest| rest.starts_with('.'))
}

/// A sample in the list of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The sample, and the name of its case.
    pub sample_id: SampleId,
    /// Its patient.
    pub patient_key: PatientKey,
    /// The patient's split.
    pub split: Split,
    /// Length and content of the image.
    pub image: FileDigest,
    /// Length and content of the label.
    pub label: FileDigest,
}

impl Pair {
    /// Where the image lies, below the run folder.
    pub fn image_path(&self) -> String {
        format!("{DATA}/{}.image.nii.gz", self.sample_id)
    }

    /// Where the label lies, below the run folder.
    pub fn label_path(&self) -> String {
        format!("{DATA}/{}.label.nii.gz", self.sample_id)
    }

    /// Image and label as committed files.
    pub fn files(&self) -> [FileEntry; 2] {
        [entry(self.image_path(), PAIRS, &self.image, 1), entry(self.label_path(), PAIRS, &self.label, 1)]
    }
}

/// Publishes the samples' files and their list.
pub(super) fn seal(stage: &EpochStage<'_>, sink: &str, samples: &[StagedSample]) -> Result<SealedLayout> {
    let mut guard = SplitGuard::default();
    let mut sealed = SealedLayout::default();
    let (mut publications, mut list) = (Vec::new(), Vec::new());
    for sample in samples {
        let (record, StagedVolumes { image, label }) = (&sample.record, sample.volumes()?);
        guard.admit(record.patient_key, record.split)?;
        let pair = Pair {
            sample_id: record.sample_id,
            patient_key: record.patient_key,
            split: record.split,
            image: image.digest.clone(),
            label: label.digest.clone(),
        };
        publications.push((image.path.clone(), pair.image_path()));
        publications.push((label.path.clone(), pair.label_path()));
        sealed.placements.push(Placement {
            image_path: Some(pair.image_path()),
            image_sha256: Some(pair.image.sha256.clone()),
            label_path: Some(pair.label_path()),
            label_sha256: Some(pair.label.sha256.clone()),
            ..Placement::default()
        });
        list.push(pair);
    }
    stage.store.publish(&publications)?;
    if !list.is_empty() {
        sealed.files.push(publish_index(&index_of(sink), stage.store, stage.epoch, &list, list.len())?);
    }
    Ok(sealed)
}

/// All samples that committed lists name, sorted; one that several sinks list is there once.
///
/// # Errors
/// Where a list cannot be read, or a patient is in two splits.
pub fn listed(store: &dyn Durable, index: &[FileEntry]) -> Result<Vec<Pair>> {
    let (mut guard, mut all) = (SplitGuard::default(), Vec::new());
    for file in index {
        all.extend(read_index::<Vec<Pair>>(store, file)?);
    }
    all.sort_unstable();
    all.dedup();
    for pair in &all {
        guard.admit(pair.patient_key, pair.split)?;
    }
    Ok(all)
}

/// How image and label files are named and described: a layout that trainers list by themselves.
pub trait PairLayout: Send + Sync {
    /// How hard `.nii.gz` files are compressed.
    fn gzip_level(&self) -> u32;

    /// The layout's folder, below that of the sink; empty where there is none.
    fn folder(&self) -> String;

    /// The ending of an image's name after its sample's id; labels are always `ID.nii.gz`.
    fn image_suffix(&self) -> &'static str;

    /// Folder and name of a sample's image and of its label, below [`PairLayout::folder`].
    fn places(&self, sample_id: SampleId, split: Split) -> [(&'static str, String); 2] {
        let (images, labels) = folders(split);
        [(images, format!("{sample_id}{}", self.image_suffix())), (labels, format!("{sample_id}.nii.gz"))]
    }

    /// Writes the JSON that describes it.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn describe(&self, samples: &DatasetDescription<'_>) -> Result<()>;
}

/// Writes a file of a layout: its name below the layout's folder, and its content.
pub type WriteFile<'a> = &'a dyn Fn(&str, Fill<'_>) -> Result<()>;

/// What the JSON of a [`PairLayout`] is made from.
pub struct DatasetDescription<'a> {
    /// Writes a file.
    pub write: WriteFile<'a>,
    /// Passes on every sample, by epoch and then by id.
    pub each: &'a dyn Fn(Take<'_, Pair>) -> Result<()>,
    /// The organs of the labels.
    pub organs: &'a [Organ],
    /// Samples that are trained or tuned on.
    pub training: usize,
    /// Samples that are kept for the test.
    pub test: usize,
}

impl DatasetDescription<'_> {
    /// Writes a JSON file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        (self.write)(name, &mut |out| canonical::write_pretty(out, value))
    }

    /// What `item` makes of each sample of a split.
    pub fn list<T: Serialize>(&self, split: Split, item: impl Fn(&Pair) -> T) -> impl Serialize {
        Streamed::of::<T>(move |take: Take<'_, T>| {
            (self.each)(&mut |pair| if pair.split == split { take(item(&pair)) } else { Ok(()) })
        })
    }
}

/// A sink of images and labels as files of their own, in a layout.
pub struct PairSink<L> {
    name: String,
    layout: L,
    organs: Arc<[Organ]>,
}

impl<L> PairSink<L> {
    pub(super) fn of(name: &str, layout: L, organs: Arc<[Organ]>) -> Self {
        Self { name: name.to_owned(), layout, organs }
    }

    /// The layout, whose settings were checked.
    pub fn into_layout(self) -> L {
        self.layout
    }
}

impl<L: PairLayout> Layout for PairSink<L> {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> String {
        index_of(&self.name)
    }

    fn content(&self) -> Content {
        Content::Volumes { gzip_level: self.layout.gzip_level() }
    }

    fn seal(&self, stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<SealedLayout> {
        seal(stage, &self.name, samples)
    }

    fn project(&self, store: &dyn Durable, index: &[FileEntry]) -> Result<()> {
        let root = [&self.name, &self.layout.folder()].map(String::as_str).join("/");
        let mut layout = Projection::open(store, root.trim_end_matches('/'), &FOLDERS)?;
        let (mut guard, mut training, mut test) = (SplitGuard::default(), 0, 0);
        each_pair(store, index, &mut |pair| {
            guard.admit(pair.patient_key, pair.split)?;
            *(if pair.split == Split::Test { &mut test } else { &mut training }) += 1;
            let [(images, image), (labels, label)] = self.layout.places(pair.sample_id, pair.split);
            layout.link(images, &image, &pair.image_path())?;
            layout.link(labels, &label, &pair.label_path())
        })?;
        layout.tidy()?;
        let write = |name: &str, fill: Fill<'_>| layout.write(name, fill);
        let each = |take: Take<'_, Pair>| each_pair(store, index, take);
        self.layout.describe(&DatasetDescription { write: &write, each: &each, organs: &self.organs, training, test })
    }
}

/// Passes on every sample that committed lists name, one list in memory at a time.
fn each_pair(store: &dyn Durable, index: &[FileEntry], take: Take<'_, Pair>) -> Result<()> {
    index.iter().try_for_each(|file| read_index::<Vec<Pair>>(store, file)?.into_iter().try_for_each(&mut *take))
}

/// Publishes what a sink has to remember of an epoch as `data/EPOCH-TABLE-SHA256.json`.
pub(super) fn publish_index(
    table: &str,
    store: &dyn Durable,
    epoch: u64,
    list: &impl Serialize,
    samples: usize,
) -> Result<FileEntry> {
    let text = canonical::pretty(list)?;
    let digest = FileDigest::of(&text);
    let path = format!("{DATA}/{}-{table}-{}.json", epoch_name(epoch), digest.sha256);
    store.create(&path, &text)?;
    Ok(entry(path, table, &digest, samples as u64))
}

/// Reads what [`publish_index`] wrote.
pub(super) fn read_index<T: for<'de> Deserialize<'de>>(store: &dyn Durable, file: &FileEntry) -> Result<T> {
    let place = store.place(&file.path);
    let text = store.read(&file.path)?.ok_or_else(|| {
        Error::new(format!("{place} is committed and not there"))
            .with_hint("the run folder was damaged; restore it from a copy, or start anew with another `--out`")
    })?;
    canonical::parse(&text, &place)
}

pub(super) fn entry(path: String, table: &str, digest: &FileDigest, rows: u64) -> FileEntry {
    FileEntry { path, table: table.to_owned(), bytes: digest.bytes, sha256: digest.sha256.clone(), rows }
}
