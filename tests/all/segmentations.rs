//! DICOM Segmentations as labels of a DICOM series.

use std::fs;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use freetumor::error::{FaultKind, Stage};

use crate::dicom_files::{COLUMNS, ROWS};
use crate::structures::{Archive, FRAME, assert_changed_bytes_never_panic, object, sequence, text, u16, write_object};

/// Returns the functional groups that all frames share.
fn shared_groups(cosines: &str, spacing: &str) -> InMemDicomObject {
    object(vec![
        sequence(
            tags::PLANE_ORIENTATION_SEQUENCE,
            vec![object(vec![text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, cosines)])],
        ),
        sequence(tags::PIXEL_MEASURES_SEQUENCE, vec![object(vec![text(tags::PIXEL_SPACING, VR::DS, spacing)])]),
    ])
}

/// A frame of a Segmentation: its segment, its slice and its pixels.
type Frame = (usize, usize, [[u8; COLUMNS]; ROWS]);

/// Returns a Segmentation with the segments 1 `Liver` and 2 `GTV`.
fn segmentation(frames: &[Frame], kind: &str) -> InMemDicomObject {
    let pixels: Vec<u8> = frames.iter().flat_map(|(_, _, rows)| rows.concat()).collect();
    let (bits, pixels) = match kind {
        "BINARY" => {
            let mut bytes = vec![0u8; pixels.len().div_ceil(8)];
            pixels.iter().enumerate().for_each(|(index, pixel)| bytes[index / 8] |= pixel << (index % 8));
            (1, bytes)
        }
        _ => (8, pixels),
    };
    let segment = |number: usize, label: &str| {
        object(vec![u16(tags::SEGMENT_NUMBER, number), text(tags::SEGMENT_LABEL, VR::LO, label)])
    };
    let groups = frames.iter().map(|(segment, slice, _)| {
        let position = format!("-10\\-20\\{}", 30 + 2 * slice);
        object(vec![
            sequence(
                tags::PLANE_POSITION_SEQUENCE,
                vec![object(vec![text(tags::IMAGE_POSITION_PATIENT, VR::DS, &position)])],
            ),
            sequence(
                tags::SEGMENT_IDENTIFICATION_SEQUENCE,
                vec![object(vec![u16(tags::REFERENCED_SEGMENT_NUMBER, *segment)])],
            ),
        ])
    });
    let shared = shared_groups("1\\0\\0\\0\\1\\0", "0.75\\0.5");
    object(vec![
        text(tags::SOP_CLASS_UID, VR::UI, uids::SEGMENTATION_STORAGE),
        text(tags::MODALITY, VR::CS, "SEG"),
        text(tags::FRAME_OF_REFERENCE_UID, VR::UI, FRAME),
        text(tags::SEGMENTATION_TYPE, VR::CS, kind),
        u16(tags::MAXIMUM_FRACTIONAL_VALUE, 255),
        sequence(tags::SEGMENT_SEQUENCE, vec![segment(1, "Liver"), segment(2, "GTV")]),
        text(tags::NUMBER_OF_FRAMES, VR::IS, &frames.len().to_string()),
        u16(tags::ROWS, ROWS),
        u16(tags::COLUMNS, COLUMNS),
        u16(tags::BITS_ALLOCATED, bits),
        sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]),
        sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, groups.collect()),
        DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(pixels)),
    ])
}

fn frames() -> Vec<Frame> {
    let mut liver = [[0; COLUMNS]; ROWS];
    liver[1] = [0, 1, 1, 1, 0, 0];
    liver[4] = [1, 0, 0, 0, 0, 1];
    let mut tumor = [[0; COLUMNS]; ROWS];
    tumor[1] = [0, 0, 0, 1, 1, 0];
    // Frames are in no particular order.
    vec![(1, 3, liver), (2, 1, tumor), (1, 1, liver)]
}

fn write_segmentation(archive: &Archive, object: InMemDicomObject) {
    let syntax = uids::EXPLICIT_VR_LITTLE_ENDIAN;
    write_object(&archive.path("seg.dcm"), object, uids::SEGMENTATION_STORAGE, syntax);
}

const SEGMENTS: &str =
    "pattern = 'seg.dcm'\nscheme = 'custom'\norgans.liver = { ids = [1], tumor_structures = ['GTV'] }";

