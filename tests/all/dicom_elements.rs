//! DICOM elements in unusual but legal forms: the values are right, or the fault names the reason.

use freetumor::error::FaultKind;

use crate::dicom_files::stored;
use crate::raw_slice::*;

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
