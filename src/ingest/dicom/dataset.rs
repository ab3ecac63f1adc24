//! The elements of a whole DICOM file in memory, with nested sequences.
//!
//! A [`Dataset`] contains slices of the bytes of its file, and a sequence is parsed when it is requested: memory is in proportion to the
//! bytes of the file, whose length is limited before it is read.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use flate2::read::DeflateDecoder;

use super::syntax::Syntax;
use crate::error::{Fault, FaultKind};
use crate::ingest::file::open_regular;

/// Maximum nesting of sequences of undefined length.
const DEPTH: usize = 32;
const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// The content of a DICOM file with its preamble and group 2.
pub(super) struct DatasetFile {
    bytes: Vec<u8>,
    /// First byte of the data set.
    start: usize,
    encoding: Encoding,
    pub syntax: Syntax,
}

impl DatasetFile {
    /// Reads the file at `path`, which has at most `max_bytes` bytes.
    ///
    /// # Errors
    /// Returns `too_large` for a larger file or content, `corrupt` or `truncated` if it is not a DICOM file, `unsupported` for an unknown
    /// transfer syntax, and the faults of opening a file.
    pub fn read(path: &Path, max_bytes: u64) -> Result<Self, Fault> {
        let (file, length) = open_regular(path)?;
        let too_large = || {
            Fault::read(FaultKind::TooLarge, format!("expected at most {max_bytes} bytes of a DICOM file, got more"))
        };
        if length > max_bytes {
            return Err(too_large());
        }
        let read_to_end = |reader: &mut dyn Read, bytes: &mut Vec<u8>| {
            reader
                .take(max_bytes + 1)
                .read_to_end(bytes)
                .map_err(|error| Fault::read(FaultKind::Corrupt, format!("cannot read a DICOM file: {}", error.kind())))
        };
        let mut bytes = Vec::new();
        read_to_end(&mut &file, &mut bytes)?;
        if bytes.get(128..132) != Some(b"DICM") {
            return Err(corrupt("expected the magic bytes `DICM` of a DICOM file, got other bytes"));
        }
        let (uid, mut start) = transfer_syntax(&bytes)?;
        let syntax = Syntax::of(&uid)?;
        if syntax == Syntax::Deflated {
            let mut inflated = Vec::new();
            read_to_end(&mut DeflateDecoder::new(&bytes[start..]), &mut inflated)?;
            (bytes, start) = (inflated, 0);
        }
        if bytes.len() as u64 > max_bytes {
            return Err(too_large());
        }
        let encoding = Encoding { explicit: syntax != Syntax::ImplicitLittle, big_endian: syntax.is_big_endian() };
        Ok(Self { bytes, start, encoding, syntax })
    }

    /// Parses the elements of the file.
    ///
    /// # Errors
    /// Returns `truncated` or `corrupt` if an element exceeds the file.
    pub fn dataset(&self) -> Result<Dataset<'_>, Fault> {
        Dataset::parse(&self.bytes[self.start..], self.encoding)
    }
}

/// Returns the transfer syntax in group 2 and the first byte after the group.
fn transfer_syntax(bytes: &[u8]) -> Result<(String, usize), Fault> {
    let encoding = Encoding { explicit: true, big_endian: false };
    let mut cursor = Cursor { bytes, at: 132 };
    let mut uid = None;
    while cursor.at < bytes.len() {
        // The elements after group 2 have the encoding of the transfer syntax.
        if !bytes[cursor.at..].starts_with(&[2, 0]) {
            return uid.map(|uid| (uid, cursor.at)).ok_or_else(|| missing("TransferSyntaxUID"));
        }
        let header = cursor.header(encoding)?;
        let value = cursor.content(&header, encoding, DEPTH)?;
        if header.tag == tags::TRANSFER_SYNTAX_UID {
            uid = Some(String::from_utf8_lossy(value).trim_matches([' ', '\0']).to_owned());
        }
    }
    Err(Fault::read(FaultKind::Truncated, "expected elements after group 2 of a DICOM file, the file ends before them"))
}

