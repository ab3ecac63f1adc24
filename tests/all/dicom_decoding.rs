//! DICOM elements and pixels in unusual but legal forms: the values are right, or the fault names the reason.

use std::collections::BTreeMap;

use freetumor::error::{Fault, FaultKind};
use freetumor::ingest::dicom::{Decoder, Limits, list_series, read_series};

use crate::dicom_files::{COLUMNS, ROWS, run_lengths, stored};
use crate::jpeg_encoder::Coding;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const RLE: &str = "1.2.840.10008.1.2.5";
const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.57";
const JPEG_2000_LOSSLESS: &str = "1.2.840.10008.1.2.4.90";
const JPEG_LOSSLESS_FIRST_ORDER: &str = "1.2.840.10008.1.2.4.70";

const ROWS_TAG: u32 = 0x0028_0010;
const PIXEL_DATA: u32 = 0x7FE0_0010;
const ITEM: [u8; 4] = [0xFE, 0xFF, 0x00, 0xE0];
const ITEM_END: [u8; 8] = [0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0];
const SEQUENCE_END: [u8; 8] = [0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0];
const UNDEFINED: [u8; 4] = [0xFF; 4];

/// A slice as encoded elements in the order of their tags.
#[derive(Clone)]
struct RawSlice {
    syntax: &'static str,
    elements: BTreeMap<u32, Vec<u8>>,
}

