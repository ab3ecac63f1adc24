//! A zip archive whose entries are inflated into no more memory than its file explains.
//!
//! Stored and deflated entries are read, as `torch.save` and tools that repack its files write them. The table of
//! contents is read by the crate `zip`, which takes memory for the entries that a file can hold, not for those that it
//! claims: at most ten times the file's length, and 12 MiB where a short file claims 65,534 entries.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::budget::Budget;
use super::names::shown;
use crate::error::{Error, Result};

/// An open archive: entries by name.
pub(super) struct Archive<R> {
    zip: ZipArchive<R>,
    /// The place of each entry in the table of contents.
    places: BTreeMap<String, usize>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the table of contents of a file of `file_bytes`.
    ///
    /// # Errors
    /// Where it is cut off, names an entry twice, or contradicts the file.
    pub(super) fn open(reader: R, file_bytes: u64) -> Result<Self> {
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let zip = ZipArchive::with_config(config, reader).map_err(|error| damaged(&words(error)))?;
        if zip.has_duplicate_names() {
            return Err(damaged("a name is in its table of contents twice"));
        }
        let mut places = BTreeMap::new();
        for place in 0..zip.len() {
            let entry = zip.by_index_data(place).map_err(|error| damaged(&words(error)))?;
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            if entry.header_start().checked_add(entry.compressed_size()).is_none_or(|end| end > file_bytes) {
                return Err(damaged(&format!("entry {} reaches beyond the file", shown(&name))));
            }
            places.insert(name, place);
        }
        Ok(Self { zip, places })
    }

    /// The names of all entries, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// How many bytes an entry says it holds, if it is there.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        self.zip.by_index_data(*self.places.get(name)?).ok().map(|entry| entry.size())
    }

    /// An entry's bytes, all of them, with their checksum verified.
    ///
    /// # Errors
    /// Where it is absent, encrypted, damaged, of another size than it says, or larger than the file explains.
    pub(super) fn read(&mut self, name: &str, budget: &mut Budget) -> Result<Vec<u8>> {
        let within = |what: &str| damaged(&format!("entry {}: {what}", shown(name)));
        let place = *self.places.get(name).ok_or_else(|| within("it is not there"))?;
        let entry = self.zip.by_index_data(place).map_err(|error| within(&words(error)))?;
        let (size, packed) = (entry.size(), entry.compressed_size());
        if entry.encrypted() {
            return Err(Error::new(format!("entry {} is encrypted", shown(name))));
        }
        budget.spend(size).map_err(|error| within(&error.to_string()))?;
        let within = |what: &str| damaged(&format!("entry {} of {size} bytes: {what}", shown(name)));
        let mut bytes = Vec::new();
        match entry.compression() {
            CompressionMethod::Stored if size == packed => bytes.reserve_exact(size as usize),
            CompressionMethod::Stored => return Err(within(&format!("it is stored as {packed}"))),
            CompressionMethod::Deflated => {}
            method => return Err(within(&format!("packed as {method}; stored and deflated entries are read"))),
        }
        // It fails at the first byte beyond `size`, and at the end where the checksum differs.
        let mut content = self.zip.by_index(place).map_err(|error| within(&words(error)))?;
        content.read_to_end(&mut bytes).map_err(|error| within(&error.to_string()))?;
        if bytes.len() as u64 != size {
            return Err(within("it holds another number"));
        }
        Ok(bytes)
    }
}

fn damaged(what: &str) -> Error {
    Error::new(format!("a damaged zip archive: {what}"))
        .with_hint("the file may be cut off or altered: copy or download it again")
}

/// What is wrong with an archive, without saying again that it is one.
fn words(error: ZipError) -> String {
    match error {
        ZipError::InvalidArchive(what) => what.into_owned(),
        other => other.to_string(),
    }
}
