//! DICOM that is no CT volume: each kind ends in its own fault, none in a panic, a hang or a name.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::ingest::dicom::{Decoder, Limits, Series, list_series, read_header, read_series};

use crate::dicom_files::{COLUMNS, PERSONAL, ROWS, SliceFile, run_lengths, series, stored, write};

/// The fault of reading the largest series of a folder, checked for what no fault may hold.
fn fault_in(folder: &Path) -> Fault {
    let all = list_series(folder).unwrap();
    let largest = all.iter().max_by_key(|series| series.files()).expect("a series");
    let fault = read(largest, &Decoder::in_process()).expect_err("a fault");
    assert_eq!(fault.stage, Stage::Read);
    let shown = format!("{fault} {fault:?} {all:?}");
    let folder = folder.to_string_lossy();
    for word in PERSONAL.into_iter().chain([&*folder]) {
        assert!(!shown.contains(word), "{shown} holds {word}");
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
fn assert_fault(slices: &[SliceFile], kind: FaultKind, says: &str) {
    let fault = fault_of(slices);
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(says), "{fault}; expected it to say {says:?}");
}

/// A sound series of five slices, all of them changed.
fn all(change: impl Fn(SliceFile) -> SliceFile) -> Vec<SliceFile> {
    series(5).into_iter().map(change).collect()
}

/// A sound series of five slices, the third changed.
fn one(change: impl Fn(SliceFile) -> SliceFile) -> Vec<SliceFile> {
    let mut slices = series(5);
    slices[2] = change(slices[2].clone());
    slices
}

#[test]
fn other_modalities_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &all(|slice| slice.text(tags::MODALITY, VR::CS, "PT")));
    assert!(list_series(folder.path()).unwrap()[0].is_other_modality());
    write(folder.path(), &one(|slice| slice.text(tags::MODALITY, VR::CS, "PT")));
    assert!(!list_series(folder.path()).unwrap()[0].is_other_modality());
    let modality = |code: &'static str| all(move |slice| slice.text(tags::MODALITY, VR::CS, code));
    assert_fault(&modality("MR"), FaultKind::Unsupported, "modality MR; expected CT (5 of 5 slices)");
    assert_fault(&modality("PT"), FaultKind::Unsupported, "modality PT; expected CT");
    // Free text in a header is not repeated.
    assert_fault(&modality("DOE JANE"), FaultKind::Unsupported, "modality another; expected CT");
}

#[test]
fn missing_tags_are_named() {
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
        assert_fault(&one(|slice| slice.without(tag)), FaultKind::Missing, &format!("without {name}:"));
    }
    let empty = one(|slice| slice.text(tags::RESCALE_SLOPE, VR::DS, " "));
    assert_fault(&empty, FaultKind::Missing, "without RescaleSlope:");
}

