//! The encoding of elements: tag, value representation, length, and nested sequences.

use std::io::{Read, Seek};

use dicom_core::Tag;

use super::stream::Stream;
use crate::error::{Fault, FaultKind};

/// Maximum bytes of a requested value; the standard limits these values to far less.
const VALUE_BYTES: u32 = 4096;
/// Maximum nesting of sequences.
pub(super) const DEPTH: usize = 32;

pub(super) const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
pub(super) const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// Encoding of elements: explicit or implicit value representation, and byte order.
#[derive(Clone, Copy)]
pub(super) struct ElementEncoding {
    pub explicit: bool,
    pub big_endian: bool,
}

impl ElementEncoding {
    pub const EXPLICIT: Self = Self { explicit: true, big_endian: false };
    pub const IMPLICIT: Self = Self { explicit: false, big_endian: false };

    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// The header of an element: tag and length of its value.
pub(super) struct Header {
    pub tag: Tag,
    /// Whether the representation is `UN`, which contains implicit little-endian elements if its length is undefined.
    unknown: bool,
    /// `None` if the length is undefined.
    pub length: Option<u32>,
}

impl Header {
    /// Reads a header; `None` if its group is above `last_group`.
    pub fn read<R: Read + Seek>(
        stream: &mut Stream<R>,
        encoding: ElementEncoding,
        last_group: u16,
    ) -> Result<Option<Self>, Fault> {
        let [g0, g1, e0, e1] = stream.array()?;
        let tag = Tag(encoding.u16([g0, g1]), encoding.u16([e0, e1]));
        if tag.group() > last_group {
            return Ok(None);
        }
        let mut unknown = false;
        let length = if !encoding.explicit || tag.group() == ITEM.group() {
            encoding.u32(stream.array()?)
        } else {
            let [v0, v1, l0, l1] = stream.array()?;
            match &[v0, v1] {
                b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT"
                | b"UV" => {
                    unknown = [v0, v1] == *b"UN";
                    encoding.u32(stream.array()?)
                }
                [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => u32::from(encoding.u16([l0, l1])),
                _ => {
                    return Err(Fault::read(
                        FaultKind::Corrupt,
                        "expected a value representation in a DICOM element, got other bytes",
                    ));
                }
            }
        };
        Ok(Some(Self { tag, unknown, length: (length != u32::MAX).then_some(length) }))
    }

    /// Reads the value of a requested element.
    pub fn value<R: Read + Seek>(&self, stream: &mut Stream<R>) -> Result<Vec<u8>, Fault> {
        match self.length {
            Some(length) if length <= VALUE_BYTES => stream.vec(u64::from(length)),
            Some(length) if u64::from(length) > stream.remaining() => stream.vec(u64::from(length)),
            _ => Err(Fault::read(
                FaultKind::Corrupt,
                format!("expected at most {VALUE_BYTES} bytes in element {}, got more", self.tag),
            )),
        }
    }

    /// Skips the value, with at most `depth` levels of nested sequences.
    pub fn skip<R: Read + Seek>(
        &self,
        stream: &mut Stream<R>,
        encoding: ElementEncoding,
        depth: usize,
    ) -> Result<(), Fault> {
        match self.length {
            Some(length) => stream.skip(u64::from(length)),
            None => skip_items(stream, if self.unknown { ElementEncoding::IMPLICIT } else { encoding }, depth),
        }
    }
}

/// Skips a sequence of undefined length.
fn skip_items<R: Read + Seek>(stream: &mut Stream<R>, encoding: ElementEncoding, depth: usize) -> Result<(), Fault> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Fault::read(
            FaultKind::Corrupt,
            format!("expected at most {DEPTH} levels of nested DICOM sequences, got more"),
        ));
    };
    while let Some(item) = Header::read(stream, encoding, u16::MAX)? {
        match (item.tag, item.length) {
            (SEQUENCE_END, _) => return Ok(()),
            (ITEM, Some(length)) => stream.skip(u64::from(length))?,
            (ITEM, None) => {
                while let Some(element) = Header::read(stream, encoding, u16::MAX)? {
                    if element.tag == ITEM_END {
                        break;
                    }
                    element.skip(stream, encoding, depth)?;
                }
            }
            _ => {
                return Err(Fault::read(
                    FaultKind::Corrupt,
                    "a DICOM sequence contains an element that is not an item",
                ));
            }
        }
    }
    Ok(())
}
