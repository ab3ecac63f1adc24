//! Images and labels as separate files, published once for all sinks that list them.
//!
//! For each sink and epoch, a commit names one list `data/EPOCH-pairs.SINK-SHA256.json` of files with digests, so the size of a commit
//! does not depend on the number of samples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::layout::{FOLDERS, Projection, folders};
use super::{Content, EpochStage, Layout, LayoutReport, SealedLayout, StagedSample, StagedVolumes};
use crate::error::{Error, Result};
use crate::id::{PatientKey, SampleId};
use crate::mask::Organ;
use crate::record::SplitGuard;
use crate::record::{DATA, FileEntry, Placement, Split, epoch_name};
use crate::store::canonical;
use crate::store::canonical::{ItemCallback, StreamedList};
use crate::store::{ContentWriter, DurableStorage, FileDigest};

/// The table of image and label files.
pub const PAIRS: &str = "pairs";

/// The file of a layout with the patient of each sample.
pub const PATIENTS: &str = "patients.csv";

/// Returns the table of the lists of one sink.
pub fn index_of(sink: &str) -> String {
    format!("{PAIRS}.{sink}")
}

/// Returns whether a table contains lists of a sink.
pub fn is_index(table: &str) -> bool {
    table.strip_prefix(PAIRS).is_some_and(|rest| rest.starts_with('.'))
}

/// A sample in the list of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The sample id, which is also the name of the case.
    pub sample_id: SampleId,
    /// The patient key.
    pub patient_key: PatientKey,
    /// The patient's split.
    pub split: Split,
    /// Length and digest of the image.
    pub image: FileDigest,
    /// Length and digest of the label.
    pub label: FileDigest,
}

impl Pair {
    /// Returns the path of the image, relative to the run folder.
    pub fn image_path(&self) -> String {
        format!("{DATA}/{}-{}.image.nii.gz", self.sample_id, digits(&self.image))
    }

    /// Returns the path of the label, relative to the run folder.
    pub fn label_path(&self) -> String {
        format!("{DATA}/{}-{}.label.nii.gz", self.sample_id, digits(&self.label))
    }

    /// Returns image and label as committed files.
    pub fn files(&self) -> [FileEntry; 2] {
        [entry(self.image_path(), PAIRS, &self.image, 1), entry(self.label_path(), PAIRS, &self.label, 1)]
    }
}

/// Returns the digits of a digest in the name of a file: a scan that was saved again in another format or place may have the same sample,
/// but other bytes.
fn digits(digest: &FileDigest) -> &str {
    digest.sha256.get(..16).unwrap_or(&digest.sha256)
}

/// Publishes the files of the samples and the list of files. Committed samples keep their files.
pub(super) fn seal(stage: &EpochStage<'_>, sink: &str, samples: &[StagedSample]) -> Result<SealedLayout> {
    let mut guard = SplitGuard::default();
    let mut sealed = SealedLayout::default();
    let (mut publications, mut list) = (Vec::new(), Vec::new());
    let committed = committed_lists::<Pair>(stage, &index_of(sink))?.into_iter();
    let committed: BTreeMap<SampleId, Pair> = committed.map(|pair| (pair.sample_id, pair)).collect();
    for sample in samples {
        let record = &sample.record;
        guard.admit(record.patient_key, record.split)?;
        let pair = match committed.get(&record.sample_id) {
            Some(pair) => pair.clone(),
            None => {
                let StagedVolumes { image, label } = sample.volumes()?;
                let pair = Pair {
                    sample_id: record.sample_id,
                    patient_key: record.patient_key,
                    split: record.split,
                    image: image.digest.clone(),
                    label: label.digest.clone(),
                };
                publications.push((image.path.clone(), pair.image_path()));
                publications.push((label.path.clone(), pair.label_path()));
                pair
            }
        };
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

/// Reads all samples of committed lists, sorted, without duplicates.
///
/// # Errors
/// If a list cannot be read or a patient is in two splits.
pub fn read_pairs(store: &dyn DurableStorage, index: &[FileEntry]) -> Result<Vec<Pair>> {
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

/// A layout with separate image and label files: file names and JSON descriptions.
pub trait PairLayout: Send + Sync {
    /// Returns the gzip level of `.nii.gz` files.
    fn gzip_level(&self) -> u32;

    /// Returns the folder of the layout, relative to the folder of the sink; empty if the layout has no folder.
    fn folder(&self) -> String;

    /// Returns the suffix of an image name after the sample id; labels are always `ID.nii.gz`.
    fn image_suffix(&self) -> &'static str;

    /// Returns folder and name of the image and of the label of a sample, relative to [`PairLayout::folder`].
    fn file_names(&self, sample_id: SampleId, split: Split) -> [(&'static str, String); 2] {
        let (images, labels) = folders(split);
        [(images, format!("{sample_id}{}", self.image_suffix())), (labels, format!("{sample_id}.nii.gz"))]
    }

    /// Writes the JSON description of the layout.
    ///
    /// # Errors
    /// If the description cannot be written.
    fn describe(&self, samples: &DatasetDescription<'_>) -> Result<()>;
}

/// A callback that writes a file of a layout, with its name relative to the layout folder and its content.
pub type FileWriter<'a> = &'a dyn Fn(&str, ContentWriter<'_>) -> Result<()>;

/// The input of the JSON description of a [`PairLayout`].
pub struct DatasetDescription<'a> {
    /// Writes a file.
    pub write: FileWriter<'a>,
    /// Visits every sample, by epoch and then by id.
    pub for_each: &'a dyn Fn(ItemCallback<'_, Pair>) -> Result<()>,
    /// The organs of the labels.
    pub organs: &'a [Organ],
    /// The number of training and validation samples.
    pub training: usize,
    /// The number of test samples.
    pub test: usize,
}

impl DatasetDescription<'_> {
    /// Writes a JSON file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        (self.write)(name, &mut |out| canonical::write_pretty(out, value))
    }

    /// Writes `patients.csv`, with which `freetumor evaluate` groups samples by patient.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_patients(&self) -> Result<()> {
        (self.write)(PATIENTS, &mut |out| {
            writeln!(out, "case,patient")?;
            let mut write = |Pair { sample_id, patient_key, .. }: Pair| {
                writeln!(out, "{sample_id},{patient_key}").map_err(|e| Error::io("cannot write", PATIENTS, e))
            };
            (self.for_each)(&mut write).map_err(std::io::Error::other)
        })
    }

    /// Returns a list with the result of `item` for each sample of a split.
    pub fn list<T: Serialize>(&self, split: Split, item: impl Fn(&Pair) -> T) -> impl Serialize {
        StreamedList::of::<T>(move |visit: ItemCallback<'_, T>| {
            (self.for_each)(&mut |pair| if pair.split == split { visit(item(&pair)) } else { Ok(()) })
        })
    }
}