#[test]
fn colour_inverted_and_multi_frame_images_are_refused() {
    let rgb = all(|slice| slice.word(tags::SAMPLES_PER_PIXEL, 3).text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB"));
    assert_fault(&rgb, FaultKind::Unsupported, "3 samples per pixel");
    let photometric = |name: &'static str| all(move |slice| slice.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, name));
    assert_fault(&photometric("PALETTE COLOR"), FaultKind::Unsupported, "a colour image");
    assert_fault(&photometric("MONOCHROME1"), FaultKind::Unsupported, "MONOCHROME1");
    let frames = |count: &'static str| all(move |slice| slice.text(tags::NUMBER_OF_FRAMES, VR::IS, count));
    assert_fault(&frames("40"), FaultKind::Unsupported, "multi-frame image of 40 frames");
    assert_fault(&frames("2147483647"), FaultKind::Unsupported, "multi-frame");
    assert_fault(&frames("Doe"), FaultKind::Corrupt, "NumberOfFrames");
}

#[test]
fn values_that_are_no_hounsfield_units_are_refused() {
    assert_fault(&all(|slice| slice.text(tags::RESCALE_TYPE, VR::LO, "OD")), FaultKind::Unsupported, "RescaleType HU");
    for slope in ["0", "1e300", "-2e6"] {
        assert_fault(&one(|slice| slice.text(tags::RESCALE_SLOPE, VR::DS, slope)), FaultKind::Corrupt, "rescale slope");
    }
    for slope in ["inf", "NaN", "1,5", "Doe", "1\\2"] {
        assert_fault(&one(|slice| slice.text(tags::RESCALE_SLOPE, VR::DS, slope)), FaultKind::Corrupt, "RescaleSlope");
    }
    let bits = |allocated, stored, high: u16| {
        all(move |slice| {
            slice.word(tags::BITS_ALLOCATED, allocated).word(tags::BITS_STORED, stored).word(tags::HIGH_BIT, high)
        })
    };
    assert_fault(&bits(32, 32, 31), FaultKind::Unsupported, "32 bits allocated");
    assert_fault(&bits(16, 17, 16), FaultKind::Corrupt, "17 bits stored in 16");
    assert_fault(&bits(16, 0, 15), FaultKind::Corrupt, "0 bits stored in 16");
    assert_fault(&bits(16, 12, 15), FaultKind::Unsupported, "highest bit 15 of 12");
    assert_fault(&one(|slice| slice.word(tags::PIXEL_REPRESENTATION, 7)), FaultKind::Corrupt, "PixelRepresentation 7");
}

#[test]
fn slices_that_do_not_match_are_refused() {
    let shape = one(|slice| slice.word(tags::ROWS, 3).word(tags::COLUMNS, 4));
    assert_fault(&shape, FaultKind::Geometry, "slices of 6 × 5 and of 4 × 3 pixels");
    let spacing = one(|slice| slice.text(tags::PIXEL_SPACING, VR::DS, "0.75\\0.6"));
    assert_fault(&spacing, FaultKind::Geometry, "pixels of 0.5 × 0.75 mm and of 0.6 × 0.75 mm");
    let turned =
        one(|slice| slice.text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "0.99999\\0.00447\\0\\-0.00447\\0.99999\\0"));
    assert_fault(&turned, FaultKind::Geometry, "different orientation");
}

#[test]
fn one_slice_own_geometry_must_be_sound() {
    for spacing in ["0\\0", "-1\\1", "1\\1e9"] {
        assert_fault(
            &all(|slice| slice.text(tags::PIXEL_SPACING, VR::DS, spacing)),
            FaultKind::Geometry,
            "pixel spacing",
        );
    }
    for cosines in ["0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0", "2\\0\\0\\0\\1\\0"] {
        let slices = all(|slice| slice.text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, cosines));
        assert_fault(&slices, FaultKind::Geometry, "ImageOrientationPatient is not two perpendicular unit vectors");
    }
    assert_fault(&one(|slice| slice.at("1\\2")), FaultKind::Corrupt, "ImagePositionPatient is not 3 decimal number(s)");
    assert_fault(&one(|slice| slice.at("1\\2\\1e12")), FaultKind::Geometry, "ImagePositionPatient");
    assert_fault(&all(|slice| slice.word(tags::ROWS, 0)), FaultKind::Geometry, "6 × 0 pixels");
}

#[test]
fn stacks_with_holes_steps_and_doubles_are_told_apart() {
    let mut holes = series(9);
    holes.remove(3);
    holes.remove(5);
    assert_fault(&holes, FaultKind::Missing, "2 slice(s) missing: 4.00 mm after slice 3, expected 2.00 mm");
    let uneven = one(|slice| slice.at("-10\\-20\\34.7"));
    assert_fault(&uneven, FaultKind::Geometry, "unevenly spaced: 2.70 mm after slice 2, 2.00 mm elsewhere");
    let shifted = one(|slice| slice.at("-10\\-19\\34"));
    assert_fault(&shifted, FaultKind::Geometry, "slice 3 of 5 lies 1.00 mm from its place");
    let doubled = one(|slice| slice.at("-10\\-20\\32"));
    assert_fault(&doubled, FaultKind::Geometry, "two different slices at the same place");
    let mut rounded = series(5);
    rounded[2] = rounded[2].clone().at("-10\\-20\\34.1");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &rounded);
    assert_eq!(read(&list_series(folder.path()).unwrap()[0], &Decoder::in_process()), Ok(()));
}

