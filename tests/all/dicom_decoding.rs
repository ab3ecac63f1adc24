//! Compressed DICOM pixels in unusual but legal forms: the values are right, or the fault names the reason.

use freetumor::error::FaultKind;

use crate::dicom_files::{COLUMNS, run_lengths, stored};
use crate::jpeg_encoder::Coding;
use crate::raw_slice::*;

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
