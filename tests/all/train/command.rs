//! The command `freetumor train`: messages, files and errors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use freetumor::nn::weights::WeightsMetadata;
use freetumor::train::checkpoint;
use freetumor::train::history::{History, TRAIN, VALIDATION};

use crate::patients::write_decathlon;

pub(super) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(super) fn freetumor(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only").env("COLUMNS", "100");
    command.args(args).output().unwrap()
}

/// Formats the exit code and both streams, with a placeholder for the folder.
fn shown(output: &Output, folder: &Path) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&*folder.to_string_lossy(), "FOLDER");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    format!("exit {}\n--- stdout\n{stdout}--- stderr\n{stderr}", output.status.code().unwrap_or(-1))
}

/// Settings for a training of seconds.
const TINY: &[&str] = &[
    "sources.bodies.count=5",
    "sources.bodies.shape=[32, 28, 24]",
    "sources.bodies.spacing_mm=[9.0, 9.0, 9.0]",
    "train.preprocess.spacing_mm=[9.0, 9.0, 9.0]",
    "train.preprocess.patch_voxels=[16, 16, 16]",
    "train.network.width=2",
    "train.steps=4",
    "train.optimiser.schedule.warmup_steps=1",
    "train.every={ checkpoint = 2, validation = 2, picture = 4 }",
];

pub(super) fn segmentor(out: &Path, more: &[&str]) -> Output {
    let (config, out) = (project("pipelines/train-segmentor-small.toml"), out.display().to_string());
    let mut args = vec!["train", "segmentor", config.to_str().unwrap(), "--out", &out];
    for set in TINY {
        args.extend(["--set", set]);
    }
    args.extend(more);
    freetumor(&args)
}

#[track_caller]
pub(super) fn stdout_of(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn help_describes_stages_and_options() {
    insta::assert_snapshot!(shown(&freetumor(&["train", "--help"]), Path::new("/missing")));
}

#[test]
fn train_reports_all_errors_of_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    let text = r#"
[pipeline]
name = "bad"
[sources.bodies]
kind = "phantom"
lesions = { organs = ["hart"], mean = -1.0 }
[stages.organs]
kind = "labels"
inputs = ["bodies"]
organs = ["liver"]
[train]
step = 100
batch = 0
labeled = ["organ"]
overlap = 1.5
[train.preprocess]
patch_voxels = [30, 32, 32]
[train.network]
model = "swin"
[train.optimiser]
rate = -1
schedule = { course = "reference" }
[train.crops]
label = 0
background = 0
[train.every]
checkpoint = 0
"#;
    std::fs::write(&path, text).unwrap();
    let output = freetumor(&["train", "segmentor", path.to_str().unwrap(), "--set", "train.seed=3"]);
    insta::assert_snapshot!(shown(&output, folder.path()));
    let text = text.replace("step = 100", "steps = 100").replace("\"swin\"", "\"unet3d\"").replace("hart", "liver");
    std::fs::write(&path, text.replace("mean = -1.0", "mean = 1.0")).unwrap();
    let output = freetumor(&["train", "segmentation", path.to_str().unwrap()]);
    insta::assert_snapshot!(shown(&output, folder.path()));
}

