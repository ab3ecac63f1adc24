//! A zip archive whose entries are inflated into no more memory than its file explains.
//!
//! As much of the format as `torch.save` and tools that repack its files write: stored or deflated entries, with 64-bit
//! sizes where they are needed. A table of contents is read as it is, entry after entry; how many there are said to be
//! decides nothing about memory.
//!
//! # Source
//! PKWARE's APPNOTE 6.3.10: 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end).

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::budget::Budget;
use super::names::shown;
use crate::error::{Error, Result};

const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const CENTRAL_HEADER: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";

const LOCAL_HEADER_BYTES: u64 = 30;
const CENTRAL_HEADER_BYTES: usize = 46;
const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;

/// An open archive: entries by name.
pub(super) struct Archive<R> {
    reader: R,
    file_bytes: u64,
    entries: BTreeMap<String, Entry>,
}

/// An entry as the table of contents has it.
struct Entry {
    is_encrypted: bool,
    method: u16,
    crc: u32,
    packed_bytes: u64,
    bytes: u64,
    /// Where its own header begins.
    header: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the table of contents of a file of `file_bytes`.
    ///
    /// # Errors
    /// Where it is cut off, names an entry twice, or contradicts the file.
    pub(super) fn open(mut reader: R, file_bytes: u64) -> Result<Self> {
        let (count, table) = table(&mut reader, file_bytes)?;
        let (mut rest, mut entries) = (&table[..], BTreeMap::new());
        for _ in 0..count {
            let (name, entry, after) = Entry::parse(rest).ok_or_else(|| damaged("its table of contents is cut off"))?;
            if entry.header.checked_add(entry.packed_bytes).is_none_or(|end| end > file_bytes) {
                return Err(damaged(&format!("entry {} reaches beyond the file", shown(&name))));
            }
            if entries.contains_key(&name) {
                return Err(damaged(&format!("entry {} is there twice", shown(&name))));
            }
            entries.insert(name, entry);
            rest = after;
        }
        Ok(Self { reader, file_bytes, entries })
    }

    /// The names of all entries, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// How many bytes an entry says it holds, if it is there.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.bytes)
    }

    /// An entry's bytes, all of them, with their checksum verified.
    ///
    /// # Errors
    /// Where it is absent, encrypted, damaged, of another size than it says, or larger than the file explains.
    pub(super) fn read(&mut self, name: &str, budget: &mut Budget) -> Result<Vec<u8>> {
        let within = |what: &dyn std::fmt::Display| damaged(&format!("entry {}: {what}", shown(name)));
        let entry = self.entries.get(name).ok_or_else(|| within(&"it is not there"))?;
        if entry.is_encrypted {
            return Err(Error::new(format!("entry {} is encrypted", shown(name))));
        }
        budget.spend(entry.bytes).map_err(|error| within(&error))?;
        let start = content(&mut self.reader, entry, name).map_err(|error| within(&error))?;
        if start.checked_add(entry.packed_bytes).is_none_or(|end| end > self.file_bytes) {
            return Err(within(&"it reaches beyond the file"));
        }
        let mut packed = (&mut self.reader).take(entry.packed_bytes);
        let mut bytes = Vec::new();
        let read = match entry.method {
            0 if entry.packed_bytes == entry.bytes => {
                bytes.reserve_exact(entry.bytes as usize);
                packed.read_to_end(&mut bytes)
            }
            // One byte more than it says would be a lie, too.
            8 => DeflateDecoder::new(packed).take(entry.bytes.saturating_add(1)).read_to_end(&mut bytes),
            0 => return Err(within(&format!("{} bytes stored as {}", entry.bytes, entry.packed_bytes))),
            method => return Err(within(&format!("packed with method {method}; 0 and 8 are read"))),
        };
        read.map_err(|error| within(&error))?;
        if bytes.len() as u64 != entry.bytes {
            return Err(within(&format!("it says {} bytes and holds another number", entry.bytes)));
        }
        let mut crc = Crc::new();
        crc.update(&bytes);
        if crc.sum() != entry.crc {
            return Err(within(&format!("checksum {:08x}; expected {:08x}", crc.sum(), entry.crc)));
        }
        Ok(bytes)
    }
}

fn damaged(what: &str) -> Error {
    Error::new(format!("a damaged zip archive: {what}"))
        .with_hint("the file may be cut off or altered: copy or download it again")
}

