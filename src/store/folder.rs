//! Create-if-absent on top of a file system: write, sync, link, sync the folder.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Disk, Durable, FileDigest, Fill, HashingWriter, LocalDisk, PRIVATE, REPLACEABLE, STAGING};
use crate::error::{Error, ErrorKind, Result};

const SCRATCH: &str = "staging/tmp";

/// A [`Durable`] folder on a [`Disk`].
pub struct Folder {
    disk: Box<dyn Disk>,
    root: PathBuf,
    synced: Mutex<HashSet<String>>,
    // Tells the scratch files of two processes apart, also across machines that share a folder.
    writer: u64,
    scratch: AtomicU64,
}

impl Folder {
    /// A folder of this machine. Nothing is created before the first file is.
    pub fn local(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self::on(Box::new(LocalDisk::new(&root)), root)
    }

    /// A folder on any disk; `root` is what messages call it.
    pub fn on(disk: Box<dyn Disk>, root: impl Into<PathBuf>) -> Self {
        let writer = RandomState::new().hash_one(std::process::id());
        Self { disk, root: root.into(), synced: Mutex::default(), writer, scratch: AtomicU64::new(0) }
    }

    fn failed(&self, action: &str, name: &str, error: io::Error) -> Error {
        let kind = error.kind();
        let error = Error::io(action, self.root.join(name), error);
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                error.with_hint("free some space and run the same command again: it goes on where it stopped")
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                error.with_hint("choose a folder that you may write to with `--out`")
            }
            io::ErrorKind::Unsupported | io::ErrorKind::CrossesDevices => error.with_hint(
                "the run folder has to lie on one file system that has hard links (not FAT or exFAT); choose another with \
                 `--out`",
            ),
            _ => error,
        }
    }

    /// Makes the folders above `name`. Durable ones are synced into their parents once in each process, even where they
    /// exist: the process that made them may have died before it could.
    fn make_parents(&self, name: &str) -> Result<()> {
        let Some((folder, _)) = name.rsplit_once('/') else { return self.make_root() };
        let durable = !may_vanish(folder);
        if durable && self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        self.make_root()?;
        let ends = folder.match_indices('/').map(|(end, _)| end).chain([folder.len()]);
        for end in ends {
            let (part, parent) = (&folder[..end], folder[..end].rsplit_once('/').map_or("", |(parent, _)| parent));
            self.disk.make_folder(part, is_private(part)).map_err(|e| self.failed("cannot make", part, e))?;
            if durable {
                self.disk.sync(parent).map_err(|e| self.failed("cannot sync", parent, e))?;
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
        self.disk.make_folder("", false).map_err(|e| self.failed("cannot make", "", e))?;
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).insert(String::new());
        Ok(())
    }

    fn write_scratch(&self, fill: Fill<'_>) -> Result<(String, FileDigest)> {
        let name = format!("{SCRATCH}/{:016x}-{}", self.writer, self.scratch.fetch_add(1, Ordering::Relaxed));
        self.make_parents(&name)?;
        let mut write = || {
            let mut hashing = HashingWriter::new(self.disk.create(&name)?);
            fill(&mut hashing)?;
            hashing.flush()?;
            Ok(hashing.finish().1)
        };
        match write() {
            Ok(digest) => Ok((name, digest)),
            Err(error) => {
                // The first failure is the one to report; a scratch file that stays is removed at the next start.
                let _ = self.disk.remove(&name);
                Err(self.failed("cannot write", &name, error))
            }
        }
    }

    /// Links a synced file to its final name, or compares it with what is there.
    fn link_final(&self, staged: &str, name: &str) -> Result<()> {
        match self.disk.link(staged, name) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let reader = |name: &str| self.disk.open(name).map_err(|e| self.failed("cannot read", name, e));
                let same = same_bytes(reader(staged)?, reader(name)?);
                if same.map_err(|e| self.failed("cannot read", name, e))? { Ok(()) } else { Err(self.fenced(name)) }
            }
            Err(error) => Err(self.failed("cannot create", name, error)),
        }
    }

    fn fenced(&self, name: &str) -> Error {
        Error::new(format!(
            "{} exists with other content than this run would write: another run has taken over (fenced)",
            self.root.join(name).display()
        ))
        .with_kind(ErrorKind::Fenced)
        .with_hint(
            "let the other run finish; if there is none, files were changed by hand: start again with another `--out`",
        )
    }

    fn refuse(&self, name: &str, verb: &str) -> Error {
        Error::new(format!("{} is not to be {verb}: what is committed stays", self.root.join(name).display()))
    }
}

