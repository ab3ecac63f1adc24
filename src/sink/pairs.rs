//! Images and labels as files of their own, published once however many sinks list them.
//!
//! A commit names one list of them a sink and epoch, `samples/pairs.SINK/EPOCH-SHA256.json`, which names the files with their
//! digests: so commits stay small however many samples there are.

use serde::{Deserialize, Serialize};

use super::durable::{Durable, FileDigest};
use super::split::SplitGuard;
use super::{FileEntry, Placement, Sealed, Split, Spooled, canonical, epoch_name};
use crate::error::{Error, Result};

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
    pub sample_id: String,
    /// Its patient.
    pub patient_key: String,
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
        format!("samples/{PAIRS}/{}.image.nii.gz", self.sample_id)
    }

    /// Where the label lies, below the run folder.
    pub fn label_path(&self) -> String {
        format!("samples/{PAIRS}/{}.label.nii.gz", self.sample_id)
    }

    /// Image and label as committed files.
    pub fn files(&self) -> [FileEntry; 2] {
        [entry(self.image_path(), PAIRS, &self.image, 1), entry(self.label_path(), PAIRS, &self.label, 1)]
    }
}

/// Publishes the samples' files and their list.
pub(super) fn seal(store: &dyn Durable, sink: &str, epoch: u64, samples: &[Spooled]) -> Result<Sealed> {
    let mut guard = SplitGuard::default();
    let mut sealed = Sealed::default();
    let (mut publications, mut list) = (Vec::new(), Vec::new());
    for Spooled { record, image_path, image, label_path, label } in samples {
        guard.admit(&record.patient_key, record.split)?;
        let pair = Pair {
            sample_id: record.sample_id.clone(),
            patient_key: record.patient_key.clone(),
            split: record.split,
            image: image.clone(),
            label: label.clone(),
        };
        publications.push((image_path.clone(), pair.image_path()));
        publications.push((label_path.clone(), pair.label_path()));
        sealed.placements.push(Placement {
            image_path: Some(pair.image_path()),
            image_sha256: Some(image.sha256.clone()),
            label_path: Some(pair.label_path()),
            label_sha256: Some(label.sha256.clone()),
            ..Placement::default()
        });
        list.push(pair);
    }
    store.publish(&publications)?;
    if !list.is_empty() {
        sealed.files.push(publish_index(&index_of(sink), store, epoch, &list, list.len())?);
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
        guard.admit(&pair.patient_key, pair.split)?;
    }
    Ok(all)
}

/// Publishes what a sink has to remember of an epoch as `samples/TABLE/EPOCH-SHA256.json`.
pub(super) fn publish_index(
    table: &str,
    store: &dyn Durable,
    epoch: u64,
    list: &impl Serialize,
    samples: usize,
) -> Result<FileEntry> {
    let text = canonical::pretty(list)?;
    let digest = FileDigest::of(&text);
    let path = format!("samples/{table}/{}-{}.json", epoch_name(epoch), digest.sha256);
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
