//! Create-if-absent on a file system: write, sync, link, sync the folder.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::links::{NO_LINKS_HINT, is_without_links, no_links_error};
use super::{
    ContentWriter, DurableStorage, FileDigest, FileSystem, HashingWriter, LocalFileSystem, PRIVATE, REPLACEABLE,
    STAGING,
};
use crate::error::{Error, ErrorKind, Result};

const SCRATCH: &str = "staging/tmp";

/// A [`DurableStorage`] folder on a [`FileSystem`].
pub struct DurableFolder {
    file_system: Box<dyn FileSystem>,
    root: PathBuf,
    synced: Mutex<HashSet<String>>,
    // Distinguishes the scratch files of two processes, also on machines that share a folder.
    writer: u64,
    scratch: AtomicU64,
}

impl DurableFolder {
    /// Creates a handle to a local folder. The folder is created with its first file.
    pub fn local(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self::on(Box::new(LocalFileSystem::new(&root)), root)
    }

    /// Creates a handle to a folder of any file system; `root` names the folder in error messages.
    pub fn on(file_system: Box<dyn FileSystem>, root: impl Into<PathBuf>) -> Self {
        let writer = RandomState::new().hash_one(std::process::id());
        Self { file_system, root: root.into(), synced: Mutex::default(), writer, scratch: AtomicU64::new(0) }
    }

    fn io_error(&self, action: &str, name: &str, error: io::Error) -> Error {
        let kind = error.kind();
        let error = Error::io(action, self.root.join(name), error);
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                error.with_hint("free some space and run the same command again to resume")
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                error.with_hint("choose a writable folder with `--out`")
            }
            io::ErrorKind::Unsupported | io::ErrorKind::CrossesDevices => error.with_hint(NO_LINKS_HINT),
            _ => error,
        }
    }

    /// Creates the parent folders of `name`. Durable folders are synced into their parents once per process, even if they exist: the
    /// process that created them may have been killed before the sync.
    fn make_parents(&self, name: &str) -> Result<()> {
        let Some((folder, _)) = name.rsplit_once('/') else { return self.make_root() };
        let durable = !is_removable(folder);
        if durable && self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        self.make_root()?;
        let ends = folder.match_indices('/').map(|(end, _)| end).chain([folder.len()]);
        for end in ends {
            let (part, parent) = (&folder[..end], folder[..end].rsplit_once('/').map_or("", |(parent, _)| parent));
            self.file_system
                .make_folder(part, is_private(part))
                .map_err(|e| self.io_error("cannot create", part, e))?;
            if durable {
                self.file_system.sync(parent).map_err(|e| self.io_error("cannot sync", parent, e))?;
            }
        }
        if durable {
            self.synced.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        }
        Ok(())
    }

    fn make_root(&self) -> Result<()> {
        if self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains("") {
            return Ok(());
        }
        self.file_system.make_folder("", false).map_err(|e| self.io_error("cannot create", "", e))?;
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).insert(String::new());
        Ok(())
    }

    fn write_scratch(&self, fill: ContentWriter<'_>) -> Result<(String, FileDigest)> {
        let name = self.scratch_name();
        self.make_parents(&name)?;
        let mut write = || {
            let mut hashing = HashingWriter::new(self.file_system.create(&name)?);
            fill(&mut hashing)?;
            hashing.flush()?;
            Ok(hashing.finish().1)
        };
        match write() {
            Ok(digest) => Ok((name, digest)),
            Err(error) => {
                // Report the first failure; a remaining scratch file is removed at the next start.
                let _ = self.file_system.remove(&name);
                Err(self.io_error("cannot write", &name, error))
            }
        }
    }

    /// Returns an unused name for a scratch file.
    fn scratch_name(&self) -> String {
        format!("{SCRATCH}/{:016x}-{}", self.writer, self.scratch.fetch_add(1, Ordering::Relaxed))
    }

    /// Replaces a file by a link to another one, so that the name always exists.
    fn replace_by_link(&self, name: &str, second: &str) -> Result<()> {
        let scratch = self.scratch_name();
        self.make_parents(&scratch)?;
        self.file_system.link(name, &scratch).map_err(|e| self.link_error(&scratch, e))?;
        self.file_system.rename(&scratch, second).map_err(|e| self.io_error("cannot replace", second, e))
    }

    /// Links a synced file to its final name, or compares it with the existing file of that name.
    fn link_final(&self, staged: &str, name: &str) -> Result<()> {
        match self.file_system.link(staged, name) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let reader =
                    |name: &str| self.file_system.open(name).map_err(|e| self.io_error("cannot read", name, e));
                let same = same_bytes(reader(staged)?, reader(name)?);
                if same.map_err(|e| self.io_error("cannot read", name, e))? {
                    Ok(())
                } else {
                    Err(self.fenced_error(name))
                }
            }
            Err(error) => Err(self.link_error(name, error)),
        }
    }

    /// Returns the error for a failed link. Missing support for hard links has several error codes, one of which usually means a missing
    /// permission.
    fn link_error(&self, name: &str, error: io::Error) -> Error {
        if is_without_links(&error) {
            return no_links_error(&self.root.join(name), error);
        }
        self.io_error("cannot create", name, error)
    }

    fn fenced_error(&self, name: &str) -> Error {
        Error::new(format!(
            "{} exists, and its bytes differ from the bytes that this process would write: another process writes this run (fenced)",
            self.root.join(name).display()
        ))
        .with_kind(ErrorKind::Fenced)
        .with_hint(
            "let the other process finish; if there is no other process, files were edited by hand: use another `--out`",
        )
    }

    fn immutable_error(&self, name: &str, verb: &str) -> Error {
        Error::new(format!("{} cannot be {verb}: committed files are immutable", self.root.join(name).display()))
    }
}

