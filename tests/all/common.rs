//! Helpers for several test modules.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use freetumor::error::{Fault, FaultKind};
use freetumor::id::{PatientKey, ScanDigest, ScanId};
use freetumor::ingest::{Companions, Scan, ScanEntry};
use freetumor::volume::{Labels, Volume};

/// Returns the path of a file in the shared folder next to the project; if the file is missing, prints a message and returns `None`.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: ../shared/{path} is missing");
    None
}

/// Returns a scan without companion files.
pub fn scan_of(volume: Volume) -> Scan {
    let entry = ScanEntry {
        scan_id: ScanId::from_bytes([0; 8]),
        source: "source".into(),
        key: "key".into(),
        dataset: "dataset".into(),
        patient_key: PatientKey::from_bytes([0; 8]),
        bytes: 0,
        modified_s: 0,
        version: Default::default(),
    };
    Scan {
        acquisition: Default::default(),
        entry,
        digest: ScanDigest::from_bytes([0; 32]),
        volume,
        companions: Arc::new(NoCompanions),
    }
}

struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, format!("expected {pattern}, got no files")))
    }
}
