//! Lossless JPEG: streams of an independent encoder and streams by hand are decoded exactly, and any bytes are an image or a fault.

use freetumor::error::{Fault, FaultKind};
use freetumor::ingest::dicom::jpeg::{LosslessImage, decode_lossless};
use proptest::prelude::*;

use crate::jpeg_encoder::{Codes, Coding, segment};

fn codings() -> impl Strategy<Value = (Coding, Vec<u16>)> {
    let codes = prop_oneof![Just(Codes::Even), Just(Codes::Skewed), Just(Codes::Long)];
    let shape = (1..=24usize, 1..=12usize, 0..=5usize);
    (shape, 2..=16u32, 1..=7u8, 0..=15u32, codes, any::<bool>()).prop_flat_map(
        |((columns, rows, restart_lines), precision, predictor, shift, codes, with_other_segments)| {
            let coding = Coding {
                columns,
                precision,
                predictor,
                point_transform: shift % precision,
                restart_lines,
                codes,
                with_other_segments,
            };
            // Smooth and extreme values: small differences, and differences of half the range.
            let largest = ((1u32 << precision) - 1) as u16;
            let sample = prop_oneof![
                0..=largest,
                Just(0),
                Just(largest),
                Just(largest / 2 + 1),
                largest / 2..=(largest / 2).saturating_add(3).min(largest)
            ];
            (Just(coding), prop::collection::vec(sample, columns * rows))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn encoded_samples_are_decoded((coding, samples) in codings()) {
        let image = decode_lossless(&coding.encode(&samples)).unwrap();
        let shift = coding.point_transform;
        prop_assert_eq!((image.columns, image.precision), (coding.columns, coding.precision));
        prop_assert_eq!(image.rows, samples.len() / coding.columns);
        prop_assert_eq!(image.samples, samples.iter().map(|sample| sample >> shift << shift).collect::<Vec<_>>());
    }

    #[test]
    fn truncated_stream_is_a_fault((coding, samples) in codings(), part in 0.0..1.0f64) {
        let stream = coding.encode(&samples);
        // Without the end marker and the last byte of the samples, which may be padding after a code.
        let length = ((stream.len() - 4) as f64 * part) as usize;
        let fault = decode_lossless(&stream[..length]).unwrap_err();
        prop_assert!([FaultKind::Truncated, FaultKind::Corrupt].contains(&fault.kind), "{}", fault);
    }

    #[test]
    fn changed_stream_is_image_or_fault(
        (coding, samples) in codings(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut stream = coding.encode(&samples);
        for (index, byte) in changes {
            let at = index.index(stream.len());
            stream[at] = byte;
        }
        check_image(&stream);
    }

    #[test]
    fn any_bytes_are_image_or_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_image(&bytes);
        check_image(&[&[0xFF, 0xD8], &bytes[..]].concat());
    }
}

/// Decodes a stream and checks that an image agrees with itself and is bounded by the length of the stream.
fn check_image(stream: &[u8]) {
    if let Ok(image) = decode_lossless(stream) {
        assert_eq!(image.samples.len(), image.columns * image.rows);
        assert!(image.samples.len() <= 8 * stream.len());
        assert!(image.samples.iter().all(|sample| u32::from(*sample) >> image.precision == 0));
    }
}

/// Returns a stream of one component with codes of one bit for category 0 and two bits for categories 1 and 2.
fn stream(frame: [u8; 5], interval: &[u8], scan: [u8; 3], entropy_coded: &[u8]) -> Vec<u8> {
    let [precision, r1, r0, c1, c0] = frame;
    let [predictor, end, shift] = scan;
    [
        vec![0xFF, 0xD8],
        segment(0xC3, &[precision, r1, r0, c1, c0, 1, 1, 0x11, 0]),
        segment(0xC4, &[&[0, 1, 1, 1][..], &[0; 13], &[0, 1, 2]].concat()),
        interval.to_vec(),
        segment(0xDA, &[1, 1, 0, predictor, end, shift]),
        entropy_coded.to_vec(),
        vec![0xFF, 0xD9],
    ]
    .concat()
}

/// Codes by hand: 0 is category 0; 100 is −1 and 101 is 1; 11000 is −3, 11001 is −2, 11010 is 2 and 11011 is 3.
#[test]
fn handwritten_streams_are_decoded() {
    // 4 bits, 3 × 2 samples, predictor 4.
    // Line 1: 8 predicted, 0 → 8; +1 → 9; +3 → 12. Line 2: 8 above, −1 → 7; 7 + 9 − 8 = 8, 0 → 8; 8 + 12 − 9 = 11, +2 → 13.
    let bits = [0b0101_1101, 0b1100_0110, 0b1011_1111];
    let image = decode_lossless(&stream([4, 0, 2, 0, 3], &[], [4, 0, 0], &bits)).unwrap();
    let expected = LosslessImage { columns: 3, rows: 2, precision: 4, samples: vec![8, 9, 12, 7, 8, 13] };
    assert_eq!(image, expected);

    // The same codes, a point transform of 1, and a restart after the first line: the prediction starts from 4 in each line.
    // Line 1: 4; +1 → 5; +3 → 8, which is too large for 3 bits; with −3: 2. Line 2: −1 → 3; 0 → 3; +2 → 5. All are doubled.
    let restart = segment(0xDD, &[0, 3]);
    let lines = [0b0101_1100, 0b0111_1111, 0xFF, 0xD0, 0b1000_1101, 0b0111_1111];
    let image = decode_lossless(&stream([4, 0, 2, 0, 3], &restart, [1, 0, 1], &lines)).unwrap();
    assert_eq!(image.samples, [8, 10, 4, 6, 6, 10]);
    let large = [0b0101_1101, 0b1111_1111, 0, 0xFF, 0xD0, 0b1000_1101, 0b0111_1111];
    let fault = decode_lossless(&stream([4, 0, 2, 0, 3], &restart, [1, 0, 1], &large)).unwrap_err();
    assert!(fault.message.contains("expected JPEG samples of 4 bits"), "{fault}");
}

#[test]
fn difference_category_16_has_no_extra_bits() {
    for predictor in 1..=7 {
        let coding = Coding { predictor, codes: Codes::Skewed, ..Coding::new(4, 16) };
        let samples = [0, 32768, 0, 65535, 32768, 0, 32768, 32767, 65535, 32767, 0, 1];
        assert_eq!(decode_lossless(&coding.encode(&samples)).unwrap().samples, samples);
    }
}

#[test]
fn restart_markers_count_modulo_8() {
    let coding = Coding { restart_lines: 1, ..Coding::new(3, 12) };
    let samples: Vec<u16> = (0..60).map(|sample| sample * 67 % 4096).collect();
    let stream = coding.encode(&samples);
    assert_eq!(decode_lossless(&stream).unwrap().samples, samples);
    let markers: Vec<usize> =
        (0..stream.len() - 1).filter(|&at| stream[at] == 0xFF && (0xD0..=0xD7).contains(&stream[at + 1])).collect();
    assert_eq!(markers.len(), 19);
    for at in markers {
        let mut other = stream.clone();
        other[at + 1] = 0xD0 + (other[at + 1] + 1) % 8;
        let fault = decode_lossless(&other).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Corrupt);
        assert!(fault.message.contains("expected JPEG restart marker"), "{fault}");
    }
}

#[test]
fn end_marker_may_be_absent_and_bytes_after_it_are_ignored() {
    let samples: Vec<u16> = (0..35).map(|sample| sample * 113 % 4096).collect();
    let stream = Coding::new(7, 12).encode(&samples);
    let whole = &stream[..stream.len() - 2];
    for end in [&[][..], &[0], &[0; 9], &[0xFF], &[0xFF, 0xD9, 0], &[0xFF, 0xD9, 1, 2, 3], &[0xFF, 0xFF, 0xD9]] {
        assert_eq!(decode_lossless(&[whole, end].concat()).unwrap().samples, samples, "{end:?}");
    }
    let fault = decode_lossless(&[whole, &[1, 2, 3]].concat()).unwrap_err();
    assert!(fault.message.contains("3 byte(s) after the last JPEG sample"), "{fault}");
}

#[track_caller]
fn assert_fault(stream: &[u8], kind: FaultKind, message: &str) {
    let fault: Fault = decode_lossless(stream).unwrap_err();
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(message), "expected {message:?} in the message, got {fault}");
}

