//! One gzip member, joined from chunks that are compressed independently.
//!
//! A chunk ends at a byte boundary and has no back-references to earlier chunks, so chunks can be cached and joined in any order. The
//! result is one ordinary member, which every reader supports. The bytes depend only on the content and the level: no time, no name.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress};

/// Magic, deflate, no flags, no time, no extra flags, unknown system.
const MEMBER_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// A compressed piece of a stream.
pub(super) struct Chunk {
    deflated: Vec<u8>,
    crc: Crc,
}

impl Chunk {
    /// Compresses a piece.
    pub(super) fn new(bytes: &[u8], level: u32) -> io::Result<Self> {
        let mut crc = Crc::new();
        crc.update(bytes);
        let mut compress = Compress::new(Compression::new(level), false);
        // Deflate needs at most 9 bits for 8, so one call consumes all input and writes the flush marker once.
        let mut deflated = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 1024);
        let status = compress.compress_vec(bytes, &mut deflated, FlushCompress::Sync)?;
        if compress.total_in() != bytes.len() as u64 || deflated.len() == deflated.capacity() {
            return Err(io::Error::other(format!(
                "deflate consumed {} of {} bytes ({status:?})",
                compress.total_in(),
                bytes.len()
            )));
        }
        deflated.shrink_to_fit();
        Ok(Self { deflated, crc })
    }
}

/// A writer that joins chunks to one member.
pub(super) struct Member<W> {
    out: W,
    crc: Crc,
}

impl<W: Write> Member<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MEMBER_HEADER)?;
        Ok(Self { out, crc: Crc::new() })
    }

    pub(super) fn push(&mut self, chunk: &Chunk) -> io::Result<()> {
        self.crc.combine(&chunk.crc);
        self.out.write_all(&chunk.deflated)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&LAST_BLOCK)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::{GzDecoder, MultiGzDecoder};

    use super::*;
    use crate::random::Key;

    #[test]
    fn chunks_join_to_one_member() {
        let mut random = Key::root(1).stream("bytes");
        let noise: Vec<u8> = (0..300_000).map(|_| random.index(256) as u8).collect();
        let pieces: [&[u8]; 5] = [b"header", &noise, &[], &[7; 100_000], &noise[..1]];
        for level in [1, 4, 6, 9] {
            let mut written = Vec::new();
            let mut member = Member::new(&mut written).unwrap();
            for piece in pieces {
                member.push(&Chunk::new(piece, level).unwrap()).unwrap();
            }
            member.finish().unwrap();
            let (mut single, mut multi) = (Vec::new(), Vec::new());
            // GzDecoder stops after one member and checks length and checksum.
            GzDecoder::new(&written[..]).read_to_end(&mut single).unwrap();
            MultiGzDecoder::new(&written[..]).read_to_end(&mut multi).unwrap();
            assert!(single == pieces.concat() && multi == single, "level {level}");
        }
    }
}
