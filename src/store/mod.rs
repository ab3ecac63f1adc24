//! Durable writes by one primitive: create if absent.
//!
//! This module owns all files that have to survive a crash and has no dependency on CT: folders, atomic replacement, digests,
//! canonical JSON, and the interface of file systems that tests simulate.
//!
//! A file is written to `staging/`, synced, and linked to its final name; then the folder of the final name is synced. A file under a
//! final name is therefore complete even after a crash, and an existing file is never overwritten. Two writers of equal bytes agree;
//! a writer of other bytes fails (it is fenced).
//!
//! Names are relative to the run folder, with components separated by `/`. The folder of a name decides which operations are allowed:
//! files in `staging/` are unfinished and may be removed; `layouts/`, `telemetry/`, the folders of the tables and
//! `private/pipeline.json` and `private/held_out.json` can be regenerated and may be replaced; all other files are created once.

mod atomic;
pub mod canonical;
mod file_system;
mod folder;
mod links;
mod lock;
mod unused;

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use atomic::{UNFINISHED, write_atomic, write_named, write_private};
pub use file_system::{FileSystem, LocalFileSystem};
pub use folder::DurableFolder;
pub use links::{check_links, check_writable};
pub use lock::{FileLock, LockError, is_locked, lock, lock_if_supported};
pub use unused::first_foreign;

use crate::error::Result;

/// The folder of unfinished work.
pub const STAGING: &str = "staging";

/// Folders that contain paths of scans or unfinished work, accessible only to their owner.
pub const PRIVATE: [&str; 3] = [STAGING, "private", "requests"];

/// The name of the picture of some samples of a run folder, which may be replaced and removed.
pub const CONTACT_SHEET: &str = "contact_sheet.png";

/// Paths that may be replaced: the folders of layouts, telemetry and tables, which are regenerated from committed files, and
/// `private/pipeline.json` and `private/held_out.json`, which every start of the run may rewrite.
pub const REPLACEABLE: [&str; 10] = [
    "layouts",
    "requests",
    "telemetry",
    "samples",
    "scans",
    "faults",
    "quality",
    "private/pipeline.json",
    CONTACT_SHEET,
    "private/held_out.json",
];

/// Length and digest of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileDigest {
    /// The length.
    pub bytes: u64,
    /// SHA-256 of the content of the file, 64 hexadecimal digits.
    pub sha256: String,
}

impl FileDigest {
    /// Computes the digest of bytes in memory.
    ///
    /// ```
    /// use freetumor::store::FileDigest;
    /// let digest = FileDigest::of(b"abc");
    /// assert_eq!((digest.bytes, &digest.sha256[..8]), (3, "ba7816bf"));
    /// ```
    pub fn of(bytes: &[u8]) -> Self {
        let mut hashing = HashingWriter::new(std::io::sink());
        hashing.hash(bytes);
        hashing.finish().1
    }
}

/// A writer that forwards bytes and computes their digest.
pub struct HashingWriter<W> {
    inner: W,
    sha256: Sha256,
    bytes: u64,
}

impl<W> HashingWriter<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        Self { inner, sha256: Sha256::new(), bytes: 0 }
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Returns the wrapped writer and the digest of the written bytes.
    pub fn finish(self) -> (W, FileDigest) {
        let sha256 = hex::encode(self.sha256.finalize());
        (self.inner, FileDigest { bytes: self.bytes, sha256 })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Serializes a path as a string; bytes that are not UTF-8, which JSON cannot contain, are replaced.
///
/// # Errors
/// The errors of the serializer.
pub fn serialize_path<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// A callback that writes the content of a file.
pub type ContentWriter<'a> = &'a mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>;

/// Storage with durable files. The module documentation lists the operations that each name allows.
///
/// # Errors
/// Every method returns an error if the storage below fails (no space, no permission) or the name does not allow the operation.
pub trait DurableStorage: Send + Sync {
    /// Creates a file. An existing file with the same bytes is not an error.
    ///
    /// # Errors
    /// If the file exists with other bytes: another writer was faster, and this writer must stop.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// Publishes staged files under their final names, as [`DurableStorage::create`] does; `files` are pairs of (staged, final) names. All
    /// final files are durable on return; the staged names stay until removed.
    ///
    /// # Errors
    /// The same errors as [`DurableStorage::create`].
    fn publish(&self, files: &[(String, String)]) -> Result<()>;

    /// Writes a staged file. The file appears under its name when complete, but may not survive a power loss: compare its digest before
    /// use after a restart.
    fn stage(&self, name: &str, fill: ContentWriter<'_>) -> Result<FileDigest>;

    /// Opens a file; `None` if the file does not exist.
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>>;

    /// Opens a file at an offset; `None` if the file does not exist.
    fn open_at(&self, name: &str, offset: u64) -> Result<Option<Box<dyn Read + Send>>>;

    /// Returns whether a file exists.
    fn exists(&self, name: &str) -> Result<bool>;

    /// Returns the sorted names in a folder; empty if the folder does not exist.
    fn list(&self, folder: &str) -> Result<Vec<String>>;

    /// Removes a staged or replaceable file or folder; an absent one is not an error.
    fn remove(&self, name: &str) -> Result<()>;

    /// Removes a committed file that no state of the run names any more; an absent one is not an error.
    ///
    /// # Errors
    /// If the file is `run.json`, which every state needs.
    fn purge(&self, name: &str) -> Result<()>;

    /// Creates a hard link to a file in a replaceable folder. An existing file of that name is replaced unless it is such a link: it may
    /// be a damaged copy.
    fn link(&self, name: &str, second: &str) -> Result<()>;

    /// Returns whether two existing names are hard links to one file; false if either does not exist.
    fn is_link(&self, name: &str, second: &str) -> Result<bool>;

    /// Writes or replaces a file in a replaceable folder; a file with the same bytes is unchanged.
    fn replace(&self, name: &str, fill: ContentWriter<'_>) -> Result<()>;

    /// Returns the length of a file in bytes; `None` if the file does not exist.
    fn length(&self, name: &str) -> Result<Option<u64>>;

    /// Syncs a folder, so that all names that are visible in the folder survive a power loss.
    fn sync_folder(&self, folder: &str) -> Result<()>;

    /// Removes the permissions of other users from the private folders and their files.
    ///
    /// # Errors
    /// If the file system returns an error.
    fn make_private(&self) -> Result<()>;

    /// Returns the full path of a name, for messages.
    fn display_path(&self, name: &str) -> String;

    /// Reads a file; `None` if the file does not exist.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| crate::error::Error::io("cannot read", self.display_path(name), e))?;
        Ok(Some(bytes))
    }

    /// Reads at most `length` bytes of a file from `offset`, fewer at the end of the file; `None` if the file does not exist.
    fn read_range(&self, name: &str, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_at(name, offset)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = file.take(length).read_to_end(&mut bytes);
        read.map_err(|e| crate::error::Error::io("cannot read", self.display_path(name), e))?;
        Ok(Some(bytes))
    }

    /// Computes the digest of a file; `None` if the file does not exist.
    fn digest(&self, name: &str) -> Result<Option<FileDigest>> {
        let Some(mut file) = self.open(name)? else { return Ok(None) };
        let mut hashing = HashingWriter::new(std::io::sink());
        std::io::copy(&mut file, &mut hashing)
            .map_err(|e| crate::error::Error::io("cannot read", self.display_path(name), e))?;
        Ok(Some(hashing.finish().1))
    }
}
