//! What is known of a scan while its epoch is open: the files of its samples, encoded once for all sinks, and its rows.
//!
//! A scan's spool is `staging/EPOCH/SCAN_ID/`: image and label of each accepted sample, and at last `outcome.json`,
//! which names their lengths and digests. After a restart a spool whose files all agree with it is used again
//! ([`Spool::load_verified`]), any other is worked on anew. Nothing is synced here: sealing does that for what is
//! published, and a loss of power shows in the digests.

use std::io::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::durable::{Durable, FileDigest};
use super::nifti::{DEFAULT_GZIP_LEVEL, Encoder};
use super::{FaultRecord, Sample, SampleRecord, ScanRecord, Sink, Spooled, canonical, epoch_name};
use crate::error::{Fault, FaultKind, Result, Stage};
use crate::mask::MaskedScan;
use crate::score::{Score, Scores};

/// The spooled files of one accepted sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleFiles {
    /// The sample.
    pub sample_id: String,
    /// Length and content of `SAMPLE_ID.image.nii.gz`.
    pub image: FileDigest,
    /// Length and content of `SAMPLE_ID.label.nii.gz`.
    pub label: FileDigest,
}

/// Everything that came of one scan: small, and what travels to the commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanOutcome {
    /// The scan's row.
    pub scan: ScanRecord,
    /// A row for every attempt.
    pub samples: Vec<SampleRecord>,
    /// What spoiled it.
    pub faults: Vec<FaultRecord>,
    /// Files of the samples that some sink takes.
    pub files: Vec<SampleFiles>,
}

impl ScanOutcome {
    /// The samples of an epoch's outcomes that have files, sorted by sample_id.
    pub fn with_files<'a>(epoch: u64, outcomes: impl IntoIterator<Item = &'a Self>) -> Vec<Spooled> {
        let mut spooled: Vec<Spooled> = outcomes.into_iter().flat_map(|outcome| outcome.spooled(epoch)).collect();
        spooled.sort_unstable_by(|a, b| a.record.sample_id.cmp(&b.record.sample_id));
        spooled
    }

    fn spooled(&self, epoch: u64) -> impl Iterator<Item = Spooled> + '_ {
        self.files.iter().filter_map(move |files| {
            let record = self.samples.iter().find(|r| r.sample_id == files.sample_id)?;
            Some(Spooled {
                image_path: image_name(epoch, &record.scan_id, &record.sample_id),
                image: files.image.clone(),
                label_path: label_name(epoch, &record.scan_id, &record.sample_id),
                label: files.label.clone(),
                record: record.clone(),
            })
        })
    }
}

/// The outcome as it is stored: its digest tells a torn file from a whole one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredOutcome {
    outcome: ScanOutcome,
    sha256: String,
}

/// Writes and reads the spools of a run. One is shared by all threads of a process.
pub struct Spool {
    store: Arc<dyn Durable>,
    gzip_level: Option<u32>,
}

impl Spool {
    /// The spool of a run with these sinks. Files are encoded once, at the highest level that a sink asks for; without
    /// sinks there are only rows.
    pub fn new(store: Arc<dyn Durable>, sinks: &[Arc<dyn Sink>]) -> Self {
        Self { store, gzip_level: sinks.iter().map(|sink| sink.gzip_level()).max() }
    }

