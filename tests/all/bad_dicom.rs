//! Invalid DICOM: every kind of error is a specific fault, without a panic, a hang or personal data in a message.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::ingest::dicom::{
    Decoder, FolderFilter, Limits, Series, list_folder, list_series, read_header, read_series,
};

use crate::dicom_files::{COLUMNS, PERSONAL, ROWS, SliceFile, run_lengths, series, stored, write};

/// Returns the fault of reading the largest series of a folder, and checks that the fault contains no personal data.
fn fault_in(folder: &Path) -> Fault {
    let all = list_series(folder).unwrap();
    let largest = all.iter().max_by_key(|series| series.files()).expect("a series");
    let fault = read(largest, &Decoder::in_process()).expect_err("a fault");
    assert_eq!(fault.stage, Stage::Read);
    let shown = format!("{fault} {fault:?} {all:?}");
    let folder = folder.to_string_lossy();
    for value in PERSONAL.into_iter().chain([&*folder]) {
        assert!(!shown.contains(value), "{shown} contains {value}");
    }
    assert!(fault.message.len() > 20 && !fault.message.contains('\n'), "{fault}");
    fault
}

fn read(series: &Series, decoder: &Decoder) -> Result<(), Fault> {
    read_series(series, decoder, &Limits::default()).map(drop)
}

fn fault_of(slices: &[SliceFile]) -> Fault {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), slices);
    fault_in(folder.path())
}

#[track_caller]
fn assert_fault(slices: &[SliceFile], kind: FaultKind, message: &str) {
    let fault = fault_of(slices);
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(message), "expected {message:?} in the message, got {fault}");
}

/// Returns a valid series of five slices, after a change of every slice.
fn with_all(change: impl Fn(SliceFile) -> SliceFile) -> Vec<SliceFile> {
    series(5).into_iter().map(change).collect()
}

/// Returns a valid series of five slices, after a change of the third slice.
fn with_third(change: impl Fn(SliceFile) -> SliceFile) -> Vec<SliceFile> {
    let mut slices = series(5);
    slices[2] = change(slices[2].clone());
    slices
}

#[test]
fn fault_names_modality_that_is_not_ct() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &with_all(|slice| slice.text(tags::MODALITY, VR::CS, "PT")));
    assert!(list_series(folder.path()).unwrap()[0].is_other_modality());
    write(folder.path(), &with_third(|slice| slice.text(tags::MODALITY, VR::CS, "PT")));
    assert!(!list_series(folder.path()).unwrap()[0].is_other_modality());
    let modality = |code: &'static str| with_all(move |slice| slice.text(tags::MODALITY, VR::CS, code));
    assert_fault(&modality("MR"), FaultKind::Unsupported, "expected modality CT, got MR (5 of 5 slices)");
    assert_fault(&modality("PT"), FaultKind::Unsupported, "expected modality CT, got PT");
    // Free text in a header is not repeated.
    assert_fault(&modality("DOE JANE"), FaultKind::Unsupported, "expected modality CT, got another one");
}