/// A training supplies samples to sinks of kind `trainer` and to no other sink; a run of the pipeline rejects a sink of this kind.
#[test]
fn only_trainer_sinks_receive_samples_and_only_in_training() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(project("pipelines/train-segmentation-small.toml")).unwrap();
    let unfed = folder.path().join("unfed.toml");
    std::fs::write(&unfed, text.replace("kind = \"trainer\"", "kind = \"decathlon\"")).unwrap();
    let output = freetumor(&["train", "segmentation", unfed.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr.contains("no sink of kind `trainer` has a quality test as input") && stderr.contains("unfed.toml:"),
        "{stderr}"
    );
    let both = folder.path().join("both.toml");
    std::fs::write(&both, format!("{text}\n[sinks.images]\nkind = \"decathlon\"\ninputs = [\"test\"]\n")).unwrap();
    let output = freetumor(&["train", "segmentation", both.to_str().unwrap(), "--out", "/dev/null/missing"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("warning: `sinks.images` receives no samples"), "{stderr}");
    let run = folder.path().join("run.toml");
    std::fs::write(&run, text.split("[train]").next().unwrap()).unwrap();
    let output = freetumor(&["run", run.to_str().unwrap(), "--out", folder.path().join("out").to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr.contains("`sinks.training` receives samples in a training run, not in a run of the pipeline"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: run freetumor train segmentation") && !folder.path().join("out").exists(),
        "{stderr}"
    );
}

#[test]
fn resumed_training_equals_uninterrupted_training() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let stdout = stdout_of(&segmentor(&whole, &[]));
    assert!(stdout.starts_with("segmentor: step 4 of 4; 4 steps in "), "{stdout}");
    assert!(stdout.contains("dice liver ") && stdout.contains("whole/weights"), "{stdout}");
    let stdout = stdout_of(&segmentor(&stopped, &["--limit", "2", "--threads", "2"]));
    assert!(stdout.contains("the same command with --resume"), "{stdout}");
    let refused = segmentor(&stopped, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("hint: resume the training run with `--resume`"));
    stdout_of(&segmentor(&stopped, &["--resume", "--memory", "1"]));
    for name in
        ["checkpoint.safetensors", "history.parquet", "curves.png", "settings.json", "weights/segmentor.safetensors"]
    {
        assert!(std::fs::read(whole.join(name)).unwrap() == std::fs::read(stopped.join(name)).unwrap(), "{name}");
    }
    let history = History::read(&whole.join("history.parquet"), u64::MAX).unwrap();
    assert_eq!(history.series(TRAIN, "loss").count(), 4);
    assert_eq!(history.series(VALIDATION, "dice liver").count(), 2);
    assert!(
        stdout_of(&segmentor(&whole, &["--resume"])).starts_with("segmentor: nothing to do, already at step 4 of 4")
    );
    let refused = segmentor(&whole, &["--resume", "--set", "train.batch=3"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("expected `train.batch` to be 2, got 3"));
    // The metadata of weights describes the network, so that `infer` requires only its architecture.
    let weights = whole.join("weights/segmentor.safetensors");
    assert_eq!(freetumor::nn::weights::read_metadata(&weights).unwrap()["norm"], "instance");
}

/// A limit on the size of files simulates a full disk.
#[cfg(target_os = "linux")]
#[test]
fn folds_hold_out_each_patient_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("folds");
    let reports: serde_json::Value =
        serde_json::from_str(&stdout_of(&segmentor(&out, &["--folds", "2", "--json"]))).unwrap();
    assert_eq!(reports.as_array().unwrap().len(), 2);
    let held_out = |fold: &str| {
        let weights = out.join(fold).join("weights/segmentor.safetensors");
        WeightsMetadata::of(&weights).held_out_patients.into_iter().collect::<BTreeSet<String>>()
    };
    let (first, second) = (held_out("fold-0"), held_out("fold-1"));
    assert_eq!((first.len(), second.len(), first.intersection(&second).count()), (3, 2, 0));
    // Without folds, weights name no patients.
    let all = folder.path().join("all");
    stdout_of(&segmentor(&all, &[]));
    assert!(WeightsMetadata::of(&all.join("weights/segmentor.safetensors")).held_out_patients.is_empty());
    let few = segmentor(&folder.path().join("few"), &["--folds", "9"]);
    let message = String::from_utf8_lossy(&few.stderr).into_owned();
    assert!(message.contains("expected at least 9 labeled patients for 9 folds, got 5"), "{message}");
    let config = project("pipelines/train-synthesis-small.toml").display().to_string();
    let other = freetumor(&["train", "synthesis", &config, "--folds", "2"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("expected the stage `segmentor` with --folds"));
}

#[test]
fn full_disk_keeps_previous_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    stdout_of(&segmentor(&out, &["--limit", "2"]));
    let before = std::fs::read(out.join("checkpoint.safetensors")).unwrap();
    let config = project("pipelines/train-segmentor-small.toml");
    let sets: String = TINY.iter().map(|set| format!(" --set '{set}'")).collect();
    let (program, config, folder) = (env!("CARGO_BIN_EXE_freetumor"), config.display(), out.display());
    let script =
        format!("trap '' XFSZ; ulimit -f 40; exec {program} train segmentor {config} --out {folder} --resume{sets}");
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot "), "{stderr}");
    assert!(std::fs::read(out.join("checkpoint.safetensors")).unwrap() == before, "the last checkpoint is intact");
    assert_eq!(checkpoint::read_header(&out.join("checkpoint.safetensors")).unwrap().step, 2);
    let left = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.starts_with('.')), "no temporary file is left");
    stdout_of(&segmentor(&out, &["--resume"]));
}