#[test]
fn frame_types_other_than_lossless_are_refused_by_name() {
    for (marker, name) in [
        (0xC0, "baseline"),
        (0xC1, "extended sequential"),
        (0xC2, "progressive"),
        (0xC5, "hierarchical"),
        (0xC7, "hierarchical"),
        (0xC9, "arithmetic-coded"),
        (0xCB, "arithmetic-coded"),
        (0xCC, "arithmetic-coded"),
        (0xDE, "hierarchical"),
        (0xF7, "JPEG-LS"),
    ] {
        let stream = [vec![0xFF, 0xD8], segment(marker, &[8, 0, 1, 0, 1, 1, 1, 0x11, 0])].concat();
        assert_fault(&stream, FaultKind::Unsupported, &format!("got FF{marker:02X} ({name})"));
    }
    let valid = |frame| stream(frame, &[], [1, 0, 0], &[0, 0, 0]);
    assert_fault(&valid([8, 0, 0, 0, 1]), FaultKind::Unsupported, "DNL");
    let mut three = valid([8, 0, 1, 0, 1]);
    three[11] = 3;
    assert_fault(&three, FaultKind::Unsupported, "expected 1 component in a lossless JPEG image, got 3");
}

#[test]
fn invalid_headers_are_corrupt() {
    let valid = || stream([8, 0, 1, 0, 2], &[], [1, 0, 0], &[0b0011_1111]);
    assert_eq!(decode_lossless(&valid()).unwrap().samples, [128, 128]);
    let with = |frame, scan| stream(frame, &[], scan, &[0b0011_1111]);
    let lines =
        |interval: u16| stream([8, 0, 2, 0, 3], &segment(0xDD, &interval.to_be_bytes()), [1, 0, 0], &[0b0000_0011]);
    assert_eq!(decode_lossless(&lines(7)).unwrap().samples, [128; 6], "an interval beyond the image");
    for (stream, message) in [
        (with([8, 0, 1, 0, 0], [1, 0, 0]), "expected at least 1 sample in a JPEG line"),
        (with([17, 0, 1, 0, 2], [1, 0, 0]), "expected 2 to 16 bits in a lossless JPEG sample, got 17"),
        (with([1, 0, 1, 0, 2], [1, 0, 0]), "expected 2 to 16 bits"),
        (with([8, 0, 1, 0, 2], [0, 0, 0]), "expected a lossless JPEG predictor from 1 to 7, got 0"),
        (with([8, 0, 1, 0, 2], [8, 0, 0]), "got 8"),
        (with([8, 0, 1, 0, 2], [1, 0, 8]), "expected a JPEG point transform below the precision of 8 bits, got 8"),
        (lines(4), "expected a JPEG restart interval of whole lines of 3 samples, got 4"),
        (vec![0xFF, 0xD8, 0xFF, 0xD9], "got marker FFD9"),
        (vec![0xFF, 0xD8, 0xFF, 0xC4, 0, 1], "shorter than its length"),
        (vec![0xFF, 0xD8, 0, 0], "expected a marker"),
        (b"not a JPEG stream".to_vec(), "expected a JPEG stream"),
        ([vec![0xFF, 0xD8], segment(0xDA, &[1, 1, 0, 1, 0, 0])].concat(), "expected a frame header before"),
    ] {
        assert_fault(&stream, FaultKind::Corrupt, message);
    }
    // Another component, another table and another length of the scan header; a second frame; a table that is cut.
    let change = |from: &[u8], to: &[u8]| {
        let mut stream = valid();
        let at = stream.windows(from.len()).position(|window| window == from).unwrap();
        stream.splice(at..at + from.len(), to.iter().copied());
        stream
    };
    let scan = segment(0xDA, &[1, 1, 0, 1, 0, 0]);
    assert_fault(&change(&scan, &segment(0xDA, &[1, 2, 0, 1, 0, 0])), FaultKind::Corrupt, "expected the component");
    assert_fault(&change(&scan, &segment(0xDA, &[1, 1, 0x10, 1, 0, 0])), FaultKind::Corrupt, "a Huffman table");
    assert_fault(&change(&scan, &segment(0xDA, &[1, 1, 0, 1, 0])), FaultKind::Corrupt, "expected 6 bytes");
    let frame = segment(0xC3, &[8, 0, 1, 0, 2, 1, 1, 0x11, 0]);
    assert_fault(&change(&frame, &frame.repeat(2)), FaultKind::Corrupt, "expected one frame header");
    assert_fault(&change(&[0, 1, 2, 0xFF], &[0, 1, 0xFF]), FaultKind::Corrupt, "expected a marker");
}

#[test]
fn memory_is_bounded_by_length_of_stream() {
    assert_fault(
        &stream([16, 0xFF, 0xFF, 0xFF, 0xFF], &[], [1, 0, 0], &[0; 64]),
        FaultKind::Truncated,
        "expected 4294836225 JPEG samples",
    );
}
