//! Tests of the layouts for nnU-Net and MONAI.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use freetumor::error::ConfigError;
use freetumor::run::RunWriter;
use freetumor::sink::{
    DecathlonConfig, DecathlonSink, Layout, NnunetConfig, NnunetSink, WebDatasetConfig, WebDatasetSink,
};
use freetumor::store::{DurableFolder, DurableStorage};
use serde_json::Value;

use super::fixture;

fn run(root: &Path) -> RunWriter {
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root));
    fixture::run(&store, &fixture::sinks(), 3, 8, [12, 10, 8]).unwrap()
}

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn names(folder: impl AsRef<Path>) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn nnunet_layout_has_files_labels_and_folds() {
    let root = tempfile::tempdir().unwrap();
    let writer = run(root.path());
    let layout = root.path().join("layouts/nnunet/Dataset900_FreeTumor");
    let dataset = json(layout.join("dataset.json"));
    assert_eq!(dataset["channel_names"], serde_json::json!({ "0": "CT" }));
    assert_eq!(dataset["labels"], serde_json::json!({ "background": 0, "liver": 1, "liver_tumor": 2 }));
    assert_eq!(dataset["file_ending"], ".nii.gz");
    let images = names(layout.join("imagesTr"));
    let cases: BTreeSet<String> =
        images.iter().map(|name| name.strip_suffix("_0000.nii.gz").unwrap().to_owned()).collect();
    assert_eq!(dataset["numTraining"], cases.len());
    assert_eq!(names(layout.join("labelsTr")), cases.iter().map(|case| format!("{case}.nii.gz")).collect());
    let folds = json(layout.join("splits_final.json"));
    let listed: BTreeSet<String> = ["train", "val"]
        .iter()
        .flat_map(|part| folds[0][part].as_array().unwrap().iter().map(|case| case.as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(listed, cases);
    assert!(!folds[0]["train"].as_array().unwrap().is_empty() && !folds[0]["val"].as_array().unwrap().is_empty());
    let tests = names(layout.join("imagesTs"));
    assert!(!tests.is_empty());
    assert_eq!((cases.len() + tests.len()) as u64, writer.counts().accepted);
}

#[test]
fn decathlon_lists_only_existing_files() {
    let root = tempfile::tempdir().unwrap();
    let writer = run(root.path());
    let layout = root.path().join("layouts/decathlon");
    let dataset = json(layout.join("dataset.json"));
    assert_eq!(dataset["labels"]["3"], "kidney");
    let mut total = 0;
    for list in ["training", "validation", "test"] {
        let list = dataset[list].as_array().unwrap();
        assert!(!list.is_empty());
        for pair in list {
            assert!(layout.join(pair["image"].as_str().unwrap()).is_file());
            assert!(layout.join(pair["label"].as_str().unwrap()).is_file());
        }
        total += list.len();
    }
    assert_eq!(total as u64, writer.counts().accepted);
    assert_eq!(dataset["numTraining"].as_u64().unwrap() + dataset["numTest"].as_u64().unwrap(), total as u64);
}

#[cfg(unix)]
#[test]
fn sinks_share_files_by_hard_links() {
    use std::os::unix::fs::MetadataExt;
    let root = tempfile::tempdir().unwrap();
    let writer = run(root.path());
    for file in writer.folder().files("pairs", None).unwrap() {
        let metadata = fs::metadata(root.path().join(&file.path)).unwrap();
        assert_eq!(metadata.nlink(), 3, "the committed name and one in each of two layouts: {}", file.path);
    }
}

#[test]
fn project_repairs_damaged_layout() {
    let root = tempfile::tempdir().unwrap();
    let writer = run(root.path());
    let layout = root.path().join("layouts/decathlon");
    let (text, images) = (fs::read(layout.join("dataset.json")).unwrap(), names(layout.join("imagesTr")));
    fs::remove_file(layout.join("imagesTr").join(images.first().unwrap())).unwrap();
    let own = layout.join("imagesTr/0123456789abcdef.nii.gz");
    fs::write(&own, "of the user").unwrap();
    fs::write(layout.join("notes.txt"), "of the user").unwrap();
    fs::write(layout.join("dataset.json"), "{}").unwrap();
    fs::remove_dir_all(root.path().join("layouts/webdataset")).unwrap();
    let projected = writer.project(fixture::layouts(&fixture::sinks())).unwrap();
    let foreign: Vec<&str> = projected.iter().flat_map(|layout| &layout.foreign).map(String::as_str).collect();
    assert_eq!(foreign, ["layouts/decathlon/imagesTr/0123456789abcdef.nii.gz"]);
    assert_eq!(fs::read(&own).unwrap(), b"of the user");
    fs::remove_file(own).unwrap();
    assert_eq!((fs::read(layout.join("dataset.json")).unwrap(), names(layout.join("imagesTr"))), (text, images));
    assert!(layout.join("notes.txt").is_file(), "files of other names are kept");
    assert!(root.path().join("layouts/webdataset/train.json").is_file());
}

/// MONAI reads the first entry of the list `test`, so that an empty list is an error and an absent one is not.
#[test]
fn decathlon_without_test_samples_has_no_test_list() {
    let root = tempfile::tempdir().unwrap();
    let store = DurableFolder::local(root.path());
    let sink = DecathlonSink::new("decathlon", DecathlonConfig::default(), fixture::organs()).unwrap();
    sink.project(&store, &[]).unwrap();
    let dataset = json(root.path().join("layouts/decathlon/dataset.json"));
    assert!(dataset.get("test").is_none() && dataset["training"].is_array(), "{dataset}");
    assert_eq!(dataset["numTest"], 0);
    assert_eq!(fs::read_to_string(root.path().join("layouts/decathlon/patients.csv")).unwrap(), "case,patient\n");
}

#[test]
fn samples_of_each_split_are_counted_and_listed_with_their_patients() {
    let root = tempfile::tempdir().unwrap();
    let writer = run(root.path());
    let sinks = fixture::sinks();
    for projected in writer.project(fixture::layouts(&sinks)).unwrap() {
        assert_eq!(projected.samples.values().sum::<usize>() as u64, writer.counts().accepted);
    }
    let text = fs::read_to_string(root.path().join("layouts/nnunet/Dataset900_FreeTumor/patients.csv")).unwrap();
    assert_eq!(text.lines().count() as u64, 1 + writer.counts().accepted);
}

fn fields(errors: Result<(), Vec<ConfigError>>) -> Vec<String> {
    errors.expect_err("errors").into_iter().map(|error| error.field).collect()
}

#[test]
fn sink_constructors_report_all_errors_at_once() {
    let config = NnunetConfig { dataset_id: 0, dataset_name: "Free Tumor".into(), gzip_level: 0 };
    let all = NnunetSink::new("nn U", config, fixture::organs()).map(drop);
    assert_eq!(fields(all), ["", "gzip_level", "dataset_id", "dataset_name"]);
    let gap: Arc<[_]> = [fixture::organs()[1].clone()].into();
    let errors = NnunetSink::new("nnunet", NnunetConfig::default(), Arc::clone(&gap)).err().unwrap();
    assert!(errors[0].message.contains("consecutive labels"), "{errors:?}");
    assert!(errors[0].hint.as_ref().unwrap().contains("merged_ids = { kidney = [1, 2] }"), "{errors:?}");
    // Liver 1, 2 and kidney 3, 4 are consecutive.
    assert!(NnunetSink::new("nnunet", NnunetConfig::default(), fixture::organs()).is_ok());
    assert!(DecathlonSink::new("decathlon", DecathlonConfig::default(), gap).is_ok());
    let config = DecathlonConfig { dataset_name: " ".into(), gzip_level: 10 };
    assert_eq!(
        fields(DecathlonSink::new("samples", config, fixture::organs()).map(drop)),
        ["", "gzip_level", "dataset_name"]
    );
    let config = WebDatasetConfig { buckets: 0, ..WebDatasetConfig::default() };
    assert_eq!(fields(WebDatasetSink::new("web/set", config).map(drop)), ["", "buckets"]);
}

#[test]
fn settings_reject_unknown_fields() {
    assert!(toml::from_str::<WebDatasetConfig>("bucket = 3").is_err());
    let config: WebDatasetConfig = toml::from_str("buckets = 3").unwrap();
    assert_eq!(config, WebDatasetConfig { buckets: 3, ..WebDatasetConfig::default() });
}
