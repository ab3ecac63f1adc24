//! Weights that trainings write and take, and files for training that are validated.

use std::path::Path;

use candle_core::{DType, Device};
use half::f16;

use super::command::{freetumor, project, ran, segmentor};

/// Weights for inference may be half as large; a checkpoint is none of them.
#[test]
fn weights_are_written_in_16_bits_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, half) = (folder.path().join("whole"), folder.path().join("half"));
    ran(&segmentor(&whole, &[]));
    ran(&segmentor(&half, &["--half"]));
    let read = |run: &Path| freetumor::nn::weights::read(&run.join("weights/segmentor.safetensors"), &Device::Cpu);
    let (whole_weights, half_weights) = (read(&whole).unwrap(), read(&half).unwrap());
    for (name, tensor) in &whole_weights {
        let rounded: Vec<f16> = tensor.to_dtype(DType::F16).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(half_weights[name].dtype(), DType::F16);
        assert!(half_weights[name].flatten_all().unwrap().to_vec1::<f16>().unwrap() == rounded, "{name}");
    }
    let checkpoint = |run: &Path| std::fs::read(run.join("checkpoint.safetensors")).unwrap();
    assert!(checkpoint(&whole) == checkpoint(&half), "what goes on keeps all bits");
    let weights = format!("train.network.weights={}", whole.join("checkpoint.safetensors").display());
    let refused = segmentor(&folder.path().join("next"), &["--set", &weights]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("whole/checkpoint.safetensors is the checkpoint of a training, not a file of weights"),
        "{said}"
    );
    assert!(said.contains("hint: use the weights of that training in ") && said.contains("whole/weights"), "{said}");
    // Where there is nothing to do nothing is written, in whatever precision.
    let written = std::fs::read(half.join("weights/segmentor.safetensors")).unwrap();
    ran(&segmentor(&half, &["--resume"]));
    assert!(std::fs::read(half.join("weights/segmentor.safetensors")).unwrap() == written);
}

/// Weights say which network they are and how it saw: nothing is taken for another, or shown otherwise, in silence.
#[test]
fn weights_are_taken_for_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let quickstart = project("pipelines/quickstart.toml").display().to_string();
    let discriminator = format!("{:?}", project("pipelines/networks/discriminator.safetensors").display().to_string());
    let refused = |args: &[&str]| {
        let output = freetumor(args);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["validate", &quickstart, "--set", "stages.found.network.spacing_mm=[2, 2, 2]"]);
    let expected = "expected the voxel spacing of training, [4.0, 4.0, 4.0] mm, got [2.0, 2.0, 2.0]";
    assert!(said.contains(expected) && said.contains("hint: set spacing_mm = [4.0, 4.0, 4.0], as in the weights"), "{said}");
    let set = format!("stages.found.network.weights={discriminator}");
    let said = refused(&["validate", &quickstart, "--set", &set]);
    assert!(said.contains("expected the weights of a segmentor, got those of a discriminator"), "{said}");
    let synthesis = project("pipelines/train-synthesis-small.toml").display().to_string();
    let set = format!("train.segmentor.weights={discriminator}");
    let said = refused(&["validate", &synthesis, "--set", &set]);
    assert!(said.contains("expected the weights of a segmentor, got those of a discriminator"), "{said}");
    let judge = project("pipelines/networks/segmentor.safetensors").display().to_string();
    let set = format!("train.segmentor.weights={judge:?}");
    ran(&freetumor(&["validate", &synthesis, "--set", &set]));
    let said = refused(&["validate", &synthesis, "--set", &set, "--set", "train.preprocess.window_hu=[-200, 300]"]);
    assert!(
        said.contains("hint: the weights say window_hu = [-175.0, 250.0]: set `train.preprocess.window_hu`"),
        "{said}"
    );
    let broken = folder.path().join("broken.safetensors");
    std::fs::write(&broken, "nothing").unwrap();
    let set = format!("train.network.weights={:?}", broken.display().to_string());
    let segmentor = project("pipelines/train-segmentor-small.toml").display().to_string();
    assert!(refused(&["validate", &segmentor, "--set", &set]).contains("broken.safetensors"));
    let said = refused(&["train", "segmentor", &quickstart]);
    assert!(said.contains("quickstart.toml has no section [train]"), "{said}");
    // A file for training without its section is a pipeline that cannot be run.
    let text = std::fs::read_to_string(project("pipelines/train-segmentation-small.toml")).unwrap();
    let run = folder.path().join("run.toml");
    std::fs::write(&run, text.split("[train]").next().unwrap()).unwrap();
    assert!(refused(&["validate", run.to_str().unwrap()]).contains("is fed by a training, not by a run"));
}

/// What a training would take is known without starting it.
#[test]
fn files_for_training_are_validated() {
    let validated = |file: &str, sets: &[&str], json: bool| {
        let file = project(file).display().to_string();
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).chain(json.then_some("--json")).collect();
        freetumor(&[&["validate", &file], &sets[..]].concat())
    };
    let said = ran(&validated("pipelines/train-segmentor-small.toml", &[], false));
    assert!(said.ends_with("valid for `freetumor train segmentor`: 30 labeled scans, 10 for validation\n"), "{said}");
    let said = ran(&validated("pipelines/train-segmentation-small.toml", &[], false));
    let expected = "valid for `freetumor train segmentation`: 8 labeled scans, 10 for validation, fresh tumors in ";
    assert!(said.contains(expected), "{said}");
    let output = validated("pipelines/train-synthesis-small.toml", &["train.segmentor.weights=no.pt"], true);
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let report = &report["pipelines"][0];
    assert_eq!((report["trains"].as_str(), report["good"].as_bool()), (Some("synthesis"), Some(false)), "{report}");
    let message = report["problems"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("`train.segmentor.weights`: cannot read"), "{message}");
    let output = validated("pipelines/train-segmentor-small.toml", &["sources.bodies.count=0"], false);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("error: there is no labeled scan"), "{said}");
}
