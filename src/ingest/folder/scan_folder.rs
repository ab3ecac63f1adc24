//! Reading of the scans below a root: volume files, and series in DICOM folders.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use globset::GlobSet;

use super::companions::FolderCompanions;
use super::scan_files::ScanFiles;
use crate::error::{Fault, FaultKind};
use crate::id::ScanVersion;
use crate::ingest::archive::counts;
use crate::ingest::dicom::{self, Decoder, DicomFolder, FolderFilter, FrameOfReference, Series};
use crate::ingest::file::{check_regular, missing};
use crate::ingest::key::path_of;
use crate::ingest::{Acquisition, ScanHeader, nifti, volume_file};
use crate::volume::Volume;

/// A root with scans. The key of a scan is the path of its file below the root or, for a series, the path of its DICOM folder, `#` and the
/// id of the series.
#[derive(Clone, Debug)]
pub(in crate::ingest) struct ScanFolder {
    /// The root.
    pub root: PathBuf,
    /// Patterns, relative to the root, of files in DICOM folders that are not slices.
    pub exclude: GlobSet,
    /// Whether series are read without the files of their folder that cannot be read.
    pub allow_unreadable_files: bool,
    /// Whether the year of the acquisition is read.
    pub with_acquisition_year: bool,
    /// The decoder of compressed DICOM.
    pub decoder: Decoder,
    /// The limits of reading one scan or label file.
    pub limits: nifti::Limits,
}

/// The location of a scan.
pub(in crate::ingest) enum ScanLocation {
    /// A volume file.
    File(PathBuf),
    /// A series in a DICOM folder.
    Series(PathBuf, Box<Series>),
}

impl ScanLocation {
    /// Returns the path of the file or the DICOM folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Series(path, _) => path,
        }
    }

    /// Returns the frame of reference of a DICOM series, or `None` for a file.
    pub fn frame_of_reference(&self) -> Option<FrameOfReference> {
        match self {
            Self::File(_) => None,
            Self::Series(_, series) => dicom::frame_of_reference(series),
        }
    }
}

impl ScanFolder {
    /// Creates a root with default limits and a decoder in this process.
    pub fn new(root: PathBuf, exclude: GlobSet, allow_unreadable_files: bool) -> Self {
        let (decoder, limits) = (Decoder::in_process(), nifti::Limits::default());
        Self { root, exclude, allow_unreadable_files, with_acquisition_year: false, decoder, limits }
    }

    /// Returns the same settings with another root.
    pub fn at(&self, root: PathBuf) -> Self {
        Self { root, ..self.clone() }
    }

    /// Lists the series of a DICOM folder.
    ///
    /// # Errors
    /// `io` if the folder cannot be listed.
    pub fn list_folder(&self, folder: &Path) -> Result<DicomFolder, Fault> {
        let is_excluded = |path: &Path| path.strip_prefix(&self.root).is_ok_and(|key| self.exclude.is_match(key));
        dicom::list_folder(
            folder,
            &FolderFilter {
                is_excluded: &is_excluded,
                skip_unreadable: self.allow_unreadable_files,
                decoder: Some(&self.decoder),
            },
        )
    }

    /// Returns the location of a scan on disk.
    ///
    /// # Errors
    /// `missing` if there is no such scan, `unsupported` if its path is no file.
    pub fn locate(&self, key: &str) -> Result<ScanLocation, Fault> {
        let relative = path_of(key);
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Fault::read(
                FaultKind::Corrupt,
                "expected a key below the source's root, got a path outside of it",
            ));
        }
        let path = self.root.join(&relative);
        if path.is_file() {
            return Ok(ScanLocation::File(path));
        }
        if let Some((folder, id)) = key.rsplit_once('#') {
            let folder = self.root.join(path_of(folder));
            if folder.is_dir() {
                let series = self.list_folder(&folder)?.series.into_iter().find(|series| series.id() == id);
                let gone = || Fault::read(FaultKind::Missing, "the series no longer exists in its DICOM folder");
                return Ok(ScanLocation::Series(folder, Box::new(series.ok_or_else(gone)?)));
            }
        }
        if path.is_dir() {
            return Err(without_series(&self.list_folder(&path)?.other_files));
        }
        if let Ok(metadata) = path.metadata() {
            check_regular(metadata.file_type())?;
        }
        Err(missing(&path))
    }

    /// Returns the path of the file or the DICOM folder of a scan, without opening it.
    pub fn path_of_scan(&self, key: &str) -> PathBuf {
        let path = self.root.join(path_of(key));
        match key.rsplit_once('#') {
            Some((folder, _)) if !path.exists() => self.root.join(path_of(folder)),
            _ => path,
        }
    }

    /// Returns access to the label files of the scan whose file or DICOM folder is at `path`.
    pub fn companions(&self, path: &Path) -> FolderCompanions {
        FolderCompanions::new(&self.root, path, self.limits)
    }

    /// Returns the current version of the files of a scan.
    ///
    /// # Errors
    /// The faults of [`ScanFolder::locate`].
    pub fn version(&self, key: &str) -> Result<ScanVersion, Fault> {
        let series = || match self.locate(key)? {
            ScanLocation::Series(_, series) => Ok(ScanFiles::of_series(&series)),
            ScanLocation::File(path) => Err(missing(&path)),
        };
        ScanFiles::current(&self.root, key, series).map(|files| files.version)
    }

    /// Reads the header of a scan without decoding voxels.
    ///
    /// # Errors
    /// A fault of stage `read`.
    pub fn header(&self, key: &str) -> Result<ScanHeader, Fault> {
        match self.locate(key)? {
            ScanLocation::File(path) => volume_file::read_header(&path),
            ScanLocation::Series(_, series) => dicom::read_header(&series),
        }
    }

    /// Returns whether the key of a scan is that of a series or of a folder, whose headers listing has read.
    pub fn is_folder(&self, key: &str) -> bool {
        let path = self.root.join(path_of(key));
        path.is_dir() || (!path.exists() && key.contains('#'))
    }

    /// Returns the acquisition of a DICOM series; every value is absent for a file.
    pub fn acquisition(&self, location: &ScanLocation) -> Acquisition {
        match location {
            ScanLocation::File(_) => Acquisition::default(),
            ScanLocation::Series(_, series) => dicom::acquisition(series, self.with_acquisition_year),
        }
    }

    /// Decodes a scan.
    ///
    /// # Errors
    /// A fault of stage `read`.
    pub fn decode(&self, location: &ScanLocation) -> Result<Volume, Fault> {
        match location {
            ScanLocation::File(path) => volume_file::read_volume_within(path, &self.limits),
            ScanLocation::Series(_, series) => {
                let limits = dicom::Limits { volume_bytes: self.limits.held_bytes };
                dicom::read_series(series, &self.decoder, &limits)
            }
        }
    }
}

/// Returns the fault of a scan whose patient is unknown.
pub(super) fn unknown_patient() -> Fault {
    Fault::read(FaultKind::Missing, "the rule for patients does not match the path or header of this scan")
}

/// Returns the fault of a DICOM folder without a series.
pub(super) fn without_series(other_files: &BTreeMap<&'static str, usize>) -> Fault {
    if other_files.is_empty() {
        return Fault::read(FaultKind::Missing, "expected a DICOM series, got a folder without one");
    }
    let message = format!("expected CT images in a DICOM folder, got {}", counts(other_files));
    Fault::read(FaultKind::Unsupported, message)
}
