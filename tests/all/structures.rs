//! RT Structure Sets and Segmentations as labels of a DICOM series.

use std::fs;
use std::path::{Path, PathBuf};

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::ingest::{FolderConfig, FolderSource, Scan, Source, StructureSelector};
use freetumor::mask::{LabelsMask, Mask};

use crate::dicom_files::{COLUMNS, ROWS, series, write};

const SLICES: usize = 4;
/// Frame of reference of the series.
const FRAME: &str = "2.25.4711.9";

fn object(elements: Vec<DataElement<InMemDicomObject>>) -> InMemDicomObject {
    InMemDicomObject::from_element_iter(elements)
}

fn text(tag: Tag, vr: VR, value: &str) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, vr, PrimitiveValue::from(value))
}

fn u16(tag: Tag, value: usize) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::US, PrimitiveValue::from(value as u16))
}

fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

fn write_object(path: &Path, object: InMemDicomObject, class: &str, syntax: &str) {
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid("2.25.4711.5")
        .transfer_syntax(syntax);
    object.with_meta(meta).unwrap().write_to_file(path).unwrap();
}

/// A structure with a name and contours: a type and points.
struct Roi {
    name: &'static str,
    frame: &'static str,
    contours: Vec<(&'static str, Vec<[f64; 3]>)>,
}

impl Roi {
    fn new(name: &'static str, contours: Vec<Vec<[f64; 3]>>) -> Self {
        let contours = contours.into_iter().map(|points| ("CLOSED_PLANAR", points)).collect();
        Self { name, frame: FRAME, contours }
    }
}

/// Returns an RT Structure Set, the ROI numbers of which start at 1.
fn structure_set(rois: &[Roi]) -> InMemDicomObject {
    let numbered = || rois.iter().zip(1..);
    let names = numbered().map(|(roi, number)| {
        object(vec![
            text(tags::ROI_NUMBER, VR::IS, &number.to_string()),
            text(tags::REFERENCED_FRAME_OF_REFERENCE_UID, VR::UI, roi.frame),
            text(tags::ROI_NAME, VR::LO, roi.name),
        ])
    });
    let contours = numbered().map(|(roi, number)| {
        let contours = roi.contours.iter().map(|(kind, points)| {
            let numbers: Vec<String> = points.iter().flatten().map(f64::to_string).collect();
            object(vec![
                text(tags::CONTOUR_GEOMETRIC_TYPE, VR::CS, kind),
                text(tags::NUMBER_OF_CONTOUR_POINTS, VR::IS, &points.len().to_string()),
                text(tags::CONTOUR_DATA, VR::DS, &numbers.join("\\")),
            ])
        });
        object(vec![
            sequence(tags::CONTOUR_SEQUENCE, contours.collect()),
            text(tags::REFERENCED_ROI_NUMBER, VR::IS, &number.to_string()),
        ])
    });
    object(vec![
        text(tags::SOP_CLASS_UID, VR::UI, uids::RT_STRUCTURE_SET_STORAGE),
        text(tags::MODALITY, VR::CS, "RTSTRUCT"),
        text(tags::PATIENT_NAME, VR::PN, "Doe^Jane"),
        sequence(tags::STRUCTURE_SET_ROI_SEQUENCE, names.collect()),
        sequence(tags::ROI_CONTOUR_SEQUENCE, contours.collect()),
    ])
}

/// A series of four slices in `archive/p1/dicom`, and files next to it.
struct Archive {
    folder: tempfile::TempDir,
}

impl Archive {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dicom = folder.path().join("archive/p1/dicom");
        fs::create_dir_all(&dicom).unwrap();
        fs::write(folder.path().join("secret"), "a secret for tests only").unwrap();
        let slices: Vec<_> =
            series(SLICES).into_iter().map(|slice| slice.text(tags::FRAME_OF_REFERENCE_UID, VR::UI, FRAME)).collect();
        write(&dicom, &slices);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("archive/p1").join(name)
    }