/// Encoding of elements: explicit or implicit value representation, and byte order.
#[derive(Clone, Copy)]
struct Encoding {
    explicit: bool,
    big_endian: bool,
}

/// The elements of a data set or of an item of a sequence.
#[derive(Clone)]
pub(super) struct Dataset<'a> {
    encoding: Encoding,
    elements: Vec<Element<'a>>,
}

#[derive(Clone, Copy)]
struct Element<'a> {
    tag: Tag,
    /// The value; of an undefined length, without the delimiter at its end.
    value: &'a [u8],
    /// Whether the length of the value is undefined.
    is_undefined: bool,
    /// Whether the representation is `UN`: a sequence in it is implicit little-endian.
    is_unknown: bool,
}

impl<'a> Dataset<'a> {
    fn parse(bytes: &'a [u8], encoding: Encoding) -> Result<Self, Fault> {
        let mut elements = Vec::new();
        let mut cursor = Cursor { bytes, at: 0 };
        while cursor.at < bytes.len() {
            // Padding with zeros after the last element.
            if bytes[cursor.at..].iter().all(|byte| *byte == 0) {
                break;
            }
            let header = cursor.header(encoding)?;
            let value = cursor.content(&header, encoding, DEPTH)?;
            let is_undefined = header.length == UNDEFINED;
            elements.push(Element { tag: header.tag, value, is_undefined, is_unknown: header.is_unknown });
        }
        Ok(Self { encoding, elements })
    }

    fn element(&self, tag: Tag) -> Option<&Element<'a>> {
        self.elements.iter().find(|element| element.tag == tag)
    }

    /// Returns the bytes of a value as stored, or `None` if the element is absent or of undefined length.
    pub fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        self.element(tag).filter(|element| !element.is_undefined).map(|element| element.value)
    }

    /// Returns whether an element has an undefined length, as compressed pixels have.
    pub fn is_undefined(&self, tag: Tag) -> bool {
        self.element(tag).is_some_and(|element| element.is_undefined)
    }

    /// Returns whether the element is present.
    pub fn contains(&self, tag: Tag) -> bool {
        self.element(tag).is_some()
    }

    /// Returns a value as text without padding; `None` if the value is absent or empty. Bytes that are not UTF-8 are read as Latin-1.
    pub fn text(&self, tag: Tag) -> Option<Cow<'a, str>> {
        let bytes = self.bytes(tag)?;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text.trim_matches([' ', '\0'])),
            Err(_) => {
                let latin: String = bytes.iter().map(|&byte| char::from(byte)).collect();
                Cow::Owned(latin.trim_matches([' ', '\0']).to_owned())
            }
        };
        (!text.is_empty()).then_some(text)
    }

    /// Returns a value as decimal numbers; `None` if the value is absent or empty.
    ///
    /// # Errors
    /// Returns `corrupt` if the value is not a list of finite decimal numbers.
    pub fn decimals(&self, tag: Tag, name: &str) -> Result<Option<Vec<f64>>, Fault> {
        let Some(text) = self.text(tag) else { return Ok(None) };
        let numbers: Option<Vec<f64>> = text.split('\\').map(|part| part.trim().parse().ok()).collect();
        match numbers {
            Some(numbers) if numbers.iter().all(|number| number.is_finite()) => Ok(Some(numbers)),
            _ => Err(corrupt(format!("expected decimal numbers in {name}, got another value"))),
        }
    }

    /// Returns a value as `N` decimal numbers.
    ///
    /// # Errors
    /// Returns `missing` if the value is absent or empty, `corrupt` if it is not `N` finite decimal numbers.
    pub fn required_decimals<const N: usize>(&self, tag: Tag, name: &str) -> Result<[f64; N], Fault> {
        let numbers = self.decimals(tag, name)?.ok_or_else(|| missing(name))?;
        numbers.try_into().map_err(|_| corrupt(format!("expected {N} decimal number(s) in {name}, got another value")))
    }

    /// Returns a value as an integer of a string.
    ///
    /// # Errors
    /// Returns `missing` if the value is absent or empty, `corrupt` if it is not an integer.
    pub fn integer(&self, tag: Tag, name: &str) -> Result<i64, Fault> {
        let [number] = self.required_decimals(tag, name)?;
        let is_integer = number.fract() == 0.0 && number.abs() < 1e15;
        if is_integer {
            Ok(number as i64)
        } else {
            Err(corrupt(format!("expected an integer in {name}, got another value")))
        }
    }

    /// Returns a value as an unsigned 16-bit number.
    ///
    /// # Errors
    /// Returns `missing` if the value is absent or too short.
    pub fn u16(&self, tag: Tag, name: &str) -> Result<u16, Fault> {
        let bytes = self.bytes(tag).and_then(|bytes| bytes.first_chunk::<2>()).ok_or_else(|| missing(name))?;
        Ok(if self.encoding.big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    }

    /// Returns the items of a sequence; none if the sequence is absent.
    ///
    /// # Errors
    /// Returns `truncated` or `corrupt` if the sequence contains anything else than items.
    pub fn items(&self, tag: Tag) -> Result<Vec<Dataset<'a>>, Fault> {
        let Some(element) = self.element(tag) else { return Ok(Vec::new()) };
        let encoding = match element.is_unknown {
            true => Encoding { explicit: false, big_endian: false },
            false => self.encoding,
        };
        let mut items = Vec::new();
        let mut cursor = Cursor { bytes: element.value, at: 0 };
        while cursor.at < element.value.len() {
            let header = cursor.header(encoding)?;
            match header.tag {
                ITEM => items.push(Dataset::parse(cursor.content(&header, encoding, DEPTH)?, encoding)?),
                SEQUENCE_END => break,
                _ => return Err(not_an_item()),
            }
        }
        Ok(items)
    }

    /// Returns the first item of a sequence, or `None` if there is no item.
    ///
    /// # Errors
    /// Returns the faults of [`Dataset::items`].
    pub fn first_item(&self, tag: Tag) -> Result<Option<Dataset<'a>>, Fault> {
        Ok(self.items(tag)?.into_iter().next())
    }
}

