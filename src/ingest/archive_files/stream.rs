//! The bytes of a tar archive, decompressed, with a limit on how far they expand.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// The compression of a tar archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    /// Gzip with any number of members.
    Gzip,
    /// Zstandard with any number of frames.
    Zstd,
}

/// The limit on the expansion of compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expansion {
    /// Maximum number of decompressed bytes for each compressed byte.
    pub ratio: u64,
    /// Decompressed bytes up to which the ratio does not count: a small label map may be all zeros.
    pub free_bytes: u64,
}

impl Expansion {
    /// Returns whether `bytes` of decompressed data from `packed` bytes of compressed data exceed the limit.
    pub fn is_exceeded(&self, packed: u64, bytes: u64) -> bool {
        bytes > self.free_bytes && bytes / self.ratio > packed.max(1)
    }
}

/// A file with the number of bytes that were read from it.
struct Counted {
    file: File,
    read_bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read_bytes += count as u64;
        Ok(count)
    }
}

enum Decompressor {
    None(BufReader<Counted>),
    Gzip(Box<MultiGzDecoder<BufReader<Counted>>>),
    Zstd(Box<Decoder<'static, BufReader<Counted>>>),
}

/// The decompressed bytes of a file, from the first to the last.
pub(super) struct Stream {
    decompressor: Decompressor,
    expansion: Expansion,
    position: u64,
}

impl Stream {
    /// Opens a file.
    ///
    /// # Errors
    /// The error of opening the file.
    pub fn open(path: &Path, compression: Compression, expansion: Expansion) -> io::Result<Self> {
        let file = BufReader::with_capacity(BLOCK_BYTES, Counted { file: File::open(path)?, read_bytes: 0 });
        let decompressor = match compression {
            Compression::None => Decompressor::None(file),
            Compression::Gzip => Decompressor::Gzip(Box::new(MultiGzDecoder::new(file))),
            Compression::Zstd => Decompressor::Zstd(Box::new(Decoder::with_buffer(file)?)),
        };
        Ok(Self { decompressor, expansion, position: 0 })
    }

    /// Returns the number of decompressed bytes before the next one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Skips to a position at or after the current one. A position after the end is found by the next read.
    ///
    /// # Errors
    /// The errors of reading.
    pub fn skip_to(&mut self, position: u64) -> io::Result<()> {
        let bytes = position.checked_sub(self.position).ok_or(io::ErrorKind::InvalidInput)?;
        if let Decompressor::None(file) = &mut self.decompressor {
            let buffered = file.buffer().len() as u64;
            if bytes > buffered {
                file.consume_all();
                io::Seek::seek(&mut file.get_mut().file, io::SeekFrom::Start(position))?;
                self.position = position;
                return Ok(());
            }
        }
        io::copy(&mut self.take(bytes), &mut io::sink()).map(drop)
    }

    /// Returns the number of compressed bytes that were read.
    fn packed_bytes(&self) -> u64 {
        let file = match &self.decompressor {
            Decompressor::None(file) => file,
            Decompressor::Gzip(decoder) => decoder.get_ref(),
            Decompressor::Zstd(decoder) => decoder.get_ref(),
        };
        file.get_ref().read_bytes
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.decompressor {
            Decompressor::None(file) => file.read(buffer),
            Decompressor::Gzip(decoder) => decoder.read(buffer),
            Decompressor::Zstd(decoder) => decoder.read(buffer),
        }?;
        self.position += count as u64;
        let packed = self.packed_bytes();
        if !matches!(self.decompressor, Decompressor::None(_)) && self.expansion.is_exceeded(packed, self.position) {
            return Err(io::Error::other(ExpansionError { ratio: self.expansion.ratio }));
        }
        Ok(count)
    }
}

/// Discards the buffer of a reader.
trait ConsumeAll {
    fn consume_all(&mut self);
}

impl<R: Read> ConsumeAll for BufReader<R> {
    fn consume_all(&mut self) {
        let buffered = self.buffer().len();
        io::BufRead::consume(self, buffered);
    }
}

/// The error of data that expand too far.
#[derive(Debug)]
pub(super) struct ExpansionError {
    ratio: u64,
}

impl std::fmt::Display for ExpansionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "expected data that expand to at most {} times their compressed size (`max_ratio`), got more",
            self.ratio
        )
    }
}

impl std::error::Error for ExpansionError {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const EXPANSION: Expansion = Expansion { ratio: 100, free_bytes: 1 << 20 };

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut content = Vec::new();
        Stream::open(file.path(), compression, EXPANSION)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn all_members_and_frames_are_read() {
        let parts: [&[u8]; 2] = [b"one ", b"two"];
        let zstd: Vec<u8> = parts.iter().flat_map(|part| zstd::encode_all(*part, 3).unwrap()).collect();
        assert_eq!(read(Compression::Gzip, &parts.map(gzip).concat()).unwrap(), b"one two");
        assert_eq!(read(Compression::Zstd, &zstd).unwrap(), b"one two");
        assert_eq!(read(Compression::None, b"one two").unwrap(), b"one two");
    }

    #[test]
    fn data_that_expand_too_far_are_an_error() {
        let zeros = vec![0; 4 << 20];
        for (compression, bytes) in
            [(Compression::Gzip, gzip(&zeros)), (Compression::Zstd, zstd::encode_all(&zeros[..], 3).unwrap())]
        {
            assert!(read(compression, &bytes).unwrap_err().to_string().contains("at most 100 times"));
        }
        assert_eq!(read(Compression::Gzip, &gzip(&zeros[..1 << 20])).unwrap().len(), 1 << 20);
        assert_eq!(read(Compression::None, &zeros).unwrap().len(), zeros.len());
    }

    #[test]
    fn skipped_bytes_are_not_returned() {
        let content: Vec<u8> = (0..2_000_000u32).map(|index| (index / 7) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        for (compression, bytes) in [(Compression::None, content.clone()), (Compression::Gzip, gzip(&content))] {
            std::fs::write(file.path(), bytes).unwrap();
            let mut stream = Stream::open(file.path(), compression, EXPANSION).unwrap();
            let mut byte = [0];
            for position in [0, 5, 300_000, 300_001, 1_999_999] {
                stream.skip_to(position).unwrap();
                stream.read_exact(&mut byte).unwrap();
                assert_eq!((byte[0], stream.position()), (content[position as usize], position + 1));
            }
            assert!(stream.skip_to(3).is_err());
        }
    }
}
