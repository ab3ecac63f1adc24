//! Pipelines of networks: whole runs, invalid input, a lost device.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::graph::{GraphFile, Plan, Registry, Resources, check};
use freetumor::inference::Networks;
use freetumor::mask::{MaskedScan, Organ};
use freetumor::nn::device::DeviceKind;
use freetumor::nn::fill;
use freetumor::nn::network::Model;
use freetumor::nn::service::Service;
use freetumor::score::{Score, ScoreStage, Scorer, Scores};
use freetumor::synth::Candidate;
use serde_json::Value;

use super::{config, save};
use crate::common::shared;
use crate::dataflow::committed;
use crate::for_loop::plain_loop;

/// Returns a pipeline of narrow networks on phantoms.
fn graph(more: &str) -> String {
    format!(
        r#"
        [pipeline]
        name = "networks"
        seed = 5
        epoch_scans = 2

        [sources.phantoms]
        kind = "phantom"
        count = 4
        body = "abdomen"
        shape = [48, 48, 32]
        spacing_mm = [6, 6, 7]

        [stages.organs]
        kind = "labels"
        inputs = ["phantoms"]
        scheme = "totalsegmentator"
        organs = ["liver", "kidney"]

        [stages.tumors]
        kind = "generator"
        inputs = ["organs"]
        network = {{ weights = "gan.safetensors", part = "generator", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }}
        rules = {{ variants = 2, diameter_mm = [20, 60] }}

        [stages.found]
        kind = "segmentor"
        inputs = ["tumors"]
        network = {{ weights = "s.safetensors", model = "unet3d", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }}

        [stages.held]
        kind = "segmentor"
        held_out = true
        inputs = ["found"]
        network = {{ weights = "h.safetensors", model = "unet3d", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }}

        [stages.real]
        kind = "discriminator"
        inputs = ["held"]
        network = {{ weights = "gan.safetensors", part = "discriminator", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }}

        [stages.test]
        kind = "quality-test"
        inputs = ["real"]
        attempts = 3
        accept = ["tumor_probability > 0.27", "realness > 0", "disagreement < 1"]

        [sinks.training_set]
        kind = "decathlon"
        inputs = ["test"]
        {more}
        "#
    )
}

/// Returns a folder with the weights that [`graph`] names.
fn weights() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let narrow = config(Model::UNet3D, 2, 3);
    let mut gan = BTreeMap::new();
    for part in ["netG.", "netD."] {
        for (name, shape) in narrow.parameters().unwrap() {
            let values = fill::parameter(&format!("{part}{name}"), shape.dims());
            gan.insert(format!("module.{part}{name}"), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        }
    }
    let path = folder.path().join("gan.safetensors");
    crate::infer::save(&path, &gan);
    save(&folder.path().join("s.safetensors"), &config(Model::UNet3D, 2, 7), "");
    save(&folder.path().join("h.safetensors"), &config(Model::UNet3D, 2, 7), "held.");
    folder
}

fn plan_with(text: &str, folder: &Path, batch: usize) -> Result<Plan, Vec<String>> {
    let networks = Networks::new(Service::new(DeviceKind::Cpu, batch));
    let registry = Registry::with_resources(&Resources { networks, ..Resources::default() });
    let checked = check(&GraphFile::new("test.toml", folder, text), &registry);
    let problems = checked.problems.iter().map(ToString::to_string).collect();
    checked.plan.ok_or(problems)
}

fn run_in(plan: Plan, folder: &Path, options: &RunOptions) -> freetumor::error::Result<RunReport> {
    run(plan, folder, options, &Arc::new(Progress::default()))
}