#[test]
fn train_reports_missing_labels_and_scans_before_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |sets: &[&str]| {
        let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let output = segmentor(&folder.path().join("run"), &more);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let stderr = refused(&["sources.bodies.lesions.share=0.0"]);
    assert!(stderr.contains("no labeled scan has a liver tumor"), "{stderr}");
    assert!(stderr.contains("hint: check the label ids of the mask stage"), "{stderr}");
    let stderr = refused(&["sources.bodies.count=0"]);
    assert!(stderr.contains("error: expected at least one labeled scan, got none"), "{stderr}");
    let stderr = refused(&["train.network.weights=no.safetensors"]);
    assert!(stderr.contains("`train.network.weights`: cannot read"), "{stderr}");
}

#[test]
fn generator_and_final_segmentor_train_from_small_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    stdout_of(&segmentor(&folder.path().join("s"), &[]));
    let small = |source: &str| {
        let sets = [
            format!("sources.{source}.count=4"),
            format!("sources.{source}.shape=[32, 28, 24]"),
            format!("sources.{source}.spacing_mm=[9.0, 9.0, 9.0]"),
        ];
        sets.into_iter()
    };
    let shared = |sources: &[&str]| {
        let mut sets: Vec<String> = sources.iter().flat_map(|source| small(source)).collect();
        sets.extend(
            TINY.iter().filter(|set| set.starts_with("train.") && !set.contains("optim")).map(ToString::to_string),
        );
        sets
    };
    let train = |stage: &str, file: &str, out: &str, sets: Vec<String>| {
        let config = project(file).display().to_string();
        let mut args =
            vec!["train".to_owned(), stage.to_owned(), config, "--out".to_owned(), path(out), "--json".to_owned()];
        args.extend(sets.into_iter().flat_map(|set| ["--set".to_owned(), set]));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        serde_json::from_str::<serde_json::Value>(&stdout_of(&freetumor(&args))).unwrap()
    };
    let mut sets = shared(&["labeled_bodies", "unlabeled_bodies"]);
    sets.retain(|set| !set.contains("network"));
    sets.push(format!("train.segmentor.weights={}", path("s/weights/segmentor.safetensors")));
    sets.extend(["generator", "discriminator"].map(|name| format!("train.{name}.width=2")));
    sets.push("train.validation_crops=2".to_owned());
    sets.push("train.shapes.diameter_mm=[20.0, 80.0]".to_owned());
    sets.push("train.shapes.min_diameter_voxels=1.5".to_owned());
    // The metadata of weights contains the preprocessing of the network.
    let weights = folder.path().join("s/weights/segmentor.safetensors");
    let about = freetumor::nn::weights::read_metadata(&weights).unwrap();
    assert_eq!((&*about["spacing_mm"], &*about["patch_voxels"]), ("[9.0,9.0,9.0]", "[16,16,16]"));
    assert_eq!(about["window_hu"], "[-175.0,250.0]");
    let report = train("synthesis", "pipelines/train-synthesis-small.toml", "g", sets);
    assert_eq!(report["step"], 4, "{report}");
    assert!(report["scores"]["realness"].as_f64().unwrap() > 0.0, "{report}");
    assert!(folder.path().join("g/weights/generator.safetensors").exists());
    let mut sets = shared(&["labeled_bodies", "unlabeled_bodies", "held_out_bodies"]);
    sets.push("train.optimiser.schedule.warmup_steps=1".to_owned());
    sets.push("stages.tumors.diameter_mm=[20.0, 80.0]".to_owned());
    sets.push("stages.tumors.min_diameter_voxels=1.5".to_owned());
    let report = train("segmentation", "pipelines/train-segmentation-small.toml", "f", sets.clone());
    assert!(report["scores"]["dice liver"].as_f64().unwrap() >= 0.0, "{report}");
    // If few fresh tumors pass, even a short training reports it.
    sets.push("stages.test.accept=[\"delta_hu > 1000 HU\"]".to_owned());
    let (config, out) = (project("pipelines/train-segmentation-small.toml").display().to_string(), path("none"));
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let args: Vec<&str> = ["train", "segmentation", &config, "--out", &out].into_iter().chain(sets).collect();
    let stderr = String::from_utf8_lossy(&freetumor(&args).stderr).into_owned();
    assert!(
        stderr.contains("warning: for 0 of ") && stderr.contains("a synthetic tumor passed the quality test"),
        "{stderr}"
    );
}

