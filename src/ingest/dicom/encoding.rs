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

/// Representations with a length of 16 bits (PS3.5, 7.1.2).
const SHORT: [&[u8; 2]; 21] = [
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
];
/// Representations with a length of 32 bits after two reserved bytes.
const LONG: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

/// Returns whether two bytes are a value representation of the standard.
pub(super) fn is_representation(bytes: [u8; 2]) -> bool {
    SHORT.contains(&&bytes) || LONG.contains(&&bytes)
}

/// Encoding of elements: explicit or implicit value representation, and byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ElementEncoding {
    pub explicit: bool,
    pub big_endian: bool,
}

impl ElementEncoding {
    pub const EXPLICIT: Self = Self { explicit: true, big_endian: false };
    pub const EXPLICIT_BIG: Self = Self { explicit: true, big_endian: true };
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
    /// The value representation, `None` in an implicit encoding.
    pub representation: Option<[u8; 2]>,
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
        if !encoding.explicit || tag.group() == ITEM.group() {
            let length = encoding.u32(stream.array()?);
            return Ok(Some(Self { tag, representation: None, length: (length != u32::MAX).then_some(length) }));
        }
        let [v0, v1, l0, l1] = stream.array()?;
        let representation = [v0, v1];
        let length = if SHORT.contains(&&representation) {
            Some(u32::from(encoding.u16([l0, l1])))
        } else if LONG.contains(&&representation) {
            Some(encoding.u32(stream.array()?)).filter(|length| *length != u32::MAX)
        } else {
            return Err(Fault::read(
                FaultKind::Corrupt,
                "expected a value representation in a DICOM element, got other bytes",
            ));
        };
        Ok(Some(Self { tag, representation: Some(representation), length }))
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
            // The items of a sequence whose representation was unknown to the writer are implicit (PS3.5, 6.2.2).
            None if self.representation == Some(*b"UN") => skip_items(stream, ElementEncoding::IMPLICIT, depth),
            None => skip_items(stream, encoding, depth),
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