    fn scan(&self) -> Scan {
        let root = self.folder.path().join("archive");
        let config: FolderConfig = toml::from_str(&format!("root = {root:?}\ninclude = ['*/dicom']")).unwrap();
        let source = FolderSource::new("archive", config).unwrap();
        let source = source.with_secret_file(Some(self.folder.path().join("secret")));
        source.read(&source.list().unwrap()[0]).unwrap()
    }

    fn write_structures(&self, rois: &[Roi], syntax: &str) {
        write_object(&self.path("rtstruct.dcm"), structure_set(rois), uids::RT_STRUCTURE_SET_STORAGE, syntax);
    }

    /// Returns the voxels of the liver of a structure set, one text per slice with `#` for a voxel inside.
    fn liver(&self, settings: &str) -> Result<Vec<String>, Fault> {
        let stage = LabelsMask::new(toml::from_str(settings).unwrap()).unwrap();
        let mask = stage.mask(&self.scan())?;
        let letter = |label: &u8| ['.', '#', 'T'][usize::from(*label)];
        Ok(mask.labels.as_slice().chunks(COLUMNS * ROWS).map(|slice| slice.iter().map(letter).collect()).collect())
    }
}

/// Slices of the series are at z = 30, 32, 34, 36; pixels of a row are 0.5 mm apart from x = -10, rows 0.75 mm from y = -20.
fn rectangle(columns: [f64; 2], rows: [f64; 2], slice: usize) -> Vec<[f64; 3]> {
    let [left, right] = columns.map(|column| -10.0 + 0.5 * column);
    let [low, high] = rows.map(|row| -20.0 + 0.75 * row);
    let z = 30.0 + 2.0 * slice as f64;
    vec![[left, low, z], [right, low, z], [right, high, z], [left, high, z]]
}

const STRUCTURES: &str = "pattern = 'rtstruct.dcm'\nscheme = 'custom'\n\
    organs.liver = { structures = ['liver'], tumor_structures = ['GTV'] }";

#[test]
fn contours_become_voxels_of_series_in_every_syntax() {
    for syntax in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2"] {
        let archive = Archive::new();
        let hole = rectangle([1.6, 3.4], [1.6, 2.4], 1);
        let liver =
            Roi::new("Liver ", vec![rectangle([0.6, 4.4], [0.6, 3.4], 1), hole, rectangle([0.6, 1.4], [0.6, 1.4], 2)]);
        let mut tumor = Roi::new("GTV", vec![rectangle([3.6, 5.4], [0.6, 1.4], 1)]);
        tumor.contours.push(("POINT", vec![[0.0, 0.0, 0.0]]));
        archive.write_structures(&[liver, tumor], syntax);
        let empty = "......".repeat(5);
        let slices = archive.liver(STRUCTURES).unwrap();
        assert_eq!(slices[0], empty);
        assert_eq!(slices[1], ["......", ".###TT", ".#..#.", ".####.", "......"].concat());
        assert_eq!(slices[2], ["......", ".#....", "......", "......", "......"].concat());
        assert_eq!(slices[3], empty);
    }
}