#[test]
fn a_tilted_gantry_is_refused_with_its_angle() {
    let tilted = |tangent: f64| {
        let slices = series(5).into_iter().enumerate();
        slices
            .map(move |(z, slice)| slice.at(&format!("0\\{}\\{}", 2.0 * z as f64 * tangent, 2 * z)))
            .collect::<Vec<_>>()
    };
    assert_fault(&tilted(0.267_949), FaultKind::Geometry, "gantry is tilted by 15.0°");
    // A shear below the tolerance is kept exactly.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &tilted(0.005));
    let grid = read_header(&list_series(folder.path()).unwrap()[0]).unwrap().grid;
    assert!((grid.affine.apply([0.0, 0.0, 4.0])[1] + 0.04).abs() < 1e-12, "{grid:?}");
}

#[test]
fn scouts_are_no_volumes() {
    assert_fault(&series(1), FaultKind::Geometry, "1 slice(s) at different places; expected at least 3");
    assert_fault(&series(2), FaultKind::Geometry, "2 slice(s)");
    let scout = all(|slice| slice.text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER"));
    assert_fault(&scout, FaultKind::Geometry, "a localizer");
}

#[test]
fn transfer_syntaxes_that_cannot_be_read_are_named() {
    for (uid, name) in [
        ("1.2.840.10008.1.2.4.50", "JPEG Baseline"),
        ("1.2.840.10008.1.2.4.80", "JPEG-LS"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4"),
        ("1.2.3.4", "an unknown transfer syntax"),
    ] {
        // Unknown syntaxes cannot be written as such: the identifier is put into a finished file.
        let folder = tempfile::tempdir().unwrap();
        for (number, slice) in all(|slice| slice.fragment(vec![0; 64])).into_iter().enumerate() {
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
fn deflated_files_are_bounded_and_must_inflate() {
    let sound = SliceFile::new(0).bytes();
    let body = find(&sound, &[0x08, 0x00, 0x08, 0x00, b'C', b'S']);
    let deflated = |elements: &[u8]| {
        let mut bytes = with_syntax(&sound[..body], uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN);
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
    assert_eq!((garbage.kind, garbage.message.contains("does not inflate")), (FaultKind::Corrupt, true), "{garbage}");
    let bomb = deflated(&deflate(&vec![0; 65 << 20]));
    assert_eq!((bomb.kind, bomb.message.contains("more than 64 MiB")), (FaultKind::TooLarge, true), "{bomb}");
    let large = deflated(&vec![0xFF; 65 << 20]);
    assert_eq!(large.kind, FaultKind::TooLarge, "{large}");
    // The same bytes, deflated soundly, lack only their companions.
    let single = deflated(&deflate(&sound[body..]));
    assert_eq!(single.kind, FaultKind::Geometry, "{single}");
}

/// A file with another transfer syntax in its own group 2, padded to the same length.
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

/// A slice cut off after any byte is truncated, or no image yet; never a volume, never a panic.
#[test]
fn a_slice_cut_anywhere_spoils_its_series() {
    let bytes = SliceFile::new(2).bytes();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &series(5));
    let victim = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read(path).unwrap() == bytes)
        .expect("the third slice");
    let pixels = find(&bytes, &[0xE0, 0x7F, 0x10, 0x00]);
    for length in (0..bytes.len()).rev().step_by(3) {
        std::fs::write(&victim, &bytes[..length]).unwrap();
        let series = list_series(folder.path()).unwrap();
        let faults: Vec<_> = series.iter().filter_map(|series| read(series, &Decoder::in_process()).err()).collect();
        // Without its magic word the file is none of ours, and the gap shows; between two elements something is missing.
        let kinds: Vec<_> = faults.iter().map(|fault| fault.kind).collect();
        let expected =
            if length > pixels { &[FaultKind::Truncated][..] } else { &[FaultKind::Truncated, FaultKind::Missing] };
        assert!(!kinds.is_empty() && kinds.iter().all(|kind| expected.contains(kind)), "{length}: {faults:?}");
    }
}

/// Any single byte of the header may be wrong: reading ends, in a fault or a volume of the same few voxels.
#[test]
fn no_wrong_byte_makes_a_panic() {
    let sound = SliceFile::new(1).syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&[7; COLUMNS * ROWS])).bytes();
    let folder = tempfile::tempdir().unwrap();
    let rle = |z| SliceFile::new(z).syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&[7; COLUMNS * ROWS]));
    rle(0).write(&folder.path().join("a"));
    rle(2).write(&folder.path().join("c"));
    for at in 128..sound.len() {
        for value in [0xFF, sound[at] ^ 1] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            std::fs::write(folder.path().join("b"), &bytes).unwrap();
            for series in list_series(folder.path()).unwrap() {
                let _ = read_series(&series, &Decoder::in_process(), &Limits::default());
            }
        }
    }
}

