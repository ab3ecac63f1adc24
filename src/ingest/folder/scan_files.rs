//! The versions of the scans of a folder.

use std::path::Path;

use super::walk::{MatchedPath, PathKind};
use crate::error::Fault;
use crate::id::ScanVersion;
use crate::ingest::dicom::{self, Series};
use crate::ingest::key::path_of;
use crate::ingest::version::{FileState, VersionHasher, modified_s};
use crate::ingest::volume_file;

/// The size and version of the files of a scan.
pub(in crate::ingest) struct ScanFiles {
    pub bytes: u64,
    pub modified_s: i64,
    pub version: ScanVersion,
}

impl ScanFiles {
    /// Returns the size and version of a series on disk.
    pub fn of_series(series: &Series) -> Self {
        Self::of_series_with(series, series.file_states(), series.modified_s())
    }

    /// Returns the size and version of a series whose files have these states.
    pub fn of_series_with(series: &Series, states: Vec<FileState>, modified_s: i64) -> Self {
        let version = VersionHasher::new().add_files("scan", states);
        // A fault of the headers may depend on the other files of the folder.
        let fault = dicom::read_header(series).err();
        let version = version.add_text("fault", fault.as_ref().map_or("", |fault| &fault.message));
        Self { bytes: series.bytes(), modified_s, version: version.finish() }
    }

    /// Returns the version of a folder that cannot be listed.
    pub fn unreadable() -> Self {
        let version = VersionHasher::new().add_files("scan", [FileState::Absent]);
        Self { bytes: 0, modified_s: 0, version: version.finish() }
    }

    /// Returns the version of a path that is not a scan; reading it is a fault.
    pub fn of_unread(found: &MatchedPath, files: &[FileState]) -> Self {
        let version = VersionHasher::new().add_files("scan", [found.state]).add_files("folder", files.iter().copied());
        Self { bytes: found.bytes, modified_s: found.modified_s, version: version.finish() }
    }

    /// Returns the size and version of a file and of the data file that its header names.
    pub fn of_file(root: &Path, found: &MatchedPath) -> Self {
        let path = root.join(path_of(&found.key));
        let data_file = volume_file::named_data_file(&path);
        let data = data_file.as_ref().and_then(|path| path.metadata().ok());
        let version = VersionHasher::new().add_files("scan", [found.state]);
        let version = match &data_file {
            Some(path) => version.add_files("data", [FileState::of(path)]),
            None => version,
        };
        let (bytes, modified_s) = data.map_or((0, i64::MIN), |data| (data.len(), modified_s(&data)));
        Self { bytes: found.bytes + bytes, modified_s: found.modified_s.max(modified_s), version: version.finish() }
    }

    /// Returns the version of a listed path as it is now; `series` returns that of a DICOM series, whose key is no path.
    ///
    /// # Errors
    /// The fault of `series`.
    pub fn current(root: &Path, key: &str, series: impl FnOnce() -> Result<Self, Fault>) -> Result<Self, Fault> {
        let path = root.join(path_of(key));
        let metadata = path.metadata();
        let found = |kind, state| {
            let (bytes, modified_s) = metadata.as_ref().map_or((0, 0), |data| (data.len(), modified_s(data)));
            MatchedPath { key: key.to_owned(), kind, bytes, modified_s, state }
        };
        match &metadata {
            Ok(data) if data.is_dir() => {
                let found = found(PathKind::Folder, FileState::of_metadata(data));
                Ok(Self::of_unread(&found, &FileState::of_path(&path)))
            }
            Ok(data) => Ok(Self::of_file(root, &found(PathKind::File, FileState::of_metadata(data)))),
            // A broken link is listed as it is.
            Err(_) => series().or_else(|fault| match path.is_symlink() {
                true => Ok(Self::of_unread(&found(PathKind::BrokenLink, FileState::Absent), &[])),
                false => Err(fault),
            }),
        }
    }
}
