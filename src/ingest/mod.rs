//! Reading of archives: sources list scans and read them one at a time as volumes.
//!
//! This module owns the formats of scans (NIfTI, NRRD, MetaImage, DICOM), the kinds of sources ([`FolderSource`], [`ArchiveSource`],
//! [`ListSource`], [`ManifestSource`], [`phantom`]), the ids of scans, their content digests, and the keys of patients.
//!
//! A [`Source`] lists [`ScanEntry`]s without decoding any voxel and reads one scan into HU on its grid. A damaged or hostile file is a
//! fault of its scan: the fault does not stop the run, and reading the file needs no more memory than its size and the limits allow.
//! Compressed DICOM can be decoded in a separate process. No header value that identifies a person leaves this module: scans are named by
//! ids, patients by keyed hashes. The path of a scan may name a person; paths are written to `RUN/private` only.

mod acquisition;
mod archive;
mod archive_files;
pub mod dicom;
mod digest;
mod file;
mod folder;
mod format;
mod held_out;
mod key;
mod label_names;
mod lists;
mod manifest;
mod metaimage;
pub mod nifti;
mod nrrd;
mod patient;
pub mod phantom;
mod raster;
mod version;
pub mod volume_file;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use acquisition::Acquisition;
pub use archive::{ArchiveRemarks, SeparatedSeries};
pub use archive_files::{ArchiveConfig, ArchiveSource};
pub use digest::{SliceHashes, content_digest, slice_hashes};
pub use file::{case_name, is_dicom_slice};
pub use folder::{FolderConfig, FolderSource};
pub use held_out::{HeldOut, HeldOutCache, HeldOutPaths, HeldOutScan};
pub(crate) use key::{key_of, path_text};
pub use label_names::{is_tumor_name, known_label_names};
pub use lists::{DecathlonListConfig, ListSource, NnunetListConfig, NnunetPart};
pub use manifest::{ManifestConfig, ManifestSource};
pub use patient::{PatientConfig, PatientPattern, PatientRule, PatientSecret};
pub use version::{FileState, VersionHasher};

use crate::error::{Fault, FaultKind, Result};
use crate::id::{PatientKey, ScanDigest, ScanId, ScanVersion};
use crate::volume::{Grid, Labels, Volume};

/// One scan of a source, listed before any voxel is decoded. Entries are small and are passed through the dataflow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScanEntry {
    /// Keyed hash of source name and key: stable, and the path cannot be found by trial without the patient secret.
    pub scan_id: ScanId,
    /// Name of the source in the graph file.
    pub source: String,
    /// The key within the source: a path relative to its root (with `#UID` for one of several DICOM series in a folder), or
    /// the number of a phantom. The key may name a person and is written to `RUN/private` only.
    pub key: String,
    /// Name of the data set in tables; the name of the source unless the graph file sets `dataset`.
    pub dataset: String,
    /// The patient, as a keyed hash.
    pub patient_key: PatientKey,
    /// Bytes on disk.
    pub bytes: u64,
    /// Time of the last modification of the data, in seconds since 1970; 0 for phantoms.
    pub modified_s: i64,
    /// The version of the files of the scan; in a run, also of the files that its stages read.
    pub version: ScanVersion,
}

/// Grid and memory cost of a scan, from its header alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScanHeader {
    /// Shape and affine.
    pub grid: Grid,
    /// Peak bytes that reading the scan holds at once (decoded voxels and the buffers of the decoder).
    pub read_bytes: u64,
    /// Bytes of the decoded volume in memory.
    pub volume_bytes: u64,
}

/// A decoded scan.
#[derive(Clone)]
pub struct Scan {
    /// The entry of the scan in the source.
    pub entry: ScanEntry,
    /// SHA-256 over the voxels of the scan in RAS order, shape and spacing: equal for equal content in any file format.
    pub digest: ScanDigest,
    /// HU on the grid of the scan.
    pub volume: Volume,
    /// The label files of the scan.
    pub companions: Arc<dyn Companions>,
    /// The acquisition; every value is absent if the format does not state it.
    pub acquisition: Acquisition,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("entry", &self.entry).field("grid", &self.volume.grid).finish_non_exhaustive()
    }
}

/// Access to the companion files of a scan: the label files that belong to the scan.
pub trait Companions: Send + Sync {
    /// Reads the label file that `pattern` names: a path relative to the folder of the scan in which `{stem}` is replaced by the
    /// file name of the scan without extensions (`labels.nii.gz`, `../labelsTr/{stem}.nii.gz`, `organs/liver.nii.gz`).
    ///
    /// # Errors
    /// Returns a fault of stage `mask`: `missing` if the file does not exist, otherwise the fault of reading the file.
    fn labels(&self, pattern: &str) -> Result<Labels, Fault>;

    /// Reads the names of labels by id that the label file itself states; empty if the file states none.
    ///
    /// # Errors
    /// Returns the faults of [`Companions::labels`] that the header of the file shows.
    fn label_names(&self, pattern: &str) -> Result<BTreeMap<u16, String>, Fault> {
        let _ = pattern;
        Ok(BTreeMap::new())
    }

    /// Reads the names of labels by id of the `dataset.json` beside the label file that `pattern` names; empty if there is none.
    fn data_set_label_names(&self, pattern: &str) -> BTreeMap<u16, String> {
        let _ = pattern;
        BTreeMap::new()
    }

