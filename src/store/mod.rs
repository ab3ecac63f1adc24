//! Durable writing by one primitive: create if absent.
//!
//! This room owns every file that has to survive a crash, and knows no CT: folders, atomic replacement, digests, canonical JSON, and
//! the simulated disk of the tests.
//!
//! A file is written to `staging/`, synced, linked to its final name, and the folder that holds it is synced. So
//! whatever exists under a final name is whole, whenever the machine stops, and nothing that exists is ever
//! overwritten. Two writers that make the same bytes agree; one that makes other bytes loses and stops: it is fenced.
//!
//! Names are relative to the run folder, parts separated by `/`. Their folder decides what may happen to them:
//! `staging/` holds unfinished work and may be removed; `layouts/`, `telemetry/`, the folders of the tables and
//! `private/pipeline.json` hold what can be made again and may be replaced; everything else is created once.

pub mod canonical;
mod disk;
mod folder;
mod lock;
mod unused;
mod whole;

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use disk::{Disk, LocalDisk};
pub use folder::Folder;
pub use lock::{FileLock, LockError, lock, lock_if_supported};
pub use unused::first_foreign;
pub use whole::{UNFINISHED, write_named, write_whole};

use crate::error::Result;

/// Where unfinished work lies.
pub const STAGING: &str = "staging";

/// Folders that hold paths of scans or unfinished work: for their owner only.
pub const PRIVATE: [&str; 2] = [STAGING, "private"];

/// Folders whose files can be made again from what is committed, and the file that says where the pipeline is now.
pub const REPLACEABLE: [&str; 7] =
    ["layouts", "telemetry", "samples", "scans", "faults", "quality", "private/pipeline.json"];

/// Length and content of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, 64 hexadecimal digits.
    pub sha256: String,
}

impl FileDigest {
    /// The digest of bytes in memory.
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

/// Passes bytes on and digests them on the way.
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

    /// Gives the writer back with the digest of what went through.
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

/// Fills a file that is being staged.
pub type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>;

/// A place where files become durable. See the module's text for what a name may do.
///
/// # Errors
/// Every method fails where the place below does (no space, no permission), and where a name is used for what it may
/// not do.
pub trait Durable: Send + Sync {
    /// Creates a file. One that exists already is fine where it has the same bytes.
    ///
    /// # Errors
    /// Where it exists with other bytes: another writer was faster, and this one must stop.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// Makes staged files durable under their final names, as [`Durable::create`] does; pairs of (staged, final). All
    /// of them are durable when it returns; the staged names stay until removed.
    ///
    /// # Errors
    /// As for [`Durable::create`].
    fn publish(&self, files: &[(String, String)]) -> Result<()>;

    /// Writes a staged file. It appears under its name when it is complete, though it may not survive a loss of power:
    /// compare its digest before using it after a restart.
    fn stage(&self, name: &str, fill: Fill<'_>) -> Result<FileDigest>;

    /// Opens a file; `None` where there is none.
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>>;

    /// Whether a file exists.
    fn exists(&self, name: &str) -> Result<bool>;

    /// The sorted names in a folder; none where it does not exist.
    fn list(&self, folder: &str) -> Result<Vec<String>>;

    /// Removes a staged or replaceable file or folder; one that is absent is fine.
    fn remove(&self, name: &str) -> Result<()>;

    /// Gives a file a second name in a replaceable folder; one that is there already is fine.
    fn link(&self, name: &str, second: &str) -> Result<()>;

    /// Writes or replaces a file in a replaceable folder; one that has the same bytes stays as it is.
    fn replace(&self, name: &str, fill: Fill<'_>) -> Result<()>;

    /// The length of a file; `None` where there is none.
    fn length(&self, name: &str) -> Result<Option<u64>>;

    /// Makes sure that everything seen in a folder so far survives a loss of power.
    fn sync_folder(&self, folder: &str) -> Result<()>;

    /// Takes the permissions of others from the private folders, even where they were given since.
    ///
    /// # Errors
    /// Where the file system refuses.
    fn make_private(&self) -> Result<()>;

    /// The full path of a name, for messages.
    fn place(&self, name: &str) -> String;

    /// The bytes of a file; `None` where there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| crate::error::Error::io("cannot read", self.place(name), e))?;
        Ok(Some(bytes))
    }

    /// At most `length` bytes of a file from `offset` on, fewer where it ends before; `None` where there is no such file.
    fn read_range(&self, name: &str, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        std::io::copy(&mut file.by_ref().take(offset), &mut std::io::sink())
            .and_then(|_| file.take(length).read_to_end(&mut bytes))
            .map_err(|e| crate::error::Error::io("cannot read", self.place(name), e))?;
        Ok(Some(bytes))
    }

    /// The digest of a file; `None` where there is none.
    fn digest(&self, name: &str) -> Result<Option<FileDigest>> {
        let Some(mut file) = self.open(name)? else { return Ok(None) };
        let mut hashing = HashingWriter::new(std::io::sink());
        std::io::copy(&mut file, &mut hashing)
            .map_err(|e| crate::error::Error::io("cannot read", self.place(name), e))?;
        Ok(Some(hashing.finish().1))
    }
}
