//! Damaged DICOM files: truncated, changed or false bytes are a fault of their scan, without a panic or memory for false lengths.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use freetumor::error::FaultKind;
use freetumor::ingest::dicom::{Decoder, FolderFilter, Limits, list_folder, list_series, read_series};

use crate::dicom_faults::{assert_fault, fault_in, fault_of, find, read, with_all, with_syntax};
use crate::dicom_files::{COLUMNS, ROWS, SliceFile, run_lengths, series, stored, write};

#[test]
fn deflated_files_are_limited_and_must_inflate() {
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

/// Reads headers with lengths of gigabytes in a separate process and measures its peak memory.
#[test]
#[cfg(target_os = "linux")]
fn false_lengths_allocate_no_memory() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "damaged_dicom::false_lengths_do_not_raise_peak_memory", "--ignored", "--nocapture"])
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

/// A file is left out only if both of its SOP classes allow it, however it is damaged.
#[test]
fn damaged_file_is_a_fault_unless_both_sop_classes_exclude_a_slice() {
    let object = |class: &str| SliceFile::new(4).text(tags::SOP_CLASS_UID, VR::UI, class);
    let (capture, report) = (uids::SECONDARY_CAPTURE_IMAGE_STORAGE, uids::X_RAY_RADIATION_DOSE_SR_STORAGE);
    let listed = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &series(4));
        std::fs::write(folder.path().join("damaged"), bytes).unwrap();
        let found = list_folder(folder.path(), &FolderFilter::default()).unwrap();
        let outcome = read(&found.series[0], &Decoder::in_process());
        (found.series.len(), found.other_files.into_iter().collect::<Vec<_>>(), outcome.map_err(|fault| fault.message))
    };
    for (class, name) in [(capture, "secondary capture"), (report, "dose report")] {
        let bytes = object(class).bytes();
        for length in [bytes.len(), bytes.len() - 9, bytes.len() - 70, 500] {
            assert_eq!(listed(&bytes[..length]), (1, vec![(name, 1)], Ok(())), "{name} of {length} bytes");
        }
    }
    let bytes = SliceFile::new(4).bytes();
    for length in [bytes.len() - 9, bytes.len() - 70, 500] {
        let (series, left_out, outcome) = listed(&bytes[..length]);
        assert_eq!((series, left_out.len()), (1, 0), "{length} bytes");
        assert!(outcome.unwrap_err().ends_with("(1 of 5 slices)"), "{length} bytes");
    }
    // A damaged identifier: the file meta information still names a CT image.
    let bytes = object(capture).bytes_with_meta_class(uids::CT_IMAGE_STORAGE);
    let (_, left_out, outcome) = listed(&bytes);
    assert!(left_out.is_empty());
    let expected = "a CT image by MediaStorageSOPClassUID, but another object by SOPClassUID (secondary capture)";
    let message = outcome.unwrap_err();
    assert!(message.contains(expected) && message.ends_with("(1 of 5 slices)"), "{message}");
    let (_, left_out, outcome) = listed(&bytes[..bytes.len() - 70]);
    assert!(left_out.is_empty() && outcome.is_err());
    // A page without a position is no slice.
    let page = object(capture).without(tags::IMAGE_POSITION_PATIENT).bytes_with_meta_class(uids::CT_IMAGE_STORAGE);
    assert_eq!(listed(&page), (1, vec![("secondary capture", 1)], Ok(())));
}
