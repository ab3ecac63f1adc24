//! The headers of a tar archive: ustar, GNU and PAX, with long names. The length of text in a header is limited, because its size may be
//! forged.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::stream::Stream;
use crate::error::{Fault, FaultKind};

const BLOCK_BYTES: u64 = 512;
/// Maximum bytes of a long name or the records of a PAX header.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// A member, as its headers state it. The stream is at its content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TarMember {
    pub name: Vec<u8>,
    pub kind: TarKind,
    /// The length of the content; 0 for members without content.
    pub bytes: u64,
}

/// The kind of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TarKind {
    File,
    Folder,
    /// A kind that is refused, with its name and article for messages, such as `a hard link`.
    Other(&'static str),
}

/// The name and size of the next member from GNU and PAX headers, which precede the header of the member.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
    is_sparse: bool,
}

/// Reads the headers up to the next member; `None` at the end of the archive. Zero blocks between concatenated archives are skipped.
///
/// # Errors
/// `truncated` if the archive ends before its end mark, `corrupt` if a header is damaged, and the faults of [`stream_fault`].
pub(super) fn next_member(stream: &mut Stream) -> Result<Option<TarMember>, Fault> {
    let mut extension = Extension::default();
    let mut has_end_mark = false;
    loop {
        let at = stream.position();
        let Some(header) = read_header(stream)? else {
            return match has_end_mark {
                true => Ok(None),
                false => Err(truncated(at, "expected the end mark of a tar archive")),
            };
        };
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            has_end_mark = true;
            continue;
        }
        has_end_mark = false;
        let damaged = || {
            let message = format!("damaged tar archive: expected a header at byte {at}, got other bytes");
            Fault::read(FaultKind::Corrupt, message)
        };
        let stated = header.cksum().map_err(|_| damaged())?;
        if checksums(header.as_bytes()).iter().all(|sum| *sum != i64::from(stated)) {
            return Err(damaged());
        }
        let bytes = header.entry_size().map_err(|_| damaged())?;
        match header.entry_type() {
            EntryType::GNULongName => {
                let name = read_text(stream, bytes)?;
                extension.name = Some(name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
            }
            EntryType::GNULongLink | EntryType::XGlobalHeader => drop(read_text(stream, bytes)?),
            EntryType::XHeader => extension.add_records(&read_text(stream, bytes)?).ok_or_else(damaged)?,
            kind => {
                skip_sparse_maps(stream, &header)?;
                let name = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
                let kind = match kind {
                    _ if extension.is_sparse => TarKind::Other("a sparse file"),
                    kind => kind_of(kind, &name),
                };
                let has_content =
                    matches!(kind, TarKind::File | TarKind::Other("a sparse file" | "a member of unknown type"));
                let bytes = if has_content { extension.bytes.unwrap_or(bytes) } else { 0 };
                return Ok(Some(TarMember { name, kind, bytes }));
            }
        }
    }
}

/// Skips the bytes after content that ends at a position, up to the next header.
///
/// # Errors
/// The faults of [`stream_fault`].
pub(super) fn skip_padding(stream: &mut Stream) -> Result<(), Fault> {
    let next = stream.position().next_multiple_of(BLOCK_BYTES);
    stream.skip_to(next).map_err(|error| stream_fault(&error, stream.position()))
}

/// Returns the fault of an error of reading an archive, at a position of its decompressed bytes.
pub(super) fn stream_fault(error: &io::Error, at: u64) -> Fault {
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::UnexpectedEof => truncated(at, "expected more data"),
        _ if error.get_ref().is_some_and(|inner| inner.is::<super::stream::ExpansionError>()) => {
            Fault::read(FaultKind::TooLarge, format!("damaged or hostile archive: {text}"))
        }
        // Decoders describe damage in text; the system reports errors by number.
        _ if error.raw_os_error().is_none() => {
            Fault::read(FaultKind::Corrupt, format!("damaged archive: cannot decompress it after byte {at}: {text}"))
        }
        kind => Fault::read(FaultKind::Io, format!("the system cannot read the archive: {kind}")),
    }
}

