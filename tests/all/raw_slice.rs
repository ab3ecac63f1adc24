//! DICOM slices of encoded elements for tests, in any form that a writer may choose.

use std::collections::BTreeMap;

use freetumor::error::{Fault, FaultKind};
use freetumor::ingest::dicom::{Decoder, Limits, list_series, read_series};

use crate::dicom_files::{COLUMNS, ROWS, stored};
use crate::jpeg_encoder::Coding;

pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub const RLE: &str = "1.2.840.10008.1.2.5";
pub const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.57";
pub const JPEG_2000_LOSSLESS: &str = "1.2.840.10008.1.2.4.90";
pub const JPEG_LOSSLESS_FIRST_ORDER: &str = "1.2.840.10008.1.2.4.70";

pub const ROWS_TAG: u32 = 0x0028_0010;
pub const PIXEL_DATA: u32 = 0x7FE0_0010;
pub const ITEM: [u8; 4] = [0xFE, 0xFF, 0x00, 0xE0];
pub const ITEM_END: [u8; 8] = [0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0];
pub const SEQUENCE_END: [u8; 8] = [0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0];
pub const UNDEFINED: [u8; 4] = [0xFF; 4];

/// A slice as encoded elements in the order of their tags.
#[derive(Clone)]
pub struct RawSlice {
    pub syntax: &'static str,
    pub elements: BTreeMap<u32, Vec<u8>>,
}

impl RawSlice {
    /// Creates slice `z` of a valid series of signed 16-bit pixels.
    pub fn new(z: usize, syntax: &'static str) -> Self {
        let slice = Self { syntax, elements: BTreeMap::new() };
        let position = format!("-10\\-20\\{}", 30 + 2 * z);
        let instance = format!("2.25.4711.1.{z}");
        let pixels: Vec<u8> = stored(z).into_iter().flat_map(|value| slice.number(value as u16)).collect();
        slice
            .put(0x0008_0018, "UI", instance.as_bytes())
            .put(0x0008_0060, "CS", b"CT")
            .put(0x0020_000E, "UI", b"2.25.4711.1")
            .put(0x0020_0032, "DS", position.as_bytes())
            .put(0x0020_0037, "DS", b"1\\0\\0\\0\\1\\0")
            .us(0x0028_0002, 1)
            .put(0x0028_0004, "CS", b"MONOCHROME2")
            .us(ROWS_TAG, ROWS as u16)
            .us(0x0028_0011, COLUMNS as u16)
            .put(0x0028_0030, "DS", b"0.75\\0.5")
            .us(0x0028_0100, 16)
            .bits(16)
            .us(0x0028_0103, 1)
            .put(0x0028_1052, "DS", b"-24")
            .put(0x0028_1053, "DS", b"1")
            .put(PIXEL_DATA, "OW", &pixels)
    }

    pub fn is_big_endian(&self) -> bool {
        self.syntax == BIG_ENDIAN
    }