#[test]
fn fault_names_missing_tag() {
    let required: [(Tag, &str); 13] = [
        (tags::MODALITY, "Modality"),
        (tags::SAMPLES_PER_PIXEL, "SamplesPerPixel"),
        (tags::PHOTOMETRIC_INTERPRETATION, "PhotometricInterpretation"),
        (tags::COLUMNS, "Columns"),
        (tags::ROWS, "Rows"),
        (tags::BITS_ALLOCATED, "BitsAllocated"),
        (tags::BITS_STORED, "BitsStored"),
        (tags::PIXEL_REPRESENTATION, "PixelRepresentation"),
        (tags::IMAGE_POSITION_PATIENT, "ImagePositionPatient"),
        (tags::IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient"),
        (tags::PIXEL_SPACING, "PixelSpacing"),
        (tags::RESCALE_INTERCEPT, "RescaleIntercept"),
        (tags::PIXEL_DATA, "PixelData"),
    ];
    for (tag, name) in required {
        assert_fault(&with_third(|slice| slice.without(tag)), FaultKind::Missing, &format!("without {name}:"));
    }
    let empty = with_third(|slice| slice.text(tags::RESCALE_SLOPE, VR::DS, " "));
    assert_fault(&empty, FaultKind::Missing, "without RescaleSlope:");
}

#[test]
fn colour_inverted_and_multi_frame_images_are_unsupported() {
    let rgb =
        with_all(|slice| slice.u16(tags::SAMPLES_PER_PIXEL, 3).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB"));
    assert_fault(&rgb, FaultKind::Unsupported, "expected 1 sample per pixel, got 3");
    let photometric =
        |name: &'static str| with_all(move |slice| slice.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, name));
    assert_fault(&photometric("PALETTE COLOR"), FaultKind::Unsupported, "a colour image");
    assert_fault(&photometric("MONOCHROME1"), FaultKind::Unsupported, "MONOCHROME1");
    let frames = |count: &'static str| with_all(move |slice| slice.text(tags::NUMBER_OF_FRAMES, VR::IS, count));
    assert_fault(&frames("40"), FaultKind::Unsupported, "multi-frame image of 40 frames");
    assert_fault(&frames("2147483647"), FaultKind::Unsupported, "multi-frame");
    assert_fault(&frames("Doe"), FaultKind::Corrupt, "NumberOfFrames");
}

#[test]
fn invalid_rescale_or_pixel_format_is_a_fault() {
    assert_fault(
        &with_all(|slice| slice.text(tags::RESCALE_TYPE, VR::LO, "OD")),
        FaultKind::Unsupported,
        "RescaleType HU",
    );
    for slope in ["0", "1e300", "-2e6"] {
        assert_fault(
            &with_third(|slice| slice.text(tags::RESCALE_SLOPE, VR::DS, slope)),
            FaultKind::Corrupt,
            "rescale slope",
        );
    }
    for slope in ["inf", "NaN", "1,5", "Doe", "1\\2"] {
        assert_fault(
            &with_third(|slice| slice.text(tags::RESCALE_SLOPE, VR::DS, slope)),
            FaultKind::Corrupt,
            "RescaleSlope",
        );
    }
    let bits = |allocated, stored, high: u16| {
        with_all(move |slice| {
            slice.u16(tags::BITS_ALLOCATED, allocated).u16(tags::BITS_STORED, stored).u16(tags::HIGH_BIT, high)
        })
    };
    assert_fault(&bits(32, 32, 31), FaultKind::Unsupported, "expected 8 or 16 bits allocated per pixel, got 32");
    assert_fault(&bits(16, 17, 16), FaultKind::Corrupt, "expected 1 to 16 bits stored, got 17");
    assert_fault(&bits(16, 0, 15), FaultKind::Corrupt, "expected 1 to 16 bits stored, got 0");
    assert_fault(&bits(16, 12, 15), FaultKind::Unsupported, "expected high bit 11 for 12 bits stored, got 15");
    assert_fault(
        &with_third(|slice| slice.u16(tags::PIXEL_REPRESENTATION, 7)),
        FaultKind::Corrupt,
        "expected PixelRepresentation 0 or 1, got 7",
    );
}

#[test]
fn inconsistent_slices_are_geometry_faults() {
    let shape = with_third(|slice| slice.u16(tags::ROWS, 3).u16(tags::COLUMNS, 4));
    assert_fault(&shape, FaultKind::Geometry, "got 6 × 5 and 4 × 3 pixels");
    let spacing = with_third(|slice| slice.text(tags::PIXEL_SPACING, VR::DS, "0.75\\0.6"));
    assert_fault(&spacing, FaultKind::Geometry, "got 0.5 × 0.75 and 0.6 × 0.75 mm");
    let rotated = with_third(|slice| {
        slice.text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "0.99999\\0.00447\\0\\-0.00447\\0.99999\\0")
    });
    assert_fault(&rotated, FaultKind::Geometry, "expected slices of one orientation");
}

#[test]
fn invalid_geometry_of_slice_is_fault() {
    for spacing in ["0\\0", "-1\\1", "1\\1e9"] {
        assert_fault(
            &with_all(|slice| slice.text(tags::PIXEL_SPACING, VR::DS, spacing)),
            FaultKind::Geometry,
            "pixel spacing",
        );
    }
    for cosines in ["0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0", "2\\0\\0\\0\\1\\0"] {
        let slices = with_all(|slice| slice.text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, cosines));
        assert_fault(
            &slices,
            FaultKind::Geometry,
            "expected two perpendicular unit vectors in ImageOrientationPatient",
        );
    }
    assert_fault(
        &with_third(|slice| slice.at("1\\2")),
        FaultKind::Corrupt,
        "expected 3 decimal number(s) in ImagePositionPatient",
    );
    assert_fault(&with_third(|slice| slice.at("1\\2\\1e12")), FaultKind::Geometry, "ImagePositionPatient");
    assert_fault(
        &with_all(|slice| slice.u16(tags::ROWS, 0)),
        FaultKind::Geometry,
        "expected at least one pixel in a slice, got 6 × 0",
    );
}