/// Returns the fault of an archive that ends at a position.
pub(super) fn truncated(at: u64, expected: &str) -> Fault {
    let message =
        format!("truncated archive: {expected} after byte {at} of its content, got the end; copy the archive again");
    Fault::read(FaultKind::Truncated, message)
}

impl Extension {
    /// Adds the records of a PAX header, `LENGTH KEY=VALUE\n`; `None` if a record is damaged.
    fn add_records(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() && records != [0] {
            let space = records.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
            let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
            records = &records[length..];
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => self.bytes = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ if key.starts_with(b"GNU.sparse.") => self.is_sparse = true,
                _ => {}
            }
        }
        Some(())
    }
}

fn kind_of(kind: EntryType, name: &[u8]) -> TarKind {
    match kind {
        // Old archives mark folders by their name only.
        EntryType::Regular if name.ends_with(b"/") => TarKind::Folder,
        EntryType::Regular | EntryType::Continuous => TarKind::File,
        EntryType::Directory => TarKind::Folder,
        EntryType::Symlink => TarKind::Other("a symbolic link"),
        EntryType::Link => TarKind::Other("a hard link"),
        EntryType::Fifo => TarKind::Other("a named pipe"),
        EntryType::Char | EntryType::Block => TarKind::Other("a device"),
        EntryType::GNUSparse => TarKind::Other("a sparse file"),
        _ => TarKind::Other("a member of unknown type"),
    }
}

/// Returns the sums of the bytes of a header, unsigned and signed as some old programs compute it; the checksum itself counts as spaces.
fn checksums(header: &[u8; BLOCK_BYTES as usize]) -> [i64; 2] {
    let bytes = || header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    [bytes().map(i64::from).sum(), bytes().map(|byte| i64::from(byte as i8)).sum()]
}

/// Skips the blocks with the map of a sparse file of GNU, which are not part of its content.
fn skip_sparse_maps(stream: &mut Stream, header: &Header) -> Result<(), Fault> {
    const IS_EXTENDED_AT: usize = 504;
    let mut is_extended =
        header.entry_type() == EntryType::GNUSparse && header.as_gnu().is_some_and(|header| header.is_extended());
    while is_extended {
        let at = stream.position();
        let block = read_header(stream)?.ok_or_else(|| truncated(at, "expected the map of a sparse file"))?;
        is_extended = block.as_bytes()[IS_EXTENDED_AT] != 0;
    }
    Ok(())
}

/// Reads a block; `None` at the end of the stream.
fn read_header(stream: &mut Stream) -> Result<Option<Header>, Fault> {
    let mut block = Vec::with_capacity(BLOCK_BYTES as usize);
    let at = stream.position();
    stream.take(BLOCK_BYTES).read_to_end(&mut block).map_err(|error| stream_fault(&error, at))?;
    match block.len() as u64 {
        0 => Ok(None),
        BLOCK_BYTES => Ok(Some(Header::from_byte_slice(&block).clone())),
        _ => Err(truncated(at, "expected a header")),
    }
}

/// Reads the text of a header.
fn read_text(stream: &mut Stream, bytes: u64) -> Result<Vec<u8>, Fault> {
    let at = stream.position();
    if bytes > MAX_TEXT_BYTES {
        let message = format!(
            "damaged or hostile archive: expected at most {MAX_TEXT_BYTES} bytes of names at byte {at}, got {bytes}"
        );
        return Err(Fault::read(FaultKind::Corrupt, message));
    }
    let mut text = Vec::new();
    stream.take(bytes).read_to_end(&mut text).map_err(|error| stream_fault(&error, at))?;
    if (text.len() as u64) < bytes {
        return Err(truncated(at, "expected a name"));
    }
    skip_padding(stream)?;
    Ok(text)
}