#[test]
fn dataflow_of_networks_writes_the_bytes_of_the_plain_loop_for_any_batch() {
    let folder = weights();
    let plan = |batch| plan_with(&graph(""), folder.path(), batch).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let plain = tempfile::tempdir().unwrap();
    plain_loop(plan(1), plain.path()).unwrap();
    let expected = committed(plain.path());
    for (workers, threads, batch) in [(1, 1, 1), (2, 3, 4)] {
        let out = tempfile::tempdir().unwrap();
        let options = RunOptions { workers, threads, ..RunOptions::default() };
        let report = run_in(plan(batch), out.path(), &options).unwrap();
        assert_eq!((report.scans, report.faults), (4, 0));
        assert!(report.accepted > 0 && report.rejected > 0, "{report:?}");
        assert_eq!(committed(out.path()), expected, "{workers} workers, batches of {batch}");
        let phases: Vec<_> = report.networks.iter().map(|network| (network.node.as_str(), network.phase)).collect();
        use freetumor::inference::InferencePhase::{After, Before, Generate};
        let nodes = [("tumors", Generate), ("found", Before), ("found", After), ("held", After), ("real", After)];
        assert_eq!(phases, nodes);
        let windows = |at: usize| report.networks[at].cost.windows;
        // The prediction for the unchanged scan is cached for all attempts at a site.
        assert!(windows(0) < windows(2) && windows(1) < windows(2), "{:?}", report.networks);
        assert!(report.device_busy_share > 0.0 && report.other_seconds > 0.0);
        assert!(report.processors_busy_share > 0.0 && report.processors_busy_share < 1.01);
    }
}

#[test]
fn check_reports_errors_of_networks_before_the_run() {
    let folder = weights();
    let nan = Tensor::full(f32::NAN, (3, 2, 1, 1, 1), &Device::Cpu).unwrap();
    let path = folder.path().join("nan.safetensors");
    crate::infer::save(&path, &BTreeMap::from([("out.weight".to_owned(), nan)]));
    let problems = |from: &str, to: &str| {
        let text = graph("").replace(from, to);
        assert_ne!(text, graph(""), "expected {from} in the graph");
        plan_with(&text, folder.path(), 1).err().unwrap_or_default().join("\n")
    };
    for (from, to, expected) in [
        ("s.safetensors", "none.safetensors", "cannot read the weights"),
        ("s.safetensors", "nan.safetensors", "the weights do not fit"),
        ("model = \"unet3d\", roi", "model = \"swin_unetr\", roi", "the weights do not fit"),
        ("s.safetensors\", model", "gan.safetensors\", model", "several networks: generator, discriminator"),
        ("s.safetensors\", model", "gan.safetensors\", part = \"generator\", model", "from 0 to 2, got"),
        ("kind = \"discriminator\"", "kind = \"discriminator\"\nreal_class = 3", "0 to 2, got 3"),
        (
            "rules = {",
            "channels = { liver = 3 }\nrules = {",
            "expected one of the network's 3 channels for the liver, got 3",
        ),
        ("rules = {", "channels = { colon = 1 }\nrules = {", "expected an organ of the mask"),
        ("rules = { variants = 2,", "rules = { variants = 0,", "expected 1 to 1000, got 0"),
        (
            "part = \"discriminator\", roi_voxels = [16, 16, 16]",
            "part = \"discriminator\", roi_voxels = [16, 12, 16]",
            "multiples of 8",
        ),
        (
            "part = \"discriminator\", roi_voxels = [16, 16, 16]",
            "part = \"discriminator\", roi_voxels = [512, 512, 512]",
            "at most 16777216 voxels",
        ),
        (
            "kind = \"segmentor\"",
            "kind = \"segmentor\"\nclasses = { colon = [1, 2] }",
            "classes of an organ of the mask",
        ),
        ("part = \"generator\",", "part = \"generator\", overlap = 1.0,", "of at least 0 and below 1"),
        ("part = \"generator\",", "part = \"generator\", window_hu = [250, -175],", "in ascending order"),
        ("kind = \"generator\"", "kind = \"generatr\"", "generator"),
    ] {
        let problems = problems(from, to);
        assert!(problems.contains(expected), "{to}: {problems}");
        assert!(problems.contains("test.toml:"), "expected a line of the file: {problems}");
    }
    let problems = problems(
        "part = \"discriminator\", roi_voxels",
        "part = \"discriminator\", window_hu = [-1000, 500], roi_voxels",
    );
    assert!(problems.contains("another window"), "{problems}");
}

#[test]
fn infinite_logits_fail_the_scan_but_not_the_run() {
    let folder = weights();
    // Weights so large that their sums are infinite.
    let huge = config(Model::UNet3D, 2, 7).parameters().unwrap().into_iter().map(|(name, shape)| {
        let tensor = Tensor::full(3e38f32, shape, &Device::Cpu).unwrap();
        (name, tensor)
    });
    let path = folder.path().join("h.safetensors");
    crate::infer::save(&path, &huge.collect());
    let out = tempfile::tempdir().unwrap();
    let plan = plan_with(&graph(""), folder.path(), 2).unwrap();
    let report = run_in(plan, out.path(), &RunOptions::default()).unwrap();
    assert_eq!(report.scans, 4);
    assert_eq!(report.fault_kinds.get("score/network"), Some(&report.faults), "{report:?}");
    assert!(report.faults > 0);
}