#[test]
fn bits_of_frames_become_voxels_of_series() {
    let archive = Archive::new();
    write_segmentation(&archive, segmentation(&frames(), "BINARY"));
    let empty = "......".repeat(5);
    let slices = archive.liver(SEGMENTS).unwrap();
    assert_eq!([&slices[0], &slices[2]], [&empty, &empty]);
    assert_eq!(slices[1], ["......", ".##TT.", "......", "......", "#....#"].concat());
    assert_eq!(slices[3], ["......", ".###..", "......", "......", "#....#"].concat());
}

#[test]
fn voxels_with_at_least_half_of_the_maximum_fraction_are_labeled() {
    let archive = Archive::new();
    let mut pixels = [[0; COLUMNS]; ROWS];
    pixels[0] = [0, 1, 127, 128, 254, 255];
    write_segmentation(&archive, segmentation(&[(1, 0, pixels)], "FRACTIONAL"));
    assert_eq!(archive.liver(SEGMENTS).unwrap()[0], ["...###", "......", "......", "......", "......"].concat());
}

#[test]
fn segmentations_that_do_not_fit_scan_are_faults() {
    let put = |element: DataElement<InMemDicomObject>| {
        let mut object = segmentation(&frames(), "BINARY");
        object.put(element);
        object
    };
    let far: Vec<Frame> = frames().into_iter().map(|(segment, slice, rows)| (segment, slice + 10, rows)).collect();
    let measures = |spacing: &str| {
        let shared = shared_groups("1\\0\\0\\0\\1\\0", spacing);
        put(sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]))
    };
    for (object, kind, message) in [
        (put(text(tags::FRAME_OF_REFERENCE_UID, VR::UI, "2.25.1")), FaultKind::Mismatch, "frame of reference"),
        (put(text(tags::NUMBER_OF_FRAMES, VR::IS, "4")), FaultKind::Corrupt, "expected 4 items"),
        (put(u16(tags::BITS_ALLOCATED, 8)), FaultKind::Corrupt, "got 8"),
        (
            put(text(tags::SEGMENTATION_TYPE, VR::CS, "LABELMAP")),
            FaultKind::Unsupported,
            "got LABELMAP, which is not supported",
        ),
        (put(u16(tags::ROWS, 500)), FaultKind::Truncated, "bytes of pixels"),
        (put(text(tags::SOP_CLASS_UID, VR::UI, uids::RT_DOSE_STORAGE)), FaultKind::Unsupported, "another DICOM file"),
        (measures("0.75\\0.75"), FaultKind::Mismatch, "another grid"),
        (segmentation(&far, "BINARY"), FaultKind::Mismatch, "outside of it"),
    ] {
        let archive = Archive::new();
        write_segmentation(&archive, object);
        let fault = archive.liver(SEGMENTS).unwrap_err();
        assert_eq!((fault.stage, fault.kind), (Stage::Mask, kind), "{message}: {fault}");
        assert!(fault.message.contains(message), "{fault}");
    }
}

#[test]
fn frames_with_flipped_rows_are_placed_by_position() {
    let archive = Archive::new();
    let mut object = segmentation(&frames()[2..], "BINARY");
    let shared = shared_groups("-1\\0\\0\\0\\1\\0", "0.75\\0.5");
    object.put(sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]));
    let position = text(tags::IMAGE_POSITION_PATIENT, VR::DS, "-7.5\\-20\\32");
    let groups = self::object(vec![
        sequence(tags::PLANE_POSITION_SEQUENCE, vec![self::object(vec![position])]),
        sequence(
            tags::SEGMENT_IDENTIFICATION_SEQUENCE,
            vec![self::object(vec![u16(tags::REFERENCED_SEGMENT_NUMBER, 1)])],
        ),
    ]);
    object.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, vec![groups]));
    write_segmentation(&archive, object);
    let slices = archive.liver(SEGMENTS).unwrap();
    assert_eq!(slices[1], ["......", "..###.", "......", "......", "#....#"].concat());
}

#[test]
fn changed_bytes_of_segmentation_never_panic() {
    let archive = Archive::new();
    for kind in ["BINARY", "FRACTIONAL"] {
        write_segmentation(&archive, segmentation(&frames(), kind));
        assert_changed_bytes_never_panic(&fs::read(archive.path("seg.dcm")).unwrap());
    }
}