impl Durable for Folder {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (staged, _) = self.write_scratch(&mut |out| out.write_all(bytes))?;
        let published = self.publish(&[(staged.clone(), name.to_owned())]);
        let removed = self.disk.remove(&staged).map_err(|e| self.failed("cannot remove", &staged, e));
        published.and(removed)
    }

    fn publish(&self, files: &[(String, String)]) -> Result<()> {
        for (staged, name) in files {
            self.make_parents(name)?;
            if !is_private(name) {
                self.disk.make_public(staged, folder_of(name)).map_err(|e| self.failed("cannot publish", staged, e))?;
            }
            self.disk.sync(staged).map_err(|e| self.failed("cannot sync", staged, e))?;
        }
        let mut folders = BTreeSet::new();
        for (staged, name) in files {
            self.link_final(staged, name)?;
            folders.insert(folder_of(name));
        }
        // Also where the names were there before: whoever made them may have died before this step.
        folders.into_iter().try_for_each(|folder| self.sync_folder(folder))
    }

    fn stage(&self, name: &str, fill: Fill<'_>) -> Result<FileDigest> {
        if !lies_in(name, STAGING) {
            return Err(self.refuse(name, "staged"));
        }
        self.make_parents(name)?;
        let (scratch, digest) = self.write_scratch(fill)?;
        self.disk.rename(&scratch, name).map_err(|e| self.failed("cannot write", name, e))?;
        Ok(digest)
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>> {
        match self.disk.open(name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("cannot read", name, error)),
        }
    }

    fn read_range(&self, name: &str, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
        let file = match self.disk.open_at(name, offset) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|e| self.failed("cannot read", name, e))?,
        };
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).map_err(|e| self.failed("cannot read", name, e))?;
        Ok(Some(bytes))
    }

    fn exists(&self, name: &str) -> Result<bool> {
        self.disk.exists(name).map_err(|e| self.failed("cannot look for", name, e))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        match self.disk.list(folder) {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed("cannot list", folder, error)),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        if !may_vanish(name) {
            return Err(self.refuse(name, "removed"));
        }
        match self.disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("cannot remove", name, error)),
            _ => Ok(()),
        }
    }

    fn link(&self, name: &str, second: &str) -> Result<()> {
        if !is_replaceable(second) {
            return Err(self.refuse(second, "linked"));
        }
        self.make_parents(second)?;
        match self.disk.link(name, second) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(self.failed("cannot create", second, error))
            }
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, fill: Fill<'_>) -> Result<()> {
        if !is_replaceable(name) {
            return Err(self.refuse(name, "replaced"));
        }
        self.make_parents(name)?;
        let (scratch, digest) = self.write_scratch(fill)?;
        if self.digest(name)?.as_ref() == Some(&digest) {
            return self.disk.remove(&scratch).map_err(|e| self.failed("cannot remove", &scratch, e));
        }
        if !is_private(name) {
            self.disk.make_public(&scratch, folder_of(name)).map_err(|e| self.failed("cannot publish", &scratch, e))?;
        }
        self.disk.sync(&scratch).map_err(|e| self.failed("cannot sync", &scratch, e))?;
        self.disk.rename(&scratch, name).map_err(|e| self.failed("cannot write", name, e))
    }

    fn length(&self, name: &str) -> Result<Option<u64>> {
        match self.disk.length(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("cannot look at", name, error)),
        }
    }

    fn sync_folder(&self, folder: &str) -> Result<()> {
        self.disk.sync(folder).map_err(|e| self.failed("cannot sync", folder, e))
    }

    fn make_private(&self) -> Result<()> {
        PRIVATE.iter().try_for_each(|folder| {
            self.disk.make_private(folder).map_err(|e| self.failed("cannot restrict", folder, e))
        })
    }

    fn place(&self, name: &str) -> String {
        // Joining an empty name would add a slash.
        let place = if name.is_empty() { self.root.clone() } else { self.root.join(name) };
        place.display().to_string()
    }
}

