//! A reader of zip archives that limits memory by the size of the file.
//!
//! Stored and deflated entries are supported, as `torch.save` and tools that repack its files write them. The table of
//! contents is read by the crate `zip`, which allocates memory for the entries that a file can hold, not for the entries that it
//! claims: at most ten times the file's length, and 12 MiB if a short file claims 65,534 entries.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::budget::Budget;
use super::names::quoted;
use crate::error::{Error, Result};

/// An open archive: entries by name.
pub(super) struct Archive<R> {
    zip: ZipArchive<R>,
    /// The index of each entry in the table of contents.
    indices: BTreeMap<String, usize>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the table of contents of a file of `file_bytes`.
    ///
    /// # Errors
    /// If the table is truncated, names an entry twice, or contradicts the file.
    pub(super) fn open(reader: R, file_bytes: u64) -> Result<Self> {
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let zip = ZipArchive::with_config(config, reader).map_err(|error| damaged(&reason(error)))?;
        if zip.has_duplicate_names() {
            return Err(damaged("an entry name occurs twice"));
        }
        let mut indices = BTreeMap::new();
        for index in 0..zip.len() {
            let entry = zip.by_index_data(index).map_err(|error| damaged(&reason(error)))?;
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            if entry.header_start().checked_add(entry.compressed_size()).is_none_or(|end| end > file_bytes) {
                return Err(damaged(&format!("entry {} reaches beyond the file", quoted(&name))));
            }
            indices.insert(name, index);
        }
        Ok(Self { zip, indices })
    }

    /// Returns the names of all entries, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.indices.keys().map(String::as_str)
    }

    /// Returns the size in bytes that the archive states for an entry, or `None` if the archive has no such entry.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        self.zip.by_index_data(*self.indices.get(name)?).ok().map(|entry| entry.size())
    }

    /// Reads all bytes of an entry, and verifies their checksum.
    ///
    /// # Errors
    /// If the entry is absent, encrypted or damaged, differs from its claimed size, or exceeds the memory limit of the file.
    pub(super) fn read(&mut self, name: &str, budget: &mut Budget) -> Result<Vec<u8>> {
        let within = |message: &str| damaged(&format!("entry {}: {message}", quoted(name)));
        let index = *self.indices.get(name).ok_or_else(|| within("not in the archive"))?;
        let entry = self.zip.by_index_data(index).map_err(|error| within(&reason(error)))?;
        let (size, packed) = (entry.size(), entry.compressed_size());
        if entry.encrypted() {
            return Err(Error::new(format!("entry {} is encrypted", quoted(name))));
        }
        budget.spend(size).map_err(|error| within(&error.to_string()))?;
        let within = |message: &str| damaged(&format!("entry {} of {size} bytes: {message}", quoted(name)));
        let mut bytes = Vec::new();
        match entry.compression() {
            CompressionMethod::Stored if size == packed => bytes.reserve_exact(size as usize),
            CompressionMethod::Stored => return Err(within(&format!("expected {size} stored bytes, got {packed}"))),
            CompressionMethod::Deflated => {}
            method => return Err(within(&format!("expected a stored or deflated entry, got {method}"))),
        }
        // Reading fails at the first byte beyond `size`, and at the end if the checksum differs.
        let mut content = self.zip.by_index(index).map_err(|error| within(&reason(error)))?;
        content.read_to_end(&mut bytes).map_err(|error| within(&error.to_string()))?;
        if bytes.len() as u64 != size {
            return Err(within(&format!("expected {size} bytes after decompression, got {}", bytes.len())));
        }
        Ok(bytes)
    }
}

fn damaged(message: &str) -> Error {
    Error::new(format!("a damaged zip archive: {message}"))
        .with_hint("copy or download the file again: the file may be truncated or altered")
}

/// Returns the reason of an error, without the prefix that names a zip archive.
fn reason(error: ZipError) -> String {
    match error {
        ZipError::InvalidArchive(reason) => reason.into_owned(),
        other => other.to_string(),
    }
}