#[test]
fn missing_uneven_and_duplicate_slices_are_different_faults() {
    let mut gaps = series(9);
    gaps.remove(3);
    gaps.remove(5);
    assert_fault(&gaps, FaultKind::Missing, "2 slice(s) missing: expected 2.00 mm after slice 3, got 4.00 mm");
    let uneven = with_third(|slice| slice.at("-10\\-20\\34.7"));
    assert_fault(&uneven, FaultKind::Geometry, "unevenly spaced: expected 2.00 mm after slice 2, got 2.70 mm");
    let shifted = with_third(|slice| slice.at("-10\\-19\\34"));
    assert_fault(&shifted, FaultKind::Geometry, "got 1.00 mm at slice 3 of 5");
    let duplicate = with_third(|slice| slice.at("-10\\-20\\32"));
    assert_fault(&duplicate, FaultKind::Geometry, "two different slices at the same position");
    let mut rounded = series(5);
    rounded[2] = rounded[2].clone().at("-10\\-20\\34.1");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &rounded);
    assert_eq!(read(&list_series(folder.path()).unwrap()[0], &Decoder::in_process()), Ok(()));
}

#[test]
fn tilted_gantry_is_fault_with_angle() {
    let tilted = |tangent: f64| {
        let slices = series(5).into_iter().enumerate();
        slices
            .map(move |(z, slice)| slice.at(&format!("0\\{}\\{}", 2.0 * z as f64 * tangent, 2 * z)))
            .collect::<Vec<_>>()
    };
    assert_fault(&tilted(0.267_949), FaultKind::Geometry, "gantry is tilted by 15.00°");
    // Below the tolerance the axes become perpendicular; the first slice and the distance between slices are kept.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &tilted(0.005));
    let grid = read_header(&list_series(folder.path()).unwrap()[0]).unwrap().grid;
    assert_eq!(grid.affine.apply([0.0, 0.0, 4.0])[..2], [0.0, 0.0], "{grid:?}");
    assert!((grid.affine.spacing_mm()[2] - 2.0f64.hypot(0.01)).abs() < 1e-12, "{grid:?}");
}

#[test]
fn localizers_are_geometry_faults() {
    assert_fault(&series(1), FaultKind::Geometry, "expected at least 3 slices at different positions, got 1");
    assert_fault(&series(2), FaultKind::Geometry, "expected at least 3 slices at different positions, got 2");
    let localizer = with_all(|slice| slice.text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER"));
    assert_fault(&localizer, FaultKind::Geometry, "a localizer");
}

#[test]
fn fault_names_unsupported_transfer_syntax() {
    for (uid, name) in [
        ("1.2.840.10008.1.2.4.50", "JPEG Baseline"),
        ("1.2.840.10008.1.2.4.80", "JPEG-LS"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4"),
        ("1.2.3.4", "an unknown transfer syntax"),
    ] {
        // dicom-object cannot write unknown syntaxes: the identifier is replaced in a complete file.
        let folder = tempfile::tempdir().unwrap();
        for (number, slice) in with_all(|slice| slice.fragment(vec![0; 64])).into_iter().enumerate() {
            let bytes = slice.syntax(uids::JPEG2000_LOSSLESS).bytes();
            std::fs::write(folder.path().join(number.to_string()), with_syntax(&bytes, uid)).unwrap();
        }
        let fault = fault_in(folder.path());
        assert_eq!(fault.kind, FaultKind::Unsupported);
        assert!(fault.message.contains(name), "{fault}");
    }
    let folder = tempfile::tempdir().unwrap();
    for (number, slice) in series(3).into_iter().enumerate() {
        std::fs::write(folder.path().join(number.to_string()), with_syntax(&slice.bytes(), uids::RLE_LOSSLESS))
            .unwrap();
    }
    let fault = fault_in(folder.path());
    assert_eq!(fault.kind, FaultKind::Corrupt);
    assert!(fault.message.contains("contradicts"), "{fault}");
}

#[test]
fn deflated_files_beyond_limit_or_with_corrupt_data_are_faults() {
    let valid = SliceFile::new(0).bytes();
    let body = find(&valid, &[0x08, 0x00, 0x08, 0x00, b'C', b'S']);
    let deflated = |elements: &[u8]| {
        let mut bytes = with_syntax(&valid[..body], uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN);
        bytes.extend(elements);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), bytes).unwrap();
        fault_in(folder.path())
    };
    let deflate = |bytes: &[u8]| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let garbage = deflated(&[0xFF; 100]);
    assert_eq!((garbage.kind, garbage.message.contains("cannot inflate")), (FaultKind::Corrupt, true), "{garbage}");
    let bomb = deflated(&deflate(&vec![0; 65 << 20]));
    assert_eq!((bomb.kind, bomb.message.contains("at most 64 MiB")), (FaultKind::TooLarge, true), "{bomb}");
    let large = deflated(&vec![0xFF; 65 << 20]);
    assert_eq!(large.kind, FaultKind::TooLarge, "{large}");
    // The same bytes, deflated correctly, are one slice of a series.
    let single = deflated(&deflate(&valid[body..]));
    assert_eq!(single.kind, FaultKind::Geometry, "{single}");
}

