//! Run-length decoding (PS3.5, Annex G): one segment for each byte of a pixel, the most significant byte first.

use super::frame::Frame;
use crate::error::{Fault, FaultKind};

/// Bytes of the header: the number of segments and 15 offsets.
const HEADER_BYTES: usize = 64;

/// Decodes a frame to little-endian pixels.
pub(super) fn decode(frame: &Frame) -> Result<Vec<u8>, Fault> {
    let segments = segments(frame)?;
    let mut pixels = vec![0; frame.decoded_bytes()];
    let mut plane = Vec::with_capacity(frame.shape[0] * frame.shape[1]);
    for (segment, byte) in segments.into_iter().zip((0..frame.format.bytes).rev()) {
        unpack(segment, frame.shape[0] * frame.shape[1], &mut plane)?;
        for (pixel, value) in pixels.chunks_exact_mut(frame.format.bytes).zip(&plane) {
            pixel[byte] = *value;
        }
    }
    Ok(pixels)
}

/// Returns the segments of a frame (G.5), each up to the start of the next one.
fn segments(frame: &Frame) -> Result<Vec<&[u8]>, Fault> {
    let header = frame
        .bytes
        .first_chunk::<HEADER_BYTES>()
        .ok_or_else(|| Fault::read(FaultKind::Truncated, "compressed pixel data ends inside its header"))?;
    let mut numbers = header
        .chunks_exact(4)
        .map(|number| number.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)));
    let count = numbers.next().unwrap_or(0);
    if count != frame.format.bytes {
        return Err(corrupt(format!("expected {} RLE segments, got {count}", frame.format.bytes)));
    }
    let mut offsets: Vec<usize> = numbers.take(count).collect();
    offsets.push(frame.bytes.len());
    if offsets[0] < HEADER_BYTES || !offsets.is_sorted() {
        return Err(corrupt("an RLE segment is outside its frame"));
    }
    Ok(offsets.windows(2).map(|range| &frame.bytes[range[0]..range[1]]).collect())
}

/// Decodes a segment to exactly `expected` bytes (G.3.2). Zeros may follow, as padding to an even length.
fn unpack(segment: &[u8], expected: usize, plane: &mut Vec<u8>) -> Result<(), Fault> {
    plane.clear();
    let mut rest = segment;
    while plane.len() < expected {
        let Some((&header, after)) = rest.split_first() else {
            return Err(truncated(expected, plane.len()));
        };
        rest = match usize::from(header) {
            literal @ 0..=127 => {
                let Some((bytes, after)) = after.split_at_checked(literal + 1) else {
                    return Err(truncated(expected, plane.len()));
                };
                plane.extend_from_slice(bytes);
                after
            }
            128 => after,
            repeated => {
                let Some((&byte, after)) = after.split_first() else {
                    return Err(truncated(expected, plane.len()));
                };
                plane.resize(plane.len() + 257 - repeated, byte);
                after
            }
        };
    }
    if plane.len() > expected || rest.iter().any(|byte| ![0, 128].contains(byte)) {
        return Err(corrupt(format!("expected {expected} bytes in an RLE segment, got more")));
    }
    Ok(())
}

fn truncated(expected: usize, decoded: usize) -> Fault {
    Fault::read(FaultKind::Truncated, format!("cannot decode an RLE segment: expected {expected} bytes, got {decoded}"))
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::super::pixels::PixelFormat;
    use super::super::syntax::Syntax;
    use super::*;

    /// Decodes 3 × 1 pixels of two bytes from segments, each at its offset.
    fn decoded(segments: [(u32, &[u8]); 2]) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0] = 2;
        for (index, (offset, segment)) in segments.into_iter().enumerate() {
            bytes[4 * index + 4..4 * index + 8].copy_from_slice(&offset.to_le_bytes());
            bytes.resize(bytes.len().max(offset as usize), 0xAA);
            bytes.splice(offset as usize.., segment.iter().copied());
        }
        let format = PixelFormat { bytes: 2, bits: 16, signed: false };
        decode(&Frame { syntax: Syntax::Rle, shape: [3, 1], format, bytes })
    }

    #[test]
    fn literals_runs_and_padding_are_decoded() {
        let expected = [4, 1, 5, 1, 6, 1];
        // A run of three bytes; a literal of three bytes.
        assert_eq!(decoded([(64, &[254, 1]), (66, &[2, 4, 5, 6])]).unwrap(), expected);
        // Padding with zero, and a header without meaning.
        assert_eq!(decoded([(64, &[254, 1, 0, 0]), (68, &[128, 0, 4, 1, 5, 6, 0])]).unwrap(), expected);
        // Bytes between the header and the first segment; a segment of odd length.
        assert_eq!(decoded([(70, &[254, 1, 0]), (73, &[2, 4, 5, 6])]).unwrap(), expected);
    }

    #[test]
    fn short_and_long_segments_are_faults() {
        let fault = |segments| decoded(segments).unwrap_err();
        let short = fault([(64, &[254, 1]), (66, &[2, 4, 5])]);
        assert_eq!((short.kind, short.message.contains("expected 3 bytes, got 0")), (FaultKind::Truncated, true));
        assert_eq!(fault([(64, &[254, 1]), (66, &[1, 4, 5, 255])]).kind, FaultKind::Truncated);
        assert_eq!(fault([(64, &[255, 1]), (66, &[2, 4, 5, 6])]).kind, FaultKind::Truncated);
        for long in [&[253, 1][..], &[3, 4, 5, 6, 7], &[2, 4, 5, 6, 0, 7]] {
            let fault = fault([(64, &[254, 1]), (66, long)]);
            assert_eq!((fault.kind, fault.message.contains("got more")), (FaultKind::Corrupt, true), "{fault}");
        }
        assert!(fault([(63, &[254, 1]), (66, &[2, 4, 5, 6])]).message.contains("outside"));
        assert!(fault([(66, &[254, 1]), (64, &[2, 4, 5, 6])]).message.contains("outside"));
    }
}
