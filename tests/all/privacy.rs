//! No file outside `RUN/private` reveals a path or a patient number to a search without the secret.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::graph::{GraphFile, Registry, Resources, check};
use freetumor::ingest::nifti::{self, Datatype};
use freetumor::record::SampleRow;
use freetumor::record::parquet::{Row, decode_part};
use freetumor::record::{FaultRecord, QualityRecord, ScanRecord};
use freetumor::run::RunFolder;
use freetumor::volume::{Affine, Array3, Grid};
use sha2::{Digest, Sha256};

use crate::dicom_files;

/// Writes small scans with a block of liver, one per patient; the last scan has no label and is a fault.
fn archive(root: &Path, patients: &[&str]) {
    let grid = Grid { shape: [40, 40, 24], affine: Affine::from_spacing([1.5, 1.5, 2.5]) };
    for (number, patient) in patients.iter().enumerate() {
        let folder = root.join(patient);
        std::fs::create_dir_all(&folder).unwrap();
        let hu = Array3::from_fn(grid.shape, |[x, y, z]| ((x * 7 + y * 5 + z * 3 + number * 11) % 40) as i16 + 90);
        let file =
            |datatype, voxels: Vec<u8>| [&nifti::encode_header(&grid, datatype, "").unwrap()[..], &voxels].concat();
        let voxels = hu.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect();
        std::fs::write(folder.join("ct.nii"), file(Datatype::I16, voxels)).unwrap();
        if number + 1 < patients.len() {
            std::fs::write(folder.join("labels.nii"), file(Datatype::U8, vec![1; grid.voxels()])).unwrap();
        }
    }
}

/// The folder of the archive; its name contains a patient number, too.
const ROOT: &str = "pat-0815/ct";

/// Runs a pipeline over the archive `ROOT` into `run`.
fn run_in(root: &Path, secret: &str) {
    std::fs::write(root.join("secret"), secret).unwrap();
    let text = r#"
        [pipeline]
        name = "private"
        epoch_scans = 2
        [sources.scans]
        kind = "folder"
        root = "pat-0815/ct"
        include = ["*/ct.nii"]
        [stages.organs]
        kind = "labels"
        inputs = ["scans"]
        pattern = "labels.nii"
        scheme = "custom"
        organs = { liver = { ids = [1] } }
        [stages.synthesize]
        kind = "rules"
        inputs = ["organs"]
        diameter_mm = [6, 14]
        [stages.score]
        kind = "intensity"
        inputs = ["synthesize"]
        [stages.test]
        kind = "quality-test"
        inputs = ["score"]
        accept = ["delta_hu < -5"]
        [sinks.set]
        kind = "nnunet"
        inputs = ["test"]
        [sinks.shards]
        kind = "webdataset"
        inputs = ["test"]
    "#;
    let machine = Resources { patient_secret: Some(root.join("secret")), ..Resources::default() };
    let checked = check(&GraphFile::new("test.toml", root, text), &Registry::with_resources(&machine));
    let plan = checked.plan.expect("a good graph");
    let report = run(plan, &root.join("run"), &RunOptions::default(), &Arc::new(Progress::default())).unwrap();
    assert!(report.accepted > 0 && report.faults == 1, "{report:?}");
}

/// Returns all text of a run outside of its private folder: names and contents of files, and rows.
fn public_text(folder: &Path) -> String {
    let mut text = String::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        if name.starts_with("private") || !entry.file_type().is_file() {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        text.push_str(&format!("{name}\n{}\n", String::from_utf8_lossy(&bytes)));
    }
    let run = RunFolder::open(folder).unwrap();
    text.push_str(&rows::<SampleRow>(&run, |row| format!("{:?}", row)));
    text.push_str(&rows::<ScanRecord>(&run, |row| format!("{row:?}")));
    text.push_str(&rows::<FaultRecord>(&run, |row| format!("{row:?}")));
    text.push_str(&rows::<QualityRecord>(&run, |row| format!("{row:?}")));
    text
}

