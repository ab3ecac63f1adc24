//! The start of a DICOM file, with or without the preamble and the file meta information (PS3.10, 7.1).

use std::io::{Read, Seek};

use super::encoding::{ElementEncoding, is_representation};
use super::stream::Stream;
use crate::error::Fault;

/// Bytes before the magic bytes.
const PREAMBLE_BYTES: u64 = 128;
const MAGIC: &[u8; 4] = b"DICM";
/// Maximum length of the first element of an implicit file, which no standard marks.
const FIRST_VALUE_BYTES: u32 = 4096;

/// The start of a DICOM file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileStart {
    /// The magic bytes, then group 2.
    Standard(ElementEncoding),
    /// Group 2 without the magic bytes.
    Meta(ElementEncoding),
    /// A data set without group 2, as in some old archives.
    Bare(ElementEncoding),
}

impl FileStart {
    /// Finds the start of a file and moves to its first element; `None` if the file is not DICOM.
    pub fn find<R: Read + Seek>(stream: &mut Stream<R>) -> Result<Option<Self>, Fault> {
        // Some writers omit the preamble but not the magic bytes.
        for preamble in [PREAMBLE_BYTES, 0] {
            stream.seek(0)?;
            if stream.remaining() >= preamble + 4 {
                stream.skip(preamble)?;
                if &stream.array::<4>()? == MAGIC {
                    let encoding = first_encoding(stream)?.map_or(ElementEncoding::EXPLICIT, |(_, encoding)| encoding);
                    return Ok(Some(Self::Standard(encoding)));
                }
            }
        }
        stream.seek(0)?;
        Ok(first_encoding(stream)?.and_then(|(group, encoding)| match group {
            2 if !encoding.big_endian => Some(Self::Meta(encoding)),
            // The first group of every image.
            8 => Some(Self::Bare(encoding)),
            _ => None,
        }))
    }
}

/// Returns group and encoding of the next element without reading it; `None` if the bytes are not an element of group 2 or 8.
fn first_encoding<R: Read + Seek>(stream: &mut Stream<R>) -> Result<Option<(u16, ElementEncoding)>, Fault> {
    if stream.remaining() < 8 {
        return Ok(None);
    }
    let start = stream.position();
    let [g0, g1, _, _, rest @ ..] = stream.array::<8>()?;
    let remaining = stream.remaining();
    stream.seek(start)?;
    let explicit = is_representation([rest[0], rest[1]]);
    let length = u32::from_le_bytes(rest);
    let encoding = match [g0, g1] {
        [2 | 8, 0] if explicit => ElementEncoding::EXPLICIT,
        [2 | 8, 0] if length == u32::MAX || (length <= FIRST_VALUE_BYTES && u64::from(length) <= remaining) => {
            ElementEncoding::IMPLICIT
        }
        [0, 8] if explicit => ElementEncoding::EXPLICIT_BIG,
        _ => return Ok(None),
    };
    Ok(Some((u16::from(g0.max(g1)), encoding)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn start(bytes: &[u8]) -> Option<(FileStart, u64)> {
        let mut stream = Stream::new(Cursor::new(bytes), bytes.len() as u64);
        let start = FileStart::find(&mut stream).unwrap()?;
        Some((start, stream.position()))
    }

    #[test]
    fn preamble_magic_bytes_and_group_2_are_optional() {
        let (explicit, implicit, big) =
            (ElementEncoding::EXPLICIT, ElementEncoding::IMPLICIT, ElementEncoding::EXPLICIT_BIG);
        let meta = b"\x02\x00\x10\x00UI\x02\x001\0";
        let preamble = [&[0; 128][..], b"DICM"].concat();
        assert_eq!(start(&[&preamble[..], meta].concat()), Some((FileStart::Standard(explicit), 132)));
        assert_eq!(start(&preamble), Some((FileStart::Standard(explicit), 132)));
        assert_eq!(start(&[b"DICM", &meta[..]].concat()), Some((FileStart::Standard(explicit), 4)));
        assert_eq!(start(meta), Some((FileStart::Meta(explicit), 0)));
        assert_eq!(start(b"\x02\x00\x10\x00\x02\x00\x00\x001\0"), Some((FileStart::Meta(implicit), 0)));
        for (bytes, encoding) in [
            (&b"\x08\x00\x60\x00CS\x02\x00CT"[..], explicit),
            (b"\x08\x00\x60\x00\x02\x00\x00\x00CT", implicit),
            (b"\x08\x00\x05\x00CS\x00\x00", explicit),
            (b"\x08\x00\x40\x11SQ\x00\x00\xFF\xFF\xFF\xFF", explicit),
            (b"\x08\x00\x40\x11\xFF\xFF\xFF\xFF", implicit),
            (b"\x00\x08\x00\x60CS\x00\x02CT", big),
        ] {
            assert_eq!(start(bytes), Some((FileStart::Bare(encoding), 0)), "{bytes:?}");
        }
        for other in [
            &b""[..],
            b"\x08\x00\x60\x00CS\x02",
            &[0; 400],
            &[8; 400],
            b"\x08\x00\x60\x00\xF0\xFF\xFF\xFF",
            b"DICOM is a standard",
        ] {
            assert_eq!(start(other), None, "{other:?}");
        }
    }
}
