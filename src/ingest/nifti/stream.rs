//! The bytes of a NIfTI file in order, decompressed on the way where it is gzip.
//!
//! Nothing here allocates by what a file says about itself: buffers have fixed sizes. Gzip members follow one another
//! as in `cat a.gz b.gz`; the checksum and the length at the end of each are verified.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use crate::error::{Fault, FaultKind};

/// Deflate cannot pack more: two bits for a run of 258 bytes.
const LARGEST_DEFLATE_RATIO: u64 = 1032;
/// Zero bytes after the last voxel that are taken for padding, as tape blocks and some writers leave.
const LONGEST_PADDING: u64 = 10 * 1024;

/// A readable sequence of (decompressed) bytes that knows how long it can be.
pub(super) struct Stream<R> {
    layer: Layer<R>,
    file_bytes: u64,
    position: u64,
}

enum Layer<R> {
    Plain(R),
    Gzip(Box<GzDecoder<R>>),
    /// After the last gzip member, and while one member gives way to the next.
    End,
}

impl<R: BufRead> Stream<R> {
    /// Recognises gzip by content. `file_bytes` is the length of what `reader` holds.
    pub fn new(mut reader: R, file_bytes: u64) -> Result<Self, Fault> {
        let start = reader.fill_buf().map_err(fault_of)?;
        if start.is_empty() {
            return Err(Fault::read(FaultKind::Truncated, "expected a NIfTI file, the file is empty"));
        }
        let gzip = start.starts_with(&[0x1f, 0x8b]);
        let layer = if gzip { Layer::Gzip(Box::new(GzDecoder::new(reader))) } else { Layer::Plain(reader) };
        Ok(Self { layer, file_bytes, position: 0 })
    }

    /// Bytes on disk.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Whether the bytes are compressed on disk.
    pub fn is_compressed(&self) -> bool {
        !matches!(self.layer, Layer::Plain(_))
    }

    /// More decompressed bytes than this cannot come.
    pub fn most_bytes(&self) -> u64 {
        match self.layer {
            Layer::Plain(_) => self.file_bytes,
            _ => self.file_bytes.saturating_mul(LARGEST_DEFLATE_RATIO),
        }
    }

    /// Decompressed bytes that were read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads until `buffer` is full or the file ends, and says how many bytes came.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = match &mut self.layer {
                Layer::Plain(reader) => reader.read(&mut buffer[filled..]),
                Layer::Gzip(decoder) => decoder.read(&mut buffer[filled..]),
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
                Err(error) => return Err(fault_of(error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// Fills `buffer`; `what` names its content where the file ends before.
    pub fn exact(&mut self, buffer: &mut [u8], what: &str) -> Result<(), Fault> {
        let came = self.fill(buffer)?;
        if came == buffer.len() {
            return Ok(());
        }
        Err(Fault::read(
            FaultKind::Truncated,
            format!("expected {} bytes of {what}, the file ends after {came} of them", buffer.len()),
        ))
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, mut count: u64, what: &str) -> Result<(), Fault> {
        let mut scratch = [0; 4096];
        while count > 0 {
            let step = count.min(scratch.len() as u64);
            self.exact(&mut scratch[..step as usize], what)?;
            count -= step;
        }
        Ok(())
    }

    /// Reads on to the end of the file, so that the last checksum is verified; nothing but a little zero padding may
    /// come.
    pub fn finish(&mut self) -> Result<(), Fault> {
        let mut scratch = [0; 4096];
        let end = self.position;
        loop {
            let came = self.fill(&mut scratch)?;
            if came == 0 {
                return Ok(());
            }
            if self.position - end > LONGEST_PADDING || scratch[..came].iter().any(|&byte| byte != 0) {
                return Err(Fault::read(
                    FaultKind::Corrupt,
                    format!("expected the file to end with its last voxel at byte {end}, more bytes follow"),
                ));
            }
        }
    }

    /// After the end of one gzip member: whether another one follows. Zero bytes between are padding.
    fn next_member(&mut self) -> Result<bool, Fault> {
        let Layer::Gzip(decoder) = std::mem::replace(&mut self.layer, Layer::End) else { return Ok(false) };
        let mut reader = decoder.into_inner();
        let mut padding = 0;
        loop {
            let rest = reader.fill_buf().map_err(fault_of)?;
            let Some(&first) = rest.first() else { return Ok(false) };
            if first == 0x1f {
                self.layer = Layer::Gzip(Box::new(GzDecoder::new(reader)));
                return Ok(true);
            }
            let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
            padding += zeros as u64;
            if zeros == 0 || padding > LONGEST_PADDING {
                return Err(Fault::read(
                    FaultKind::Corrupt,
                    "expected the file to end with its gzip member, other bytes follow",
                ));
            }
            reader.consume(zeros);
        }
    }
}

/// What an error while reading means. flate2 reports broken streams as `InvalidInput` or `InvalidData`.
fn fault_of(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::read(FaultKind::Truncated, "the gzip stream ends before its trailer"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Fault::read(FaultKind::Corrupt, format!("the gzip stream is damaged: {error}"))
        }
        kind => Fault::read(FaultKind::Io, format!("the system cannot read on: {kind}")),
    }
}
