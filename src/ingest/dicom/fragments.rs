//! The location of the pixels in a file: one value, or the fragments of a compressed frame (PS3.5, A.4).

use std::io::{Read, Seek};

use super::encoding::{ElementEncoding, Header, ITEM, SEQUENCE_END};
use super::stream::Stream;
use crate::error::{Fault, FaultKind};

/// Maximum number of fragments of one compressed slice.
const FRAGMENTS: usize = 4096;
/// Bytes of the header of an item: tag and length.
const ITEM_HEADER_BYTES: usize = 8;

/// Location of the pixels in a file: byte ranges as (first byte, length), one for each compressed fragment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PixelBytes {
    pub encapsulated: bool,
    /// The value representation, `None` in an implicit encoding.
    pub representation: Option<[u8; 2]>,
    /// Frames of compressed pixels, by the offset table or the starts of images in the fragments.
    pub frames: u64,
    pub ranges: Vec<(u64, u64)>,
}

impl PixelBytes {
    /// Finds the pixels after the header of their element.
    pub fn find<R: Read + Seek>(
        stream: &mut Stream<R>,
        encoding: ElementEncoding,
        header: &Header,
    ) -> Result<Self, Fault> {
        let mut pixels = Self { representation: header.representation, ..Self::default() };
        match header.length {
            Some(length) => {
                let range = (stream.position(), u64::from(length));
                stream.skip(range.1).map_err(|_| {
                    Fault::read(
                        FaultKind::Truncated,
                        format!(
                            "a slice ends inside its pixels: expected {} bytes, got {}",
                            range.1,
                            stream.remaining()
                        ),
                    )
                })?;
                pixels.ranges.push(range);
            }
            None => {
                pixels.encapsulated = true;
                pixels.find_fragments(stream, encoding)?;
            }
        }
        Ok(pixels)
    }

    /// Finds the fragments up to the end mark. Some archives omit the end mark or write zeros in its place: the end of the file after a
    /// complete fragment is the end of the pixels, too.
    fn find_fragments<R: Read + Seek>(
        &mut self,
        stream: &mut Stream<R>,
        encoding: ElementEncoding,
    ) -> Result<(), Fault> {
        let (mut first, mut images) = (true, 0);
        while let Some(length) = next_item(stream, encoding, first)? {
            let start = stream.position();
            if !(std::mem::take(&mut first) && self.find_offset_table(stream, length)?) {
                stream.seek(start)?;
                images += u64::from(length >= 4 && starts_image(stream.array()?));
                self.ranges.push((start, length));
            }
            stream.seek(start)?;
            stream.skip(length)?;
            if self.ranges.len() > FRAGMENTS {
                return Err(corrupt(format!("expected at most {FRAGMENTS} fragments in a slice, got more")));
            }
        }
        self.frames = self.frames.max(images);
        Ok(())
    }

    /// Returns whether the first item is the offset table: some writers omit it. The table is empty or starts with the offset 0, with
    /// which no compressed frame starts.
    fn find_offset_table<R: Read + Seek>(&mut self, stream: &mut Stream<R>, length: u64) -> Result<bool, Fault> {
        let is_table = match length {
            0 | 4 => true,
            _ => length.is_multiple_of(4) && stream.array()? == [0; 4],
        };
        if is_table {
            self.frames = length / 4;
        }
        Ok(is_table)
    }
}

/// Returns whether a fragment starts with the first markers of a JPEG or JPEG 2000 stream, which do not occur within a stream.
fn starts_image(bytes: [u8; 4]) -> bool {
    matches!(bytes, [0xFF, 0xD8, 0xFF, _] | [0xFF, 0x4F, 0xFF, 0x51])
}