#[test]
fn lost_device_stops_the_run_and_the_run_resumes() {
    /// A score that fails while the device is lost.
    struct LostDevice(bool);
    impl ScoreStage for LostDevice {
        fn scores(&self) -> &'static [Score] {
            &[Score::Cnr]
        }
        fn baseline<'s>(&'s self, scan: &'s MaskedScan, _: &'s Organ) -> Result<Box<dyn Scorer + 's>, Fault> {
            if self.0 && scan.scan.digest.as_bytes()[0] >= 0x80 {
                return Err(Fault::new(Stage::Score, FaultKind::Device, "the GPU does not respond"));
            }
            Ok(Box::new(self))
        }
    }
    impl Scorer for &LostDevice {
        fn score(&self, _: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
            scores.set(Score::Cnr, 1.0);
            Ok(())
        }
    }
    #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct NoSettings {}

    let text = graph("").replace(
        "kind = \"discriminator\"\n        inputs = [\"held\"]\n        network = { weights = \"gan.safetensors\", part = \"discriminator\", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }",
        "kind = \"lost-device\"\n        inputs = [\"held\"]",
    );
    let text = text.replace("\"realness > 0\"", "\"cnr > 0\"");
    let folder = weights();
    let plan = |is_lost: bool| {
        let mut registry = Registry::standard();
        registry.add_score("lost-device", "Fails while the device is lost.", move |_: NoSettings, _| {
            Ok(freetumor::graph::Scoring { stage: Arc::new(LostDevice(is_lost)), input_spec: Default::default() })
        });
        let checked = check(&GraphFile::new("test.toml", folder.path(), text.clone()), &registry);
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        checked.plan.unwrap_or_else(|| panic!("{problems:#?}"))
    };
    let whole = tempfile::tempdir().unwrap();
    run_in(plan(false), whole.path(), &RunOptions::default()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = run_in(plan(true), out.path(), &RunOptions::default()).unwrap_err();
    assert!(error.to_string().contains("the device of the networks is lost"), "{error}");
    run_in(plan(false), out.path(), &RunOptions::default()).unwrap();
    assert_eq!(committed(out.path()), committed(whole.path()), "expected every sample exactly once");
}

/// Returns a folder of narrow networks under the names of the published networks.
pub fn published() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, channels) in [("TGAN.pt", 3), ("TGAN_chest.pt", 1)] {
        let mut both = BTreeMap::new();
        for (part, classes) in [("netG.", channels), ("netD.", 3)] {
            for (name, shape) in config(Model::UNet3D, 2, classes).parameters().unwrap() {
                let values = fill::parameter(&format!("{part}{name}"), shape.dims());
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
                both.insert(format!("module.{part}{name}"), tensor);
            }
        }
        crate::infer::save(&at(name), &both);
    }
    save(&at("model_baseline_segmentor.pt"), &config(Model::SwinUnetr, 12, 7), "");
    save(&at("model_covid_voco160k.pt"), &config(Model::SwinUnetr, 12, 2), "");
    folder
}

#[test]
fn pipelines_of_published_networks_validate_and_run() {
    let Some(_) = shared("ct") else { return };
    let weights = published();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["liver", "abdomen", "lung"] {
        let file = root.join(format!("pipelines/{name}-networks.toml"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
        let output = command.arg("validate").arg(&file).env("FREETUMOR_WEIGHTS", weights.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let out = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.arg("run").arg(root.join("pipelines/liver-networks.toml")).arg("--out").arg(out.path().join("run"));
    command.args(["--limit", "1", "--json", "--batch", "2"]).env("FREETUMOR_WEIGHTS", weights.path());
    for stage in ["synthesize", "segmentor", "discriminator"] {
        command.arg("--set").arg(format!("stages.{stage}.network.roi_voxels=[32, 32, 32]"));
    }
    let output = command
        .args(["--set", "stages.quality.attempts=2"])
        .env("FREETUMOR_PATIENT_KEY", "a secret for tests only")
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["scans"], &report["faults"]), (&1.into(), &0.into()));
    assert!(report["networks"].as_array().unwrap().len() == 4, "{report}");
}