    pub fn number(&self, value: u16) -> [u8; 2] {
        if self.is_big_endian() { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Sets an element, with a value of even length.
    pub fn put(self, tag: u32, representation: &str, value: &[u8]) -> Self {
        let mut value = value.to_vec();
        if !value.len().is_multiple_of(2) {
            value.push(if representation == "UI" { 0 } else { b' ' });
        }
        self.put_exactly(tag, representation, &value)
    }

    pub fn put_exactly(self, tag: u32, representation: &str, value: &[u8]) -> Self {
        let long = value.len() as u32;
        let long = if self.is_big_endian() { long.to_be_bytes() } else { long.to_le_bytes() };
        let short = self.number(value.len() as u16);
        let header = match representation {
            _ if self.syntax == IMPLICIT => long.to_vec(),
            "OB" | "OW" | "UN" | "SQ" | "UV" | "SV" | "UT" => [representation.as_bytes(), &[0, 0], &long].concat(),
            _ => [representation.as_bytes(), &short].concat(),
        };
        let encoded = [&self.tag(tag)[..], &header, value].concat();
        self.raw(tag, encoded)
    }

    pub fn tag(&self, tag: u32) -> Vec<u8> {
        [self.number((tag >> 16) as u16), self.number(tag as u16)].concat()
    }

    /// Sets the bytes of an element with its header.
    pub fn raw(mut self, tag: u32, encoded: Vec<u8>) -> Self {
        self.elements.insert(tag, encoded);
        self
    }

    pub fn us(self, tag: u32, value: u16) -> Self {
        let bytes = self.number(value);
        self.put(tag, "US", &bytes)
    }

    pub fn bits(self, bits: u16) -> Self {
        self.us(0x0028_0101, bits).us(0x0028_0102, bits - 1)
    }

    /// Sets pixels of 8 bits without sign.
    pub fn bytes(self, representation: &str, pixels: &[u8]) -> Self {
        self.us(0x0028_0100, 8).bits(8).us(0x0028_0103, 0).put_exactly(PIXEL_DATA, representation, pixels)
    }

    /// Sets compressed pixels: all bytes after the header of the element.
    pub fn encapsulated(self, items: &[&[u8]]) -> Self {
        let header = [&self.tag(PIXEL_DATA)[..], b"OB\0\0", &UNDEFINED].concat();
        self.raw(PIXEL_DATA, [&header[..], &items.concat()].concat())
    }

    /// Sets compressed pixels in one fragment after an empty offset table, with an end mark.
    pub fn frame(self, bytes: &[u8]) -> Self {
        self.encapsulated(&[&item(&[]), &item(&even(bytes)), &SEQUENCE_END])
    }

    pub fn data_set(&self) -> Vec<u8> {
        self.elements.values().flatten().copied().collect()
    }

    /// Returns group 2 and the data set.
    pub fn meta_and_data_set(&self) -> Vec<u8> {
        let mut uid = self.syntax.as_bytes().to_vec();
        uid.resize(uid.len().next_multiple_of(2), 0);
        [&[0x02, 0x00, 0x10, 0x00][..], b"UI", &(uid.len() as u16).to_le_bytes(), &uid, &self.data_set()].concat()
    }

    pub fn file(&self) -> Vec<u8> {
        [&[0; 128][..], b"DICM", &self.meta_and_data_set()].concat()
    }
}

pub fn item(bytes: &[u8]) -> Vec<u8> {
    [&ITEM[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

pub fn even(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// Reads three files as one series, in this process and in a child process, and returns its HU.
pub fn read(file: impl Fn(usize) -> Vec<u8>) -> Result<Vec<f32>, Fault> {
    let folder = tempfile::tempdir().unwrap();
    for z in 0..3 {
        std::fs::write(folder.path().join(z.to_string()), file(z)).unwrap();
    }
    let series = list_series(folder.path()).unwrap();
    assert_eq!(series.len(), 1, "{series:?}");
    assert_eq!(series[0].files(), 3);
    let [here, child] = [Decoder::in_process(), Decoder::in_child_process(env!("CARGO_BIN_EXE_freetumor").into())]
        .map(|decoder| read_series(&series[0], &decoder, &Limits::default()));
    assert_eq!(here, child);
    here.map(|volume| (0..volume.grid.voxels()).map(|index| volume.voxels.hu(index)).collect())
}

/// Returns the HU of three slices of stored values.
pub fn hu(value: impl Fn(i16) -> i16) -> Vec<f32> {
    (0..3).flat_map(stored).map(|stored| f32::from(value(stored)) - 24.0).collect()
}

/// Reads slices after a change of each, and checks that the values are not changed.
#[track_caller]
pub fn assert_unchanged(syntax: &'static str, change: impl Fn(RawSlice) -> RawSlice) {
    assert_eq!(read(|z| change(RawSlice::new(z, syntax)).file()), Ok(hu(|value| value)));
}

#[track_caller]
pub fn assert_fault(kind: FaultKind, message: &str, slice: impl Fn(usize) -> RawSlice) {
    let fault = read(|z| slice(z).file()).unwrap_err();
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(message), "expected {message:?} in the message, got {fault}");
}

/// Encodes the values of slice `z` as two's complement of `precision` bits.
pub fn jpeg(z: usize, precision: u32) -> Vec<u8> {
    let mask = ((1u32 << precision) - 1) as u16;
    let samples: Vec<u16> = stored(z).into_iter().map(|value| value as u16 & mask).collect();
    Coding { predictor: 1 + z as u8, ..Coding::new(COLUMNS, precision) }.encode(&samples)
}