fn rows<R: Row>(run: &RunFolder, show: impl Fn(&R) -> String) -> String {
    let files = run.files(R::TABLE.name(), None).unwrap();
    let parts = files.iter().flat_map(|file| decode_part::<R>(run.read_verified(file).unwrap()).unwrap());
    parts.map(|row| show(&row) + "\n").collect()
}

/// Returns the first 16 digits of all hexadecimal strings that are long enough for an id or a digest.
fn hex_ids(text: &str) -> BTreeSet<String> {
    let strings = text.split(|c: char| !c.is_ascii_hexdigit() || c.is_ascii_uppercase());
    strings.filter(|string| string.len() >= 16).map(|string| string[..16].to_owned()).collect()
}

#[test]
fn only_listed_elements_of_dicom_headers_are_in_tables() {
    let free_text = [
        (tags::PATIENT_NAME, VR::PN),
        (tags::PATIENT_ADDRESS, VR::LO),
        (tags::PATIENT_COMMENTS, VR::LT),
        (tags::STUDY_DESCRIPTION, VR::LO),
        (tags::SERIES_DESCRIPTION, VR::LO),
        (tags::PROTOCOL_NAME, VR::LO),
        (tags::INSTITUTION_NAME, VR::LO),
        (tags::INSTITUTION_ADDRESS, VR::ST),
        (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
        (tags::OPERATORS_NAME, VR::PN),
        (tags::STATION_NAME, VR::SH),
        (tags::ACCESSION_NUMBER, VR::SH),
        (tags::IMAGE_COMMENTS, VR::LT),
        (tags::DEVICE_SERIAL_NUMBER, VR::LO),
        (tags::CONTRAST_BOLUS_AGENT, VR::LO),
        (Tag(0x0011, 0x0010), VR::LO),
        (Tag(0x0011, 0x1001), VR::LO),
    ];
    let folder = tempfile::tempdir().unwrap();
    let slices: Vec<_> = dicom_files::series(4)
        .into_iter()
        .map(|slice| {
            let marked = free_text
                .iter()
                .enumerate()
                .fold(slice, |slice, (index, (tag, vr))| slice.text(*tag, *vr, &format!("MARKER{index}")));
            marked
                .text(tags::PATIENT_BIRTH_DATE, VR::DA, "19610203")
                .text(tags::ACQUISITION_DATE, VR::DA, "19990405")
                .text(tags::MANUFACTURER, VR::LO, "SCANNERS LTD")
                .text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "Model 7")
                .text(tags::CONVOLUTION_KERNEL, VR::SH, "B30f")
                .text(tags::KVP, VR::DS, "120")
                .text(tags::EXPOSURE, VR::IS, "95")
                .text(tags::SLICE_THICKNESS, VR::DS, "1.5")
                .text(tags::PATIENT_POSITION, VR::CS, "HFS")
        })
        .collect();
    let series = folder.path().join("ct/case/dicom");
    std::fs::create_dir_all(&series).unwrap();
    dicom_files::write(&series, &slices);
    std::fs::write(folder.path().join("secret"), "a secret for tests only").unwrap();
    let scan = |out: &str, setting: &str| {
        let text = format!(
            "[pipeline]\nname = 'private'\n[sources.scans]\nkind = 'folder'\nroot = 'ct'\ninclude = ['*/dicom']\n{setting}\n\
             [stages.lungs]\nkind = 'lung'\ninputs = ['scans']\n[stages.tumors]\nkind = 'rules'\ninputs = ['lungs']\n\
             [stages.values]\nkind = 'intensity'\ninputs = ['tumors']\n[stages.test]\nkind = 'quality-test'\ninputs = ['values']\n\
             accept = ['delta_hu < -5']\n[sinks.set]\nkind = 'patches'\ninputs = ['test']\n"
        );
        let machine = Resources { patient_secret: Some(folder.path().join("secret")), ..Resources::default() };
        let checked = check(&GraphFile::new("test.toml", folder.path(), text), &Registry::with_resources(&machine));
        let plan = checked.plan.unwrap_or_else(|| panic!("{:?}", checked.problems));
        let out = folder.path().join(out);
        run(plan, &out, &RunOptions::default(), &Arc::new(Progress::default())).unwrap();
        let text = public_text(&out);
        assert!(!text.contains("MARKER") && !text.contains("19610203") && !text.contains("19990405"), "{text}");
        let run = RunFolder::open(&out).unwrap();
        let files = run.files("scans", None).unwrap();
        decode_part::<ScanRecord>(run.read_verified(&files[0]).unwrap()).unwrap().remove(0).acquisition
    };
    let acquisition = scan("run", "");
    let expected = freetumor::ingest::Acquisition {
        manufacturer: Some("SCANNERS LTD".into()),
        scanner_model: Some("Model 7".into()),
        kernel: Some("B30f".into()),
        tube_voltage_kv: Some(120.0),
        exposure_mas: Some(95.0),
        slice_thickness_mm: Some(1.5),
        has_contrast: Some(true),
        patient_position: Some("HFS".into()),
        acquisition_year: None,
    };
    assert_eq!(acquisition, expected);
    let with_year = scan("run with year", "acquisition_year = true");
    assert_eq!(with_year.acquisition_year, Some(1999));
}

