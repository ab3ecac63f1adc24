//! Data sets that `evaluate` opens: a run folder, each of its layouts, and exports, with the patients of their samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use freetumor::evaluate::data_set::{CaseSelection, DataSet};
use freetumor::ingest::nifti::read_labels;
use serde_json::Value;

/// Twelve scans of eight patients.
const GRAPH: &str = r#"
[pipeline]
name = "sets"
split = { train = 0.5, test = 0.5 }
[sources.phantoms]
kind = "phantom"
count = 12
patients = 8
shape = [56, 52, 40]
spacing_mm = [5.5, 5.5, 7.0]
[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]
[stages.tumors]
kind = "rules"
inputs = ["organs"]
variants = 2
diameter_mm = [25, 45]
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
[stages.test]
kind = "quality-test"
inputs = ["contrast"]
accept = ["delta_hu < 1000"]
[sinks.volumes]
kind = "nnunet"
inputs = ["test"]
[sinks.list]
kind = "decathlon"
inputs = ["test"]
[sinks.shards]
kind = "webdataset"
inputs = ["test"]
[sinks.boxes]
kind = "patches"
inputs = ["test"]
"#;

fn freetumor(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    let output = command.args(arguments).current_dir(folder).env_remove("RUST_LOG").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn run() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), GRAPH).unwrap();
    freetumor(folder.path(), &["run", "a.toml", "--out", "run"]);
    folder
}

/// Returns the voxels of every label map.
fn voxels(data: &DataSet) -> BTreeMap<String, Vec<u16>> {
    let read = |path: &PathBuf| read_labels(path).unwrap().ids.as_slice().to_vec();
    data.labels.iter().map(|(case, path)| (case.clone(), read(path))).collect()
}

#[test]
fn every_layout_of_a_run_folder_has_the_same_cases_and_patients() {
    let folder = run();
    let own = DataSet::open(&folder.path().join("run"), CaseSelection::All).unwrap();
    let patients: BTreeSet<&String> = own.patients.values().collect();
    assert!(patients.len() > 3 && patients.len() <= 8 && own.labels.len() > patients.len(), "{patients:?}");
    assert!(own.patients.keys().eq(own.labels.keys()) && own.images.keys().eq(own.labels.keys()));
    let tests = DataSet::open(&folder.path().join("run"), CaseSelection::Evaluation).unwrap();
    assert!(!tests.labels.is_empty() && tests.labels.len() < own.labels.len());
    freetumor(folder.path(), &["export", "run", "--to", "export", "--layout", "decathlon"]);
    let layouts = [
        "run/layouts/volumes",
        "run/layouts/volumes/Dataset900_FreeTumor",
        "run/layouts/list",
        "run/layouts/shards",
        "export",
    ];
    for layout in layouts {
        let path = folder.path().join(layout);
        let data = DataSet::open(&path, CaseSelection::All).unwrap();
        assert_eq!(data.patients, own.patients, "{layout}");
        assert_eq!(voxels(&data), voxels(&own), "{layout}");
        assert!(data.images.keys().eq(own.images.keys()), "{layout}");
        let part = DataSet::open(&path, CaseSelection::Evaluation).unwrap();
        assert!(part.labels.keys().eq(tests.labels.keys()) && part.patients == tests.patients, "{layout}");
    }
    // Without a list, the patients are those of the run folder above.
    std::fs::remove_file(folder.path().join("run/layouts/list/patients.csv")).unwrap();
    let data = DataSet::open(&folder.path().join("run/layouts/list"), CaseSelection::All).unwrap();
    assert_eq!(data.patients, own.patients);
    let error = DataSet::open(&folder.path().join("run/layouts/boxes"), CaseSelection::All).unwrap_err();
    assert!(error.to_string().contains("contains patches") && error.hint().unwrap().contains("export"), "{error}");
}

#[test]
fn turing_test_groups_samples_of_every_layout_by_patient() {
    let folder = run();
    let turing = |synthetic: &str| -> Value {
        let arguments = ["evaluate", "--turing", "--real", "run/layouts/list", "--synthetic", synthetic];
        let output = freetumor(folder.path(), &[&arguments[..], &["--resamples", "100", "--json"]].concat());
        serde_json::from_slice(&output).unwrap()
    };
    let of_run = turing("run");
    assert!(of_run["patients"].as_u64().unwrap() <= 8, "{of_run}");
    assert!(of_run["synthetic"].as_u64() > of_run["patients"].as_u64(), "{of_run}");
    for layout in ["run/layouts/volumes", "run/layouts/shards"] {
        assert_eq!(turing(layout), of_run, "{layout}");
    }
}
