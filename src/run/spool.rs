//! The staged results of a scan while its epoch is open: the files of its samples and its rows.
//!
//! The spool of a scan is `staging/EPOCH/SCAN_ID/`: the patch of each kept candidate, image and label if a layout requires whole
//! volumes, and finally `outcome.json` with the lengths and digests of these files. After a restart, a spool whose files match its
//! `outcome.json` is reused ([`Spool::load_verified`]); any other spool is removed. Nothing is synced here: sealing syncs published
//! files, and the digests reveal damage by a power loss.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::compose::{ChangedBox, Overlay};
use crate::error::{Error, Fault, FaultKind, Result, Stage};
use crate::id::{SampleId, ScanId};
use crate::mask::MaskedScan;
use crate::record::{FaultRecord, SampleRecord, ScanRecord, epoch_name};
use crate::score::{Score, Scores};
use crate::sink::patch::{decode_patch, encode_patch, encode_scratch_patch};
use crate::sink::volume_files::{Encoder, check_fit};
use crate::sink::{Content, Layout, StagedFile, StagedVolumes};
use crate::store::{DurableStorage, FileDigest, STAGING, canonical};

/// The staged files of one sample, each by its length and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleFiles {
    /// The sample id.
    pub sample_id: SampleId,
    /// The patch.
    pub patch: FileDigest,
    /// Image and label, if a layout requires whole volumes.
    pub volumes: Option<[FileDigest; 2]>,
}

/// All results of one scan for the commit: rows, and digests of staged files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanOutcome {
    /// The scan's row.
    pub scan: ScanRecord,
    /// One row for each attempt and branch that decided on the attempt.
    pub samples: Vec<SampleRecord>,
    /// The faults that ended the processing of the scan.
    pub faults: Vec<FaultRecord>,
    /// The staged files of kept samples and candidates, sorted by sample.
    pub files: Vec<SampleFiles>,
}

impl ScanOutcome {
    /// Returns the staged files of each kept candidate.
    pub(super) fn staged(&self, epoch: u64) -> BTreeMap<SampleId, (StagedFile, Option<StagedVolumes>)> {
        let staged = self.files.iter().map(|files| {
            let file = |kind: FileKind, digest: &FileDigest| StagedFile {
                path: file_name(epoch, self.scan.scan_id, files.sample_id, kind),
                digest: digest.clone(),
            };
            let volumes = files.volumes.as_ref().map(|[image, label]| StagedVolumes {
                image: file(FileKind::Image, image),
                label: file(FileKind::Label, label),
            });
            (files.sample_id, (file(FileKind::Patch, &files.patch), volumes))
        });
        staged.collect()
    }
}

/// The stored form of an outcome; the digest detects a truncated file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredOutcome {
    outcome: ScanOutcome,
    sha256: String,
}

/// A writer and reader of the spools of a run, shared by all threads of a process.
pub struct Spool {
    store: Arc<dyn DurableStorage>,
    gzip_level: Option<u32>,
}

