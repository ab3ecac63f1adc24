//! The elements of a DICOM file up to its pixels.
//!
//! Only requested values are kept, all other elements are skipped, and every length is checked against the end of the file:
//! reading a header allocates a few kilobytes, independent of the lengths in the header.

use std::collections::BTreeMap;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use flate2::read::DeflateDecoder;

use super::encoding::{DEPTH, ElementEncoding, Header, ITEM, SEQUENCE_END};
use super::stream::Stream;
use super::syntax::Syntax;
use crate::error::{Fault, FaultKind};
use crate::ingest::file::open_regular;

/// Maximum number of fragments of one compressed slice.
const FRAGMENTS: usize = 4096;
/// Maximum bytes of an inflated file: a slice of 4096² voxels and its header.
const INFLATED_BYTES: u64 = 64 << 20;

/// Location of the pixels in a file: byte ranges as (first byte, length), one for each compressed fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PixelBytes {
    pub encapsulated: bool,
    pub ranges: Vec<(u64, u64)>,
}

/// Requested elements of a file.
#[derive(Default)]
pub(super) struct Elements {
    values: BTreeMap<Tag, Vec<u8>>,
    big_endian: bool,
    implicit: bool,
    /// Whether a fault must be reported: the file starts as the standard requires, or could not be opened. The fault of any other file
    /// only shows that the file is not DICOM.
    pub may_be_dicom: bool,
    /// Location of the pixels, if the file has any.
    pub pixels: Option<PixelBytes>,
    /// The fault that stopped reading; elements before it are kept.
    pub fault: Option<Fault>,
}

impl Elements {
    /// Reads the elements `requested` of the file at `path`; `None` if the file is not a DICOM file.
    pub fn open(path: &Path, requested: &[Tag]) -> Option<Self> {
        let mut elements = Self { may_be_dicom: true, ..Self::default() };
        match elements.fill(path, requested) {
            Ok(is_dicom) => is_dicom.then_some(elements),
            Err(fault) => {
                elements.fault = Some(fault);
                Some(elements)
            }
        }
    }

    fn fill(&mut self, path: &Path, requested: &[Tag]) -> Result<bool, Fault> {
        let (file, bytes) = open_regular(path)?;
        let mut stream = Stream::new(BufReader::with_capacity(16 << 10, file), bytes);
        match FileStart::find(&mut stream)? {
            None => return Ok(false),
            Some(FileStart::Meta) => self.read_file(&mut stream, requested)?,
            Some(FileStart::Bare(encoding)) => {
                (self.may_be_dicom, self.implicit) = (false, !encoding.explicit);
                self.read_dataset(&mut stream, encoding, requested)?;
            }
        }
        Ok(true)
    }

    fn read_file<R: Read + Seek>(&mut self, stream: &mut Stream<R>, requested: &[Tag]) -> Result<(), Fault> {
        self.read_meta(stream)?;
        let uid = self.text(tags::TRANSFER_SYNTAX_UID).ok_or_else(|| {
            Fault::read(FaultKind::Missing, "a DICOM file without transfer syntax: its header is damaged")
        })?;
        match Syntax::of(uid) {
            Ok(Syntax::Deflated) => {
                let inflated = inflate(stream)?;
                let bytes = inflated.len() as u64;
                self.read_dataset(&mut Stream::new(Cursor::new(inflated), bytes), ElementEncoding::EXPLICIT, requested)
            }
            Ok(Syntax::ImplicitLittle) => self.read_dataset(stream, ElementEncoding::IMPLICIT, requested),
            Ok(Syntax::ExplicitBig) => {
                self.big_endian = true;
                self.read_dataset(stream, ElementEncoding { explicit: true, big_endian: true }, requested)
            }
            // Every other syntax, supported or not, has explicit little-endian elements around its pixels.
            _ => self.read_dataset(stream, ElementEncoding::EXPLICIT, requested),
        }
    }

    /// Reads group 2, which is explicit little-endian in every file, and stops before the next group.
    fn read_meta<R: Read + Seek>(&mut self, stream: &mut Stream<R>) -> Result<(), Fault> {
        while stream.remaining() > 0 {
            let start = stream.position();
            let Some(header) = Header::read(stream, ElementEncoding::EXPLICIT, 2)? else {
                return stream.seek(start);
            };
            if header.tag == tags::TRANSFER_SYNTAX_UID || header.tag == tags::MEDIA_STORAGE_SOP_CLASS_UID {
                let value = header.value(stream)?;
                self.values.insert(header.tag, value);
            } else {
                header.skip(stream, ElementEncoding::EXPLICIT, DEPTH)?;
            }
        }
        Ok(())
    }

    fn read_dataset<R: Read + Seek>(
        &mut self,
        stream: &mut Stream<R>,
        encoding: ElementEncoding,
        requested: &[Tag],
    ) -> Result<(), Fault> {
        while stream.remaining() > 0 {
            let Some(header) = Header::read(stream, encoding, u16::MAX)? else { return Ok(()) };
            if header.tag == tags::PIXEL_DATA {
                self.pixels = Some(pixels(stream, encoding, header.length)?);
                return Ok(());
            }
            if requested.contains(&header.tag) {
                let value = header.value(stream)?;
                self.values.insert(header.tag, value);
            } else {
                header.skip(stream, encoding, DEPTH)?;
            }
        }
        Ok(())
    }