/// A sink of images and labels as separate files in a layout.
pub struct PairSink<L> {
    name: String,
    layout: L,
    organs: Arc<[Organ]>,
}

impl<L> PairSink<L> {
    pub(super) fn of(name: &str, layout: L, organs: Arc<[Organ]>) -> Self {
        Self { name: name.to_owned(), layout, organs }
    }

    /// Returns the layout with validated settings.
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

    fn committed_samples(&self, stage: &EpochStage<'_>) -> Result<Option<BTreeSet<SampleId>>> {
        let pairs = committed_lists::<Pair>(stage, &self.index())?;
        Ok(Some(pairs.into_iter().map(|pair| pair.sample_id).collect()))
    }

    fn seal(&self, stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<SealedLayout> {
        seal(stage, &self.name, samples)
    }

    fn project(&self, store: &dyn DurableStorage, index: &[FileEntry]) -> Result<LayoutReport> {
        let root = [&self.name, &self.layout.folder()].map(String::as_str).join("/");
        let mut layout = Projection::open(store, root.trim_end_matches('/'), &FOLDERS)?;
        let (mut guard, mut projected) = (SplitGuard::default(), LayoutReport::default());
        for_each_pair(store, index, &mut |pair| {
            guard.admit(pair.patient_key, pair.split)?;
            *projected.samples.entry(pair.split).or_default() += 1;
            let [(images, image), (labels, label)] = self.layout.file_names(pair.sample_id, pair.split);
            layout.link(images, &image, &pair.image_path())?;
            layout.link(labels, &label, &pair.label_path())
        })?;
        projected.foreign = layout.remove_stale()?;
        let test = projected.samples.get(&Split::Test).copied().unwrap_or_default();
        let training = projected.samples.values().sum::<usize>() - test;
        let write = |name: &str, fill: ContentWriter<'_>| layout.write(name, fill);
        let for_each = |visit: ItemCallback<'_, Pair>| for_each_pair(store, index, visit);
        self.layout.describe(&DatasetDescription {
            write: &write,
            for_each: &for_each,
            organs: &self.organs,
            training,
            test,
        })?;
        Ok(projected)
    }
}

/// Visits every sample of committed lists, with one list in memory at a time.
fn for_each_pair(store: &dyn DurableStorage, index: &[FileEntry], visit: ItemCallback<'_, Pair>) -> Result<()> {
    index.iter().try_for_each(|file| read_index::<Vec<Pair>>(store, file)?.into_iter().try_for_each(&mut *visit))
}

/// Publishes the list of a sink for an epoch as `data/EPOCH-TABLE-SHA256.json`.
pub(super) fn publish_index(
    table: &str,
    store: &dyn DurableStorage,
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

/// Reads the committed lists of a layout in an epoch that is sealed again.
///
/// # Errors
/// If a list cannot be read.
pub(super) fn committed_lists<T: for<'de> Deserialize<'de>>(stage: &EpochStage<'_>, index: &str) -> Result<Vec<T>> {
    let mut items = Vec::new();
    for file in stage.committed.iter().filter(|file| file.table == index) {
        items.extend(read_index::<Vec<T>>(stage.store, file)?);
    }
    Ok(items)
}

/// Reads a list that [`publish_index`] wrote.
pub(super) fn read_index<T: for<'de> Deserialize<'de>>(store: &dyn DurableStorage, file: &FileEntry) -> Result<T> {
    let path = store.display_path(&file.path);
    let text = store.read(&file.path)?.ok_or_else(|| {
        Error::new(format!("expected the committed file {path}, got none"))
            .with_hint("the run folder is damaged: restore it from a copy, or start a new run with another `--out`")
    })?;
    canonical::parse(&text, &path)
}

pub(super) fn entry(path: String, table: &str, digest: &FileDigest, rows: u64) -> FileEntry {
    FileEntry { path, table: table.to_owned(), bytes: digest.bytes, sha256: digest.sha256.clone(), rows }
}
