//! The archives of a source: one file, or the files that match a pattern.

use std::path::{Path, PathBuf};

use globset::GlobSet;

use crate::error::{ConfigError, Error, Fault, FaultKind, Result};
use crate::ingest::folder::{MatchedPath, find, patterns};
use crate::ingest::key::{key_of, path_of};

/// The archives of a source. The key of an archive is its path below the root.
#[derive(Clone, Debug)]
pub(super) struct ArchiveFiles {
    root: PathBuf,
    pattern: GlobSet,
    /// The name of the file, if the path is no pattern.
    file: Option<PathBuf>,
}

impl ArchiveFiles {
    /// Creates the archives at a path, or a pattern of paths whose first components are a folder.
    ///
    /// # Errors
    /// Returns an error if there is no such file, no such folder, or the pattern is invalid.
    pub fn new(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let is_pattern = |part: &std::ffi::OsStr| {
            part.as_encoded_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'{'))
        };
        let parts = path.iter().take_while(|part| !is_pattern(part)).count();
        if path.exists() || parts == path.iter().count() {
            return Self::of_file(path);
        }
        let root: PathBuf = path.iter().take(parts).collect();
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
        if !root.is_dir() {
            let message = format!("expected a folder with archives, got none: {}", root.display());
            let hint = "a relative path starts at the folder of the graph file";
            return Err(vec![ConfigError::new("path", message).with_hint(hint)]);
        }
        let rest: PathBuf = path.iter().skip(parts).collect();
        let mut errors = Vec::new();
        let pattern = patterns("path", &[rest.to_string_lossy().into_owned()], &mut errors);
        let of_path = |error: ConfigError| ConfigError { field: "path".to_owned(), ..error };
        match errors.is_empty() {
            true => Ok(Self { root, pattern, file: None }),
            false => Err(errors.into_iter().map(of_path).collect()),
        }
    }

    fn of_file(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let name = path.file_name().map(PathBuf::from);
        let (Some(name), true) = (name, path.is_file()) else {
            let got = if path.exists() { "another path" } else { "none" };
            let message = format!("expected an archive file, got {got}: {}", path.display());
            let hint = "a relative path starts at the folder of the graph file; several archives match a pattern such as \"batches/*.tar.gz\"";
            return Err(vec![ConfigError::new("path", message).with_hint(hint)]);
        };
        let root = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
        Ok(Self { root, pattern: GlobSet::empty(), file: Some(name) })
    }

    /// Returns the folder that contains the archives.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of an archive.
    pub fn path(&self, key: &str) -> PathBuf {
        self.root.join(path_of(key))
    }

    /// Lists the archives.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<MatchedPath>> {
        let Some(name) = &self.file else {
            return find(&self.root, &self.pattern, &GlobSet::empty())
                .map_err(|error| Error::io("cannot list the folder of archives", &self.root, error));
        };
        let path = self.root.join(name);
        path.metadata().map_err(|error| Error::io("cannot read the archive", &path, error))?;
        Ok(vec![MatchedPath::of(&path, &key_of(name))])
    }

    /// Returns the archive of a scan with this key, as it is now.
    ///
    /// # Errors
    /// `missing` if the archive no longer exists.
    pub fn archive_of(&self, key: &str) -> Result<MatchedPath, Fault> {
        let ends = key.char_indices().filter(|(_, letter)| ['/', '#'].contains(letter)).map(|(at, _)| at);
        let archive = ends.chain([key.len()]).map(|end| &key[..end]).find(|archive| self.is_archive(archive));
        let archive = archive.ok_or_else(|| {
            let message = "the archive of the scan does not exist: check that its disk is mounted";
            Fault::read(FaultKind::Missing, message)
        })?;
        Ok(MatchedPath::of(&self.path(archive), archive))
    }

    fn is_archive(&self, key: &str) -> bool {
        let path = path_of(key);
        let matches = self.file.as_ref().map_or_else(|| self.pattern.is_match(&path), |file| *file == path);
        matches && self.root.join(path).is_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_path_is_file_or_pattern() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("x/y")).unwrap();
        for name in ["x/a.tar", "x/y/b.tar", "x/c[1].zip"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let keys = |path: &str| {
            let files = ArchiveFiles::new(&folder.path().join(path)).unwrap();
            let mut keys: Vec<_> = files.list().unwrap().into_iter().map(|found| found.key).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys("x/a.tar"), ["a.tar"]);
        assert_eq!(keys("x/c[1].zip"), ["c[1].zip"]);
        assert_eq!(keys("x/*.tar"), ["a.tar"]);
        assert_eq!(keys("*/**/*.{tar,zip}"), ["x/a.tar", "x/c[1].zip", "x/y/b.tar"]);
        let files = ArchiveFiles::new(&folder.path().join("x/**/*.tar")).unwrap();
        assert_eq!(files.archive_of("y/b.tar/p/ct.nii").unwrap().key, "y/b.tar");
        assert_eq!(files.archive_of("a.tar#0123").unwrap().key, "a.tar");
        assert_eq!(files.archive_of("gone.tar/ct.nii").unwrap_err().kind, FaultKind::Missing);
        for path in ["x/none.tar", "x/y", "none/*.tar", "x/*[.tar"] {
            assert_eq!(ArchiveFiles::new(&folder.path().join(path)).unwrap_err()[0].field, "path", "{path}");
        }
    }
}