/// JPEG 2000 and JPEG bytes of every kind: whatever the decoder does, its child only costs a fault.
#[test]
fn wrong_compressed_bytes_cost_their_scan_only() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dicom/syntaxes");
    let decoder = Decoder::child(env!("CARGO_BIN_EXE_freetumor").into()).with_slice_time(Duration::from_secs(10));
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&fixtures).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    for name in ["jpeg-2000-signed.dcm", "jpeg-lossless-14.dcm", "rle.dcm"] {
        let sound = std::fs::read(fixtures.join(name)).unwrap();
        let pixels = find(&sound, &[0xE0, 0x7F, 0x10, 0x00]) + 12;
        for step in 0..40 {
            let mut bytes = sound.clone();
            for (turn, byte) in bytes[pixels + 8..].iter_mut().enumerate() {
                if turn % 97 == step * 2 {
                    *byte ^= 0x55;
                }
            }
            std::fs::write(folder.path().join(name), bytes).unwrap();
            if let Err(fault) = read(&list_series(folder.path()).unwrap()[0], &decoder) {
                let kinds = [FaultKind::Corrupt, FaultKind::Truncated, FaultKind::Unsupported, FaultKind::Panic];
                assert!(kinds.contains(&fault.kind), "{name} {step}: {fault}");
            }
        }
        std::fs::write(folder.path().join(name), sound).unwrap();
    }
    assert_eq!(read(&list_series(folder.path()).unwrap()[0], &decoder), Ok(()), "the sound series again");
}

