//! Synthetic tumors of the run folder of a pipeline.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cases::CaseEntry;
use crate::error::{Error, Fault, FaultKind, Result, Stage};
use crate::id::ScanId;
use crate::ingest::{Companions, Scan, ScanEntry, content_digest, nifti};
use crate::mask::{MaskedScan, Organ, OrganMask};
use crate::record::Split;
use crate::run::{RunFolder, Snapshot};
use crate::sink::pairs::{self, Pair};
use crate::volume::Labels;

/// The samples that a run folder has after one of its commits: a run that grows gives the same samples as long as the commit
/// stays the same.
pub struct RunSamples {
    folder: PathBuf,
    run: RunFolder,
    snapshot: Snapshot,
}

impl RunSamples {
    /// Opens a run folder as it is after commit `at`, or after the last one.
    ///
    /// # Errors
    /// Where there is no such run or commit.
    pub fn open(folder: &Path, at: Option<u64>) -> Result<Self> {
        let run = RunFolder::open(folder)?;
        let snapshot = run.snapshot(at)?;
        Ok(Self { folder: folder.to_owned(), run, snapshot })
    }

    /// The run folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The samples whose patients are in the given part.
    ///
    /// # Errors
    /// Where the run has no image and label files.
    pub fn entries(&self, split: Split, organs: &Arc<[Organ]>) -> Result<Vec<CaseEntry>> {
        let files = self.snapshot.files.values();
        let index: Vec<_> = files.filter(|file| pairs::is_index(&file.table)).cloned().collect();
        if index.is_empty() {
            return Err(Error::new(format!("{} has no image and label files to train on", self.folder.display()))
                .with_hint("give its pipeline a sink of kind `nnunet` or `decathlon`, and run it again"));
        }
        let pairs = pairs::read_pairs(&**self.run.store(), &index)?;
        let wanted = pairs.into_iter().filter(|pair| pair.split == split);
        Ok(wanted.map(|pair| entry(self.folder.clone(), pair, Arc::clone(organs))).collect())
    }

    /// Passes on every scan that the run ingested, in the order of its epochs.
    ///
    /// # Errors
    /// Where the private files of an epoch cannot be read; the scans of earlier epochs were passed on.
    pub fn for_each_scan(&self, mut take: impl FnMut(ScanEntry)) -> Result<()> {
        for epoch in self.snapshot.head.epoch.iter().flat_map(|last| 0..=*last) {
            self.run.scan_entries(epoch)?.into_iter().for_each(&mut take);
        }
        Ok(())
    }
}

fn entry(folder: PathBuf, pair: Pair, organs: Arc<[Organ]>) -> CaseEntry {
    let (id, patient_key) = (scan_id(&pair), pair.patient_key);
    let mark = format!("{} {}", pair.image.sha256, pair.label.sha256);
    CaseEntry::new(id, patient_key, move || read(&folder, &pair, &organs)).with_mark(mark)
}

fn read(folder: &Path, pair: &Pair, organs: &Arc<[Organ]>) -> Result<MaskedScan, Fault> {
    let volume = nifti::read_volume(folder.join(pair.image_path()))?;
    let labels = nifti::read_labels(folder.join(pair.label_path())).map_err(|fault| fault.at(Stage::Mask))?;
    if !labels.grid.agrees_with(&volume.grid) {
        return Err(Fault::mask(FaultKind::Mismatch, "expected a label on the image's grid, it lies on another"));
    }
    let is_known =
        |id: u16| id == 0 || organs.iter().any(|organ| [organ.label, organ.tumor_label].contains(&(id as u8)));
    if let Some(id) = labels.ids.as_slice().iter().find(|id| **id > 255 || !is_known(**id)) {
        let message = format!("label {id} is none of the organs that are trained");
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
    };
    let scan = Scan { entry, digest: content_digest(&volume), volume, companions: Arc::new(NoCompanions) };
    let mask = OrganMask { labels: labels.ids.map(|id| *id as u8), organs: Arc::clone(organs) };
    Ok(MaskedScan { scan: Arc::new(scan), mask })
}

/// A sample is a scan of its own to a training: its id is that of the scan.
fn scan_id(pair: &Pair) -> ScanId {
    ScanId::from_bytes(*pair.sample_id.as_bytes())
}

/// A sample has no files beside it: its label was read with its image.
struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, _: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, "the label of a sample of a run is read with its image"))
    }
}
