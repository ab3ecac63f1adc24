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

use super::encoding::{DEPTH, ElementEncoding, Header};
use super::fragments::{PixelBytes, gather};
use super::start::FileStart;
use super::stream::Stream;
use super::syntax::Syntax;
use super::value::Value;
use crate::error::{Fault, FaultKind};
use crate::ingest::file::open_regular;

/// Maximum bytes of an inflated file: a slice of 4096² voxels and its header.
const INFLATED_BYTES: u64 = 64 << 20;

/// Requested elements of a file.
#[derive(Default)]
pub(super) struct Elements {
    values: BTreeMap<Tag, Value>,
    /// Encoding of the data set of a file without group 2.
    bare: Option<ElementEncoding>,
    /// Whether a fault must be reported: the file starts as the standard requires, has a requested element, or could not be opened. The
    /// fault of any other file only shows that the file is not DICOM.
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
        let start = FileStart::find(&mut stream)?;
        self.may_be_dicom = matches!(start, Some(FileStart::Standard(_)));
        let outcome = match start {
            None => return Ok(false),
            Some(FileStart::Standard(meta) | FileStart::Meta(meta)) => self.read_file(&mut stream, meta, requested),
            Some(FileStart::Bare(encoding)) => {
                self.bare = Some(encoding);
                self.read_dataset(&mut stream, encoding, requested)
            }
        };
        self.may_be_dicom |= !self.values.is_empty();
        outcome.map(|()| true)
    }

    fn read_file<R: Read + Seek>(
        &mut self,
        stream: &mut Stream<R>,
        meta: ElementEncoding,
        requested: &[Tag],
    ) -> Result<(), Fault> {
        self.read_meta(stream, meta)?;
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
            Ok(Syntax::ExplicitBig) => self.read_dataset(stream, ElementEncoding::EXPLICIT_BIG, requested),
            // Every other syntax, supported or not, has explicit little-endian elements around its pixels.
            _ => self.read_dataset(stream, ElementEncoding::EXPLICIT, requested),
        }
    }

    /// Reads group 2, and stops before the next group. The standard requires explicit little-endian elements in every file.
    fn read_meta<R: Read + Seek>(&mut self, stream: &mut Stream<R>, encoding: ElementEncoding) -> Result<(), Fault> {
        while stream.remaining() > 0 {
            let start = stream.position();
            let Some(header) = Header::read(stream, encoding, 2)? else {
                return stream.seek(start);
            };
            if header.tag == tags::TRANSFER_SYNTAX_UID || header.tag == tags::MEDIA_STORAGE_SOP_CLASS_UID {
                self.insert(stream, encoding, &header)?;
            } else {
                header.skip(stream, encoding, DEPTH)?;
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
                self.pixels = Some(PixelBytes::find(stream, encoding, &header)?);
                return Ok(());
            }
            if requested.contains(&header.tag) {
                self.insert(stream, encoding, &header)?;
            } else {
                header.skip(stream, encoding, DEPTH)?;
            }
        }
        Ok(())
    }

    /// Reads the value of an element. The same element with another value is a fault, because either could be right.
    fn insert<R: Read + Seek>(
        &mut self,
        stream: &mut Stream<R>,
        encoding: ElementEncoding,
        header: &Header,
    ) -> Result<(), Fault> {
        let bytes = header.value(stream)?;
        let value = Value { representation: header.representation, big_endian: encoding.big_endian, bytes };
        match self.values.insert(header.tag, value) {
            Some(first) if first.bytes != self.values[&header.tag].bytes => Err(Fault::read(
                FaultKind::Corrupt,
                format!("expected one element {}, got two with different values", header.tag),
            )),
            _ => Ok(()),
        }
    }

    /// Returns the transfer syntax of a file without group 2.
    pub fn bare_syntax(&self) -> Syntax {
        match self.bare {
            Some(ElementEncoding::IMPLICIT) => Syntax::ImplicitLittle,
            Some(ElementEncoding::EXPLICIT_BIG) => Syntax::ExplicitBig,
            _ => Syntax::ExplicitLittle,
        }
    }

    /// Returns the bytes of a value as stored, or `None` if the element was not read.
    pub fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.values.get(&tag).map(|value| &value.bytes[..])
    }

    /// Returns a value as a string without padding; `None` if the value is absent, empty or not ASCII.
    pub fn text(&self, tag: Tag) -> Option<&str> {
        self.values.get(&tag)?.text()
    }

    /// Returns a value as decimal numbers; `None` if the value is absent, empty or not a number.
    pub fn decimals(&self, tag: Tag) -> Option<Vec<f64>> {
        self.values.get(&tag)?.decimals().ok().flatten()
    }

    /// Returns a value as `N` decimal numbers; `None` if the value is absent or empty.
    pub fn numbers<const N: usize>(&self, tag: Tag, name: &str) -> Result<Option<[f64; N]>, Fault> {
        let Some(value) = self.values.get(&tag) else { return Ok(None) };
        match value.decimals().map(|numbers| numbers.map(<[f64; N]>::try_from)) {
            Ok(None) => Ok(None),
            Ok(Some(Ok(numbers))) if numbers.iter().all(|number| number.is_finite()) => Ok(Some(numbers)),
            _ => Err(Fault::read(
                FaultKind::Corrupt,
                format!("expected {N} decimal number(s) in {name}, got another value"),
            )),
        }
    }

    /// Returns a value as an unsigned 16-bit number; `None` if the value is absent or empty.
    pub fn u16(&self, tag: Tag, name: &str) -> Result<Option<u16>, Fault> {
        self.values.get(&tag).map_or(Ok(None), |value| {
            value.u16().map_err(|_| {
                Fault::read(
                    FaultKind::Corrupt,
                    format!("expected one unsigned 16-bit number in {name}, got another value"),
                )
            })
        })
    }
}

/// Reads at most `limit` bytes of the pixels of the file at `path`.
pub(super) fn read_pixels(path: &Path, syntax: Syntax, pixels: &PixelBytes, limit: u64) -> Result<Vec<u8>, Fault> {
    let (file, bytes) = open_regular(path)?;
    let mut stream = Stream::new(BufReader::with_capacity(16 << 10, file), bytes);
    if syntax == Syntax::Deflated {
        let Some(FileStart::Standard(meta) | FileStart::Meta(meta)) = FileStart::find(&mut stream)? else {
            return Err(Fault::read(FaultKind::Corrupt, "the DICOM file changed during reading"));
        };
        Elements::default().read_meta(&mut stream, meta)?;
        let inflated = inflate(&mut stream)?;
        let bytes = inflated.len() as u64;
        return gather(&mut Stream::new(Cursor::new(inflated), bytes), pixels, limit);
    }
    gather(&mut stream, pixels, limit)
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
}