/// Returns a file with another transfer syntax in group 2, padded to the same length.
fn with_syntax(bytes: &[u8], uid: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = find(&bytes, &[0x02, 0x00, 0x10, 0x00, b'U', b'I']);
    let length = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
    let mut value = uid.as_bytes().to_vec();
    assert!(value.len() <= length.max(26));
    value.resize(length.max(value.len() + value.len() % 2), 0);
    bytes[at + 6..at + 8].copy_from_slice(&(value.len() as u16).to_le_bytes());
    bytes.splice(at + 8..at + 8 + length, value);
    bytes
}

fn find(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes.windows(pattern.len()).position(|window| window == pattern).expect("the pattern")
}

/// Truncates a slice after any byte, in the middle of the series and at its end, where no gap shows that a slice is missing.
#[test]
fn truncated_slice_fails_its_series() {
    for damaged in [2, 4] {
        let bytes = SliceFile::new(damaged).bytes();
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &series(5));
        let path = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| std::fs::read(path).unwrap() == bytes)
            .expect("the slice");
        for length in (0..bytes.len()).rev().step_by(3) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let series = list_series(folder.path()).unwrap();
            assert_eq!(series.len(), 1, "slice {damaged} of {length} bytes");
            let fault = read(&series[0], &Decoder::in_process()).expect_err("a fault");
            assert!(fault.message.ends_with("(1 of 5 slices)"), "slice {damaged} of {length} bytes: {fault}");
            // Without magic bytes the file is not DICOM; after a complete element, other elements are missing.
            let expected = [FaultKind::Truncated, FaultKind::Missing, FaultKind::Corrupt];
            assert!(expected.contains(&fault.kind), "slice {damaged} of {length} bytes: {fault}");
        }
    }
}