impl Spool {
    /// Creates the spool of a run with these layouts. Whole volumes are encoded once, at the highest level that a layout requests.
    pub fn new<'a>(store: Arc<dyn DurableStorage>, layouts: impl IntoIterator<Item = &'a dyn Layout>) -> Self {
        let levels = layouts.into_iter().filter_map(|layout| match layout.content() {
            Content::Volumes { gzip_level } => Some(gzip_level),
            Content::Patches => None,
        });
        Self { store, gzip_level: levels.max() }
    }

    /// Opens the spool of one scan; keep the spool open while the scan is processed.
    ///
    /// # Errors
    /// A fault of stage `sink` if NIfTI-1 cannot store the scan.
    pub fn open<'scan>(&self, epoch: u64, masked: &'scan MaskedScan) -> Result<ScanSpool<'_, 'scan>, Fault> {
        let encoder = self.gzip_level.map(|level| Encoder::new(masked, level)).transpose()?;
        Ok(ScanSpool { spool: self, epoch, masked, encoder })
    }

    /// Completes the spool of a scan with its rows, and returns the rows as they will be read back: a score that is not finite is absent.
    /// Call this method once for each scan of an epoch, also for faults and duplicates.
    ///
    /// # Errors
    /// The outer error if the file cannot be written; the inner error is a fault of stage `sink` if a row has a number outside its
    /// scores that is not finite.
    pub fn save(&self, epoch: u64, mut outcome: ScanOutcome) -> Result<Result<ScanOutcome, Fault>> {
        for record in &mut outcome.samples {
            record.scores = finite_scores(&record.scores);
        }
        let text = canonical::line(&outcome)?;
        if serde_json::from_slice::<ScanOutcome>(&text).ok().as_ref() != Some(&outcome) {
            let message =
                "expected finite numbers in every row, got a scan or tumor geometry with a number that is not finite";
            return Ok(Err(Fault::new(Stage::Sink, FaultKind::NonFinite, message)));
        }
        let stored = StoredOutcome { sha256: FileDigest::of(&text).sha256, outcome };
        let text = canonical::line(&stored)?;
        let name = outcome_name(epoch, stored.outcome.scan.scan_id);
        self.store.stage(&name, &mut |out| out.write_all(&text))?;
        Ok(Ok(stored.outcome))
    }

    /// Loads the outcome of a scan from before a restart. If there is none, or one of its files is not complete, returns `None` and removes
    /// the spool of the scan.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn load_verified(&self, epoch: u64, scan_id: ScanId) -> Result<Option<ScanOutcome>> {
        let outcome = self.load(epoch, scan_id)?;
        if outcome.is_none() {
            self.store.remove(&scan_folder(epoch, scan_id))?;
        }
        Ok(outcome)
    }

    fn load(&self, epoch: u64, scan_id: ScanId) -> Result<Option<ScanOutcome>> {
        let Some(text) = self.store.read(&outcome_name(epoch, scan_id))? else { return Ok(None) };
        let Ok(stored) = serde_json::from_slice::<StoredOutcome>(&text) else { return Ok(None) };
        if FileDigest::of(&canonical::line(&stored.outcome)?).sha256 != stored.sha256
            || stored.outcome.scan.scan_id != scan_id
        {
            return Ok(None);
        }
        for (patch, volumes) in stored.outcome.staged(epoch).into_values() {
            let volumes = volumes.into_iter().flat_map(|volumes| [volumes.image, volumes.label]);
            for file in std::iter::once(patch).chain(volumes) {
                if self.store.digest(&file.path)?.as_ref() != Some(&file.digest) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(stored.outcome))
    }

    /// Removes the spool of a committed epoch.
    ///
    /// # Errors
    /// If the spool cannot be removed.
    pub fn clear(&self, epoch: u64) -> Result<()> {
        self.store.remove(&epoch_folder(epoch))
    }

    /// Removes the remaining spools of committed epochs and the scratch files of earlier processes. `next` is the first epoch that is not
    /// committed. Call this method once at the start, before staging.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn clear_committed(&self, next: u64) -> Result<()> {
        for name in self.store.list(STAGING)? {
            let open = name.parse::<u64>().is_ok_and(|epoch| epoch >= next && epoch_name(epoch) == name);
            if !open && name != "lock" {
                self.store.remove(&format!("{STAGING}/{name}"))?;
            }
        }
        Ok(())
    }
}

/// The open spool of one scan.
pub struct ScanSpool<'spool, 'scan> {
    spool: &'spool Spool,
    epoch: u64,
    masked: &'scan MaskedScan,
    /// Present if a layout requires whole volumes.
    encoder: Option<Encoder<'scan>>,
}