#[test]
fn structures_that_do_not_fit_scan_are_faults() {
    let contour = || rectangle([0.6, 4.4], [0.6, 3.4], 1);
    let open = Roi { contours: vec![("OPEN_PLANAR", contour())], ..Roi::new("Liver", vec![]) };
    let other_frame = Roi { frame: "2.25.4711.10", ..Roi::new("Liver", vec![contour()]) };
    let sagittal = contour().into_iter().map(|[x, y, z]| [x, z, y]).collect();
    let every_second = vec![rectangle([0.6, 4.4], [0.6, 3.4], 0), rectangle([0.6, 4.4], [0.6, 3.4], 2)];
    for (roi, kind, message) in [
        (open, FaultKind::Unsupported, "got an open planar contour"),
        (other_frame, FaultKind::Mismatch, "frame of reference"),
        (Roi::new("Liver", vec![sagittal]), FaultKind::Mismatch, "outside of it"),
        (Roi::new("Liver", every_second), FaultKind::Mismatch, "every 2 slices"),
        (Roi::new("Liver", vec![rectangle([0.6, 4.4], [0.6, 3.4], 40)]), FaultKind::Mismatch, "outside of it"),
        (Roi::new("Doe, Jane: spleen", vec![contour()]), FaultKind::Missing, "got 1 other structures"),
    ] {
        let archive = Archive::new();
        archive.write_structures(&[roi], uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let fault = archive.liver(STRUCTURES).unwrap_err();
        assert_eq!((fault.stage, fault.kind), (Stage::Mask, kind), "{fault}");
        assert!(fault.message.contains(message) && !fault.message.contains("Doe"), "{fault}");
    }
}

#[test]
fn inspect_shows_structures_on_their_scan() {
    let archive = Archive::new();
    let (set, scan) = (archive.path("rtstruct.dcm"), archive.path("dicom"));
    let liver = Roi::new("Liver", vec![rectangle([0.6, 3.4], [0.4, 2.6], 1)]);
    write_object(&set, structure_set(&[liver]), uids::RT_STRUCTURE_SET_STORAGE, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let inspect = |arguments: &[&Path]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
        let output = command.arg("inspect").args(arguments).output().unwrap();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap())
    };
    let [stdout, stderr] = inspect(&[&scan, Path::new("--labels"), &set]);
    assert!(stdout.contains("Liver") && stdout.contains("the scan's grid"), "{stdout}{stderr}");
    let [_, stderr] = inspect(&[&set]);
    assert!(stderr.contains("pass its scan, and this file with --labels"), "{stderr}");
}

#[test]
fn folder_with_one_structure_file_is_read() {
    let archive = Archive::new();
    let settings = STRUCTURES.replace("rtstruct.dcm", "{stem}");
    let missing = archive.liver(&settings).unwrap_err();
    assert!(missing.kind == FaultKind::Missing && missing.message.contains("in the folder, got none"), "{missing}");
    let set = || structure_set(&[Roi::new("Liver", vec![rectangle([0.6, 4.4], [0.6, 3.4], 1)])]);
    let class = uids::RT_STRUCTURE_SET_STORAGE;
    write_object(&archive.path("dicom/RS.dcm"), set(), class, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(archive.liver(&settings).unwrap()[1].matches('#').count(), 12);
    write_object(&archive.path("dicom/RS2.dcm"), set(), class, uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let fault = archive.liver(&settings).unwrap_err();
    assert!(fault.kind == FaultKind::Mismatch && fault.message.contains("got 2"), "{fault}");
    let absent = archive.liver(STRUCTURES).unwrap_err();
    assert!(
        absent.message.contains("expected a label file at `rtstruct.dcm`, got none: the path starts at the folder"),
        "{absent}"
    );
}

#[test]
fn damaged_structure_file_is_a_fault() {
    let archive = Archive::new();
    let path = archive.path("rtstruct.dcm");
    archive.write_structures(
        &[Roi::new("Liver", vec![rectangle([0.6, 4.4], [0.6, 3.4], 1)])],
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
    );
    let bytes = fs::read(&path).unwrap();
    let scan = archive.scan();
    for length in (132..bytes.len()).step_by(7) {
        fs::write(&path, &bytes[..length]).unwrap();
        // Cut between two elements of the data set, the file has fewer structures.
        if let Err(fault) = scan.companions.structures("rtstruct.dcm") {
            assert!(
                matches!(fault.kind, FaultKind::Truncated | FaultKind::Missing | FaultKind::Unsupported),
                "{length}: {fault}"
            );
        }
    }
    for at in 132..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0xFF;
        fs::write(&path, &changed).unwrap();
        if let Ok(Some(file)) = scan.companions.structures("rtstruct.dcm") {
            for index in file.find(StructureSelector::Number(1)) {
                let _ = file.for_each_voxel(index, &scan.volume.grid, &mut |_| {});
            }
        }
    }
}

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
fn fractions_from_half_of_maximum_are_inside() {
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