impl DurableStorage for DurableFolder {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (staged, _) = self.write_scratch(&mut |out| out.write_all(bytes))?;
        let published = self.publish(&[(staged.clone(), name.to_owned())]);
        let removed = self.file_system.remove(&staged).map_err(|e| self.io_error("cannot remove", &staged, e));
        published.and(removed)
    }

    fn publish(&self, files: &[(String, String)]) -> Result<()> {
        for (staged, name) in files {
            self.make_parents(name)?;
            if !is_private(name) {
                self.file_system
                    .make_public(staged, folder_of(name))
                    .map_err(|e| self.io_error("cannot publish", staged, e))?;
            }
            self.file_system.sync(staged).map_err(|e| self.io_error("cannot sync", staged, e))?;
        }
        let mut folders = BTreeSet::new();
        for (staged, name) in files {
            self.link_final(staged, name)?;
            folders.insert(folder_of(name));
        }
        // Also if the names existed before: the process that created them may have been killed before this step.
        folders.into_iter().try_for_each(|folder| self.sync_folder(folder))
    }

    fn stage(&self, name: &str, fill: ContentWriter<'_>) -> Result<FileDigest> {
        if !is_within(name, STAGING) {
            return Err(self.immutable_error(name, "staged"));
        }
        self.make_parents(name)?;
        let (scratch, digest) = self.write_scratch(fill)?;
        self.file_system.rename(&scratch, name).map_err(|e| self.io_error("cannot write", name, e))?;
        Ok(digest)
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>> {
        match self.file_system.open(name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io_error("cannot read", name, error)),
        }
    }

    fn open_at(&self, name: &str, offset: u64) -> Result<Option<Box<dyn Read + Send>>> {
        match self.file_system.open_at(name, offset) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io_error("cannot read", name, error)),
        }
    }

    fn exists(&self, name: &str) -> Result<bool> {
        self.file_system.exists(name).map_err(|e| self.io_error("cannot find", name, e))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        match self.file_system.list(folder) {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.io_error("cannot list", folder, error)),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        if !is_removable(name) {
            return Err(self.immutable_error(name, "removed"));
        }
        match self.file_system.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io_error("cannot remove", name, error)),
            _ => Ok(()),
        }
    }

    fn purge(&self, name: &str) -> Result<()> {
        if folder_of(name).is_empty() {
            return Err(self.immutable_error(name, "purged"));
        }
        match self.file_system.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io_error("cannot remove", name, error)),
            _ => Ok(()),
        }
    }

    fn link(&self, name: &str, second: &str) -> Result<()> {
        if !is_replaceable(second) {
            return Err(self.immutable_error(second, "linked"));
        }
        self.make_parents(second)?;
        match self.file_system.link(name, second) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.is_link(name, second)? {
                    Ok(())
                } else {
                    self.replace_by_link(name, second)
                }
            }
            linked => linked.map_err(|e| self.link_error(second, e)),
        }
    }

    fn is_link(&self, name: &str, second: &str) -> Result<bool> {
        match self.file_system.is_same_file(name, second) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            same => same.map_err(|e| self.io_error("cannot inspect", second, e)),
        }
    }

    fn replace(&self, name: &str, fill: ContentWriter<'_>) -> Result<()> {
        if !is_replaceable(name) {
            return Err(self.immutable_error(name, "replaced"));
        }
        self.make_parents(name)?;
        let (scratch, digest) = self.write_scratch(fill)?;
        if self.digest(name)?.as_ref() == Some(&digest) {
            return self.file_system.remove(&scratch).map_err(|e| self.io_error("cannot remove", &scratch, e));
        }
        if !is_private(name) {
            self.file_system
                .make_public(&scratch, folder_of(name))
                .map_err(|e| self.io_error("cannot publish", &scratch, e))?;
        }
        self.file_system.sync(&scratch).map_err(|e| self.io_error("cannot sync", &scratch, e))?;
        self.file_system.rename(&scratch, name).map_err(|e| self.io_error("cannot write", name, e))
    }

    fn length(&self, name: &str) -> Result<Option<u64>> {
        match self.file_system.length(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io_error("cannot inspect", name, error)),
        }
    }

    fn sync_folder(&self, folder: &str) -> Result<()> {
        self.file_system.sync(folder).map_err(|e| self.io_error("cannot sync", folder, e))
    }

    fn make_private(&self) -> Result<()> {
        PRIVATE.iter().try_for_each(|folder| {
            self.file_system.make_private(folder).map_err(|e| self.io_error("cannot restrict", folder, e))
        })
    }

    fn display_path(&self, name: &str) -> String {
        // Joining an empty name would add a slash.
        let path = if name.is_empty() { self.root.clone() } else { self.root.join(name) };
        path.display().to_string()
    }
}

