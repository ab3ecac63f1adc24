//! The command `freetumor evaluate`: valid and invalid folders, arms, weights, and the Turing test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use freetumor::ingest::nifti::{Datatype, encode_header};
use freetumor::nn::network::Model;
use freetumor::random::Key;
use freetumor::volume::{Affine, Array3, Grid};
use serde_json::Value;

use crate::infer::{bright, config, save, small_scan};

fn evaluate(args: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.arg("evaluate").args(args).args(["--resamples", "300"]).current_dir(folder);
    command.output().unwrap()
}

/// Formats the exit code and both streams.
fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    format!("exit {code}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

fn grid() -> Grid {
    Grid { shape: [20, 16, 12], affine: Affine::from_spacing([2.0, 2.0, 3.0]) }
}

fn write(path: PathBuf, grid: &Grid, ids: &Array3<u8>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = encode_header(grid, Datatype::U8, "").unwrap().to_vec();
    file.extend(ids.as_slice());
    std::fs::write(path, file).unwrap();
}

/// Returns a liver with a tumor of `length` voxels along x, and optionally a second, small tumor.
fn liver(length: usize, has_second_tumor: bool) -> Array3<u8> {
    Array3::from_fn(grid().shape, |[x, y, z]| {
        let is_block = (3..3 + length).contains(&x) && (3..8).contains(&y) && (2..5).contains(&z);
        let is_second = has_second_tumor && x == 17 && y > 12 && (8..10).contains(&z);
        if is_block || is_second { 2 } else { u8::from(x > 0) }
    })
}

/// Writes six cases, the last of which is healthy, and three arms; the third arm lacks a case and has a case without ground truth.
fn write_arms(folder: &Path) {
    for case in 0..6 {
        let name = format!("case-{case}.nii");
        let truth = if case == 5 { liver(0, false) } else { liver(6 + case, case % 2 == 0) };
        write(folder.join("data/labelsTs").join(&name), &grid(), &truth);
        write(folder.join("good").join(&name), &grid(), &truth);
        for seed in 0..2 {
            let prediction = liver(2 + case * (seed + 1) / 2, case == 5 || case == 2);
            write(folder.join(format!("half-{seed}")).join(&name), &grid(), &prediction);
        }
        if case > 0 {
            let mut grid = grid();
            grid.affine.0[2][3] = if case == 3 { 500.0 } else { 0.0 };
            write(folder.join("torn").join(&name), &grid, &truth);
        }
    }
    write(folder.join("torn/extra.nii"), &grid(), &liver(3, false));
}

#[test]
fn evaluate_measures_and_compares_arms() {
    let folder = tempfile::tempdir().unwrap();
    write_arms(folder.path());
    let arms = ["--truth", "data", "--arm", "half=half-0,half-1", "--arm", "good=good"];
    let output = evaluate(&arms, folder.path());
    insta::assert_snapshot!(shown(&output));
    for name in ["cases.parquet", "lesions.parquet", "plot.png", "summary.json"] {
        assert!(std::fs::metadata(folder.path().join("evaluation").join(name)).unwrap().len() > 500, "{name}");
    }

    // The printed JSON equals the file, and a second evaluation writes the same bytes.
    let json = evaluate(&[&arms[..], &["--json", "--out", "second"]].concat(), folder.path());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let file = std::fs::read(folder.path().join("evaluation/summary.json")).unwrap();
    assert_eq!(json, serde_json::from_slice::<Value>(&file).unwrap());
    let tables =
        ["evaluation", "second"].map(|out| std::fs::read(folder.path().join(out).join("lesions.parquet")).unwrap());
    assert_eq!(tables[0], tables[1]);
    let good = json["metrics"].as_array().unwrap().iter().filter(|row| row["arm"] == "good");
    for row in good {
        let expected = if row["metric"] == "false_positives_per_healthy_scan" { 0.0 } else { 1.0 };
        assert_eq!(row["mean"], expected, "{row}");
    }
}

#[test]
fn evaluate_reports_failed_cases_and_measures_the_others() {
    let folder = tempfile::tempdir().unwrap();
    write_arms(folder.path());
    std::fs::write(folder.path().join("half-0/case-4.nii"), b"no image").unwrap();
    write(folder.path().join("data/labelsTs/case-7.nii"), &grid(), &Array3::filled(grid().shape, 9));
    let arms = ["--truth", "data", "--arm", "torn=torn", "--arm", "half=half-0,half-1", "--compare", "half,torn"];
    insta::assert_snapshot!(shown(&evaluate(&arms, folder.path())));
}

/// With wrong ids, all numbers would be perfect or undefined.
#[test]
fn evaluate_warns_about_unexpected_ids() {
    let folder = tempfile::tempdir().unwrap();
    write_arms(folder.path());
    let stderr = |args: &[&str]| {
        let output = evaluate(&[&["--truth", "data", "--predictions"], args].concat(), folder.path());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(!stderr(&["good"]).contains("warning"), "{}", stderr(&["good"]));
    let text = stderr(&["good", "--organ", "liver=1:9"]);
    assert!(
        text.contains("no ground-truth label map contains the tumor id 9 of liver: all cases count as healthy"),
        "{text}"
    );
    let tens = liver(3, true).map(|id| id * 10);
    write(folder.path().join("tens/case-0.nii"), &grid(), &tens);
    let text = stderr(&["tens"]);
    assert!(
        text.contains("predictions contain the ids [10, 20], which no ground-truth label map and no organ has"),
        "{text}"
    );
}

#[test]
fn evaluate_resamples_predictions_to_grid_of_ground_truth() {
    let folder = tempfile::tempdir().unwrap();
    let truth = liver(7, true);
    // The same region, with the first axis reversed, the other axes swapped, and a margin of one slice.
    let flipped = Array3::from_fn([22, 14, 18], |[x, z, y]| {
        let inside = (1..21).contains(&x) && (1..13).contains(&z) && (1..17).contains(&y);
        if inside { truth[[20 - x, y - 1, z - 1]] } else { 0 }
    });
    let affine = Affine([[-2.0, 0.0, 0.0, 40.0], [0.0, 0.0, 2.0, -2.0], [0.0, 3.0, 0.0, -3.0]]);
    write(folder.path().join("truth/a.nii"), &grid(), &truth);
    write(folder.path().join("found/a.nii"), &Grid { shape: [22, 14, 18], affine }, &flipped);
    let output = evaluate(&["--truth", "truth", "--predictions", "found", "--json"], folder.path());
    assert!(output.status.success(), "{}", shown(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dice = json["metrics"].as_array().unwrap().iter().find(|row| row["metric"] == "dice").unwrap();
    assert_eq!(dice["mean"], 1.0);
}

#[test]
fn evaluate_fails_on_invalid_input_with_exit_code_2_and_hint() {
    let folder = tempfile::tempdir().unwrap();
    write_arms(folder.path());
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    write(folder.path().join("other/unknown.nii"), &grid(), &liver(3, false));
    std::fs::write(folder.path().join("patients.csv"), "case,patient\ncase-1\n").unwrap();
    std::fs::write(folder.path().join("twice.csv"), "case-1,a\ncase-1,b\n").unwrap();
    std::fs::write(folder.path().join("unknown.csv"), "case-1,a\ncase-9,b\n").unwrap();
    let runs: [&[&str]; 16] = [
        &[],
        &["--truth", "data"],
        &["--truth", "empty", "--predictions", "good"],
        &["--truth", "missing", "--predictions", "good"],
        &["--truth", "data", "--predictions", "missing"],
        &["--truth", "data", "--predictions", "other"],
        &["--truth", "data", "--predictions", "good", "--organ", "kidney=5:6"],
        &["--truth", "data", "--predictions", "good", "--organ", "liver"],
        &["--truth", "data", "--arm", "a=good", "--arm", "a=half-0"],
        &["--truth", "data", "--arm", "a=good", "--arm", "b=half-0", "--compare", "a,c"],
        &["--truth", "data", "--arm", "a=good/case-1.nii"],
        &["--truth", "data", "--predictions", "good", "--patients", "patients.csv"],
        &["--truth", "data", "--predictions", "good", "--patients", "unknown.csv"],
        &["--truth", "data", "--predictions", "good", "--patients", "twice.csv"],
        &["--truth", "data", "--predictions", "good", "--organ", "liver=1:2", "--organ", "liver=2"],
        &["--truth", "data", "--arm", "a=good,good"],
    ];
    let mut all = String::new();
    for run in runs {
        let output = evaluate(run, folder.path());
        assert_eq!(output.status.code(), Some(2), "{run:?}");
        all += &format!("$ evaluate {}\n{}\n", run.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn evaluate_refuses_organ_with_label_of_another_organ() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("truth/case-0.nii"), &grid(), &liver(4, false));
    write(folder.path().join("arm/case-0.nii"), &grid(), &liver(4, false));
    std::fs::write(folder.path().join("truth/dataset.json"), r#"{"labels": {"kidney": 1, "tumor": 2}}"#).unwrap();
    let output = shown(&evaluate(&["--truth", "truth", "--arm", "a=arm", "--out", "out"], folder.path()));
    assert!(
        output.starts_with("exit 2") && output.contains("--organ liver has the label 1, which is `kidney`"),
        "{output}"
    );
}

#[test]
fn evaluation_of_weights_equals_evaluation_of_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("imagesTs")).unwrap();
    let (grid, hu) = small_scan(&at("imagesTs/a_0000.nii"));
    write(at("labelsTs/a.nii"), &grid, &hu.map(|hu| u8::from(*hu == 180)));
    save(&at("w.safetensors"), &bright(&config(Model::UNet3D, 1, 3), 1.0));
    let common = ["--model", "unet3d", "--weights", "w.safetensors", "--roi", "24,16,16", "--spacing", "2,3,2.5"];
    let others = ["--truth", ".", "--images", ".", "--organ", "lesion=1", "--json"];
    let output = evaluate(&[&common[..], &others].concat(), folder.path());
    assert!(output.status.success(), "{}", shown(&output));
    let of_weights: Value = serde_json::from_slice(&output.stdout).unwrap();
    std::fs::create_dir(at("found")).unwrap();
    let inferred = Command::new(env!("CARGO_BIN_EXE_freetumor"))
        .arg("infer")
        .args(common)
        .args(["--input", "imagesTs/a_0000.nii", "--output", "found/a.nii"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(inferred.status.success(), "{}", shown(&inferred));
    let output = evaluate(&["--truth", ".", "--arm", "network=found", "--organ", "lesion=1", "--json"], folder.path());
    assert_eq!(of_weights, serde_json::from_slice::<Value>(&output.stdout).unwrap());
    assert_eq!(of_weights["metrics"][0]["mean"], 1.0);
}

/// Writes a data set of eight patients, each with a tumor whose HU differ from the liver by `contrast`.
fn write_data_set(folder: &Path, name: &str, contrast: i16) {
    for case in 0..8 {
        let file = format!("{name}-{case}.nii");
        let labels = liver(4 + case % 3, false);
        let label = folder.join("labelsTr").join(&file);
        write(label, &grid(), &labels);
        let mut noise = Key::root(case as u64).with("data set", name).stream("noise");
        let mut hu = |id: &u8| (100.0 + noise.normal(0.0, 6.0)) as i16 + if *id == 2 { contrast } else { 0 };
        let mut image = encode_header(&grid(), Datatype::I16, "").unwrap().to_vec();
        image.extend(labels.as_slice().iter().flat_map(|id| hu(id).to_le_bytes()));
        std::fs::create_dir_all(folder.join("imagesTr")).unwrap();
        std::fs::write(folder.join("imagesTr").join(&file), image).unwrap();
    }
}

#[test]
fn turing_test_separates_tumors_by_contrast_only() {
    let folder = tempfile::tempdir().unwrap();
    write_data_set(&folder.path().join("real"), "real", -40);
    write_data_set(&folder.path().join("other"), "other", -80);
    let run = ["--turing", "--real", "real", "--synthetic", "other"];
    let output = evaluate(&[&run[..], &["--json"]].concat(), folder.path());
    assert!(output.status.success(), "{}", shown(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(result["looks"]["auc"].as_f64().unwrap() > 0.9, "{result}");
    assert_eq!(
        (&result["real"], &result["patients"], &result["telling"][0]["feature"]),
        (&8.into(), &16.into(), &"contrast_hu".into())
    );
    let file = std::fs::read(folder.path().join("evaluation/turing.json")).unwrap();
    assert_eq!(file, output.stdout);
    let text = String::from_utf8(evaluate(&run, folder.path()).stdout).unwrap();
    assert!(text.starts_with("8 real and 8 synthetic lesions of 16 patients\n"), "{text}");

    // A case without an image is reported, and the other cases are measured.
    std::fs::remove_file(folder.path().join("real/imagesTr/real-0.nii")).unwrap();
    let output = evaluate(&run, folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("problem: real-0: expected an image named real-0, got none"), "{}", shown(&output));

    let refused = evaluate(&["--turing", "--real", "real", "--synthetic", "missing"], folder.path());
    assert_eq!(refused.status.code(), Some(2));
    assert!(shown(&refused).contains("missing is not a folder"), "{}", shown(&refused));
}
