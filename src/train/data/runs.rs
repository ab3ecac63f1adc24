//! Synthetic tumors out of the run folder of a pipeline.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CaseEntry;
use crate::error::{Error, Fault, FaultKind, Result, Stage};
use crate::id::ScanId;
use crate::ingest::{Companions, Scan, ScanEntry, content_digest, nifti};
use crate::mask::{MaskedScan, Organ, OrganMask};
use crate::record::Split;
use crate::run::RunFolder;
use crate::sink::pairs::{self, Pair};
use crate::volume::Labels;

/// The samples of a run whose patients are in the given part, after commit `at` or the last one: a run that grows gives
/// the same samples as long as `at` stays.
///
/// # Errors
/// Where there is no such run or commit, or the run has no image and label files.
pub fn run_entries(folder: &Path, at: Option<u64>, split: Split, organs: &Arc<[Organ]>) -> Result<Vec<CaseEntry>> {
    let run = RunFolder::open(folder)?;
    let files = run.snapshot(at)?.files;
    let index: Vec<_> = files.into_values().filter(|file| pairs::is_index(&file.table)).collect();
    if index.is_empty() {
        return Err(Error::new(format!("{} has no image and label files to train on", folder.display()))
            .with_hint("give its pipeline a sink of kind `nnunet` or `decathlon`, and run it again"));
    }
    let pairs = pairs::listed(&**run.store(), &index)?;
    let wanted = pairs.into_iter().filter(|pair| pair.split == split);
    Ok(wanted.map(|pair| entry(folder.to_owned(), pair, Arc::clone(organs))).collect())
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
    let scan = Scan { entry, digest: content_digest(&volume), volume, companions: Arc::new(Beside) };
    let mask = OrganMask { labels: labels.ids.map(|id| *id as u8), organs: Arc::clone(organs) };
    Ok(MaskedScan { scan: Arc::new(scan), mask })
}

/// A sample is a scan of its own to a training: its id is that of the scan.
fn scan_id(pair: &Pair) -> ScanId {
    ScanId::from_bytes(*pair.sample_id.as_bytes())
}

/// A sample's label was read with its image.
struct Beside;

impl Companions for Beside {
    fn labels(&self, _: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, "a sample of a run has its label read already"))
    }
}