    /// Reads the structures of the DICOM file that `pattern` names: an RT Structure Set or a Segmentation, or a folder with one such file.
    /// Returns `None` if `pattern` names no DICOM file and no folder, but possibly a label file.
    ///
    /// # Errors
    /// Returns a fault of stage `mask`: the fault of reading the file, and `mismatch` if its frame of reference is not that of the scan.
    fn structures(&self, pattern: &str) -> Result<Option<Box<dyn Structures>>, Fault> {
        let _ = pattern;
        Ok(None)
    }

    /// Returns the states of the label file that `pattern` names, or of the files of the folder that it names; empty for label maps that
    /// are not files.
    fn file_states(&self, pattern: &str) -> Vec<FileState> {
        let _ = pattern;
        Vec::new()
    }

    /// Reads the grid of the label file that `pattern` names; `None` if the file has no grid of its own.
    ///
    /// # Errors
    /// Returns the faults of [`Companions::labels`] that the header of the file shows.
    fn label_grid(&self, pattern: &str) -> Result<Option<Grid>, Fault> {
        let _ = pattern;
        Ok(None)
    }

    /// Returns whether the label file that `pattern` names exists; by default, reads the file.
    fn exists(&self, pattern: &str) -> bool {
        !matches!(self.labels(pattern), Err(fault) if fault.kind == FaultKind::Missing)
    }
}

/// Structures of a patient: sets of voxels with numbers and names, which may overlap.
pub trait Structures {
    /// Returns the number of structures.
    fn count(&self) -> usize;

    /// Returns the indices of the structures that a selector matches. A name may match several structures.
    fn find(&self, selector: StructureSelector<'_>) -> Vec<usize>;

    /// Calls `visit` with every voxel of a structure on the grid of a scan, as a linear index (x fastest), at least once.
    ///
    /// # Errors
    /// Returns `mismatch` if the structure is not in the planes of the scan's slices, is outside of the scan, or has contours on fewer
    /// slices than the scan; `unsupported` if its contours are of another type; `geometry` if the grid is degenerate.
    ///
    /// # Panics
    /// Panics if there is no structure at `index`.
    fn for_each_voxel(&self, index: usize, scan: &Grid, visit: &mut dyn FnMut(usize)) -> Result<(), Fault>;
}

/// The selection of a structure, by its name or its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StructureSelector<'a> {
    /// The structure with this name in upper or lower case: the ROI Name of an RT Structure Set, the Segment Label of a Segmentation.
    Name(&'a str),
    /// The structure with this number: the ROI Number or the Segment Number.
    Number(u16),
}

/// An archive of scans.
pub trait Source: Send + Sync {
    /// Lists all scans, sorted by key. An entry that matches the patterns of the graph file but is not a scan is listed, too;
    /// reading it is a fault.
    ///
    /// # Errors
    /// Returns an error if the archive itself cannot be listed.
    fn list(&self) -> Result<Vec<ScanEntry>>;

    /// Lists all scans as [`Source::list`] does, and returns remarks on what the archive contains beside them, which `list` logs.
    ///
    /// # Errors
    /// The errors of [`Source::list`].
    fn list_archive(&self) -> Result<(Vec<ScanEntry>, ArchiveRemarks)> {
        Ok((self.list()?, ArchiveRemarks::default()))
    }

    /// Looks for damage of a scan that [`ArchiveRemarks::unreadable`] does not contain, without decoding its voxels unless the length of a
    /// compressed file shows that voxels may be missing.
    ///
    /// # Errors
    /// Returns the fault that reading the scan would return.
    fn check(&self, entry: &ScanEntry) -> Result<(), Fault> {
        self.header(entry).map(drop)
    }

    /// Explains why the source has no scans, for a source whose list is empty.
    fn explain_empty(&self) -> String {
        "its list is empty".to_owned()
    }

    /// Checks that the archive is still there, after a scan of it could not be read: a disk may have been unmounted.
    ///
    /// # Errors
    /// Returns an error if no scan of the source can be read.
    fn check_available(&self) -> Result<()> {
        Ok(())
    }

    /// Returns the folder whose changes are watched by a run that follows its sources; `None` if the source is only listed at intervals.
    fn root(&self) -> Option<&Path> {
        None
    }

    /// Returns the time without changes after which the files of a scan are complete; `None` if the source does not set it.
    fn settle(&self) -> Option<Duration> {
        None
    }

    /// Returns whether a marker shows that the files of a scan are complete.
    fn is_complete(&self, _entry: &ScanEntry) -> bool {
        false
    }

    /// Returns access to the label files of a scan without reading the scan; `None` if the source has none on disk.
    fn companions(&self, _entry: &ScanEntry) -> Option<Arc<dyn Companions>> {
        None
    }

    /// Returns the secret of the patient keys and scan ids, or `None` if the source needs no secret. Another secret changes every
    /// patient key, so that a patient could be in the training set and in the test set.
    ///
    /// # Errors
    /// Returns an error if the secret cannot be read.
    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        Ok(None)
    }

    /// Returns the current version of the files of a listed scan, to detect changes since [`Source::list`]; the listed version for scans
    /// that are not files.
    ///
    /// # Errors
    /// Returns a fault of stage `read` if the scan no longer exists.
    fn version(&self, entry: &ScanEntry) -> Result<ScanVersion, Fault> {
        Ok(entry.version)
    }

    /// Reads the header of a scan without decoding voxels.
    ///
    /// # Errors
    /// Returns a fault of stage `read`.
    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault>;

    /// Decodes a scan.
    ///
    /// # Errors
    /// Returns a fault of stage `read`.
    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault>;
}
