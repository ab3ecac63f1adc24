//! Reports of `validate`, `inspect` and `run` on archives with damaged scans, files that are no slices, and separated series.

#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use flate2::Compression;
use flate2::write::GzEncoder;
use freetumor::ingest::nifti::{Datatype, encode_header};
use freetumor::volume::{Affine, Grid};
use serde_json::{Value, json};

use crate::dicom_files::{SliceFile, series, write};
use crate::survey::add_scan;

const GRAPH: &str = r#"
[pipeline]
name = "damaged"
split = { train = 1.0 }
[sources.archive]
kind = "folder"
root = "ct"
include = ["*/ct*", "*/dicom"]
[stages.organs]
kind = "labels"
inputs = ["archive"]
pattern = "labels.nii"
organs = ["liver"]
[stages.tumors]
kind = "rules"
inputs = ["organs"]
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
[stages.test]
kind = "quality-test"
inputs = ["contrast"]
accept = ["delta_hu < -10 HU"]
[sinks.set]
kind = "decathlon"
inputs = ["test"]
"#;

/// A folder with a graph file and an archive.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(place.path("a.toml"), GRAPH).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a scan of a case and a complete label file.
    fn add(&self, case: &str, name: &str, content: &[u8]) {
        add_scan(self.folder.path(), case, 0, true);
        fs::remove_file(self.path(&format!("ct/{case}/ct.nii"))).unwrap();
        fs::write(self.path(&format!("ct/{case}/{name}")), content).unwrap();
    }

    /// Writes the slices of a case into the folder `dicom`.
    fn add_slices(&self, case: &str, slices: &[SliceFile]) {
        let folder = self.path(&format!("ct/{case}/dicom"));
        fs::create_dir_all(&folder).unwrap();
        write(&folder, slices);
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
        command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only").env_remove("RUST_LOG");
        command.args(arguments).current_dir(self.folder.path()).output().unwrap()
    }

    /// Returns the exit code and the standard error of `validate`.
    fn validate(&self) -> (Option<i32>, String) {
        let output = self.command(&["validate", "a.toml"]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    /// Returns the report of `validate --json` on the file.
    fn report(&self) -> Value {
        let output = self.command(&["validate", "a.toml", "--json"]);
        let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["pipelines"][0].take()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns a NIfTI file of noise, which does not compress.
fn nifti() -> Vec<u8> {
    let grid = Grid { shape: [16, 16, 16], affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
    let mut file = encode_header(&grid, Datatype::I16, "").unwrap().to_vec();
    let noise = (0..16u64 * 16 * 16).map(|index| (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53) as i16);
    file.extend(noise.flat_map(i16::to_le_bytes));
    file
}

/// Returns damaged files with their names and the reason in the message.
fn damaged() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = gzip(&nifti());
    let nrrd = |lines: &str| format!("NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\n{lines}\n\n").into_bytes();
    let space = "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)";
    let attached = [nrrd(&format!("{space}\nendian: little\nencoding: gzip")), gzip(&[1; 128])].concat();
    vec![
        ("ct.nii.gz", whole[..whole.len() / 2].to_vec(), "ends"),
        ("ct.nii.gz", whole[..whole.len() - 1].to_vec(), "ends"),
        ("ct.nii.gz", whole[..100].to_vec(), "ends"),
        ("ct.nii", Vec::new(), "got an empty file"),
        ("ct.nii", nifti()[..5000].to_vec(), "a file of 5000 bytes cannot contain them"),
        ("ct.nii", vec![0; 4096], "a file that starts with the bytes"),
        ("ct.nrrd", nrrd("encoding: raw"), "space"),
        ("ct.nrrd", nrrd(&format!("{space}\nencoding: bzip2")), "encoding"),
        ("ct.nrrd", attached[..attached.len() - 9].to_vec(), "ends"),
    ]
}

#[test]
fn damaged_file_is_an_error_of_validate_and_inspect() {
    for (index, (name, content, reason)) in damaged().into_iter().enumerate() {
        let place = Place::new();
        place.add("a", name, &content);
        let (code, text) = place.validate();
        assert_eq!(code, Some(2), "{index} {name}: {text}");
        assert!(text.contains("error: 1 of 1 scans of `archive` cannot be read: 1 × "), "{index} {name}: {text}");
        assert!(text.contains(reason), "{index} {name}: {text}");
        let inspected = place.command(&["inspect", &format!("ct/a/{name}")]);
        assert_eq!(inspected.status.code(), Some(2), "{index} {name}");
        assert!(String::from_utf8_lossy(&inspected.stderr).contains("cannot be read ("), "{index} {name}");
        // Beside a scan that can be read, the damage is a warning.
        add_scan(place.folder.path(), "b", 0, true);
        let (code, text) = place.validate();
        assert!(code == Some(0) && text.contains("warning: 1 of 2 scans of `archive` cannot be read"), "{text}");
        let report = place.report();
        assert_eq!((&report["good"], &report["sources"][0]["checked"]), (&json!(true), &json!(2)), "{report}");
        let unreadable = report["sources"][0]["unreadable"].as_object().unwrap();
        assert!(unreadable.iter().all(|(message, count)| message.contains(reason) && *count == 1), "{report}");
    }
}

#[test]
fn compressed_file_with_several_members_or_trailing_bytes_is_valid() {
    let (start, end) = (nifti()[..4000].to_vec(), nifti()[4000..].to_vec());
    let members = [gzip(&start), gzip(&end)].concat();
    for content in [members, [gzip(&nifti()), b"made by a converter".to_vec()].concat()] {
        let place = Place::new();
        place.add("a", "ct.nii.gz", &content);
        let (code, text) = place.validate();
        // Only the label file, of another grid, has a problem.
        assert!(!text.contains("cannot be read"), "{code:?} {text}");
    }
}

#[test]
fn folder_without_a_slice_of_a_scan_is_an_error_of_validate_and_inspect() {
    let capture = || {
        SliceFile::new(0)
            .text(tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE)
            .without(tags::IMAGE_POSITION_PATIENT)
    };
    let localizer = |z| SliceFile::new(z).text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER");
    for (slices, reason) in [
        (vec![], "expected a DICOM series, got a folder without one"),
        (vec![capture(), capture()], "expected CT images in a DICOM folder, got 2 × secondary capture"),
        (vec![localizer(0), localizer(1), localizer(2)], "expected a volume of parallel slices, got a localizer"),
        (vec![SliceFile::new(0)], ""),
    ] {
        let place = Place::new();
        place.add_slices("a", &slices);
        add_scan(place.folder.path(), "a", 0, true);
        fs::remove_file(place.path("ct/a/ct.nii")).unwrap();
        let (code, text) = place.validate();
        let error = format!("error: 1 of 1 scans of `archive` cannot be read: 1 × {reason}");
        assert!(code == Some(2) && text.contains(&error), "{error}\n{text}");
        let inspected = place.command(&["inspect", "ct/a/dicom"]);
        assert_eq!(inspected.status.code(), Some(2), "{reason}");
    }
}

#[test]
fn damaged_label_file_is_named_by_validate() {
    let place = Place::new();
    for case in ["a", "b"] {
        add_scan(place.folder.path(), case, 0, true);
    }
    let labels = place.path("ct/a/labels.nii");
    fs::write(&labels, &fs::read(&labels).unwrap()[..355]).unwrap();
    let (code, text) = place.validate();
    let expected = "the label files of 1 of 2 scans cannot be read, for example: ";
    assert!(code == Some(0) && text.contains(&format!("warning: {expected}")), "{text}");
    fs::write(place.path("ct/b/labels.nii"), "no volume").unwrap();
    let (code, text) = place.validate();
    assert!(code == Some(2) && text.contains("error: the label files of 2 of 2 scans cannot be read"), "{text}");
}

#[test]
fn label_file_with_values_that_are_no_labels_is_named_by_validate() {
    let place = Place::new();
    add_scan(place.folder.path(), "a", 0, true);
    let grid = Grid { shape: [3, 2, 2], affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
    for (values, reason) in [([0.7f32; 12], "got 0.69"), ([-1.0; 12], "got -1"), ([f32::NAN; 12], "got NaN")] {
        let mut file = encode_header(&grid, Datatype::F32, "").unwrap().to_vec();
        file.extend(values.into_iter().flat_map(f32::to_le_bytes));
        fs::write(place.path("ct/a/labels.nii"), file).unwrap();
        let (code, text) = place.validate();
        let expected =
            "error: 1 of 1 label files that were read cannot be used, for example: expected labels that are integers";
        assert!(code == Some(2) && text.contains(expected) && text.contains(reason), "{text}");
    }
}

/// Writes two acquisitions in one series, a secondary capture and a dose report.
fn add_separated(place: &Place) {
    let slices = |number: &'static str, start: usize| {
        let slice = move |z: usize| {
            let instance = format!("2.25.4711.{number}.{z}");
            let slice = SliceFile::new(z).text(tags::ACQUISITION_NUMBER, VR::IS, number);
            let brightness = if number == "1" { "-24" } else { "76" };
            slice.text(tags::SOP_INSTANCE_UID, VR::UI, &instance).text(tags::RESCALE_INTERCEPT, VR::DS, brightness)
        };
        (start..start + 5).map(slice).collect::<Vec<_>>()
    };
    let object = |class: &str| SliceFile::new(0).text(tags::SOP_CLASS_UID, VR::UI, class);
    let capture = object(uids::SECONDARY_CAPTURE_IMAGE_STORAGE).without(tags::IMAGE_POSITION_PATIENT);
    let report = object(uids::X_RAY_RADIATION_DOSE_SR_STORAGE).without(tags::PIXEL_DATA).without(tags::ROWS);
    place.add_slices("a", &[slices("1", 0), slices("2", 0), vec![capture, report]].concat());
}

#[test]
fn left_out_files_and_separated_series_are_in_the_outputs_of_validate_and_run() {
    let place = Place::new();
    add_separated(&place);
    let left_out = "2 files in DICOM folders not read as slices of a scan: 1 × dose report, 1 × secondary capture";
    let separated = "1 series separated into 2 scans by AcquisitionNumber";
    let (_, text) = place.validate();
    assert!(text.contains(&format!("warning: {left_out}")), "{text}");
    assert!(text.contains(&format!("warning: {separated}")), "{text}");
    assert_eq!(text.matches(separated).count(), 1, "{text}");
    let report = place.report();
    let source = &report["sources"][0];
    assert_eq!((&source["name"], &source["scans"]), (&json!("archive"), &json!(2)));
    assert_eq!(source["unread_files"], json!({ "dose report": 1, "secondary capture": 1 }));
    assert_eq!(source["separations"], json!([{ "elements": ["AcquisitionNumber"], "series": 1, "scans": 2 }]));
    assert_eq!(source["unreadable"], json!({}));
    let has = |text: &str| {
        let mut problems = report["problems"].as_array().unwrap().iter();
        problems.any(|problem| problem["message"].as_str().unwrap().contains(text))
    };
    assert!(has(left_out) && has(separated), "{report}");
    // The label file is missing: the scans fail, and the run has listed the same.
    let run = place.command(&["run", "a.toml", "--out", "run"]);
    let text = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(text.contains(left_out) && text.contains(separated), "{text}");
}

#[test]
fn allowed_unreadable_files_are_counted_by_validate() {
    let place = Place::new();
    fs::write(place.path("a.toml"), GRAPH.replace("root = \"ct\"", "root = \"ct\"\nallow_unreadable_files = true"))
        .unwrap();
    place.add_slices("a", &series(5));
    fs::write(place.path("ct/a/dicom/damaged"), [7; 300]).unwrap();
    let report = place.report();
    assert_eq!(report["sources"][0]["unread_files"], json!({ "unreadable file": 1 }), "{report}");
    assert_eq!(report["sources"][0]["unreadable"], json!({}), "{report}");
}

/// Writes settings of the mask stage with ids for each organ.
fn with_ids(place: &Place, organs: &str) {
    let custom = format!("scheme = \"custom\"\norgans = {organs}");
    fs::write(place.path("a.toml"), GRAPH.replace("organs = [\"liver\"]", &custom)).unwrap();
}

/// Returns the lines of a text that are about selections.
fn selections(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains(" selects ")).collect()
}

#[test]
fn ids_that_no_label_file_contains_are_named_by_validate_and_run() {
    let place = Place::new();
    for case in ["a", "b"] {
        add_scan(place.folder.path(), case, if case == "a" { 0 } else { 7 }, true);
    }
    with_ids(&place, "{ liver = { ids = [5, 55], tumor_ids = [118] } }");
    let (code, text) = place.validate();
    let absent = "`organs` selects id 55 of `liver`, tumor id 118 of `liver`, not found in any of the 2 label files";
    assert_eq!(selections(&text), [format!("warning: {absent} that were read")], "{text}");
    assert_eq!(code, Some(0), "{text}");
    let run = place.command(&["run", "a.toml", "--out", "run"]);
    let text = String::from_utf8(run.stderr).unwrap();
    let absent = "the mask `organs` selects id 55 of `liver`, tumor id 118 of `liver`, not found in any of the 2 scans";
    assert_eq!(selections(&text), [format!("warning: {absent} of this run")], "{text}");
    // A run without new scans masks none.
    let again = place.command(&["run", "a.toml", "--out", "run"]);
    assert!(selections(&String::from_utf8(again.stderr).unwrap()).is_empty());
    with_ids(&place, "{ liver = { ids = [5] } }");
    assert!(selections(&place.validate().1).is_empty());
}

#[test]
fn organs_of_the_scheme_without_voxels_are_named_once() {
    let place = Place::new();
    add_scan(place.folder.path(), "a", 0, true);
    fs::write(place.path("a.toml"), GRAPH.replace("[\"liver\"]", "[\"liver\", \"kidney\"]")).unwrap();
    let (_, text) = place.validate();
    let expected = "warning: `organs` selects `kidney`, not found in the label file that was read";
    assert_eq!(selections(&text), [expected], "{text}");
}
