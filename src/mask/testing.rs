//! Scans for the unit tests of this module.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::OrganMask;
use crate::error::{Fault, FaultKind};
use crate::id::{PatientKey, ScanDigest, ScanId};
use crate::ingest::{Companions, Scan, ScanEntry};
use crate::volume::{Array3, Grid, Labels, Volume, Voxels};

/// Label files held in memory.
pub struct LabelsInMemory(pub BTreeMap<String, Labels>);

impl Companions for LabelsInMemory {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        self.0.get(pattern).cloned().ok_or_else(|| Fault::mask(FaultKind::Missing, "no such label file"))
    }
}

/// Returns a scan of HU 0 with label files.
pub fn scan_with_companions(grid: Grid, companions: LabelsInMemory) -> Scan {
    let entry = ScanEntry {
        scan_id: ScanId::from_bytes([0; 8]),
        source: "test".to_owned(),
        key: "1".to_owned(),
        dataset: "test".to_owned(),
        patient_key: PatientKey::from_bytes([0; 8]),
        bytes: 0,
        modified_s: 0,
        version: Default::default(),
    };
    let volume = Volume { grid, voxels: Voxels::I16(Array3::filled(grid.shape, 0)) };
    Scan {
        acquisition: Default::default(),
        entry,
        digest: ScanDigest::from_bytes([0; 32]),
        volume,
        companions: Arc::new(companions),
    }
}

/// Returns a scan of HU 0 with the label file `labels.nii.gz`.
pub fn scan_with(grid: Grid, labels: Labels) -> Scan {
    scan_with_companions(grid, LabelsInMemory(BTreeMap::from([("labels.nii.gz".to_owned(), labels)])))
}

/// Returns the number of voxels with a merged id.
pub fn voxels_of(mask: &OrganMask, label: u8) -> usize {
    mask.labels.as_slice().iter().filter(|id| **id == label).count()
}