impl ScanSpool<'_, '_> {
    /// Stages the files of a sample: its patch, and image and label if `with_volumes` and a layout requires whole volumes. `boxes` are
    /// those of its tumors; `rows` are the rows with its id, one for each tumor and branch that decided on the tumor.
    ///
    /// # Errors
    /// The outer error if files cannot be written; the inner error is a fault of stage `sink` if a box is not inside the scan.
    pub fn add(
        &self,
        boxes: &[Overlay<'_>],
        rows: &[SampleRecord],
        with_volumes: bool,
    ) -> Result<Result<SampleFiles, Fault>> {
        let Some(SampleRecord { sample_id, scan_id, .. }) = rows.first() else {
            return Ok(Err(Fault::new(Stage::Sink, FaultKind::Mismatch, "expected rows of a sample, got none")));
        };
        if let Err(fault) = check_fit(self.masked, boxes) {
            return Ok(Err(fault));
        }
        let patch = match encode_patch(self.masked, boxes, rows) {
            Ok(bytes) => bytes,
            Err(fault) => return Ok(Err(fault)),
        };
        let name = |kind| file_name(self.epoch, *scan_id, *sample_id, kind);
        let store = &self.spool.store;
        let patch = store.stage(&name(FileKind::Patch), &mut |out| out.write_all(&patch))?;
        let mut files = SampleFiles { sample_id: *sample_id, patch, volumes: None };
        if let Some(encoder) = self.encoder.as_ref().filter(|_| with_volumes) {
            let image = store.stage(&name(FileKind::Image), &mut |out| encoder.write_image(boxes, out))?;
            let label = store.stage(&name(FileKind::Label), &mut |out| encoder.write_label(boxes, out))?;
            files.volumes = Some([image, label]);
        }
        Ok(Ok(files))
    }

    /// Stores an accepted tumor until the tumors of its sample are composed. Tumors wait on disk, so that their number does not change the
    /// required memory. `rows` are the rows of the attempt.
    ///
    /// # Errors
    /// The errors of [`ScanSpool::add`].
    pub fn store_tumor(&self, tumor: Overlay<'_>, rows: &[SampleRecord]) -> Result<Result<(), Fault>> {
        let Some(SampleRecord { sample_id, scan_id, .. }) = rows.first() else { return Ok(Ok(())) };
        let boxes = [tumor];
        let patch = match check_fit(self.masked, &boxes).and_then(|()| encode_scratch_patch(self.masked, &boxes, rows))
        {
            Ok(patch) => patch,
            Err(fault) => return Ok(Err(fault)),
        };
        let name = file_name(self.epoch, *scan_id, *sample_id, FileKind::Tumor);
        self.spool.store.stage(&name, &mut |out| out.write_all(&patch))?;
        Ok(Ok(()))
    }

    /// Loads a tumor that [`ScanSpool::store_tumor`] stored under the id of its candidate.
    ///
    /// # Errors
    /// If the tumor cannot be read.
    pub fn load_tumor(&self, scan_id: ScanId, candidate_id: SampleId) -> Result<ChangedBox> {
        let name = file_name(self.epoch, scan_id, candidate_id, FileKind::Tumor);
        let bytes = self.spool.store.read(&name)?;
        let tumor =
            bytes.map(|bytes| decode_patch(&bytes)).transpose()?.and_then(|patch| patch.boxes.into_iter().next());
        tumor.ok_or_else(|| Error::new(format!("expected the staged tumor {name}, got none")))
    }

    /// Removes a tumor that [`ScanSpool::store_tumor`] stored.
    ///
    /// # Errors
    /// If the tumor cannot be removed.
    pub fn drop_tumor(&self, scan_id: ScanId, candidate_id: SampleId) -> Result<()> {
        self.spool.store.remove(&file_name(self.epoch, scan_id, candidate_id, FileKind::Tumor))
    }

    /// Removes the staged patch of a candidate that is no longer kept.
    ///
    /// # Errors
    /// If the patch cannot be removed.
    pub fn drop_patch(&self, scan_id: ScanId, sample_id: SampleId) -> Result<()> {
        self.spool.store.remove(&file_name(self.epoch, scan_id, sample_id, FileKind::Patch))
    }
}

/// Returns the finite scores, which JSON and Parquet both support.
fn finite_scores(scores: &Scores) -> Scores {
    let mut kept = Scores::default();
    for &score in Score::ALL {
        if let Some(value) = scores.get(score).filter(|value| value.is_finite()) {
            kept.set(score, value);
        }
    }
    kept
}

/// A file of a sample.
#[derive(Clone, Copy)]
enum FileKind {
    Patch,
    Image,
    Label,
    /// A tumor that waits for the composition of its sample.
    Tumor,
}

/// Returns the folder of all staged files of an epoch.
pub(super) fn epoch_folder(epoch: u64) -> String {
    format!("{STAGING}/{}", epoch_name(epoch))
}

fn scan_folder(epoch: u64, scan_id: ScanId) -> String {
    format!("{}/{scan_id}", epoch_folder(epoch))
}

fn outcome_name(epoch: u64, scan_id: ScanId) -> String {
    format!("{}/outcome.json", scan_folder(epoch, scan_id))
}

fn file_name(epoch: u64, scan_id: ScanId, sample_id: SampleId, kind: FileKind) -> String {
    let suffix = match kind {
        FileKind::Patch => "patch.tar",
        FileKind::Image => "image.nii.gz",
        FileKind::Label => "label.nii.gz",
        FileKind::Tumor => "tumor.tar",
    };
    format!("{}/{sample_id}.{suffix}", scan_folder(epoch, scan_id))
}