/// Returns whether only the owner may access a folder or file.
fn is_private(name: &str) -> bool {
    PRIVATE.iter().any(|folder| is_within(name, folder))
}

/// Returns the folder of a file; empty for the root.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns whether a file of this name may be removed.
fn is_removable(name: &str) -> bool {
    is_within(name, STAGING) || is_replaceable(name)
}

fn is_replaceable(name: &str) -> bool {
    REPLACEABLE.iter().any(|folder| is_within(name, folder))
}

fn is_within(name: &str, folder: &str) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn same_bytes(mut left: impl Read, mut right: impl Read) -> io::Result<bool> {
    let (mut left_bytes, mut right_bytes) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = fill_from(&mut left, &mut left_bytes)?;
        if count != fill_from(&mut right, &mut right_bytes)? || left_bytes[..count] != right_bytes[..count] {
            return Ok(false);
        }
        if count < left_bytes.len() {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the reader is at its end.
fn fill_from(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, DurableFolder) {
        let guard = tempfile::tempdir().expect("a temporary folder");
        let folder = DurableFolder::local(guard.path().join("run"));
        (guard, folder)
    }

    #[test]
    fn create_does_not_overwrite_existing_file() {
        let (_guard, folder) = folder();
        folder.create("epochs/1.json", b"one").unwrap();
        folder.create("epochs/1.json", b"one").unwrap();
        let error = folder.create("epochs/1.json", b"two").unwrap_err();
        assert!(error.to_string().contains("fenced") && error.hint().is_some(), "{error}");
        assert_eq!(folder.read("epochs/1.json").unwrap().unwrap(), b"one");
        assert!(folder.list("staging/tmp").unwrap().is_empty(), "no scratch file remains");
    }

    #[test]
    fn committed_file_cannot_be_removed_replaced_or_linked() {
        let (_guard, folder) = folder();
        folder.create("data/a.parquet", b"rows").unwrap();
        folder.create("stagingbutnot/a", b"rows").unwrap();
        assert!(folder.remove("data/a.parquet").is_err());
        assert!(folder.remove("stagingbutnot/a").is_err());
        assert!(folder.replace("data/a.parquet", &mut |out| out.write_all(b"other")).is_err());
        assert!(folder.link("data/a.parquet", "data/b.parquet").is_err());
        assert!(folder.stage("data/b.parquet", &mut |_| Ok(())).is_err());
        folder.link("data/a.parquet", "layouts/x/a.parquet").unwrap();
        folder.link("data/a.parquet", "layouts/x/a.parquet").unwrap();
        folder.remove("layouts/x").unwrap();
        assert_eq!(folder.read("data/a.parquet").unwrap().unwrap(), b"rows");
    }

    #[test]
    fn link_replaces_a_copy_but_not_a_link() {
        let (guard, folder) = folder();
        folder.create("data/a", b"rows").unwrap();
        folder.link("data/a", "layouts/x/a").unwrap();
        let path = guard.path().join("run/layouts/x/a");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"ro").unwrap();
        assert!(!folder.is_link("data/a", "layouts/x/a").unwrap());
        folder.link("data/a", "layouts/x/a").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"rows");
        assert!(folder.is_link("data/a", "layouts/x/a").unwrap());
        assert!(!folder.is_link("data/a", "layouts/x/b").unwrap());
        assert!(folder.list("staging/tmp").unwrap().is_empty(), "no scratch file remains");
    }

    #[test]
    fn stage_returns_digest_of_written_bytes() {
        let (_guard, folder) = folder();
        let digest = folder.stage("staging/1/file", &mut |out| out.write_all(b"abc")).unwrap();
        assert_eq!(digest, FileDigest::of(b"abc"));
        assert_eq!(folder.digest("staging/1/file").unwrap(), Some(digest));
        folder.remove("staging/1").unwrap();
        folder.stage("staging/1/file", &mut |out| out.write_all(b"again")).unwrap();
        folder.publish(&[("staging/1/file".into(), "samples/x/file".into())]).unwrap();
        assert_eq!(folder.read("samples/x/file").unwrap().unwrap(), b"again");
    }

    #[cfg(unix)]
    #[test]
    fn staged_and_private_files_are_accessible_only_to_owner() {
        use std::os::unix::fs::PermissionsExt;
        let (guard, folder) = folder();
        let path = |name: &str| guard.path().join("run").join(name);
        let mode = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        folder.create("private/000.jsonl", b"{}\n").unwrap();
        folder.replace("private/pipeline.json", &mut |out| out.write_all(b"{}")).unwrap();
        folder
            .stage("staging/1/scan/file", &mut |out| {
                // Before the first byte is written.
                assert!(
                    std::fs::read_dir(path("staging/tmp"))
                        .unwrap()
                        .all(|file| { file.unwrap().metadata().unwrap().permissions().mode() & 0o077 == 0 })
                );
                out.write_all(b"voxels")
            })
            .unwrap();
        for folder in ["private", "staging", "staging/tmp", "staging/1", "staging/1/scan"] {
            assert_eq!(mode(folder), 0o700, "{folder}");
        }
        for file in ["private/000.jsonl", "private/pipeline.json", "staging/1/scan/file"] {
            assert_eq!(mode(file), 0o600, "{file}");
        }
        // Users who may read the folder may read its committed files; only the owner may write them.
        std::fs::create_dir(path("data")).unwrap();
        std::fs::set_permissions(path("data"), std::fs::Permissions::from_mode(0o770)).unwrap();
        folder.publish(&[("staging/1/scan/file".into(), "data/file".into())]).unwrap();
        assert_eq!(mode("data/file"), 0o640);
        // Restores the permissions of private files and leaves those of committed files.
        std::fs::set_permissions(path("private"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(path("private/000.jsonl"), std::fs::Permissions::from_mode(0o644)).unwrap();
        folder.make_private().unwrap();
        assert_eq!((mode("private"), mode("private/000.jsonl"), mode("data/file")), (0o700, 0o600, 0o640));
    }

    #[test]
    fn create_error_names_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DurableFolder::local(file.path()).create("run.json", b"{}").unwrap_err();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }

    #[test]
    fn read_range_ends_at_end_of_file() {
        let (_guard, folder) = folder();
        folder.create("data/file", b"0123456789").unwrap();
        assert_eq!(folder.read_range("data/file", 3, 4).unwrap().unwrap(), b"3456");
        assert_eq!(folder.read_range("data/file", 8, 4).unwrap().unwrap(), b"89");
        assert_eq!(folder.read_range("data/file", 20, 4).unwrap().unwrap(), b"");
        assert_eq!(folder.read_range("data/other", 0, 4).unwrap(), None);
    }

    #[test]
    fn same_bytes_compares_to_end_of_file() {
        let long: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        let mut other = long.clone();
        assert!(same_bytes(&long[..], &other[..]).unwrap());
        other[199_999] ^= 1;
        assert!(!same_bytes(&long[..], &other[..]).unwrap());
        assert!(!same_bytes(&long[..], &long[..131_072]).unwrap());
    }
}