#[test]
fn compressed_frames_that_lie_are_refused_before_they_are_decoded() {
    let rle = |bytes: Vec<u8>| all(|slice| slice.syntax(uids::RLE_LOSSLESS).fragment(bytes.clone()));
    let words: Vec<u16> = stored(1).into_iter().map(|value| value as u16).collect();
    let sound = run_lengths(&words);
    let mut segments = sound.clone();
    segments[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_fault(&rle(segments), FaultKind::Corrupt, "4294967295 RLE segments; expected 2");
    let mut outside = sound.clone();
    outside[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_fault(&rle(outside), FaultKind::Corrupt, "outside its frame");
    assert_fault(&rle(sound[..40].to_vec()), FaultKind::Truncated, "ends inside its header");
    assert_fault(&rle(sound[..90].to_vec()), FaultKind::Corrupt, "do not decode");

    assert_fault(&rle(vec![0; 2 << 20]), FaultKind::Corrupt, "2097152 bytes of compressed pixel data for 60 bytes");

    let jpeg = |bytes: &[u8]| all(|slice| slice.syntax(uids::JPEG_LOSSLESS_SV1).fragment(bytes.to_vec()));
    assert_fault(&jpeg(b"not a JPEG stream at all"), FaultKind::Corrupt, "no JPEG stream");
    let baseline = [0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, 0, 5, 0, 6, 1, 1, 0x11, 0, 0];
    assert_fault(&jpeg(&baseline), FaultKind::Unsupported, "FFC0");
    let huge = [0xFF, 0xD8, 0xFF, 0xC3, 0, 11, 16, 0xFF, 0xFF, 0xFF, 0xFF, 1, 1, 0x11, 0, 0];
    assert_fault(&jpeg(&huge), FaultKind::Corrupt, "65535 × 65535 pixels and 1 component(s); its header says 6 × 5");
    assert_fault(&jpeg(&[0xFF, 0xD8, 0xFF, 0xE0, 0, 2]), FaultKind::Truncated, "ends inside its header");

    let jpeg_2000 = |bytes: &[u8]| all(|slice| slice.syntax(uids::JPEG2000_LOSSLESS).fragment(bytes.to_vec()));
    assert_fault(&jpeg_2000(&[0; 64]), FaultKind::Corrupt, "no JPEG 2000 codestream");
    let mut size = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
    size.extend(
        [[0, 0, 0xFF, 0xFF], [0, 0, 0xFF, 0xFF], [0; 4], [0; 4], [0, 0, 0, 64], [0, 0, 0, 64], [0; 4], [0; 4]].concat(),
    );
    size.extend([0, 1, 15, 1, 1, 0]);
    assert_fault(&jpeg_2000(&size), FaultKind::Corrupt, "65535 × 65535 pixels");
}

#[test]
fn a_decoder_that_ends_lies_or_is_not_there_costs_its_scan_only() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &all(|slice| slice.syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&[7; COLUMNS * ROWS]))));
    let series = list_series(folder.path()).unwrap().remove(0);
    let fault = |program: &str| {
        read(&series, &Decoder::child(program.into()).with_slice_time(Duration::from_millis(300))).unwrap_err()
    };
    let gone = fault("/nowhere/freetumor");
    assert_eq!(gone.kind, FaultKind::Io);
    assert!(gone.message.contains("cannot start the decoder") && !gone.message.contains("nowhere"), "{gone}");
    let early = fault("/bin/false");
    assert_eq!(
        (early.kind, early.message.contains("ended early with exit code 1")),
        (FaultKind::Panic, true),
        "{early}"
    );
    // `yes` answers something else than pixels for ever.
    let begun = Instant::now();
    let lie = fault("/usr/bin/yes");
    assert_eq!((lie.kind, lie.message.contains("makes no sense")), (FaultKind::Panic, true), "{lie}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// The child's side as the wire shows it: limits are in force before the first byte is decoded, and nonsense ends it.
#[test]
#[cfg(target_os = "linux")]
fn the_child_limits_itself() {
    let child = || {
        Command::new(env!("CARGO_BIN_EXE_freetumor"))
            .arg("decode-dicom")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut sound = child();
    let mut input = sound.stdin.take().unwrap();
    let frame = run_lengths(&[7; COLUMNS * ROWS]);
    let mut words = b"ftdicom1".to_vec();
    words.extend([1, 1].map(u32::to_le_bytes).concat());
    words.extend([4, 2, 16, 1]);
    words.extend([COLUMNS as u32, ROWS as u32, frame.len() as u32, 0].map(u32::to_le_bytes).concat());
    input.write_all(&words).unwrap();
    input.write_all(&frame).unwrap();
    let mut answer = [0; 9 + 2 * COLUMNS * ROWS];
    sound.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(answer[..9], [0, 60, 0, 0, 0, 0, 0, 0, 0]);
    assert!(answer[9..].chunks(2).all(|pixel| pixel == [7, 0]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", sound.id())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert!(limit("Max address space").parse::<u64>().unwrap() < 4 << 30, "{limits}");
    drop(input);
    assert!(sound.wait().unwrap().success());

    let mut other = child();
    other.stdin.take().unwrap().write_all(b"GET / HTTP/1.1").unwrap();
    assert_eq!(other.wait().unwrap().code(), Some(2));
}

#[test]
fn a_volume_above_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &series(5));
    let series = list_series(folder.path()).unwrap().remove(0);
    let bytes = (COLUMNS * ROWS * 5 * 2) as u64;
    let volume = |volume_bytes| read_series(&series, &Decoder::in_process(), &Limits { volume_bytes });
    assert!(volume(bytes).is_ok());
    let fault = volume(bytes - 1).unwrap_err();
    assert_eq!(fault.kind, FaultKind::TooLarge);
    assert!(fault.message.contains("6 × 5 × 5 voxels take 300 bytes; expected 299 at most"), "{fault}");
}

/// Headers that promise gigabytes, in a process of its own whose memory is looked at.
#[test]
#[cfg(target_os = "linux")]
fn lies_take_no_memory() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bad_dicom::lies_in_a_process_of_their_own", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned() + &String::from_utf8_lossy(&status.stderr);
    assert!(status.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by lies_take_no_memory"]
#[cfg(target_os = "linux")]
fn lies_in_a_process_of_their_own() {
    let peak_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(fault_of(&all(|slice| slice.without(tags::MODALITY))).kind, FaultKind::Missing, "warming up");
    let before = peak_kib();
    let huge = |slice: SliceFile| slice.word(tags::ROWS, 65535).word(tags::COLUMNS, 65535);
    assert_fault(&all(huge), FaultKind::Truncated, "expected 8589672450 for 65535 × 65535 pixels");
    let j2k = |slice: SliceFile| huge(slice).syntax(uids::JPEG2000_LOSSLESS).fragment(vec![0; 64]);
    assert_fault(&all(j2k), FaultKind::TooLarge, "65535 × 65535 × 5 voxels");
    let two = |slice: SliceFile| {
        let mut size = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        let length = [0, 0, 0x40, 0];
        size.extend([length, length, [0; 4], [0; 4], length, length, [0; 4], [0; 4]].concat());
        size.extend([0, 1, 15, 1, 1, 0]);
        slice.word(tags::ROWS, 16384).word(tags::COLUMNS, 16384).syntax(uids::JPEG2000_LOSSLESS).fragment(size)
    };
    assert_fault(&all(two), FaultKind::Corrupt, "do not decode");
    // Lengths of elements: of a wanted value, an unwanted one, a sequence, an item, the pixels.
    let sound = SliceFile::new(0).bytes();
    let series = [0x20, 0x00, 0x0E, 0x00, b'U', b'I'];
    for (pattern, offset, lie) in [
        (&series[..], 6, vec![0xFF, 0xFF]),
        (&[0x08, 0x00, 0x18, 0x22, b'S', b'Q'], 8, vec![0xF0, 0xFF, 0xFF, 0xFF]),
        (&[0xFE, 0xFF, 0x00, 0xE0], 4, vec![0xF0, 0xFF, 0xFF, 0xFF]),
        (&[0xE0, 0x7F, 0x10, 0x00], 8, vec![0xF0, 0xFF, 0xFF, 0xFF]),
        (&[0x02, 0x00, 0x01, 0x00, b'O', b'B'], 8, vec![0xF0, 0xFF, 0xFF, 0xFF]),
    ] {
        let mut bytes = sound.clone();
        let at = find(&bytes, pattern) + offset;
        bytes.splice(at..at + lie.len(), lie);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), &bytes).unwrap();
        let fault = fault_in(folder.path());
        assert!([FaultKind::Truncated, FaultKind::Corrupt].contains(&fault.kind), "{fault}");
    }
    let grown = peak_kib() - before;
    assert!(grown < 16 << 10, "lies took {grown} KiB");
}