    /// Returns the transfer syntax of a file without group 2.
    pub fn bare_syntax(&self) -> Syntax {
        if self.implicit { Syntax::ImplicitLittle } else { Syntax::ExplicitLittle }
    }

    /// Returns the bytes of a value as stored.
    pub fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.values.get(&tag).map(Vec::as_slice)
    }

    /// Returns a value as a string without padding; `None` if the value is absent, empty or not ASCII.
    pub fn text(&self, tag: Tag) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes(tag)?).ok()?.trim_matches([' ', '\0']);
        (!text.is_empty() && text.is_ascii()).then_some(text)
    }

    /// Returns a value as decimal numbers; `None` if the value is absent or empty.
    pub fn numbers<const N: usize>(&self, tag: Tag, name: &str) -> Result<Option<[f64; N]>, Fault> {
        if self.bytes(tag).is_none_or(|bytes| bytes.iter().all(|byte| [b' ', 0].contains(byte))) {
            return Ok(None);
        }
        let numbers: Option<Vec<f64>> =
            self.text(tag).and_then(|text| text.split('\\').map(|part| part.trim().parse::<f64>().ok()).collect());
        match numbers.and_then(|numbers| <[f64; N]>::try_from(numbers).ok()) {
            Some(numbers) if numbers.iter().all(|number| number.is_finite()) => Ok(Some(numbers)),
            _ => Err(Fault::read(
                FaultKind::Corrupt,
                format!("expected {N} decimal number(s) in {name}, got another value"),
            )),
        }
    }

    /// Returns a value as an unsigned 16-bit number.
    pub fn u16(&self, tag: Tag) -> Option<u16> {
        let bytes = self.bytes(tag)?.first_chunk::<2>()?;
        Some(if self.big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    }
}

/// Reads at most `limit` bytes of the pixels of the file at `path`.
pub(super) fn read_pixels(path: &Path, syntax: Syntax, pixels: &PixelBytes, limit: u64) -> Result<Vec<u8>, Fault> {
    let (file, bytes) = open_regular(path)?;
    let mut stream = Stream::new(BufReader::with_capacity(16 << 10, file), bytes);
    if syntax == Syntax::Deflated {
        if !matches!(FileStart::find(&mut stream)?, Some(FileStart::Meta)) {
            return Err(Fault::read(FaultKind::Corrupt, "the DICOM file changed during reading"));
        }
        Elements::default().read_meta(&mut stream)?;
        let inflated = inflate(&mut stream)?;
        let bytes = inflated.len() as u64;
        return gather(&mut Stream::new(Cursor::new(inflated), bytes), pixels, limit);
    }
    gather(&mut stream, pixels, limit)
}