#[test]
fn full_size_files_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let published = crate::network_stages::runs::published();
    for list in ["lits", "msd_pancreas", "kits"] {
        let text = r#"{"training": [{"image": "a.nii.gz", "label": "b.nii.gz"}]}"#;
        std::fs::write(folder.path().join(format!("{list}.json")), text).unwrap();
    }
    for stage in ["segmentor", "synthesis", "segmentation"] {
        let config = project(&format!("pipelines/train-{stage}.toml"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
        command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only");
        command.env("ABDOMEN", folder.path()).env("ARCHIVE", folder.path());
        let out = folder.path().join("out");
        let weights = format!("train.segmentor.weights={}", folder.path().join("kits.json").display());
        command.args(["train", stage]).arg(config).arg("--out").arg(&out);
        if stage == "synthesis" {
            command.args(["--set", &weights]);
        }
        if stage == "segmentation" {
            let at = |name: &str| published.path().join(name).display().to_string();
            let generator = format!("stages.tumors.network={{ weights = {:?}, part = \"generator\" }}", at("TGAN.pt"));
            let segmentor = format!("stages.segmentor.network.weights={:?}", at("model_baseline_segmentor.pt"));
            command.args(["--set", &generator, "--set", &segmentor]);
        }
        let stderr = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
        // The file is valid; only the scans of the list do not exist.
        assert!(stderr.contains("error: no labeled scan can be read, of "), "{stage}: {stderr}");
    }
}

/// A run is not resumed with changed lists or labels, and one file under two patients is one patient.
#[test]
fn train_refuses_changed_lists_and_files_under_two_patients() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_decathlon(&data, 3, [32, 32, 24], 4.0);
    let list = |name: &str, patients: std::ops::Range<usize>| {
        let text = std::fs::read_to_string(data.join("dataset.json")).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = json["training"].as_array().unwrap()[patients].to_vec();
        json["training"] = all.into();
        std::fs::write(data.join(name), json.to_string()).unwrap();
    };
    let config = folder.path().join("train.toml");
    let source = |name: &str, more: &str| {
        format!(
            "[sources.{name}]\nkind = \"decathlon\"\nlist = \"data/{name}.json\"\n{more}\n\
             [stages.of_{name}]\nkind = \"labels\"\ninputs = [\"{name}\"]\npattern = \"{{label}}\"\nscheme = \"custom\"\n\
             organs = {{ liver = {{ ids = [1], tumor_ids = [2] }} }}\n"
        )
    };
    let text = |second: &str| {
        format!(
            "[pipeline]\nname = \"lists\"\nseed = 1\nsplit = {{ train = 1.0 }}\n{}{}\
             [train]\nsteps = 4\nlabeled = [\"of_one\"]\nvalidation = [\"of_two\"]\n\
             preprocess = {{ spacing_mm = [8.0, 8.0, 8.0], patch_voxels = [16, 16, 128] }}\n\
             network = {{ model = \"unet3d\", width = 2 }}\noptimiser = {{ schedule = {{ warmup_steps = 1 }} }}\n",
            source("one", "dataset = \"a\""),
            source("two", second)
        )
    };
    let train = |more: &[&str]| {
        let (config, out) = (config.display().to_string(), folder.path().join("out").display().to_string());
        let output = freetumor(&[&["train", "segmentor", &config, "--out", &out], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    list("one.json", 0..2);
    list("two.json", 1..3);
    for (second, expected) in [
        ("dataset = \"a\"", "is in the training scans and in the validation scans"),
        ("dataset = \"b\"", "probably also a validation scan under another patient"),
    ] {
        std::fs::write(&config, text(second)).unwrap();
        let (code, stderr) = train(&[]);
        assert!(code == Some(2) && stderr.contains(expected), "{stderr}");
    }
    list("two.json", 2..3);
    let (code, stderr) = train(&["--limit", "2", "--resume"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("has no checkpoint to resume from"), "{stderr}");
    assert!(stderr.contains("2 of 2 labeled scans are smaller than `patch_voxels` [16, 16, 128]"), "{stderr}");
    list("one.json", 0..1);
    let (code, stderr) = train(&["--resume"]);
    assert!(code == Some(2) && stderr.contains("expected `scans.labeled` to be \"2 listed, "), "{stderr}");
    list("one.json", 0..2);
    // Changed labels under the same names are other scans.
    let labels = std::fs::read_dir(data.join("labelsTr")).unwrap().map(|entry| entry.unwrap().path());
    let labels = labels.min().unwrap();
    let (original, other) = (std::fs::read(&labels).unwrap(), labels.with_file_name("labeled_001.nii.gz"));
    std::fs::copy(other, &labels).unwrap();
    let (code, stderr) = train(&["--resume"]);
    assert!(code == Some(2) && stderr.contains("expected `scans.labeled_contents` to be "), "{stderr}");
    std::fs::write(&labels, original).unwrap();
    let (code, stderr) = train(&["--resume"]);
    assert_eq!(code, Some(0), "{stderr}");
    let scan_files = std::fs::read_to_string(folder.path().join("out/private/scans.jsonl")).unwrap();
    assert_eq!(scan_files.lines().count(), 3, "{scan_files}");
    assert!(scan_files.contains("labeled_000.nii.gz"), "{scan_files}");
}

/// The files of a run identify its patients under another source name, and failed scans are reported.
#[test]
fn train_recognizes_patients_of_run_and_counts_failed_scans() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_decathlon(&data, 6, [48, 48, 32], 4.0);
    let source = |name: &str| {
        format!(
            "[sources.{name}]\nkind = \"decathlon\"\nlist = \"data/dataset.json\"\n\
             [stages.organs]\nkind = \"labels\"\ninputs = [\"{name}\"]\npattern = \"{{label}}\"\nscheme = \"custom\"\n\
             organs = {{ liver = {{ ids = [1], tumor_ids = [2] }} }}\n"
        )
    };
    let pipeline = |split: &str| format!("[pipeline]\nname = \"known\"\nseed = 1\nsplit = {{ {split} }}\n");
    let made = format!(
        "{}{}[stages.tumors]\nkind = \"rules\"\ninputs = [\"organs\"]\ndiameter_mm = [10.0, 20.0]\n\
         [stages.contrast]\nkind = \"intensity\"\ninputs = [\"tumors\"]\n\
         [stages.test]\nkind = \"quality-test\"\ninputs = [\"contrast\"]\n\
         [sinks.all]\nkind = \"nnunet\"\ninputs = [\"test\"]\n",
        pipeline("train = 1.0"),
        source("archive")
    );
    let trained = format!(
        "{}{}[train]\nsteps = 2\nlabeled = [\"organs\"]\n\
         preprocess = {{ spacing_mm = [8.0, 8.0, 8.0], patch_voxels = [16, 16, 16] }}\n\
         network = {{ model = \"unet3d\", width = 2 }}\noptimiser = {{ schedule = {{ warmup_steps = 1 }} }}\n\
         synthetic = {{ share = 0.5, runs = [{{ folder = \"made\", at = 0 }}] }}\n",
        pipeline("train = 0.5, validation = 0.5"),
        source("data")
    );
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("made.toml"), made).unwrap();
    std::fs::write(path("train.toml"), trained).unwrap();
    stdout_of(&freetumor(&["run", &path("made.toml"), "--out", &path("made")]));
    let made = std::fs::read_dir(folder.path().join("made/data")).unwrap();
    let is_image = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".image.nii.gz");
    assert_eq!(made.filter(|entry| is_image(entry.as_ref().unwrap().file_name())).count(), 6);
    let train = |out: &str| freetumor(&["train", "segmentation", &path("train.toml"), "--out", &path(out)]);
    stdout_of(&train("out"));
    let settings = std::fs::read_to_string(folder.path().join("out/settings.json")).unwrap();
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    let listed = |name: &str| {
        let value = &settings["scans"][name];
        let text = value.as_str().or_else(|| value[0].as_str()).unwrap();
        text.split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let (labeled, validation, runs) = (listed("labeled"), listed("validation"), listed("runs"));
    assert!(labeled > 0 && validation > 0 && labeled + validation == 6, "{settings}");
    // The run has one tumor per patient, of which only those of training patients are used.
    assert_eq!(runs, labeled, "{settings}");
    // A failed scan of any list is reported.
    let images = std::fs::read_dir(data.join("imagesTr")).unwrap().map(|entry| entry.unwrap().path());
    let image = images.min().unwrap();
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let output = train("second");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("skipped 1 scan; ") && stderr.contains("scans.jsonl lists the file of each scan"),
        "{stderr}"
    );
    // The receipt of a withdrawal names both training runs.
    let used = freetumor::train::used_samples::read(&folder.path().join("out/samples.parquet")).unwrap();
    assert_eq!(used.len(), runs);
    let (scan, root) = (used[0].scan_id.to_string(), folder.path().display().to_string());
    let withdrawn = freetumor(&["withdraw", &path("made"), "--scan", &scan, "--trainings", &root, "--json"]);
    let receipt: serde_json::Value = serde_json::from_str(&stdout_of(&withdrawn)).unwrap();
    let trainings: Vec<_> =
        receipt["trainings"].as_array().unwrap().iter().map(|training| &training["samples"]).collect();
    assert_eq!(trainings, [1, 1], "{receipt}");
}
