//! Versions of scans: hashes of the sizes and modification times of the files that the results of a scan depend on.
//!
//! A version does not depend on content, so listing an archive again decodes nothing. Names are not part of a version, because a name could
//! be guessed from its hash; a file that is renamed within its DICOM folder is therefore not a change.

use std::fs::Metadata;
use std::path::Path;
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use crate::id::{FieldHasher, ScanVersion};

/// The state of a path on disk, or of a member of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileState {
    /// There is no file, or its state cannot be read.
    Absent,
    /// A file.
    Present {
        /// The length.
        bytes: u64,
        /// The time of the last modification in nanoseconds since 1970.
        modified_ns: i128,
    },
    /// A member of an archive. Its state depends on its content, so that a new copy of the archive has the same members.
    Member {
        /// The length.
        bytes: u64,
        /// A checksum or digest of the content.
        content: u128,
    },
}

impl FileState {
    /// Returns the state of a file; links are followed.
    ///
    /// ```
    /// use freetumor::ingest::FileState;
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("ct.nii");
    /// assert_eq!(FileState::of(&path), FileState::Absent);
    /// std::fs::write(&path, b"voxels")?;
    /// assert!(matches!(FileState::of(&path), FileState::Present { bytes: 6, .. }));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn of(path: &Path) -> Self {
        path.metadata().map_or(Self::Absent, |metadata| Self::of_metadata(&metadata))
    }

    /// Returns the state of a file with this metadata.
    pub fn of_metadata(metadata: &Metadata) -> Self {
        Self::Present { bytes: metadata.len(), modified_ns: modified_ns(metadata) }
    }

    /// Returns the state of a file, or the states of all files below a folder, sorted.
    pub fn of_path(path: &Path) -> Vec<Self> {
        if !path.is_dir() {
            return vec![Self::of(path)];
        }
        let files = WalkDir::new(path).follow_links(true).into_iter().flatten();
        let files = files.filter(|entry| !entry.file_type().is_dir());
        let mut states: Vec<_> = files.map(|entry| Self::of(entry.path())).collect();
        states.sort_unstable();
        states
    }
}

/// A hasher of the states of files.
///
/// ```
/// use freetumor::ingest::{FileState, VersionHasher};
/// let version = |bytes| VersionHasher::new().add_files("scan", [FileState::Present { bytes, modified_ns: 7 }]).finish();
/// assert_eq!(version(3), version(3));
/// assert_ne!(version(3), version(4));
/// ```
#[derive(Clone, Debug)]
pub struct VersionHasher(FieldHasher);

impl Default for VersionHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl VersionHasher {
    /// Creates a hasher without files.
    pub fn new() -> Self {
        Self(FieldHasher::new("scan version"))
    }

    /// Adds the files of one role, such as the scan itself or the labels of one mask stage.
    #[must_use]
    pub fn add_files(self, role: &str, states: impl IntoIterator<Item = FileState>) -> Self {
        let mut text = String::new();
        for state in states {
            text += &match state {
                FileState::Absent => "absent;".to_owned(),
                FileState::Present { bytes, modified_ns } => format!("{bytes} {modified_ns};"),
                FileState::Member { bytes, content } => format!("{bytes} content {content:x};"),
            };
        }
        self.add_text(role, &text)
    }

    /// Adds a text on which the results depend.
    #[must_use]
    pub fn add_text(self, role: &str, text: &str) -> Self {
        Self(self.0.add_field(role).add_field(text))
    }

    /// Returns the version.
    pub fn finish(self) -> ScanVersion {
        ScanVersion::from_hash(&self.0.finish())
    }
}

/// Returns the time of the last modification in nanoseconds since 1970; 0 if the file system has none.
pub(super) fn modified_ns(metadata: &Metadata) -> i128 {
    let Ok(modified) = metadata.modified() else { return 0 };
    let nanoseconds = |duration: std::time::Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => nanoseconds(after),
        Err(before) => -nanoseconds(before.duration()),
    }
}

/// Returns the time of the last modification in whole seconds since 1970, rounded down.
pub(super) fn modified_s(metadata: &Metadata) -> i64 {
    i64::try_from(modified_ns(metadata).div_euclid(1_000_000_000)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_changes_with_length_and_modification_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.nii");
        std::fs::write(&path, b"one").unwrap();
        let first = FileState::of(&path);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_nanos(1_700_000_000_000_000_001)).unwrap();
        let touched = FileState::of(&path);
        assert_eq!(touched, FileState::Present { bytes: 3, modified_ns: 1_700_000_000_000_000_001 });
        assert_ne!(first, touched);
        assert_eq!(modified_s(&path.metadata().unwrap()), 1_700_000_000);
        assert_eq!(FileState::of_path(folder.path()), [touched]);
        assert_eq!(FileState::of_path(&path), [touched]);
    }

    #[test]
    fn version_depends_on_role_of_file() {
        let file = FileState::Present { bytes: 1, modified_ns: 2 };
        let scan = VersionHasher::new().add_files("scan", [file]);
        assert_ne!(scan.clone().add_files("a", [file]).finish(), scan.clone().add_files("b", [file]).finish());
        assert_ne!(scan.clone().add_files("a", [file]).finish(), scan.add_files("a", [FileState::Absent]).finish());
    }
}