impl RawSlice {
    /// Creates slice `z` of a valid series of signed 16-bit pixels.
    fn new(z: usize, syntax: &'static str) -> Self {
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

    fn is_big_endian(&self) -> bool {
        self.syntax == BIG_ENDIAN
    }

    fn number(&self, value: u16) -> [u8; 2] {
        if self.is_big_endian() { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Sets an element, with a value of even length.
    fn put(self, tag: u32, representation: &str, value: &[u8]) -> Self {
        let mut value = value.to_vec();
        if !value.len().is_multiple_of(2) {
            value.push(if representation == "UI" { 0 } else { b' ' });
        }
        self.put_exactly(tag, representation, &value)
    }

    fn put_exactly(self, tag: u32, representation: &str, value: &[u8]) -> Self {
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

    fn tag(&self, tag: u32) -> Vec<u8> {
        [self.number((tag >> 16) as u16), self.number(tag as u16)].concat()
    }

    /// Sets the bytes of an element with its header.
    fn raw(mut self, tag: u32, encoded: Vec<u8>) -> Self {
        self.elements.insert(tag, encoded);
        self
    }

    fn us(self, tag: u32, value: u16) -> Self {
        let bytes = self.number(value);
        self.put(tag, "US", &bytes)
    }

    fn bits(self, bits: u16) -> Self {
        self.us(0x0028_0101, bits).us(0x0028_0102, bits - 1)
    }

    /// Sets pixels of 8 bits without sign.
    fn bytes(self, representation: &str, pixels: &[u8]) -> Self {
        self.us(0x0028_0100, 8).bits(8).us(0x0028_0103, 0).put_exactly(PIXEL_DATA, representation, pixels)
    }

    /// Sets compressed pixels: all bytes after the header of the element.
    fn encapsulated(self, items: &[&[u8]]) -> Self {
        let header = [&self.tag(PIXEL_DATA)[..], b"OB\0\0", &UNDEFINED].concat();
        self.raw(PIXEL_DATA, [&header[..], &items.concat()].concat())
    }

    /// Sets compressed pixels in one fragment after an empty offset table, with an end mark.
    fn frame(self, bytes: &[u8]) -> Self {
        self.encapsulated(&[&item(&[]), &item(&even(bytes)), &SEQUENCE_END])
    }

    fn data_set(&self) -> Vec<u8> {
        self.elements.values().flatten().copied().collect()
    }

    /// Returns group 2 and the data set.
    fn meta_and_data_set(&self) -> Vec<u8> {
        let mut uid = self.syntax.as_bytes().to_vec();
        uid.resize(uid.len().next_multiple_of(2), 0);
        [&[0x02, 0x00, 0x10, 0x00][..], b"UI", &(uid.len() as u16).to_le_bytes(), &uid, &self.data_set()].concat()
    }

    fn file(&self) -> Vec<u8> {
        [&[0; 128][..], b"DICM", &self.meta_and_data_set()].concat()
    }
}

fn item(bytes: &[u8]) -> Vec<u8> {
    [&ITEM[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

fn even(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// Reads three files as one series, in this process and in a child process, and returns its HU.
fn read(file: impl Fn(usize) -> Vec<u8>) -> Result<Vec<f32>, Fault> {
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
fn hu(value: impl Fn(i16) -> i16) -> Vec<f32> {
    (0..3).flat_map(stored).map(|stored| f32::from(value(stored)) - 24.0).collect()
}

/// Reads slices after a change of each, and checks that the values are not changed.
#[track_caller]
fn assert_unchanged(syntax: &'static str, change: impl Fn(RawSlice) -> RawSlice) {
    assert_eq!(read(|z| change(RawSlice::new(z, syntax)).file()), Ok(hu(|value| value)));
}

#[track_caller]
fn assert_fault(kind: FaultKind, message: &str, slice: impl Fn(usize) -> RawSlice) {
    let fault = read(|z| slice(z).file()).unwrap_err();
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(message), "expected {message:?} in the message, got {fault}");
}

/// Encodes the values of slice `z` as two's complement of `precision` bits.
fn jpeg(z: usize, precision: u32) -> Vec<u8> {
    let mask = ((1u32 << precision) - 1) as u16;
    let samples: Vec<u16> = stored(z).into_iter().map(|value| value as u16 & mask).collect();
    Coding { predictor: 1 + z as u8, ..Coding::new(COLUMNS, precision) }.encode(&samples)
}

#[test]
fn jpeg_lossless_is_decoded_with_every_feature() {
    for syntax in [JPEG_LOSSLESS, JPEG_LOSSLESS_FIRST_ORDER] {
        assert_eq!(read(|z| RawSlice::new(z, syntax).frame(&jpeg(z, 16)).file()), Ok(hu(|value| value)));
        for predictor in 1..=7 {
            let coding = Coding { predictor, point_transform: 2, restart_lines: 2, ..Coding::new(COLUMNS, 16) };
            let slice = |z| {
                let samples: Vec<u16> = stored(z).into_iter().map(|value| value as u16).collect();
                RawSlice::new(z, syntax).frame(&coding.encode(&samples)).file()
            };
            assert_eq!(read(slice), Ok(hu(|value| value >> 2 << 2)), "{predictor}");
        }
    }
}

#[test]
fn sign_bit_of_jpeg_lossless_samples_follows_precision_of_stream() {
    for bits in [10, 12, 13, 16] {
        for precision in [10, 12, 13, 16] {
            let read = read(|z| RawSlice::new(z, JPEG_LOSSLESS).bits(bits).frame(&jpeg(z, precision)).file());
            assert_eq!(read, Ok(hu(|value| value)), "{precision} bits in the stream, {bits} bits stored");
        }
    }
    // 8 bits in the stream, in pixels of two bytes.
    let small =
        |z| Coding::new(COLUMNS, 8).encode(&stored(z).iter().map(|value| (value & 0xFF) as u16).collect::<Vec<_>>());
    let signed = read(|z| RawSlice::new(z, JPEG_LOSSLESS).frame(&small(z)).file());
    assert_eq!(signed, Ok(hu(|value| i16::from(value as i8))));
    let unsigned = read(|z| RawSlice::new(z, JPEG_LOSSLESS).us(0x0028_0103, 0).frame(&small(z)).file());
    assert_eq!(unsigned, Ok(hu(|value| value & 0xFF)));
}

#[test]
fn jpeg_samples_beyond_bits_stored_are_corrupt() {
    let large = |z| RawSlice::new(z, JPEG_LOSSLESS).bits(8).frame(&jpeg(z, 13));
    assert_fault(
        FaultKind::Corrupt,
        "expected signed pixels of 8 bits according to BitsStored, got larger ones in a compressed image of 13 bits",
        large,
    );
    let unsigned = |z| RawSlice::new(z, JPEG_LOSSLESS).us(0x0028_0103, 0).bits(12).frame(&jpeg(z, 13));
    assert_fault(FaultKind::Corrupt, "expected unsigned pixels of 12 bits", unsigned);
    let byte = |z| RawSlice::new(z, JPEG_LOSSLESS).us(0x0028_0100, 8).bits(8).frame(&jpeg(z, 13));
    assert_fault(
        FaultKind::Corrupt,
        "expected compressed pixels of at most 8 bits according to BitsAllocated, got 13",
        byte,
    );
}

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

/// The stream was encoded by OpenJPEG 2.5.4: the values of slice 0 as two's complement of 12 bits without a sign.
#[test]
fn sign_bit_of_jpeg_2000_samples_follows_precision_of_stream() {
    let stream = bytes(
        "ff4fff5100290000000000060000000500000000000000000000000600000005000000000000000000010b0101ff52000c00000001000004040001ff5c0004\
         4060ff640025000143726561746564206279204f70656e4a5045472076657273696f6e20322e352e34ff90000a0000000000300001ff93cfe47c14005b6d3f\
         63222519ed2ad4ee1896539b19a0bfcea41146d9d1946d86c73fffd9",
    );
    let values = |change: &dyn Fn(i16) -> i16| {
        Ok([(); 3].iter().flat_map(|()| stored(0)).map(|value| f32::from(change(value)) - 24.0).collect::<Vec<_>>())
    };
    for bits in [12, 13, 16] {
        let signed = read(|z| RawSlice::new(z, JPEG_2000_LOSSLESS).bits(bits).frame(&stream).file());
        assert_eq!(signed, values(&|value| value), "{bits}");
        let unsigned = |z| RawSlice::new(z, JPEG_2000_LOSSLESS).us(0x0028_0103, 0).bits(bits).frame(&stream).file();
        assert_eq!(read(unsigned), values(&|value| value & 0x0FFF), "{bits}");
    }
    let fewer = |z| RawSlice::new(z, JPEG_2000_LOSSLESS).us(0x0028_0103, 0).bits(11).frame(&stream);
    assert_fault(
        FaultKind::Corrupt,
        "expected unsigned pixels of 11 bits according to BitsStored, got larger ones in a compressed image of 12",
        fewer,
    );
}

/// The streams were encoded by OpenJPH 0.26.3, with one resolution.
#[test]
fn high_throughput_jpeg_2000_is_decoded() {
    let header = "ff4fff5100294000000000060000000500000000000000000000000600000005000000000000000000018f0101ff500008000200000009\
                  ff52000c00020001000104044001ff5c00072088888888ff64001700014f70656e4a50482056657220302e32362e332eff90000a0000000000";
    let tiles = [
        "280001ff93c0002b80e3f27b6cc3fcae0005bb90f9b700c0002400f8951300ffd9",
        "2a0001ff93c0002d00a2deecab059216cd0084bcc11379b800c0002400f8951300ffd9",
        "2c0001ff93c0002d202a425d1ac92869f512fb0c4bcc2100f9b800c0002400f8951300ffd9",
    ];
    for syntax in ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"] {
        let slice = |z: usize| RawSlice::new(z, syntax).frame(&bytes(&format!("{header}{}", tiles[z])));
        assert_eq!(read(|z| slice(z).file()), Ok(hu(|value| value)), "{syntax}");
        let cut = |z| {
            let stream = bytes(&format!("{header}{}", tiles[z]));
            slice(z).frame(&stream[..stream.len() - 8])
        };
        assert_fault(FaultKind::Corrupt, "cannot decode compressed pixels", cut);
    }
}

#[test]
fn fragments_may_be_split_padded_and_without_end_mark() {
    let empty = item(&[]);
    let zero = item(&[0; 4]);
    let whole = |z| item(&even(&jpeg(z, 16)));
    for parts in [
        &(|z| vec![empty.clone(), whole(z), SEQUENCE_END.to_vec()]) as &dyn Fn(usize) -> Vec<Vec<u8>>,
        &|z| vec![zero.clone(), whole(z), SEQUENCE_END.to_vec()],
        &|z| vec![whole(z), SEQUENCE_END.to_vec()],
        &|z| vec![whole(z)],
        &|z| vec![empty.clone(), whole(z)],
        &|z| vec![empty.clone(), whole(z), vec![0; 8]],
        &|z| vec![empty.clone(), whole(z), vec![0; 1000]],
        &|z| vec![empty.clone(), whole(z), vec![0; 2], SEQUENCE_END.to_vec()],
        // Data set trailing padding.
        &|z| vec![empty.clone(), whole(z), SEQUENCE_END.to_vec(), b"\xFC\xFF\xFC\xFFOB\0\0\x02\0\0\0\0\0".to_vec()],
        // Several fragments, of odd lengths.
        &|z| {
            let stream = jpeg(z, 16);
            let mut parts = vec![zero.clone()];
            parts.extend(stream.chunks(7).map(item));
            parts
        },
        &|z| {
            let stream = jpeg(z, 16);
            vec![item(&stream[..40]), item(&stream[40..]), SEQUENCE_END.to_vec()]
        },
    ] {
        assert_unchanged_frames(parts);
    }
    let cut = |z| {
        let fragment = whole(z);
        RawSlice::new(z, JPEG_LOSSLESS).encapsulated(&[&empty, &fragment[..fragment.len() - 3]])
    };
    assert_fault(FaultKind::Truncated, "ends inside", cut);
    let other = |z| RawSlice::new(z, JPEG_LOSSLESS).encapsulated(&[&empty, &whole(z), &[0, 0, 1, 0, 0, 0, 0, 0]]);
    assert_fault(FaultKind::Corrupt, "not a fragment", other);
    let two = |z| RawSlice::new(z, JPEG_LOSSLESS).encapsulated(&[&item(&[0, 0, 0, 0, 90, 0, 0, 0]), &whole(z)]);
    assert_fault(FaultKind::Corrupt, "got more frames", two);
    let images = |z| RawSlice::new(z, JPEG_LOSSLESS).encapsulated(&[&empty, &whole(z), &whole(z), &SEQUENCE_END]);
    assert_fault(FaultKind::Corrupt, "got more frames", images);
}

#[track_caller]
fn assert_unchanged_frames(parts: &dyn Fn(usize) -> Vec<Vec<u8>>) {
    let slice = |z: usize| {
        let parts = parts(z);
        RawSlice::new(z, JPEG_LOSSLESS).encapsulated(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()).file()
    };
    assert_eq!(read(slice), Ok(hu(|value| value)));
}

#[test]
fn truncated_compressed_slice_is_fault_at_any_length() {
    let slice = RawSlice::new(1, JPEG_LOSSLESS).frame(&jpeg(1, 16));
    let whole = slice.file();
    let end = whole.len() - SEQUENCE_END.len();
    let pixels = end - jpeg(1, 16).len();
    for length in (pixels..end - 3).step_by(5) {
        let outcome = read(|z| match z {
            1 => whole[..length].to_vec(),
            _ => RawSlice::new(z, JPEG_LOSSLESS).frame(&jpeg(z, 16)).file(),
        });
        assert_eq!(outcome.unwrap_err().kind, FaultKind::Truncated, "{length}");
    }
}

#[test]
fn big_endian_bytes_are_swapped_in_words_only() {
    let pixels = |z: usize| -> Vec<u8> { stored(z).into_iter().map(|value| (value + 50) as u8).collect() };
    let swapped = |z: usize| -> Vec<u8> { pixels(z).chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect() };
    let expected = Ok((0..3).flat_map(pixels).map(|value| f32::from(value) - 24.0).collect::<Vec<_>>());
    assert_eq!(read(|z| RawSlice::new(z, BIG_ENDIAN).bytes("OB", &pixels(z)).file()), expected);
    assert_eq!(read(|z| RawSlice::new(z, BIG_ENDIAN).bytes("OW", &swapped(z)).file()), expected);
    assert_eq!(read(|z| RawSlice::new(z, EXPLICIT).bytes("OW", &pixels(z)).file()), expected);
    assert_unchanged(BIG_ENDIAN, |slice| slice);
    // 5 × 3 pixels: the last one is the second byte of a word whose first byte is padding.
    let odd = |z: usize| {
        let slice = RawSlice::new(z, BIG_ENDIAN).us(ROWS_TAG, 3).us(0x0028_0011, 5);
        let padded = [&pixels(z)[..15], &[99]].concat();
        let words: Vec<u8> = padded.chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
        slice.bytes("OW", &words)
    };
    let expected: Vec<f32> =
        (0..3).flat_map(|z| pixels(z)[..15].to_vec()).map(|value| f32::from(value) - 24.0).collect();
    assert_eq!(read(|z| odd(z).file()), Ok(expected));
    let cut = |z| odd(z).bytes("OW", &pixels(z)[..15]);
    assert_fault(FaultKind::Truncated, "expected 16 bytes of pixel data for 5 × 3 pixels, got 15", cut);
    for slice in [&(|z| RawSlice::new(z, BIG_ENDIAN).bytes("UN", &pixels(z))) as &dyn Fn(usize) -> RawSlice, &|z| {
        RawSlice::new(z, BIG_ENDIAN).put(PIXEL_DATA, "OB", &[0; 60])
    }] {
        assert_fault(FaultKind::Unsupported, "expected big-endian PixelData of representation OW", slice);
    }
}

#[test]
fn number_of_frames_may_be_zero_or_empty() {
    for frames in ["0", "0 ", "00", "1", "1 ", ""] {
        assert_unchanged(EXPLICIT, |slice| slice.put(0x0028_0008, "IS", frames.as_bytes()));
    }
    let doubled = |z| {
        let pixels: Vec<u8> = [stored(z), stored(z)].concat().into_iter().flat_map(i16::to_le_bytes).collect();
        RawSlice::new(z, EXPLICIT).put(0x0028_0008, "IS", b"0").put(PIXEL_DATA, "OW", &pixels)
    };
    assert_fault(FaultKind::Corrupt, "expected pixel data of 1 frame", doubled);
    let two = |z| RawSlice::new(z, EXPLICIT).put(0x0028_0008, "IS", b"2");
    assert_fault(FaultKind::Unsupported, "multi-frame image of 2 frames", two);
}

#[test]
fn preamble_and_group_2_may_be_absent() {
    let expected = Ok(hu(|value| value));
    for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN] {
        assert_eq!(read(|z| RawSlice::new(z, syntax).meta_and_data_set()), expected, "{syntax}");
        let magic = |z| [b"DICM", &RawSlice::new(z, syntax).meta_and_data_set()[..]].concat();
        assert_eq!(read(magic), expected, "{syntax}");
        assert_eq!(read(|z| RawSlice::new(z, syntax).data_set()), expected, "{syntax}");
        // The modality first, and elements of the highest number in group 8.
        for first in [0x0008_0060, 0x0008_9215] {
            let bare = |z| {
                let mut slice = RawSlice::new(z, syntax).put(first, "CS", b"CT");
                slice.elements.remove(&0x0008_0018);
                if first > 0x0008_0060 {
                    // After the first element of the file, which the reader expects in any order.
                    let modality = slice.elements.remove(&0x0008_0060).unwrap();
                    slice.elements.insert(first + 1, modality);
                }
                slice.data_set()
            };
            assert_eq!(read(bare), expected, "{syntax} {first:08X}");
        }
    }
    assert_eq!(read(|z| RawSlice::new(z, JPEG_LOSSLESS).frame(&jpeg(z, 16)).meta_and_data_set()), expected);
}

#[test]
fn truncated_slice_without_preamble_is_not_lost() {
    let whole = RawSlice::new(1, EXPLICIT).data_set();
    let fault = read(|z| match z {
        1 => whole[..whole.len() - 100].to_vec(),
        _ => RawSlice::new(z, EXPLICIT).data_set(),
    });
    assert_eq!(fault.unwrap_err().kind, FaultKind::Truncated);
}

#[test]
fn numbers_are_read_in_unexpected_value_representations() {
    for (representation, value) in [
        ("SS", &[5, 0][..]),
        ("UL", &[5, 0, 0, 0]),
        ("SL", &[5, 0, 0, 0]),
        ("IS", b"5 "),
        ("DS", b"5.0 "),
        ("UN", &[5, 0]),
        ("UN", b"   5"),
        ("OW", &[5, 0]),
    ] {
        assert_unchanged(EXPLICIT, |slice| slice.put(ROWS_TAG, representation, value));
    }
    assert_unchanged(BIG_ENDIAN, |slice| slice.put(ROWS_TAG, "UL", &[0, 0, 0, 5]));
    assert_unchanged(IMPLICIT, |slice| slice.put(ROWS_TAG, "UL", &[5, 0, 0, 0]));
    let doubles = [0.75f64, 0.5].map(f64::to_le_bytes).concat();
    for (representation, value) in [
        ("DS", &b"0.75\\0.5\\"[..]),
        ("DS", b" 0.75 \\ 0.5 "),
        ("UN", b"0.75\\0.5"),
        ("LO", b"0.75\\0.5"),
        ("FD", &doubles),
    ] {
        assert_unchanged(EXPLICIT, |slice| slice.put(0x0028_0030, representation, value));
    }
    for (representation, value) in
        [("SS", &[0xE8, 0xFF][..]), ("UN", b"-24 "), ("FD", &(-24f64).to_le_bytes()), ("IS", b"-24")]
    {
        assert_unchanged(EXPLICIT, |slice| slice.put(0x0028_1052, representation, value));
    }
    for (representation, value) in
        [("US", &[5, 0, 9, 0][..]), ("SS", &[0xFF, 0xFF]), ("IS", b"5\\9 "), ("CS", b"FIVE"), ("UN", b"5 ")]
    {
        let slice = |z| RawSlice::new(z, EXPLICIT).put(ROWS_TAG, representation, value);
        assert_fault(FaultKind::Corrupt, "expected one unsigned 16-bit number in Rows, got another value", slice);
    }
    let empty = |z| RawSlice::new(z, EXPLICIT).put(0x0028_0011, "US", b"");
    assert_fault(FaultKind::Missing, "without Columns", empty);
}

#[test]
fn unneeded_elements_are_skipped_in_every_encoding() {
    let nested = |start: &[u8]| [start, &UNDEFINED].concat();
    let element = b"\x28\x00\x10\x00US\x02\x00\x63\x00";
    let implicit = b"\x28\x00\x10\x00\x02\x00\x00\x00\x63\x00";
    let pixels = b"\xE0\x7F\x10\x00OW\0\0\x02\0\0\0\x01\0";
    for (tag, encoded) in [
        // Group length, empty elements, private elements.
        (0x0028_0000, b"\x28\x00\x00\x00UL\x04\x00\x10\x00\x00\x00".to_vec()),
        (0x0010_0010, b"\x10\x00\x10\x00PN\x00\x00".to_vec()),
        (0x0009_0010, b"\x09\x00\x10\x00LO\x04\x00TEST".to_vec()),
        (0x0009_1001, b"\x09\x00\x01\x10UN\0\0\x03\0\0\0abc".to_vec()),
        (0x0009_1002, b"\x09\x00\x02\x10UT\0\0\0\0\0\0".to_vec()),
        // Sequences: of undefined length with items of both kinds; of defined length; empty; with pixels of an icon.
        (
            0x0008_1140,
            [&nested(b"\x08\x00\x40\x11SQ\0\0")[..], &item(element), &nested(&ITEM), element, &ITEM_END, &SEQUENCE_END]
                .concat(),
        ),
        (
            0x0008_1140,
            [b"\x08\x00\x40\x11SQ\0\0", &24u32.to_le_bytes()[..], &nested(&ITEM), &element[..8], &ITEM_END].concat(),
        ),
        (0x0008_1140, b"\x08\x00\x40\x11SQ\0\0\0\0\0\0".to_vec()),
        (0x0008_1140, [&nested(b"\x08\x00\x40\x11SQ\0\0")[..], &SEQUENCE_END].concat()),
        (
            0x0008_1140,
            [&nested(b"\x08\x00\x40\x11SQ\0\0")[..], &nested(&ITEM), pixels, &ITEM_END, &SEQUENCE_END].concat(),
        ),
        // Sequences in sequences.
        (
            0x0008_1140,
            [
                &nested(b"\x08\x00\x40\x11SQ\0\0")[..],
                &nested(&ITEM),
                &nested(b"\x08\x00\x40\x11SQ\0\0"),
                &nested(&ITEM),
                element,
                &ITEM_END,
                &SEQUENCE_END,
                element,
                &ITEM_END,
                &SEQUENCE_END,
            ]
            .concat(),
        ),
        // Implicit items in UN of undefined length.
        (
            0x0009_1003,
            [
                &nested(b"\x09\x00\x03\x10UN\0\0")[..],
                &nested(&ITEM),
                implicit,
                &ITEM_END,
                &item(implicit),
                &SEQUENCE_END,
            ]
            .concat(),
        ),
        // Fragments in a private element.
        (0x0009_1004, [&nested(b"\x09\x00\x04\x10OB\0\0")[..], &item(b""), &item(element), &SEQUENCE_END].concat()),
        (0x0009_1004, [&nested(b"\x09\x00\x04\x10OW\0\0")[..], &item(b"abcd"), &SEQUENCE_END].concat()),
        // Elements after the pixels.
        (0xFFFC_FFFC, b"\xFC\xFF\xFC\xFFOB\0\0\x04\0\0\0\0\0\0\0".to_vec()),
        (0xFFFA_FFFA, b"\xFA\xFF\xFA\xFFSQ\0\0\xFF\xFF\xFF\xFF".to_vec()),
    ] {
        assert_unchanged(EXPLICIT, |slice| slice.raw(tag, encoded.clone()));
    }
    let sequence =
        [&[0x08, 0x00, 0x40, 0x11][..], &UNDEFINED, &ITEM, &UNDEFINED, implicit, &ITEM_END, &SEQUENCE_END].concat();
    assert_unchanged(IMPLICIT, |slice| slice.raw(0x0008_1140, sequence.clone()));
    let twice = |z| {
        let rows = [&b"\x28\x00\x10\x00US\x02\x00\x05\x00"[..], b"\x28\x00\x10\x00US\x02\x00\x04\x00"].concat();
        RawSlice::new(z, EXPLICIT).raw(ROWS_TAG, rows)
    };
    assert_fault(FaultKind::Corrupt, "expected one element (0028,0010), got two with different values", twice);
    let unknown = |z| RawSlice::new(z, EXPLICIT).raw(0x0009_1001, b"\x09\x00\x01\x10XX\x02\x00ab".to_vec());
    assert_fault(FaultKind::Corrupt, "expected a value representation", unknown);
}

#[test]
fn pixels_of_two_bytes_may_have_any_representation() {
    for representation in ["OB", "OW", "UN"] {
        assert_eq!(
            read(|z| {
                let pixels: Vec<u8> = stored(z).into_iter().flat_map(i16::to_le_bytes).collect();
                RawSlice::new(z, EXPLICIT).put(PIXEL_DATA, representation, &pixels).file()
            }),
            Ok(hu(|value| value)),
            "{representation}"
        );
    }
}

#[test]
fn run_lengths_may_be_padded() {
    let frame = |z: usize| run_lengths(&stored(z).into_iter().map(|value| value as u16).collect::<Vec<_>>());
    assert_unchanged_rle(frame);
    // Zeros after each segment, and a longer header.
    assert_unchanged_rle(|z| {
        let bytes = frame(z);
        let second = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let mut padded = bytes[..64].to_vec();
        padded.extend([0xAA; 6]);
        padded.extend_from_slice(&bytes[64..second]);
        padded.extend([0; 3]);
        padded[4..8].copy_from_slice(&70u32.to_le_bytes());
        let start = padded.len() as u32;
        padded[8..12].copy_from_slice(&start.to_le_bytes());
        padded.extend_from_slice(&bytes[second..]);
        padded.extend([0; 9]);
        padded
    });
    let longer = |z: usize| RawSlice::new(z, RLE).frame(&[&frame(z)[..], &[1, 2, 3]].concat());
    assert_fault(FaultKind::Corrupt, "expected 30 bytes in an RLE segment, got more", longer);
    let shorter = |z: usize| RawSlice::new(z, RLE).frame(&frame(z)[..frame(z).len() - 4]);
    assert_fault(FaultKind::Truncated, "cannot decode an RLE segment: expected 30 bytes", shorter);
}

#[track_caller]
fn assert_unchanged_rle(frame: impl Fn(usize) -> Vec<u8>) {
    assert_eq!(read(|z| RawSlice::new(z, RLE).frame(&frame(z)).file()), Ok(hu(|value| value)));
}