/// Whether a folder or file is for its owner only.
fn is_private(name: &str) -> bool {
    PRIVATE.iter().any(|folder| lies_in(name, folder))
}

/// The folder of a file; empty for the root.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Whether a file of this name may be removed.
fn may_vanish(name: &str) -> bool {
    lies_in(name, STAGING) || is_replaceable(name)
}

fn is_replaceable(name: &str) -> bool {
    REPLACEABLE.iter().any(|folder| lies_in(name, folder))
}

fn lies_in(name: &str, folder: &str) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn same_bytes(mut left: impl Read, mut right: impl Read) -> io::Result<bool> {
    let (mut here, mut there) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = fill_from(&mut left, &mut here)?;
        if count != fill_from(&mut right, &mut there)? || here[..count] != there[..count] {
            return Ok(false);
        }
        if count < here.len() {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or nothing is left.
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

    fn folder() -> (tempfile::TempDir, Folder) {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::local(place.path().join("run"));
        (place, folder)
    }

    #[test]
    fn what_exists_is_never_overwritten() {
        let (_place, folder) = folder();
        folder.create("epochs/1.json", b"one").unwrap();
        folder.create("epochs/1.json", b"one").unwrap();
        let error = folder.create("epochs/1.json", b"two").unwrap_err();
        assert!(error.to_string().contains("fenced") && error.hint().is_some(), "{error}");
        assert_eq!(folder.read("epochs/1.json").unwrap().unwrap(), b"one");
        assert!(folder.list("staging/tmp").unwrap().is_empty(), "no scratch file stays");
    }

    #[test]
    fn committed_names_cannot_be_removed_replaced_or_linked() {
        let (_place, folder) = folder();
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
    fn staging_gives_the_digest_of_what_was_written() {
        let (_place, folder) = folder();
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
    fn staged_and_private_files_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let (place, folder) = folder();
        let path = |name: &str| place.path().join("run").join(name);
        let mode = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        folder.create("private/000.jsonl", b"{}\n").unwrap();
        folder.replace("private/pipeline.json", &mut |out| out.write_all(b"{}")).unwrap();
        folder
            .stage("staging/1/scan/file", &mut |out| {
                // From the first byte.
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
        // Who may read the folder may read what is committed there; nobody but the owner may write it.
        std::fs::create_dir(path("data")).unwrap();
        std::fs::set_permissions(path("data"), std::fs::Permissions::from_mode(0o770)).unwrap();
        folder.publish(&[("staging/1/scan/file".into(), "data/file".into())]).unwrap();
        assert_eq!(mode("data/file"), 0o640);
        // A start corrects what was changed, and leaves what is committed.
        std::fs::set_permissions(path("private"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(path("private/000.jsonl"), std::fs::Permissions::from_mode(0o644)).unwrap();
        folder.make_private().unwrap();
        assert_eq!((mode("private"), mode("private/000.jsonl"), mode("data/file")), (0o700, 0o600, 0o640));
    }

    #[test]
    fn an_error_names_the_place_and_a_way_out() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::local(place.path()).create("run.json", b"{}").unwrap_err();
        assert!(error.to_string().contains(&place.path().display().to_string()), "{error}");
    }

    #[test]
    fn range_of_a_file_ends_where_the_file_does() {
        let (_place, folder) = folder();
        folder.create("data/file", b"0123456789").unwrap();
        assert_eq!(folder.read_range("data/file", 3, 4).unwrap().unwrap(), b"3456");
        assert_eq!(folder.read_range("data/file", 8, 4).unwrap().unwrap(), b"89");
        assert_eq!(folder.read_range("data/file", 20, 4).unwrap().unwrap(), b"");
        assert_eq!(folder.read_range("data/other", 0, 4).unwrap(), None);
    }

    #[test]
    fn contents_are_compared_to_their_ends() {
        let long: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        let mut other = long.clone();
        assert!(same_bytes(&long[..], &other[..]).unwrap());
        other[199_999] ^= 1;
        assert!(!same_bytes(&long[..], &other[..]).unwrap());
        assert!(!same_bytes(&long[..], &long[..131_072]).unwrap());
    }
}
