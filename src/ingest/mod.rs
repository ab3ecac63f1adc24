//! From archives to volumes: sources list scans, and read them one at a time.
//!
//! This room owns the formats of scans (NIfTI, DICOM), the kinds of sources ([`FolderSource`], [`ListSource`], [`phantom`]), the ids of
//! scans, their content digests, and the keys of patients.
//!
//! A [`Source`] lists [`ScanEntry`]s without decoding anything, and reads one scan into HU on its grid. A damaged or hostile file is a fault
//! of that scan: it neither stops the run, nor takes more memory than its header and the limits explain; compressed DICOM can be decoded in
//! a process of its own. Nothing of a header that identifies a person leaves this room: scans are named by ids, patients by keyed hashes.
//! A scan's path may name a person; it leaves the room for `RUN/private` only.

pub mod dicom;
mod digest;
mod file;
mod folder;
mod lists;
pub mod nifti;
mod patient;
pub mod phantom;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use digest::content_digest;
pub use file::is_dicom_slice;
pub use folder::{FolderConfig, FolderSource};
pub use lists::{DecathlonListConfig, ListSource, NnunetListConfig, NnunetPart};
pub use patient::{PatientConfig, PatientPattern, PatientRule, PatientSecret};

use crate::error::{Fault, Result};
use crate::id::{PatientKey, ScanDigest, ScanId};
use crate::volume::{Grid, Labels, Volume};

/// One scan of a source, known before anything of it is decoded. Entries are small and travel the dataflow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScanEntry {
    /// Derived from source name and key under the patients' secret: stable, and the path cannot be found by trial.
    pub scan_id: ScanId,
    /// Name of the source in the graph file.
    pub source: String,
    /// The source's own key: a path relative to its root (with `#UID` for one of several DICOM series in a folder), or
    /// a phantom's number. May name a person: it stays in `RUN/private`.
    pub key: String,
    /// The data set's name for tables; the source's name unless the graph file says another.
    pub dataset: String,
    /// The patient, as a keyed hash.
    pub patient_key: PatientKey,
    /// Bytes on disk.
    pub bytes: u64,
    /// When the data changed last, in seconds since 1970; 0 for phantoms.
    pub modified_s: i64,
}

/// What a header promises; read without decoding voxels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanHeader {
    /// Shape and place.
    pub grid: Grid,
    /// Most bytes that reading the scan holds at once (decoded voxels plus what decoding needs).
    pub read_bytes: u64,
    /// Bytes of the decoded volume as it stays in memory.
    pub volume_bytes: u64,
}

/// A decoded scan.
#[derive(Clone)]
pub struct Scan {
    /// Which one.
    pub entry: ScanEntry,
    /// SHA-256 over its voxels in RAS order, shape and spacing: equal for equal content whatever the file format.
    pub digest: ScanDigest,
    /// HU on the scan's own grid.
    pub volume: Volume,
    /// What lies beside it.
    pub companions: Arc<dyn Companions>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("entry", &self.entry).field("grid", &self.volume.grid).finish_non_exhaustive()
    }
}

/// Files that belong to a scan: its labels.
pub trait Companions: Send + Sync {
    /// The label file that `pattern` names: a path relative to the scan's folder in which `{stem}` stands for the
    /// scan's file name without extensions (`labels.nii.gz`, `../labelsTr/{stem}.nii.gz`, `organs/liver.nii.gz`).
    ///
    /// # Errors
    /// A fault of stage `mask`: `missing` where there is none, otherwise why it cannot be read.
    fn labels(&self, pattern: &str) -> Result<Labels, Fault>;
}

/// An archive of scans.
pub trait Source: Send + Sync {
    /// All scans, sorted by key. Things that are no scan are listed too when the graph file's pattern asks for them;
    /// reading them is then a fault.
    ///
    /// # Errors
    /// Where the archive itself cannot be listed.
    fn list(&self) -> Result<Vec<ScanEntry>>;

    /// The secret behind its patient keys and scan ids; none where the source needs no secret. With another secret every patient
    /// would be another one, and could be trained and tested on at once.
    ///
    /// # Errors
    /// Where the secret cannot be read.
    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        Ok(None)
    }

    /// The header of a scan, without decoding it.
    ///
    /// # Errors
    /// A fault of stage `read`.
    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault>;

    /// Decodes a scan.
    ///
    /// # Errors
    /// A fault of stage `read`.
    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault>;
}