fn gather<R: Read + Seek>(stream: &mut Stream<R>, pixels: &PixelBytes, limit: u64) -> Result<Vec<u8>, Fault> {
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

fn inflate<R: Read + Seek>(stream: &mut Stream<R>) -> Result<Vec<u8>, Fault> {
    let too_large = || {
        Fault::read(
            FaultKind::TooLarge,
            format!("expected at most {} MiB of inflated data, the deflated DICOM file has more", INFLATED_BYTES >> 20),
        )
    };
    if stream.remaining() > INFLATED_BYTES {
        return Err(too_large());
    }
    let deflated = stream.vec(stream.remaining())?;
    let mut inflated = Vec::new();
    let mut reader = DeflateDecoder::new(deflated.as_slice()).take(INFLATED_BYTES + 1);
    if reader.read_to_end(&mut inflated).is_err() {
        return Err(Fault::read(FaultKind::Corrupt, "cannot inflate a deflated DICOM file"));
    }
    if inflated.len() as u64 > INFLATED_BYTES {
        return Err(too_large());
    }
    Ok(inflated)
}

/// The start of a DICOM file.
enum FileStart {
    /// The file has the magic bytes and group 2.
    Meta,
    /// The file has neither, as in some old archives.
    Bare(ElementEncoding),
}

impl FileStart {
    fn find<R: Read + Seek>(stream: &mut Stream<R>) -> Result<Option<Self>, Fault> {
        if stream.remaining() >= 132 {
            stream.skip(128)?;
            if &stream.array::<4>()? == b"DICM" {
                return Ok(Some(Self::Meta));
            }
            stream.seek(0)?;
        }
        if stream.remaining() < 8 {
            return Ok(None);
        }
        let head: [u8; 8] = stream.array()?;
        stream.seek(0)?;
        // Every image starts with a low element of group 8; the length or representation of the element follows.
        let [0x08, 0x00, element, 0x00, rest @ ..] = head else { return Ok(None) };
        let encoding = match rest {
            [a, b, ..] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => ElementEncoding::EXPLICIT,
            [_, 0, 0, 0] => ElementEncoding::IMPLICIT,
            _ => return Ok(None),
        };
        Ok((element <= 0x18).then_some(Self::Bare(encoding)))
    }
}

/// Finds the byte ranges of the pixel data after its element header.
fn pixels<R: Read + Seek>(
    stream: &mut Stream<R>,
    encoding: ElementEncoding,
    length: Option<u32>,
) -> Result<PixelBytes, Fault> {
    if let Some(length) = length {
        let range = (stream.position(), u64::from(length));
        stream.skip(range.1).map_err(|_| {
            Fault::read(
                FaultKind::Truncated,
                format!("a slice ends inside its pixels: expected {} bytes, got {}", range.1, stream.remaining()),
            )
        })?;
        return Ok(PixelBytes { encapsulated: false, ranges: vec![range] });
    }
    let mut ranges = Vec::new();
    let mut first = true;
    while let Some(item) = Header::read(stream, encoding, u16::MAX)? {
        match (item.tag, item.length) {
            (SEQUENCE_END, _) => break,
            (ITEM, Some(length)) => {
                // The first item is the offset table, which a single frame does not need.
                if !std::mem::take(&mut first) {
                    ranges.push((stream.position(), u64::from(length)));
                }
                stream.skip(u64::from(length))?;
            }
            _ => {
                return Err(Fault::read(
                    FaultKind::Corrupt,
                    "compressed pixel data contains an element that is not a fragment",
                ));
            }
        }
        if ranges.len() > FRAGMENTS {
            return Err(Fault::read(
                FaultKind::Corrupt,
                format!("expected at most {FRAGMENTS} fragments in a slice, got more"),
            ));
        }
    }
    Ok(PixelBytes { encapsulated: true, ranges })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODALITY: [u8; 10] = *b"\x08\x00\x60\x00CS\x02\x00CT";

    fn parse(bytes: &[u8], encoding: ElementEncoding) -> (Elements, Result<(), Fault>) {
        let mut elements = Elements::default();
        let mut stream = Stream::new(Cursor::new(bytes), bytes.len() as u64);
        let outcome = elements.read_dataset(&mut stream, encoding, &[tags::MODALITY, tags::ROWS]);
        (elements, outcome)
    }

    #[test]
    fn sequence_of_undefined_length_is_skipped() {
        // A UN element of undefined length with implicit items, one of which has an undefined length.
        let mut bytes = b"\x08\x00\x01\x00UN\x00\x00\xFF\xFF\xFF\xFF".to_vec();
        bytes.extend(b"\xFE\xFF\x00\xE0\x02\x00\x00\x00ab");
        bytes.extend(
            b"\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF\x08\x00\x60\x00\x02\x00\x00\x00MR\xFE\xFF\x0D\xE0\x00\x00\x00\x00",
        );
        bytes.extend(b"\xFE\xFF\xDD\xE0\x00\x00\x00\x00");
        bytes.extend(MODALITY);
        let (elements, outcome) = parse(&bytes, ElementEncoding::EXPLICIT);
        assert_eq!((outcome, elements.text(tags::MODALITY)), (Ok(()), Some("CT")), "the nested element is ignored");
    }

    #[test]
    fn deeply_nested_sequences_are_corrupt() {
        let bytes = b"\x08\x00\x01\x00SQ\x00\x00\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF".repeat(100_000);
        let fault = parse(&bytes, ElementEncoding::EXPLICIT).1.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Corrupt);
        assert!(fault.message.contains("nested"), "{fault}");
    }

    #[test]
    fn elements_before_fault_are_kept() {
        let mut bytes = MODALITY.to_vec();
        bytes.extend(b"\x08\x00\x70\x00\x01\x02\x00\x00");
        let (elements, outcome) = parse(&bytes, ElementEncoding::EXPLICIT);
        assert_eq!(outcome.unwrap_err().kind, FaultKind::Corrupt);
        assert_eq!(elements.text(tags::MODALITY), Some("CT"));
    }

    #[test]
    fn fragments_after_offset_table_are_found() {
        let mut bytes = b"\xE0\x7F\x10\x00OB\x00\x00\xFF\xFF\xFF\xFF".to_vec();
        bytes.extend(b"\xFE\xFF\x00\xE0\x00\x00\x00\x00");
        bytes.extend(b"\xFE\xFF\x00\xE0\x02\x00\x00\x00ab\xFE\xFF\x00\xE0\x04\x00\x00\x00cdef");
        bytes.extend(b"\xFE\xFF\xDD\xE0\x00\x00\x00\x00");
        let pixels = parse(&bytes, ElementEncoding::EXPLICIT).0.pixels.unwrap();
        assert_eq!(pixels, PixelBytes { encapsulated: true, ranges: vec![(28, 2), (38, 4)] });
        let gathered = gather(&mut Stream::new(Cursor::new(&bytes), bytes.len() as u64), &pixels, u64::MAX);
        assert_eq!(gathered.unwrap(), b"abcdef");
    }
}
