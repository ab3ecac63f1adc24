//! RT Structure Sets as labels of a DICOM series.

use std::fs;
use std::path::{Path, PathBuf};

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::ingest::dicom::StructureFile;
use freetumor::ingest::{FolderConfig, FolderSource, Scan, Source, StructureSelector, Structures};
use freetumor::mask::{LabelsMask, Mask};
use freetumor::volume::{Affine, Grid};

use crate::dicom_files::{COLUMNS, ROWS, series, write};

pub const SLICES: usize = 4;
/// Frame of reference of the series.
pub const FRAME: &str = "2.25.4711.9";

pub fn object(elements: Vec<DataElement<InMemDicomObject>>) -> InMemDicomObject {
    InMemDicomObject::from_element_iter(elements)
}

pub fn text(tag: Tag, vr: VR, value: &str) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, vr, PrimitiveValue::from(value))
}

pub fn u16(tag: Tag, value: usize) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::US, PrimitiveValue::from(value as u16))
}

pub fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

pub fn write_object(path: &Path, object: InMemDicomObject, class: &str, syntax: &str) {
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
pub struct Archive {
    folder: tempfile::TempDir,
}

impl Archive {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dicom = folder.path().join("archive/p1/dicom");
        fs::create_dir_all(&dicom).unwrap();
        fs::write(folder.path().join("secret"), "a secret for tests only").unwrap();
        let slices: Vec<_> =
            series(SLICES).into_iter().map(|slice| slice.text(tags::FRAME_OF_REFERENCE_UID, VR::UI, FRAME)).collect();
        write(&dicom, &slices);
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
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
    pub fn liver(&self, settings: &str) -> Result<Vec<String>, Fault> {
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
        let Err(fault) = scan.companions.structures("rtstruct.dcm") else {
            panic!("{length} of {} bytes", bytes.len())
        };
        assert!(
            matches!(fault.kind, FaultKind::Truncated | FaultKind::Missing | FaultKind::Unsupported),
            "{length}: {fault}"
        );
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

/// Changes every byte of a structure file in turn: reading is a set of structures or a fault, and voxels are inside of the scan.
pub fn assert_changed_bytes_never_panic(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.dcm");
    let scan = Grid { shape: [COLUMNS, ROWS, SLICES], affine: Affine::from_spacing([0.5, 0.75, 2.0]) };
    for at in 128..bytes.len() {
        for value in [0xFF, bytes[at] ^ 1, bytes[at] ^ 0x40] {
            let mut changed = bytes.to_vec();
            changed[at] = value;
            fs::write(&path, &changed).unwrap();
            let Ok(file) = StructureFile::read(&path, None, 1 << 20) else { continue };
            for index in 0..file.count() {
                let _ = file.for_each_voxel(index, &scan, &mut |voxel| assert!(voxel < scan.voxels()));
            }
        }
    }
}

#[test]
fn changed_bytes_of_structure_set_never_panic() {
    let archive = Archive::new();
    let liver = Roi::new("Liver", vec![rectangle([0.6, 4.4], [0.6, 3.4], 1), rectangle([0.6, 1.4], [0.6, 1.4], 2)]);
    for syntax in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN] {
        archive.write_structures(std::slice::from_ref(&liver), syntax);
        assert_changed_bytes_never_panic(&fs::read(archive.path("rtstruct.dcm")).unwrap());
    }
}
