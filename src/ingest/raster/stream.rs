//! The bytes of a file in order, decompressed if they are compressed.
//!
//! No allocation here depends on values of the file: buffers have fixed sizes. Several gzip members may follow one another
//! as in `cat a.gz b.gz`; the checksum and the length at the end of each member are verified.

use std::io::{self, BufRead, Read};

use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::error::{Fault, FaultKind};

/// Maximum compression ratio of deflate: two bits for a run of 258 bytes.
const LARGEST_DEFLATE_RATIO: u64 = 1032;
/// Maximum decompressed bytes after the last voxel that are read to verify the checksum at the end of their gzip member.
const MAX_TRAILING_BYTES: u64 = 1 << 30;

/// A readable sequence of (decompressed) bytes with a maximum length.
pub(in crate::ingest) struct Stream<R> {
    layer: Layer<R>,
    file_bytes: u64,
    position: u64,
}

enum Layer<R> {
    Plain(R),
    Gzip(Box<GzDecoder<R>>),
    Zlib(Box<ZlibDecoder<R>>),
    /// After the last gzip member, and between two members; after the end of zlib data.
    End,
}

impl<R: BufRead> Stream<R> {
    /// Creates a stream of the `file_bytes` bytes of `reader`; gzip is recognized by content.
    pub fn new(mut reader: R, file_bytes: u64) -> Result<Self, Fault> {
        let start = reader.fill_buf().map_err(read_fault)?;
        if start.is_empty() {
            return Err(Fault::read(FaultKind::Truncated, "expected a scan, got an empty file"));
        }
        let gzip = start.starts_with(&[0x1f, 0x8b]);
        let layer = if gzip { Layer::Gzip(Box::new(GzDecoder::new(reader))) } else { Layer::Plain(reader) };
        Ok(Self { layer, file_bytes, position: 0 })
    }

    /// Creates a stream of the `file_bytes` bytes of `reader`, which are not compressed.
    pub fn plain(reader: R, file_bytes: u64) -> Self {
        Self { layer: Layer::Plain(reader), file_bytes, position: 0 }
    }

    /// Creates a stream of the `file_bytes` bytes of `reader`, which are gzip or zlib data.
    pub fn compressed(mut reader: R, file_bytes: u64) -> Result<Self, Fault> {
        let layer = match *reader.fill_buf().map_err(read_fault)? {
            [] => {
                return Err(Fault::read(FaultKind::Truncated, "expected compressed voxels, the file ends before them"));
            }
            [0x1f, 0x8b, ..] => Layer::Gzip(Box::new(GzDecoder::new(reader))),
            // RFC 1950, section 2.2: the method deflate, and a check of both bytes.
            [method, flags, ..] if method & 15 == 8 && u16::from_be_bytes([method, flags]) % 31 == 0 => {
                Layer::Zlib(Box::new(ZlibDecoder::new(reader)))
            }
            _ => {
                return Err(Fault::read(
                    FaultKind::Corrupt,
                    "expected voxels compressed with gzip or zlib according to the header, got other bytes",
                ));
            }
        };
        Ok(Self { layer, file_bytes, position: 0 })
    }

    /// Returns the bytes on disk.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Returns whether the bytes are compressed on disk.
    pub fn is_compressed(&self) -> bool {
        !matches!(self.layer, Layer::Plain(_))
    }

    /// Returns the maximum number of decompressed bytes.
    pub fn max_bytes(&self) -> u64 {
        match self.layer {
            Layer::Plain(_) => self.file_bytes,
            _ => self.file_bytes.saturating_mul(LARGEST_DEFLATE_RATIO),
        }
    }