#[test]
fn ids_of_paths_depend_on_secret() {
    let (names, others) = (["pat-4711", "pat-4712", "pat-4713"], ["mustermann", "doe", "roe"]);
    let run_of = |patients: &[&str], secret: &str| {
        let folder = tempfile::tempdir().unwrap();
        archive(&folder.path().join(ROOT), patients);
        run_in(folder.path(), secret);
        hex_ids(&public_text(&folder.path().join("run")))
    };
    let reference = run_of(&names, "a secret for tests only");
    let other_secret = run_of(&names, "another secret for tests");
    let other_names = run_of(&others, "a secret for tests only");
    let independent: BTreeSet<_> = reference.intersection(&other_secret).collect();
    assert!(independent.len() > 4, "digests of content do not depend on the secret");
    for id in &independent {
        assert!(other_names.contains(*id), "{id} depends on names but not on the secret");
    }
    assert!(reference.difference(&other_secret).count() > 4, "ids of scans and patients depend on the secret");
}

#[test]
fn hashes_of_patient_numbers_match_no_public_id() {
    let folder = tempfile::tempdir().unwrap();
    archive(&folder.path().join(ROOT), &["pat-4711", "pat-4712", "pat-4713"]);
    run_in(folder.path(), "a secret for tests only");
    let text = public_text(&folder.path().join("run"));
    for name in ["pat-4711", "pat-0815", folder.path().to_str().unwrap()] {
        assert!(!text.contains(name), "{name} is in a file outside of RUN/private");
    }
    let ids = hex_ids(&text);
    let hash = |parts: &[&[u8]]| {
        let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
        hex::encode(&hash[..8])
    };
    // The root contains a number: neither the number nor an unkeyed digest of the settings may be outside of RUN/private.
    let private = std::fs::read_to_string(folder.path().join("run/private/pipeline.json")).unwrap();
    let settings = serde_json::from_str::<serde_json::Value>(&private).unwrap()["pipeline"].to_string();
    assert!(settings.contains(ROOT) && !ids.contains(&hash(&[settings.as_bytes()])));
    let mut count = 0;
    for number in 0..10_000u32 {
        let patient = format!("pat-{number:04}");
        for name in [
            patient.clone(),
            format!("{patient}/ct.nii"),
            format!("ct/{patient}/ct.nii"),
            format!("{patient}/labels.nii"),
        ] {
            for scope in ["", "scans", "private", "fingerprint", "scan of scans"] {
                let length = (scope.len() as u64).to_le_bytes();
                let recipes: [&[&[u8]]; 4] = [
                    &[scope.as_bytes(), name.as_bytes()],
                    &[&length, scope.as_bytes(), name.as_bytes()],
                    &[name.as_bytes(), scope.as_bytes()],
                    &[scope.as_bytes(), b"/", name.as_bytes()],
                ];
                for recipe in recipes {
                    assert!(!ids.contains(&hash(recipe)), "{name} was found by a search over numbers");
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 800_000);
}