struct ElementHeader {
    tag: Tag,
    length: u32,
    is_unknown: bool,
}

/// A position in bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..length));
        let taken = taken.ok_or_else(|| Fault::read(FaultKind::Truncated, "a DICOM file ends inside an element"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self, encoding: Encoding) -> Result<u16, Fault> {
        let bytes = self.array()?;
        Ok(if encoding.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self, encoding: Encoding) -> Result<u32, Fault> {
        let bytes = self.array()?;
        Ok(if encoding.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// Reads tag, representation and length (PS3.5, section 7.1).
    fn header(&mut self, encoding: Encoding) -> Result<ElementHeader, Fault> {
        let tag = Tag(self.u16(encoding)?, self.u16(encoding)?);
        let mut is_unknown = false;
        let length = if !encoding.explicit || tag.group() == ITEM.group() {
            self.u32(encoding)?
        } else {
            match &self.array::<2>()? {
                b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UR" | b"UT" | b"UV" => {
                    self.take(2)?;
                    self.u32(encoding)?
                }
                b"UN" => {
                    is_unknown = true;
                    self.take(2)?;
                    self.u32(encoding)?
                }
                [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => u32::from(self.u16(encoding)?),
                _ => return Err(corrupt("expected a value representation in a DICOM element, got other bytes")),
            }
        };
        Ok(ElementHeader { tag, length, is_unknown })
    }

    /// Returns the value after a header, with at most `depth` levels of nested values of undefined length.
    fn content(&mut self, header: &ElementHeader, encoding: Encoding, depth: usize) -> Result<&'a [u8], Fault> {
        if header.length != UNDEFINED {
            return self.take(header.length as usize);
        }
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| corrupt(format!("expected at most {DEPTH} levels of nested DICOM sequences, got more")))?;
        let start = self.at;
        let encoding = match header.is_unknown {
            true => Encoding { explicit: false, big_endian: false },
            false => encoding,
        };
        let end_tag = if header.tag == ITEM { ITEM_END } else { SEQUENCE_END };
        loop {
            let end = self.at;
            let inner = self.header(encoding)?;
            if inner.tag == end_tag {
                return Ok(&self.bytes[start..end]);
            }
            if end_tag == SEQUENCE_END && inner.tag != ITEM {
                return Err(not_an_item());
            }
            self.content(&inner, encoding, depth)?;
        }
    }
}

pub(super) fn missing(name: &str) -> Fault {
    Fault::read(FaultKind::Missing, format!("expected {name} in the DICOM file, got none"))
}

pub(super) fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

fn not_an_item() -> Fault {
    corrupt("a DICOM sequence contains an element that is not an item")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPLICIT: Encoding = Encoding { explicit: true, big_endian: false };
    const IMPLICIT: Encoding = Encoding { explicit: false, big_endian: false };
    const ROI_SEQUENCE: Tag = tags::STRUCTURE_SET_ROI_SEQUENCE;

    /// Returns the names of the items of a sequence.
    fn names(bytes: &[u8], encoding: Encoding) -> Result<Vec<String>, Fault> {
        let dataset = Dataset::parse(bytes, encoding)?;
        let items = dataset.items(ROI_SEQUENCE)?;
        Ok(items.iter().filter_map(|item| item.text(tags::ROI_NAME)).map(Cow::into_owned).collect())
    }

    #[test]
    fn items_of_defined_and_undefined_length_are_equal() {
        let name = b"\x06\x30\x26\x00LO\x06\x00Liver ";
        let defined = [&b"\xFE\xFF\x00\xE0\x0E\x00\x00\x00"[..], name].concat();
        let undefined = [&b"\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF"[..], name, b"\xFE\xFF\x0D\xE0\0\0\0\0"].concat();
        let mut sequence = b"\x06\x30\x20\x00SQ\0\0\x34\0\0\0".to_vec();
        sequence.extend([&defined[..], &undefined].concat());
        assert_eq!(names(&sequence, EXPLICIT).unwrap(), ["Liver", "Liver"]);
        let mut sequence = b"\x06\x30\x20\x00SQ\0\0\xFF\xFF\xFF\xFF".to_vec();
        sequence.extend([&undefined[..], &defined, b"\xFE\xFF\xDD\xE0\0\0\0\0"].concat());
        assert_eq!(names(&sequence, EXPLICIT).unwrap(), ["Liver", "Liver"]);
        // A sequence with the representation UN has implicit items.
        let implicit = b"\xFE\xFF\x00\xE0\x0E\x00\x00\x00\x06\x30\x26\x00\x06\x00\x00\x00Milz\xE9 ";
        let sequence = [&b"\x06\x30\x20\x00UN\0\0\x16\0\0\0"[..], implicit].concat();
        assert_eq!(names(&sequence, EXPLICIT).unwrap(), ["Milzé"]);
        let sequence = [&b"\x06\x30\x20\x00\x16\0\0\0"[..], implicit].concat();
        assert_eq!(names(&sequence, IMPLICIT).unwrap(), ["Milzé"]);
    }

    #[test]
    fn hostile_lengths_are_faults() {
        let nested = b"\x06\x30\x20\x00SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF".repeat(100_000);
        for (bytes, kind) in [
            (&nested[..], FaultKind::Corrupt),
            (b"\x06\x30\x20\x00SQ\0\0\xFE\xFF\xFF\xFF", FaultKind::Truncated),
            (b"\x06\x30\x20\x00SQ\0\0\xFF\xFF\xFF\xFF", FaultKind::Truncated),
            (b"\x06\x30\x20\x00", FaultKind::Truncated),
            (b"\x06\x30\x20\x00\x01\x02\0\0", FaultKind::Corrupt),
            (b"\x06\x30\x20\x00SQ\0\0\x08\0\0\0\x06\x30\x26\x00LO\0\0", FaultKind::Corrupt),
        ] {
            assert_eq!(names(bytes, EXPLICIT).unwrap_err().kind, kind, "{}", bytes[..4].escape_ascii());
        }
    }
}