#[test]
fn files_that_are_not_understood_fail_every_scan_of_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut slices = series(4);
    slices.extend((0..5).map(|z| SliceFile::new(z).text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.4711.2")));
    write(folder.path(), &slices);
    let page = b"<!DOCTYPE html><html><body>404 not found</body></html>";
    let unreadable: [(&str, &[u8]); 3] = [("empty.dcm", b""), ("zeros.dcm", &[0; 4096]), ("page", page)];
    for (name, bytes) in unreadable {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("missing", folder.path().join("link")).unwrap();
    let count = if cfg!(unix) { 4 } else { 3 };
    let all = list_series(folder.path()).unwrap();
    assert_eq!(all.len(), 2);
    for series in &all {
        let fault = read(series, &Decoder::in_process()).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Corrupt);
        assert!(fault.message.contains("cannot be understood"), "{fault}");
        assert!(fault.message.contains(&format!("({count} of {} slices)", series.files())), "{fault}");
        assert_eq!(series.unreadable_files().count(), count);
    }
    // The caller may allow such files, or exclude them by name.
    let filter = FolderFilter { skip_unreadable: true, ..FolderFilter::default() };
    let allowed = list_folder(folder.path(), &filter).unwrap();
    assert_eq!(allowed.other_files["unreadable file"], count);
    let names = ["empty.dcm", "zeros.dcm", "page", "link"];
    let is_excluded = |path: &Path| names.iter().any(|name| path.ends_with(name));
    let excluded = list_folder(folder.path(), &FolderFilter { is_excluded: &is_excluded, ..FolderFilter::default() });
    for folder in [allowed, excluded.unwrap()] {
        assert_eq!(folder.series.len(), 2);
        assert!(folder.series.iter().all(|series| read(series, &Decoder::in_process()).is_ok()));
    }
}

#[test]
fn folder_of_unreadable_files_is_one_scan_with_fault() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::write(folder.path().join(name), [7; 300]).unwrap();
    }
    let all = list_series(folder.path()).unwrap();
    assert_eq!(all.len(), 1);
    assert!(read(&all[0], &Decoder::in_process()).unwrap_err().message.ends_with("(2 of 2 slices)"));
    assert!(!all[0].is_localizer() && !all[0].is_other_modality());
}

/// Changes any single byte of the header: reading ends with a fault or a small volume.
#[test]
fn changed_byte_never_panics() {
    let valid = SliceFile::new(1).syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&[7; COLUMNS * ROWS])).bytes();
    let folder = tempfile::tempdir().unwrap();
    let rle = |z| SliceFile::new(z).syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&[7; COLUMNS * ROWS]));
    rle(0).write(&folder.path().join("a"));
    rle(2).write(&folder.path().join("c"));
    for at in 128..valid.len() {
        for value in [0xFF, valid[at] ^ 1] {
            let mut bytes = valid.clone();
            bytes[at] = value;
            std::fs::write(folder.path().join("b"), &bytes).unwrap();
            for series in list_series(folder.path()).unwrap() {
                let _ = read_series(&series, &Decoder::in_process(), &Limits::default());
            }
        }
    }
}

/// Changes bytes of JPEG 2000, JPEG and RLE data: a crash of the decoder is a fault of its scan.
#[test]
fn corrupt_compressed_bytes_fail_their_scan_only() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dicom/syntaxes");
    let decoder =
        Decoder::in_child_process(env!("CARGO_BIN_EXE_freetumor").into()).with_slice_time(Duration::from_secs(10));
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&fixtures).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    for name in ["jpeg-2000-signed.dcm", "jpeg-lossless-14.dcm", "rle.dcm"] {
        let valid = std::fs::read(fixtures.join(name)).unwrap();
        let pixels = find(&valid, &[0xE0, 0x7F, 0x10, 0x00]) + 12;
        for step in 0..40 {
            let mut bytes = valid.clone();
            for (index, byte) in bytes[pixels + 8..].iter_mut().enumerate() {
                if index % 97 == step * 2 {
                    *byte ^= 0x55;
                }
            }
            std::fs::write(folder.path().join(name), bytes).unwrap();
            if let Err(fault) = read(&list_series(folder.path()).unwrap()[0], &decoder) {
                let kinds = [FaultKind::Corrupt, FaultKind::Truncated, FaultKind::Unsupported, FaultKind::Panic];
                assert!(kinds.contains(&fault.kind), "{name} {step}: {fault}");
            }
        }
        std::fs::write(folder.path().join(name), valid).unwrap();
    }
    assert_eq!(read(&list_series(folder.path()).unwrap()[0], &decoder), Ok(()), "the valid series is restored");
}

