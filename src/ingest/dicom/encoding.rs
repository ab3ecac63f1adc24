//! How elements are written: tag, representation, length, and sequences within sequences.

use std::io::{Read, Seek};

use dicom_core::Tag;

use super::stream::Stream;
use crate::error::{Fault, FaultKind};

/// Longest wanted value; the longest that the standard allows among them is far below.
const VALUE_BYTES: u32 = 4096;
/// Deepest nesting of sequences that is followed.
pub(super) const DEPTH: usize = 32;

pub(super) const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
pub(super) const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// How elements are encoded.
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

/// What stands before a value.
pub(super) struct Header {
    pub tag: Tag,
    /// `UN` holds implicit little-endian elements when its length is undefined.
    unknown: bool,
    /// `None` where the length is undefined.
    pub length: Option<u32>,
}

impl Header {
    /// Reads a header; `None` where the group is above `last_group`.
    pub fn read<R: Read + Seek>(
        stream: &mut Stream<R>,
        coding: ElementEncoding,
        last_group: u16,
    ) -> Result<Option<Self>, Fault> {
        let [g0, g1, e0, e1] = stream.array()?;
        let tag = Tag(coding.u16([g0, g1]), coding.u16([e0, e1]));
        if tag.group() > last_group {
            return Ok(None);
        }
        let mut unknown = false;
        let length = if !coding.explicit || tag.group() == ITEM.group() {
            coding.u32(stream.array()?)
        } else {
            let [v0, v1, l0, l1] = stream.array()?;
            match &[v0, v1] {
                b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT"
                | b"UV" => {
                    unknown = [v0, v1] == *b"UN";
                    coding.u32(stream.array()?)
                }
                [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => u32::from(coding.u16([l0, l1])),
                _ => {
                    return Err(Fault::read(
                        FaultKind::Corrupt,
                        "a DICOM element without a value representation where the transfer syntax demands one",
                    ));
                }
            }
        };
        Ok(Some(Self { tag, unknown, length: (length != u32::MAX).then_some(length) }))
    }

    /// The value of a wanted element.
    pub fn value<R: Read + Seek>(&self, stream: &mut Stream<R>) -> Result<Vec<u8>, Fault> {
        match self.length {
            Some(length) if length <= VALUE_BYTES => stream.vec(u64::from(length)),
            Some(length) if u64::from(length) > stream.remaining() => stream.vec(u64::from(length)),
            _ => Err(Fault::read(
                FaultKind::Corrupt,
                format!("element {} is longer than any value of its kind", self.tag),
            )),
        }
    }

    /// Passes over the value, following sequences at most `depth` deep.
    pub fn skip<R: Read + Seek>(
        &self,
        stream: &mut Stream<R>,
        coding: ElementEncoding,
        depth: usize,
    ) -> Result<(), Fault> {
        match self.length {
            Some(length) => stream.skip(u64::from(length)),
            None => skip_items(stream, if self.unknown { ElementEncoding::IMPLICIT } else { coding }, depth),
        }
    }
}

/// Passes over a sequence of undefined length.
fn skip_items<R: Read + Seek>(stream: &mut Stream<R>, coding: ElementEncoding, depth: usize) -> Result<(), Fault> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Fault::read(FaultKind::Corrupt, format!("DICOM sequences are nested more than {DEPTH} deep")));
    };
    while let Some(item) = Header::read(stream, coding, u16::MAX)? {
        match (item.tag, item.length) {
            (SEQUENCE_END, _) => return Ok(()),
            (ITEM, Some(length)) => stream.skip(u64::from(length))?,
            (ITEM, None) => {
                while let Some(inner) = Header::read(stream, coding, u16::MAX)? {
                    if inner.tag == ITEM_END {
                        break;
                    }
                    inner.skip(stream, coding, depth)?;
                }
            }
            _ => return Err(Fault::read(FaultKind::Corrupt, "a DICOM sequence holds something that is no item")),
        }
    }
    Ok(())
}