/// How many entries there are said to be, and the table of them.
fn table<R: Read + Seek>(reader: &mut R, file_bytes: u64) -> Result<(u64, Vec<u8>)> {
    let tail_bytes = file_bytes.min((END_BYTES + LOCATOR_BYTES + usize::from(u16::MAX)) as u64);
    let tail = read_at(reader, file_bytes - tail_bytes, tail_bytes)?;
    // The end says how long the comment after it is.
    let is_end = |at: &usize| {
        tail[*at..].starts_with(END)
            && u16_at(&tail, at + 20).is_some_and(|n| at + END_BYTES + usize::from(n) == tail.len())
    };
    let end = (0..tail.len()).rev().find(is_end).ok_or_else(|| damaged("it has no end"))?;
    let record = &tail[end..];
    let mut place =
        (u16_at(record, 10).map(u64::from), u32_at(record, 12).map(u64::from), u32_at(record, 16).map(u64::from));
    let locator = end.checked_sub(LOCATOR_BYTES).map(|at| &tail[at..]).filter(|it| it.starts_with(END_64_LOCATOR));
    if let Some(at) = locator.and_then(|locator| u64_at(locator, 8)) {
        let record = read_at(reader, at, 56)?;
        if !record.starts_with(END_64) {
            return Err(damaged("its 64-bit end is not where it says"));
        }
        place = (u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48));
    }
    let (Some(count), Some(bytes), Some(start)) = place else {
        return Err(damaged("its end is cut off"));
    };
    if start.checked_add(bytes).is_none_or(|end| end > file_bytes) {
        return Err(damaged("its table of contents is not in the file"));
    }
    Ok((count, read_at(reader, start, bytes)?))
}

/// Bytes of the file; the caller knows that so many are there, or asks for few.
fn read_at<R: Read + Seek>(reader: &mut R, at: u64, count: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count as usize];
    reader
        .seek(SeekFrom::Start(at))
        .and_then(|_| reader.read_exact(&mut bytes))
        .map_err(|error| damaged(&error.to_string()))?;
    Ok(bytes)
}

/// Moves the reader to where an entry's content begins.
fn content<R: Read + Seek>(reader: &mut R, entry: &Entry, name: &str) -> Result<u64, String> {
    let header = read_at(reader, entry.header, LOCAL_HEADER_BYTES).map_err(|error| error.to_string())?;
    let lengths = (u16_at(&header, 26), u16_at(&header, 28));
    let (true, (Some(name_bytes), Some(extra_bytes))) = (header.starts_with(LOCAL_HEADER), lengths) else {
        return Err("its header is not where the table of contents says".to_owned());
    };
    let at = entry.header + LOCAL_HEADER_BYTES;
    let own_name = read_at(reader, at, u64::from(name_bytes)).map_err(|error| error.to_string())?;
    if String::from_utf8_lossy(&own_name) != name {
        return Err("its header has another name".to_owned());
    }
    let start = at + u64::from(name_bytes) + u64::from(extra_bytes);
    reader.seek(SeekFrom::Start(start)).map_err(|error| error.to_string())
}

impl Entry {
    /// The first entry of a table, its name, and the rest of the table.
    fn parse(table: &[u8]) -> Option<(String, Self, &[u8])> {
        if !table.starts_with(CENTRAL_HEADER) {
            return None;
        }
        let length = |at| u16_at(table, at).map(usize::from);
        let (name_bytes, extra_bytes, comment_bytes) = (length(28)?, length(30)?, length(32)?);
        let name_end = CENTRAL_HEADER_BYTES + name_bytes;
        let extra = table.get(name_end..name_end + extra_bytes)?;
        let mut entry = Self {
            is_encrypted: u16_at(table, 8)? & 1 != 0,
            method: u16_at(table, 10)?,
            crc: u32_at(table, 16)?,
            packed_bytes: u32_at(table, 20)?.into(),
            bytes: u32_at(table, 24)?.into(),
            header: u32_at(table, 42)?.into(),
        };
        entry.widen(extra)?;
        let name = String::from_utf8_lossy(table.get(CENTRAL_HEADER_BYTES..name_end)?).into_owned();
        Some((name, entry, table.get(name_end + extra_bytes + comment_bytes..)?))
    }

    /// Takes the 64-bit numbers for those that 32 bits could not hold: they come in this order, without gaps.
    fn widen(&mut self, mut extra: &[u8]) -> Option<()> {
        while let (Some(id), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
            let mut field = extra.get(4..4 + usize::from(length))?;
            extra = &extra[4 + usize::from(length)..];
            if id != 1 {
                continue;
            }
            for number in [&mut self.bytes, &mut self.packed_bytes, &mut self.header] {
                if *number == u64::from(u32::MAX) {
                    *number = u64_at(field, 0)?;
                    field = &field[8..];
                }
            }
        }
        Some(())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}
