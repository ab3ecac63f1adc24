//! The content of one member of a zip archive: its local header, decompression and checksum.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

const LOCAL_MAGIC: &[u8] = b"PK\x03\x04";
/// Bytes of a local header before the name.
pub(super) const LOCAL_HEADER_BYTES: u64 = 30;
/// Bytes that are read at once.
const BLOCK_BYTES: usize = 128 << 10;

/// A local header, which is stored before the content of a member (APPNOTE 4.3.7).
pub(super) struct LocalHeader {
    pub name: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub packed: u64,
    pub bytes: u64,
    /// Whether the sizes are 64 bits in a data descriptor.
    pub is_zip64: bool,
    /// Offset of the content.
    pub start: u64,
}

impl LocalHeader {
    /// Reads the local header at an offset; `None` if there is no local header.
    ///
    /// # Errors
    /// The error of reading the file.
    pub fn read(file: &mut (impl Read + Seek), at: u64) -> io::Result<Option<Self>> {
        file.seek(SeekFrom::Start(at))?;
        let mut fixed = [0; LOCAL_HEADER_BYTES as usize];
        file.read_exact(&mut fixed)?;
        if !fixed.starts_with(LOCAL_MAGIC) {
            return Ok(None);
        }
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let (name_bytes, extra_bytes) = (u16_at(26), u16_at(28));
        let mut name = vec![0; usize::from(name_bytes)];
        file.read_exact(&mut name)?;
        let mut extra = vec![0; usize::from(extra_bytes)];
        file.read_exact(&mut extra)?;
        let mut header = Self {
            name,
            flags: u16_at(6),
            method: u16_at(8),
            crc: u32_at(14),
            packed: u64::from(u32_at(18)),
            bytes: u64::from(u32_at(22)),
            is_zip64: false,
            start: at + LOCAL_HEADER_BYTES + u64::from(name_bytes) + u64::from(extra_bytes),
        };
        header.apply_zip64(&extra);
        Ok(Some(header))
    }

    /// Replaces sizes of 32 bits by those of the extra field of zip64.
    fn apply_zip64(&mut self, mut extra: &[u8]) {
        const ZIP64: u16 = 1;
        while let [a, b, c, d, rest @ ..] = extra {
            let (id, length) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
            let Some((field, next)) = rest.split_at_checked(length) else { return };
            extra = next;
            if id != ZIP64 {
                continue;
            }
            self.is_zip64 = true;
            let mut sizes =
                field.chunks_exact(8).map(|size| size.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
            for size in [&mut self.bytes, &mut self.packed] {
                if *size == u64::from(u32::MAX) {
                    *size = sizes.next().unwrap_or(*size);
                }
            }
        }
    }
}

/// The content of a member, decompressed. The reader fails at the end if length or checksum differ from those of the archive.
pub(super) struct MemberReader<R: Read> {
    content: Content<R>,
    crc: Crc,
    expected_crc: u32,
    expected_bytes: u64,
    read_bytes: u64,
}

enum Content<R: Read> {
    Stored(R),
    Deflated(DeflateDecoder<BufReader<R>>),
}

impl MemberReader<io::Take<File>> {
    /// Opens a member whose local header is at an offset.
    ///
    /// # Errors
    /// The error of reading the file, and `InvalidData` without a local header.
    pub fn open(mut file: File, header: u64, packed: u64, is_deflated: bool, expected: (u64, u32)) -> io::Result<Self> {
        let local = LocalHeader::read(&mut file, header)?.ok_or(io::ErrorKind::InvalidData)?;
        file.seek(SeekFrom::Start(local.start))?;
        Ok(Self::new(file.take(packed), is_deflated, expected))
    }
}

impl<R: Read> MemberReader<R> {
    /// Creates a reader of compressed data; `expected` are the length and the checksum of the content.
    pub fn new(packed: R, is_deflated: bool, expected: (u64, u32)) -> Self {
        let content = match is_deflated {
            true => Content::Deflated(DeflateDecoder::new(BufReader::with_capacity(BLOCK_BYTES, packed))),
            false => Content::Stored(packed),
        };
        Self { content, crc: Crc::new(), expected_crc: expected.1, expected_bytes: expected.0, read_bytes: 0 }
    }
}

impl<R: Read> Read for MemberReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match &mut self.content {
            Content::Stored(reader) => reader.read(buffer),
            Content::Deflated(decoder) => decoder.read(buffer),
        }?;
        self.crc.update(&buffer[..count]);
        self.read_bytes += count as u64;
        let invalid = |message: String| Err(io::Error::new(io::ErrorKind::InvalidData, message));
        if self.read_bytes > self.expected_bytes || (count == 0 && self.read_bytes < self.expected_bytes) {
            let got = if count == 0 { self.read_bytes.to_string() } else { "more".to_owned() };
            return invalid(format!("expected {} bytes, got {got}", self.expected_bytes));
        }
        if count == 0 && self.crc.sum() != self.expected_crc {
            return invalid("expected content that matches the checksum in the archive, got other content".to_owned());
        }
        Ok(count)
    }
}
