//! The samples in the run folder of a pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cases::CaseEntry;
use crate::error::{Error, Fault, FaultKind, Result, Stage};
use crate::id::{SampleId, ScanDigest, ScanId};
use crate::ingest::{Companions, HeldOut, Scan, ScanEntry, content_digest, nifti};
use crate::mask::{IGNORE_LABEL, MaskedScan, Organ, OrganMask};
use crate::record::parquet::{Row, decode_part};
use crate::record::{SampleRow, Split};
use crate::run::{RunFolder, Snapshot};
use crate::sink::pairs::{self, Pair};
use crate::train::used_samples::UsedSample;
use crate::volume::Labels;

/// The samples of a run folder at the state after one of its commits; later commits do not change these samples.
pub struct RunSamples {
    folder: PathBuf,
    run: RunFolder,
    snapshot: Snapshot,
}

/// The scan of a sample, and the volume of the tumors of the sample.
struct SampleSource {
    scan: ScanId,
    content: ScanDigest,
    tumor_mm3: f64,
}

impl RunSamples {
    /// Opens a run folder at the state after commit `at`, by default the last one.
    ///
    /// # Errors
    /// Returns an error if there is no such run folder or commit.
    pub fn open(folder: &Path, at: Option<u64>) -> Result<Self> {
        let run = RunFolder::open(folder)?;
        let snapshot = run.snapshot(at)?;
        Ok(Self { folder: folder.to_owned(), run, snapshot })
    }

    /// Returns cases of this run folder as used samples.
    pub fn used(&self, entries: &[CaseEntry]) -> Vec<UsedSample> {
        let (run, epoch) = (self.run.manifest_sha256(), self.snapshot.head.epoch.unwrap_or_default());
        let used = |entry: &CaseEntry| UsedSample {
            run: run.to_owned(),
            epoch,
            sample_id: entry.id.to_string(),
            scan_id: entry.source_scan,
        };
        entries.iter().map(used).collect()
    }

    /// Returns the run folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lists the samples whose patients are in `split`. Reading a sample of a scan whose content is held out is a fault.
    ///
    /// # Errors
    /// Returns an error if the run folder has no image and label files.
    pub fn entries(&self, split: Split, organs: &Arc<[Organ]>, held_out: &HeldOut) -> Result<Vec<CaseEntry>> {
        let files = self.snapshot.files.values();
        let index: Vec<_> = files.filter(|file| pairs::is_index(&file.table)).cloned().collect();
        if index.is_empty() {
            return Err(Error::new(format!("expected image and label files in {}, got none", self.folder.display()))
                .with_hint("add a sink of kind `nnunet` or `decathlon` to the pipeline, then run the pipeline again"));
        }
        let pairs = pairs::read_pairs(&**self.run.store(), &index)?;
        let tumors = self.tumors()?;
        let selected = pairs.into_iter().filter(|pair| pair.split == split);
        let entries = selected.map(|pair| {
            let source = tumors.get(&pair.sample_id);
            let entry = entry(self.folder.clone(), pair, Arc::clone(organs));
            match source {
                Some(source) if held_out.contains(source.content) => entry.refused(),
                Some(source) => entry.with_source(source.scan, source.tumor_mm3),
                None => entry,
            }
        });
        Ok(entries.collect())
    }

    /// Returns the scan of each accepted sample and the volume of its tumors.
    fn tumors(&self) -> Result<BTreeMap<SampleId, SampleSource>> {
        let mut tumors = BTreeMap::new();
        for file in self.snapshot.files.values().filter(|file| file.table == SampleRow::TABLE.name()) {
            let mut counted = BTreeSet::new();
            for SampleRow { record, .. } in decode_part::<SampleRow>(self.run.read_verified(file)?)? {
                // Each quality test has its own row of a tumor.
                if record.outcome.is_accepted() && counted.insert((record.sample_id, record.tumor_id)) {
                    let volume_mm3 = record.geometry.map_or(0.0, |geometry| geometry.volume_mm3);
                    let (scan, content) = (record.scan_id, record.scan_digest);
                    let source = SampleSource { scan, content, tumor_mm3: 0.0 };
                    tumors.entry(record.sample_id).or_insert(source).tumor_mm3 += volume_mm3;
                }
            }
        }
        Ok(tumors)
    }

    /// Calls `on_scan` with every scan that the pipeline ingested, in the order of epochs.
    ///
    /// # Errors
    /// Returns an error if the private files of an epoch cannot be read; `on_scan` was called with the scans of earlier epochs.
    pub fn for_each_scan(&self, mut on_scan: impl FnMut(ScanEntry)) -> Result<()> {
        self.run.for_each_entry(self.snapshot.head.epoch.map_or(0, |last| last + 1), &mut on_scan)
    }
}

fn entry(folder: PathBuf, pair: Pair, organs: Arc<[Organ]>) -> CaseEntry {
    let (id, patient_key) = (scan_id(&pair), pair.patient_key);
    let change_marker = format!("{} {}", pair.image.sha256, pair.label.sha256);
    CaseEntry::new(id, patient_key, move || read(&folder, &pair, &organs)).with_change_marker(change_marker)
}

fn read(folder: &Path, pair: &Pair, organs: &Arc<[Organ]>) -> Result<MaskedScan, Fault> {
    let volume = nifti::read_volume(folder.join(pair.image_path()))?;
    let labels = nifti::read_labels(folder.join(pair.label_path())).map_err(|fault| fault.at(Stage::Mask))?;
    if !labels.grid.agrees_with(&volume.grid) {
        return Err(Fault::mask(FaultKind::Mismatch, "expected a label on the grid of the image, got another grid"));
    }
    let is_known = |id: u16| {
        [0, IGNORE_LABEL.into()].contains(&id)
            || organs.iter().any(|organ| [organ.label, organ.tumor_label].contains(&(id as u8)))
    };
    if let Some(id) = labels.ids.as_slice().iter().find(|id| **id > 255 || !is_known(**id)) {
        let message = format!("expected the labels of the trained organs, got {id}");
        return Err(Fault::mask(FaultKind::Mismatch, message));
    }
    let entry = ScanEntry {
        scan_id: scan_id(pair),
        source: "run".to_owned(),
        key: pair.sample_id.to_string(),
        dataset: "run".to_owned(),
        patient_key: pair.patient_key,
        bytes: pair.image.bytes,
        modified_s: 0,
        version: Default::default(),
    };
    let scan = Scan {
        acquisition: Default::default(),
        entry,
        digest: content_digest(&volume),
        volume,
        companions: Arc::new(NoCompanions),
    };
    let mask = OrganMask { labels: labels.ids.map(|id| *id as u8), organs: Arc::clone(organs), coverage: 1.0 };
    Ok(MaskedScan { scan: Arc::new(scan), mask })
}

/// Returns the id of a sample as a scan id: in a training run, every sample is a separate scan.
fn scan_id(pair: &Pair) -> ScanId {
    ScanId::from_bytes(*pair.sample_id.as_bytes())
}

/// Access to the label files of a sample: there are none, because the label is read with the image.
struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, _: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, "the label of a sample is read with its image"))
    }
}