    /// Returns the number of decompressed bytes that were read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads until `buffer` is full or the file ends, and returns the number of bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = match &mut self.layer {
                Layer::Plain(reader) => reader.read(&mut buffer[filled..]),
                Layer::Gzip(decoder) => decoder.read(&mut buffer[filled..]),
                Layer::Zlib(decoder) => decoder.read(&mut buffer[filled..]),
                Layer::End => break,
            };
            match read {
                Ok(0) => {
                    if !self.next_member()? {
                        break;
                    }
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_fault(error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// Fills `buffer`; `name` is its content in the message of a fault if the file ends early.
    pub fn exact(&mut self, buffer: &mut [u8], name: &str) -> Result<(), Fault> {
        let read = self.fill(buffer)?;
        if read == buffer.len() {
            return Ok(());
        }
        Err(Fault::read(
            FaultKind::Truncated,
            format!("expected {} bytes of {name}, the file ends after {read}", buffer.len()),
        ))
    }

    /// Skips `count` bytes.
    pub fn skip(&mut self, mut count: u64, name: &str) -> Result<(), Fault> {
        let mut scratch = [0; 4096];
        while count > 0 {
            let step = count.min(scratch.len() as u64);
            self.exact(&mut scratch[..step as usize], name)?;
            count -= step;
        }
        Ok(())
    }

    /// Reads up to the end of the compressed data that contain the last voxel, so that their checksum is verified. Bytes after the last
    /// voxel have no meaning; the log contains a warning if there are some. A file that is shorter than its header states is a fault long
    /// before.
    pub fn finish(&mut self) -> Result<(), Fault> {
        let (compressed, reader) = match &mut self.layer {
            Layer::Plain(reader) => (0, reader),
            Layer::Gzip(decoder) => (read_to_end(decoder)?, decoder.get_mut()),
            Layer::Zlib(decoder) => (read_to_end(decoder)?, decoder.get_mut()),
            Layer::End => return Ok(()),
        };
        let trailing = compressed + reader.fill_buf().map_err(read_fault)?.len() as u64;
        if trailing > 0 {
            let file_bytes = self.file_bytes;
            tracing::warn!("ignored at least {trailing} bytes after the last voxel of a file of {file_bytes} bytes");
        }
        Ok(())
    }

    /// Starts the next gzip member after the end of one; returns whether there is one. Zero bytes between members are padding, and other
    /// bytes are the end.
    fn next_member(&mut self) -> Result<bool, Fault> {
        let decoder = match std::mem::replace(&mut self.layer, Layer::End) {
            Layer::Gzip(decoder) => decoder,
            Layer::Plain(reader) => {
                self.layer = Layer::Plain(reader);
                return Ok(false);
            }
            Layer::Zlib(_) | Layer::End => return Ok(false),
        };
        let mut reader = decoder.into_inner();
        loop {
            let rest = reader.fill_buf().map_err(read_fault)?;
            match rest.first() {
                Some(0x1f) => {
                    self.layer = Layer::Gzip(Box::new(GzDecoder::new(reader)));
                    return Ok(true);
                }
                Some(0) => {
                    let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
                    reader.consume(zeros);
                }
                _ => return Ok(false),
            }
        }
    }
}

/// Reads compressed data up to their checksum, and returns the number of decompressed bytes.
fn read_to_end(decoder: &mut impl Read) -> Result<u64, Fault> {
    let read = io::copy(&mut decoder.take(MAX_TRAILING_BYTES), &mut io::sink()).map_err(read_fault)?;
    if read < MAX_TRAILING_BYTES {
        return Ok(read);
    }
    let message = format!("expected the end of the file near its last voxel, got {MAX_TRAILING_BYTES} more bytes");
    Err(Fault::read(FaultKind::Corrupt, message))
}

/// Converts an error of reading to a fault. flate2 reports corrupt streams as `InvalidInput` or `InvalidData`.
fn read_fault(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Fault::read(FaultKind::Truncated, "the compressed data ends before its trailer")
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Fault::read(FaultKind::Corrupt, format!("the compressed data is damaged: {error}"))
        }
        kind => Fault::read(FaultKind::Io, format!("the system cannot read the file: {kind}")),
    }
}