/// Returns the length of the next item, or `None` at the end of the fragments. Zeros between fragments are padding.
fn next_item<R: Read + Seek>(
    stream: &mut Stream<R>,
    encoding: ElementEncoding,
    first: bool,
) -> Result<Option<u64>, Fault> {
    if !first {
        stream.skip_zeros()?;
        if stream.remaining() == 0 {
            return Ok(None);
        }
        if stream.remaining() < ITEM_HEADER_BYTES as u64 {
            // The end mark itself may be cut.
            let rest = stream.vec(stream.remaining())?;
            return match rest[..] {
                [0xFE, 0xFF, 0xDD, 0xE0, ..] => Ok(None),
                [0xFE] | [0xFE, 0xFF, ..] => Err(truncated()),
                _ => Err(not_a_fragment()),
            };
        }
    }
    match Header::read(stream, encoding, u16::MAX)? {
        Some(Header { tag: SEQUENCE_END, .. }) => Ok(None),
        Some(Header { tag: ITEM, length: Some(length), .. }) => Ok(Some(u64::from(length))),
        _ => Err(not_a_fragment()),
    }
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

fn not_a_fragment() -> Fault {
    corrupt("compressed pixel data contains an element that is not a fragment")
}

fn truncated() -> Fault {
    Fault::read(
        FaultKind::Truncated,
        "compressed pixel data ends inside a fragment: copy the file again from its archive",
    )
}

/// Reads at most `limit` bytes of the pixels.
pub(super) fn gather<R: Read + Seek>(
    stream: &mut Stream<R>,
    pixels: &PixelBytes,
    limit: u64,
) -> Result<Vec<u8>, Fault> {
    if let [(start, length)] = pixels.ranges[..] {
        stream.seek(start)?;
        return stream.vec(length.min(limit));
    }
    let mut all = Vec::new();
    for &(start, length) in &pixels.ranges {
        stream.seek(start)?;
        all.extend(stream.vec(length.min(limit - all.len() as u64))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const EMPTY_TABLE: &[u8] = b"\xFE\xFF\x00\xE0\x00\x00\x00\x00";
    const END: &[u8] = b"\xFE\xFF\xDD\xE0\x00\x00\x00\x00";

    fn item(bytes: &[u8]) -> Vec<u8> {
        [b"\xFE\xFF\x00\xE0", &(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
    }

    /// Finds the fragments of a value of undefined length, and returns the table's frames and the gathered bytes.
    fn gathered(parts: &[&[u8]]) -> Result<(u64, Vec<u8>), Fault> {
        let bytes = [&b"\xE0\x7F\x10\x00OB\x00\x00\xFF\xFF\xFF\xFF"[..], &parts.concat()].concat();
        let mut stream = Stream::new(Cursor::new(&bytes), bytes.len() as u64);
        let header = Header::read(&mut stream, ElementEncoding::EXPLICIT, u16::MAX)?.expect("a header");
        let pixels = PixelBytes::find(&mut stream, ElementEncoding::EXPLICIT, &header)?;
        assert!(pixels.encapsulated);
        assert_eq!(pixels.representation, Some(*b"OB"));
        Ok((pixels.frames, gather(&mut stream, &pixels, u64::MAX)?))
    }

    #[test]
    fn fragments_after_offset_table_are_gathered() {
        let (one, two) = (item(b"ab"), item(b"cdef"));
        assert_eq!(gathered(&[EMPTY_TABLE, &one, &two, END]).unwrap(), (0, b"abcdef".to_vec()));
        assert_eq!(gathered(&[&item(&[0; 4]), &one, &two, END]).unwrap(), (1, b"abcdef".to_vec()));
        assert_eq!(gathered(&[&item(&[0, 0, 0, 0, 8, 0, 0, 0]), &one, END]).unwrap(), (2, b"ab".to_vec()));
        assert_eq!(gathered(&[EMPTY_TABLE, END]).unwrap(), (0, vec![]));
    }

    #[test]
    fn offset_table_may_be_absent() {
        let (one, two) = (item(b"\xFF\xD8\xFF\xC3cdef"), item(b"ghij"));
        assert_eq!(gathered(&[&one, END]).unwrap(), (1, b"\xFF\xD8\xFF\xC3cdef".to_vec()));
        assert_eq!(gathered(&[&one, &two]).unwrap(), (1, b"\xFF\xD8\xFF\xC3cdefghij".to_vec()));
        assert_eq!(gathered(&[EMPTY_TABLE, &one, &two, &one]).unwrap().0, 2);
        assert_eq!(gathered(&[&item(b"abcde"), END]).unwrap(), (0, b"abcde".to_vec()));
    }

    #[test]
    fn end_mark_may_be_absent_cut_or_zero() {
        let (one, two) = (item(b"ab"), item(b"cdef"));
        for end in [&[][..], &END[..4], &END[..7], &[0], &[0; 8], &[0; 24], &[0, 0, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]]
        {
            assert_eq!(gathered(&[EMPTY_TABLE, &one, &two, end]).unwrap(), (0, b"abcdef".to_vec()), "{end:?}");
        }
        // A fragment of odd length, with and without a byte of padding outside its length.
        let odd = item(b"abc");
        assert_eq!(gathered(&[EMPTY_TABLE, &odd, &two, END]).unwrap(), (0, b"abccdef".to_vec()));
        assert_eq!(gathered(&[EMPTY_TABLE, &odd, &[0], &two, END]).unwrap(), (0, b"abccdef".to_vec()));
    }

    #[test]
    fn truncated_fragments_and_unexpected_elements_are_faults() {
        let (one, two) = (item(b"ab"), item(b"cdef"));
        for length in 1..two.len() {
            let fault = gathered(&[EMPTY_TABLE, &one, &two[..length]]).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Truncated, "{length}: {fault}");
        }
        for other in
            [&b"\x08\x00\x60\x00CS\x02\x00CT"[..], &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0], b"\xFE\xFF\x0D\xE0\x00\x00\x00\x00"]
        {
            let fault = gathered(&[EMPTY_TABLE, &one, other]).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Corrupt, "{fault}");
        }
        let undefined = gathered(&[EMPTY_TABLE, b"\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF"]).unwrap_err();
        assert!(undefined.message.contains("not a fragment"), "{undefined}");
    }
}