    /// Opens the spool of one scan; keep it while the scan is worked on.
    ///
    /// # Errors
    /// A fault of stage `sink` where no file can hold the scan.
    pub fn open<'scan>(&self, epoch: u64, masked: &'scan MaskedScan) -> Result<ScanSpool<'_, 'scan>, Fault> {
        let encoder = Encoder::new(masked, self.gzip_level.unwrap_or(DEFAULT_GZIP_LEVEL))?;
        Ok(ScanSpool { spool: self, epoch, encoder })
    }

    /// Completes a scan's spool with its rows, and gives them as they will be read back: a score that is no finite
    /// number is absent. Call it once for every scan of an epoch, also for faults and duplicates.
    ///
    /// # Errors
    /// The outer one where the file cannot be written; the inner one is a fault of stage `sink` where a row holds a
    /// number that is not finite outside its scores.
    pub fn save(&self, epoch: u64, mut outcome: ScanOutcome) -> Result<Result<ScanOutcome, Fault>> {
        for record in &mut outcome.samples {
            record.scores = finite(&record.scores);
        }
        let text = canonical::line(&outcome)?;
        if serde_json::from_slice::<ScanOutcome>(&text).ok().as_ref() != Some(&outcome) {
            let message = "every number of a row has to be finite; one of the scan or of a tumor's geometry is not";
            return Ok(Err(Fault::new(Stage::Sink, FaultKind::NonFinite, message)));
        }
        let stored = StoredOutcome { sha256: FileDigest::of(&text).sha256, outcome };
        let text = canonical::line(&stored)?;
        let name = outcome_name(epoch, &stored.outcome.scan.scan_id);
        self.store.stage(&name, &mut |out| out.write_all(&text))?;
        Ok(Ok(stored.outcome))
    }

    /// The outcome of a scan from before a restart, where it and all its files are whole; whatever else lies in its
    /// spool is removed.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn load_verified(&self, epoch: u64, scan_id: &str) -> Result<Option<ScanOutcome>> {
        let outcome = self.load(epoch, scan_id)?;
        if outcome.is_none() {
            self.store.remove(&scan_folder(epoch, scan_id))?;
        }
        Ok(outcome)
    }

    fn load(&self, epoch: u64, scan_id: &str) -> Result<Option<ScanOutcome>> {
        let Some(text) = self.store.read(&outcome_name(epoch, scan_id))? else { return Ok(None) };
        let Ok(stored) = serde_json::from_slice::<StoredOutcome>(&text) else { return Ok(None) };
        if FileDigest::of(&canonical::line(&stored.outcome)?).sha256 != stored.sha256
            || stored.outcome.scan.scan_id != scan_id
        {
            return Ok(None);
        }
        for files in &stored.outcome.files {
            for (name, digest) in [
                (image_name(epoch, scan_id, &files.sample_id), &files.image),
                (label_name(epoch, scan_id, &files.sample_id), &files.label),
            ] {
                if self.store.digest(&name)?.as_ref() != Some(digest) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(stored.outcome))
    }

    /// Removes the spool of an epoch that is committed.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn clear(&self, epoch: u64) -> Result<()> {
        self.store.remove(&epoch_folder(epoch))
    }

    /// Removes what earlier runs left of epochs that are committed, and their scratch files. `next` is the first epoch
    /// that is not committed. Call it once at the start, before anything is staged.
    ///
    /// # Errors
    /// Where something cannot be removed.
    pub fn clear_committed(&self, next: u64) -> Result<()> {
        for name in self.store.list(super::durable::STAGING)? {
            let open = name.parse::<u64>().is_ok_and(|epoch| epoch >= next && epoch_name(epoch) == name);
            if !open && name != "lock" {
                self.store.remove(&format!("{}/{name}", super::durable::STAGING))?;
            }
        }
        Ok(())
    }
}

/// The open spool of one scan.
pub struct ScanSpool<'spool, 'scan> {
    spool: &'spool Spool,
    epoch: u64,
    encoder: Encoder<'scan>,
}

impl ScanSpool<'_, '_> {
    /// Writes the files of an accepted sample. `None` where the run has no sinks.
    ///
    /// # Errors
    /// The outer one where files cannot be written; the inner one is a fault of stage `sink` where the candidate does
    /// not fit into its scan.
    pub fn add(&self, sample: &Sample<'_>) -> Result<Result<Option<SampleFiles>, Fault>> {
        if self.spool.gzip_level.is_none() {
            return Ok(Ok(None));
        }
        if let Err(fault) = self.encoder.check(sample.candidate) {
            return Ok(Err(fault));
        }
        let SampleRecord { sample_id, scan_id, .. } = sample.record;
        let stage = |name: String, fill: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>| {
            self.spool.store.stage(&name, fill)
        };
        let image = stage(image_name(self.epoch, scan_id, sample_id), &mut |out| {
            self.encoder.write_image(sample.candidate, out)
        })?;
        let label = stage(label_name(self.epoch, scan_id, sample_id), &mut |out| {
            self.encoder.write_label(sample.candidate, out)
        })?;
        Ok(Ok(Some(SampleFiles { sample_id: sample_id.clone(), image, label })))
    }
}

/// The scores that a table and a file of text can both hold.
fn finite(scores: &Scores) -> Scores {
    let mut kept = Scores::default();
    for &score in Score::ALL {
        if let Some(value) = scores.get(score).filter(|value| value.is_finite()) {
            kept.set(score, value);
        }
    }
    kept
}

/// The folder of everything staged for an epoch.
pub(super) fn epoch_folder(epoch: u64) -> String {
    format!("{}/{}", super::durable::STAGING, epoch_name(epoch))
}

fn scan_folder(epoch: u64, scan_id: &str) -> String {
    format!("{}/{scan_id}", epoch_folder(epoch))
}

fn outcome_name(epoch: u64, scan_id: &str) -> String {
    format!("{}/outcome.json", scan_folder(epoch, scan_id))
}

fn image_name(epoch: u64, scan_id: &str, sample_id: &str) -> String {
    format!("{}/{sample_id}.image.nii.gz", scan_folder(epoch, scan_id))
}

fn label_name(epoch: u64, scan_id: &str, sample_id: &str) -> String {
    format!("{}/{sample_id}.label.nii.gz", scan_folder(epoch, scan_id))
}
