//! The weights that a training writes and reads, and the checks of training files.

use std::path::Path;

use candle_core::{DType, Device};
use half::f16;

use super::command::{freetumor, project, segmentor, stdout_of};

/// With `--half`, weights for inference have 16 bits, and checkpoints keep all bits.
#[test]
fn half_option_writes_weights_in_16_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, half) = (folder.path().join("whole"), folder.path().join("half"));
    stdout_of(&segmentor(&whole, &[]));
    stdout_of(&segmentor(&half, &["--half"]));
    let read = |run: &Path| freetumor::nn::weights::read(&run.join("weights/segmentor.safetensors"), &Device::Cpu);
    let (whole_weights, half_weights) = (read(&whole).unwrap(), read(&half).unwrap());
    for (name, tensor) in &whole_weights {
        let rounded: Vec<f16> = tensor.to_dtype(DType::F16).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(half_weights[name].dtype(), DType::F16);
        assert!(half_weights[name].flatten_all().unwrap().to_vec1::<f16>().unwrap() == rounded, "{name}");
    }
    let checkpoint = |run: &Path| std::fs::read(run.join("checkpoint.safetensors")).unwrap();
    assert!(checkpoint(&whole) == checkpoint(&half), "a checkpoint keeps all bits");
    let weights = format!("train.network.weights={}", whole.join("checkpoint.safetensors").display());
    let refused = segmentor(&folder.path().join("next"), &["--set", &weights]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.contains("expected a weights file, got the checkpoint of a training run: "), "{stderr}");
    assert!(
        stderr.contains("hint: use the weights of that training run in ") && stderr.contains("whole/weights"),
        "{stderr}"
    );
    // A finished training run writes nothing, in any precision.
    let written = std::fs::read(half.join("weights/segmentor.safetensors")).unwrap();
    stdout_of(&segmentor(&half, &["--resume"]));
    assert!(std::fs::read(half.join("weights/segmentor.safetensors")).unwrap() == written);
}

/// The metadata of weights names the network and its preprocessing; other uses of the weights are errors.
#[test]
fn validate_checks_metadata_of_weights() {
    let folder = tempfile::tempdir().unwrap();
    let quickstart = project("pipelines/quickstart.toml").display().to_string();
    let discriminator = format!("{:?}", project("pipelines/networks/discriminator.safetensors").display().to_string());
    let refused = |args: &[&str]| {
        let output = freetumor(args);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let stderr = refused(&["validate", &quickstart, "--set", "stages.found.network.spacing_mm=[2, 2, 2]"]);
    let expected = "expected the voxel spacing used in training, [4.0, 4.0, 4.0] mm, got [2.0, 2.0, 2.0]";
    assert!(
        stderr.contains(expected) && stderr.contains("hint: set spacing_mm = [4.0, 4.0, 4.0], as in the weights"),
        "{stderr}"
    );
    let set = format!("stages.found.network.weights={discriminator}");
    let stderr = refused(&["validate", &quickstart, "--set", &set]);
    assert!(stderr.contains("expected the weights of a segmentor, got those of a discriminator"), "{stderr}");
    let synthesis = project("pipelines/train-synthesis-small.toml").display().to_string();
    let set = format!("train.segmentor.weights={discriminator}");
    let stderr = refused(&["validate", &synthesis, "--set", &set]);
    assert!(stderr.contains("expected the weights of a segmentor, got those of a discriminator"), "{stderr}");
    let weights = project("pipelines/networks/segmentor.safetensors").display().to_string();
    let set = format!("train.segmentor.weights={weights:?}");
    stdout_of(&freetumor(&["validate", &synthesis, "--set", &set]));
    let stderr = refused(&["validate", &synthesis, "--set", &set, "--set", "train.preprocess.window_hu=[-200, 300]"]);
    assert!(
        stderr.contains("hint: set `train.preprocess.window_hu` to [-175.0, 250.0], the value in the weights"),
        "{stderr}"
    );
    let invalid = folder.path().join("invalid.safetensors");
    std::fs::write(&invalid, "text").unwrap();
    let set = format!("train.network.weights={:?}", invalid.display().to_string());
    let segmentor = project("pipelines/train-segmentor-small.toml").display().to_string();
    assert!(refused(&["validate", &segmentor, "--set", &set]).contains("invalid.safetensors"));
    let stderr = refused(&["train", "segmentor", &quickstart]);
    assert!(stderr.contains("quickstart.toml has no section [train]"), "{stderr}");
    // A training file without the section [train] is a pipeline that cannot be run.
    let text = std::fs::read_to_string(project("pipelines/train-segmentation-small.toml")).unwrap();
    let run = folder.path().join("run.toml");
    std::fs::write(&run, text.split("[train]").next().unwrap()).unwrap();
    assert!(refused(&["validate", run.to_str().unwrap()]).contains("receives samples in a training run, not in a run"));
}

/// `validate` counts the scans of a training without starting it.
#[test]
fn validate_counts_scans_and_reports_errors_of_training_file() {
    let validate = |file: &str, sets: &[&str], json: bool| {
        let file = project(file).display().to_string();
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).chain(json.then_some("--json")).collect();
        freetumor(&[&["validate", &file], &sets[..]].concat())
    };
    let stdout = stdout_of(&validate("pipelines/train-segmentor-small.toml", &[], false));
    assert!(
        stdout.ends_with("valid for `freetumor train segmentor`: 30 labeled scans, 10 validation scans\n"),
        "{stdout}"
    );
    let stdout = stdout_of(&validate("pipelines/train-segmentation-small.toml", &[], false));
    let expected = "valid for `freetumor train segmentation`: 8 labeled scans, 10 validation scans, fresh tumors in ";
    assert!(stdout.contains(expected), "{stdout}");
    let output = validate("pipelines/train-synthesis-small.toml", &["train.segmentor.weights=no.pt"], true);
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let report = &report["pipelines"][0];
    assert_eq!((report["trains"].as_str(), report["good"].as_bool()), (Some("synthesis"), Some(false)), "{report}");
    let message = report["problems"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("`train.segmentor.weights`: cannot read"), "{message}");
    let output = validate("pipelines/train-segmentor-small.toml", &["sources.bodies.count=0"], false);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("error: there is no labeled scan"), "{stderr}");
}