#[test]
fn inconsistent_compressed_frames_are_faults_before_decoding() {
    let rle = |bytes: Vec<u8>| with_all(|slice| slice.syntax(uids::RLE_LOSSLESS).fragment(bytes.clone()));
    let values: Vec<u16> = stored(1).into_iter().map(|value| value as u16).collect();
    let valid = run_lengths(&values);
    let mut segments = valid.clone();
    segments[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_fault(&rle(segments), FaultKind::Corrupt, "expected 2 RLE segments, got 4294967295");
    let mut outside = valid.clone();
    outside[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_fault(&rle(outside), FaultKind::Corrupt, "outside its frame");
    assert_fault(&rle(valid[..40].to_vec()), FaultKind::Truncated, "ends inside its header");
    assert_fault(&rle(valid[..90].to_vec()), FaultKind::Truncated, "cannot decode an RLE segment");

    assert_fault(
        &rle(vec![0; 2 << 20]),
        FaultKind::Corrupt,
        "expected at most 1048816 bytes of compressed pixel data, got 2097152",
    );

    let jpeg = |bytes: &[u8]| with_all(|slice| slice.syntax(uids::JPEG_LOSSLESS_SV1).fragment(bytes.to_vec()));
    assert_fault(&jpeg(b"not a JPEG stream at all"), FaultKind::Corrupt, "expected a JPEG stream");
    let baseline = [0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, 0, 5, 0, 6, 1, 1, 0x11, 0, 0];
    assert_fault(&jpeg(&baseline), FaultKind::Unsupported, "FFC0");
    let huge = [0xFF, 0xD8, 0xFF, 0xC3, 0, 11, 16, 0xFF, 0xFF, 0xFF, 0xFF, 1, 1, 0x11, 0, 0];
    assert_fault(
        &jpeg(&huge),
        FaultKind::Corrupt,
        "expected a compressed image of 6 × 5 pixels and 1 component, got 65535 × 65535 pixels",
    );
    assert_fault(&jpeg(&[0xFF, 0xD8, 0xFF, 0xE0, 0, 2]), FaultKind::Truncated, "ends inside its header");

    let jpeg_2000 = |bytes: &[u8]| with_all(|slice| slice.syntax(uids::JPEG2000_LOSSLESS).fragment(bytes.to_vec()));
    assert_fault(&jpeg_2000(&[0; 64]), FaultKind::Corrupt, "expected a JPEG 2000 codestream");
    let mut size = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
    size.extend(
        [[0, 0, 0xFF, 0xFF], [0, 0, 0xFF, 0xFF], [0; 4], [0; 4], [0, 0, 0, 64], [0, 0, 0, 64], [0; 4], [0; 4]].concat(),
    );
    size.extend([0, 1, 15, 1, 1, 0]);
    assert_fault(&jpeg_2000(&size), FaultKind::Corrupt, "65535 × 65535 pixels");
}

#[test]
fn failed_decoder_process_fails_its_scan_only() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &with_all(|slice| slice.syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&[7; COLUMNS * ROWS]))),
    );
    let series = list_series(folder.path()).unwrap().remove(0);
    let fault = |program: &str| {
        read(&series, &Decoder::in_child_process(program.into()).with_slice_time(Duration::from_millis(300)))
            .unwrap_err()
    };
    let gone = fault("/missing/freetumor");
    assert_eq!(gone.kind, FaultKind::Io);
    assert!(gone.message.contains("cannot start the decoder") && !gone.message.contains("missing"), "{gone}");
    let early = fault("/bin/false");
    assert_eq!(
        (early.kind, early.message.contains("ended early with exit code 1")),
        (FaultKind::Panic, true),
        "{early}"
    );
    // `yes` writes other bytes than a response without end.
    let started = Instant::now();
    let invalid = fault("/usr/bin/yes");
    assert_eq!(
        (invalid.kind, invalid.message.contains("sent an invalid response")),
        (FaultKind::Panic, true),
        "{invalid}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Uses the protocol of the decoder process: the process limits its memory before it decodes, and ends after an invalid request.
#[test]
#[cfg(target_os = "linux")]
fn decoder_process_limits_its_memory() {
    let decoder_process = || {
        Command::new(env!("CARGO_BIN_EXE_freetumor"))
            .arg("decode-dicom")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut valid = decoder_process();
    let mut input = valid.stdin.take().unwrap();
    let frame = run_lengths(&[7; COLUMNS * ROWS]);
    let mut request = b"ftdicom1".to_vec();
    request.extend([1, 1].map(u32::to_le_bytes).concat());
    request.extend([4, 2, 16, 1]);
    request.extend([COLUMNS as u32, ROWS as u32, frame.len() as u32, 0].map(u32::to_le_bytes).concat());
    input.write_all(&request).unwrap();
    input.write_all(&frame).unwrap();
    let mut response = [0; 9 + 2 * COLUMNS * ROWS];
    valid.stdout.as_mut().unwrap().read_exact(&mut response).unwrap();
    assert_eq!(response[..9], [0, 60, 0, 0, 0, 0, 0, 0, 0]);
    assert!(response[9..].chunks(2).all(|pixel| pixel == [7, 0]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", valid.id())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert!(limit("Max address space").parse::<u64>().unwrap() < 4 << 30, "{limits}");
    drop(input);
    assert!(valid.wait().unwrap().success());

    let mut other = decoder_process();
    other.stdin.take().unwrap().write_all(b"GET / HTTP/1.1").unwrap();
    assert_eq!(other.wait().unwrap().code(), Some(2));
}

#[test]
fn volume_above_limit_is_too_large() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &series(5));
    let series = list_series(folder.path()).unwrap().remove(0);
    let bytes = (COLUMNS * ROWS * 5 * 2) as u64;
    let volume = |volume_bytes| read_series(&series, &Decoder::in_process(), &Limits { volume_bytes });
    assert!(volume(bytes).is_ok());
    let fault = volume(bytes - 1).unwrap_err();
    assert_eq!(fault.kind, FaultKind::TooLarge);
    assert!(fault.message.contains("expected at most 299 bytes, 6 × 5 × 5 voxels need 300"), "{fault}");
}

/// Reads headers with lengths of gigabytes in a separate process and measures its peak memory.
#[test]
#[cfg(target_os = "linux")]
fn false_lengths_allocate_no_memory() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bad_dicom::false_lengths_do_not_raise_peak_memory", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned() + &String::from_utf8_lossy(&status.stderr);
    assert!(status.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by false_lengths_allocate_no_memory"]
#[cfg(target_os = "linux")]
fn false_lengths_do_not_raise_peak_memory() {
    let peak_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(fault_of(&with_all(|slice| slice.without(tags::MODALITY))).kind, FaultKind::Missing, "warm-up");
    let before = peak_kib();
    let huge = |slice: SliceFile| slice.u16(tags::ROWS, 65535).u16(tags::COLUMNS, 65535);
    assert_fault(
        &with_all(huge),
        FaultKind::Truncated,
        "expected 8589672450 bytes of pixel data for 65535 × 65535 pixels",
    );
    let j2k = |slice: SliceFile| huge(slice).syntax(uids::JPEG2000_LOSSLESS).fragment(vec![0; 64]);
    assert_fault(&with_all(j2k), FaultKind::TooLarge, "65535 × 65535 × 5 voxels");
    let two = |slice: SliceFile| {
        let mut size = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        let length = [0, 0, 0x40, 0];
        size.extend([length, length, [0; 4], [0; 4], length, length, [0; 4], [0; 4]].concat());
        size.extend([0, 1, 15, 1, 1, 0]);
        slice.u16(tags::ROWS, 16384).u16(tags::COLUMNS, 16384).syntax(uids::JPEG2000_LOSSLESS).fragment(size)
    };
    assert_fault(&with_all(two), FaultKind::Corrupt, "cannot decode");
    // Lengths of elements: of a requested value, a sequence, an item, the pixels, a value of group 2.
    let valid = SliceFile::new(0).bytes();
    let series = [0x20, 0x00, 0x0E, 0x00, b'U', b'I'];
    for (pattern, offset, length) in [
        (&series[..], 6, vec![0xFF, 0xFF]),
        (&[0x08, 0x00, 0x18, 0x22, b'S', b'Q'], 8, vec![0xF0, 0xFF, 0xFF, 0xFF]),
        (&[0xFE, 0xFF, 0x00, 0xE0], 4, vec![0xF0, 0xFF, 0xFF, 0xFF]),
        (&[0xE0, 0x7F, 0x10, 0x00], 8, vec![0xF0, 0xFF, 0xFF, 0xFF]),
        (&[0x02, 0x00, 0x01, 0x00, b'O', b'B'], 8, vec![0xF0, 0xFF, 0xFF, 0xFF]),
    ] {
        let mut bytes = valid.clone();
        let at = find(&bytes, pattern) + offset;
        bytes.splice(at..at + length.len(), length);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), &bytes).unwrap();
        let fault = fault_in(folder.path());
        assert!([FaultKind::Truncated, FaultKind::Corrupt].contains(&fault.kind), "{fault}");
    }
    let grown = peak_kib() - before;
    assert!(grown < 16 << 10, "false lengths allocated {grown} KiB");
}
