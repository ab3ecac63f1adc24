//! Calibrated quality tests: `freetumor calibrate` and runs with its reference.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use freetumor::attempt::CandidateNumbers;
use freetumor::filter::{Reference, TestedCandidate, Verdict};
use freetumor::graph::{GraphFile, Registry, check, check_for_calibration};
use freetumor::record::SampleRow;
use freetumor::record::parquet::decode_part;
use freetumor::run::RunFolder;

/// Phantoms with dark real tumors of about 20 mm in the liver.
const LABELED: &str = r#"
[pipeline]
name = "labeled"
split = { train = 0.8, validation = 0.1, test = 0.1 }

[sources.labeled]
kind = "phantom"
count = 30
body = "abdomen"
shape = [80, 72, 60]
spacing_mm = [4, 4, 4]
seed = 1
lesions = { organs = ["liver"], mean = 3.0, diameter_mm = 22.0 }

[stages.labeled_organs]
kind = "labels"
inputs = ["labeled"]
organs = { liver = { ids = [5], tumor_ids = [118] } }
"#;

/// Phantoms without tumors; the candidates are of all sizes.
const GRAPH: &str = r#"
[pipeline]
name = "calibrated"
seed = 11
epoch_scans = 4
split = { train = 0.8, validation = 0.1, test = 0.1 }

[sources.unlabeled]
kind = "phantom"
count = 10
body = "abdomen"
shape = [80, 72, 60]
spacing_mm = [4, 4, 4]
seed = 2

[stages.organs]
kind = "labels"
inputs = ["unlabeled"]
organs = { liver = { ids = [5], tumor_ids = [118] } }

[stages.tumors]
kind = "rules"
inputs = ["organs"]
variants = 40
contrast_hu = { liver = [-110, 70] }

[stages.contrast]
kind = "intensity"
inputs = ["tumors"]

[stages.test]
kind = "quality-test"
inputs = ["contrast"]
accept = ["invisible_fraction < 0.9"]
calibrate = { reference = "liver.reference.json", scores = ["diameter_mm", "delta_hu"] }

[sinks.boxes]
kind = "patches"
inputs = ["test"]
"#;

fn freetumor_in(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only").current_dir(folder);
    command.args(args).output().unwrap()
}

#[track_caller]
fn stdout_of(folder: &Path, args: &[&str]) -> String {
    let output = freetumor_in(folder, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn rows(folder: &Path) -> Vec<SampleRow> {
    let run = RunFolder::open(folder).unwrap();
    let files = run.files("samples", None).unwrap();
    files.iter().flat_map(|file| decode_part::<SampleRow>(run.read_verified(file).unwrap()).unwrap()).collect()
}

#[test]
fn calibrated_run_accepts_tumors_like_real_ones() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("graph.toml"), GRAPH).unwrap();
    std::fs::write(folder.join("labeled.toml"), LABELED).unwrap();
    // Without the reference, the file is not valid, and the message contains how to write it.
    let output = freetumor_in(folder, &["validate", "graph.toml"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && errors.contains("the reference of the calibration does not exist"), "{errors}");
    assert!(errors.contains("freetumor calibrate PIPELINE --labeled FILE"), "{errors}");

    let args =
        ["calibrate", "graph.toml", "--labeled", "labeled.toml", "--steer", "4", "--tumors", "tumors.csv", "--json"];
    let printed: serde_json::Value = serde_json::from_str(&stdout_of(folder, &args)).unwrap();
    let liver = &printed["organs"]["liver"];
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {liver}"));
    for score in liver["scores"].as_array().unwrap() {
        assert!(number(&score["accepted"]) < number(&score["candidates"]), "{score}");
    }
    let [candidates, accepted] = ["auc_candidates", "auc_accepted"].map(|name| number(&liver[name]));
    assert!(candidates - 0.5 > 1.5 * (accepted - 0.5).abs(), "{candidates} {accepted}");
    assert!(number(&liver["accepted_share_steered"]) > 1.1 * number(&liver["accepted_share"]), "{liver}");
    let table = std::fs::read_to_string(folder.join("tumors.csv")).unwrap();
    let count = |kind: &str| table.lines().filter(|line| line.starts_with(&format!("liver,{kind},"))).count() as f64;
    assert!(count("real") == number(&liver["all_real_tumors"]) && count("candidate") >= 590.0, "{liver}");

    // Real tumors that fail a condition are not part of the estimate either.
    std::fs::write(folder.join("dark.toml"), GRAPH.replace("invisible_fraction < 0.9", "delta_hu < -25")).unwrap();
    let args = ["calibrate", "dark.toml", "--labeled", "labeled.toml", "--out", "dark.json", "--json"];
    let printed: serde_json::Value = serde_json::from_str(&stdout_of(folder, &args)).unwrap();
    let dark = &printed["organs"]["liver"];
    assert!(number(&dark["real_tumors"]) < number(&dark["all_real_tumors"]), "{dark}");

    // The rows of a run have the density ratio, and verdicts are a function of the values in the rows.
    stdout_of(folder, &["validate", "graph.toml"]);
    stdout_of(folder, &["run", "graph.toml", "--out", "plain", "--threads", "1"]);
    stdout_of(folder, &["run", "graph.toml", "--out", "again", "--threads", "3"]);
    let (plain, again) = (rows(&folder.join("plain")), rows(&folder.join("again")));
    assert_eq!(plain, again, "the number of threads changes no row");
    let checked = check(&GraphFile::open(folder.join("graph.toml")).unwrap(), &Registry::standard());
    let plan = checked.plan.unwrap();
    let test = &plan.syntheses[0].attempts.branches[0].test;
    let mut reasons = BTreeMap::<String, usize>::new();
    for SampleRow { record, .. } in &plain {
        assert_eq!(record.attempt, 0, "every candidate has one attempt");
        let Some(geometry) = &record.geometry else { continue };
        let draw = CandidateNumbers::of_candidate(record.seed, record.candidate_id.unwrap()).draw;
        let (diameter_mm, steering_factor) = (geometry.diameter_mm, geometry.steering_factor);
        let decision = test.decide(&TestedCandidate {
            organ: &record.organ,
            diameter_mm,
            steering_factor,
            scores: &record.scores,
            draw,
        });
        let expected = match decision.verdict {
            Verdict::Accepted => None,
            Verdict::Rejected { reason } => Some(reason.to_string()),
        };
        assert_eq!(record.outcome.reason(), expected.as_deref());
        assert_eq!((record.likeness, record.acceptance), (decision.likeness, decision.acceptance));
        *reasons.entry(expected.unwrap_or_else(|| "accepted".into())).or_default() += 1;
    }
    assert!(reasons["accepted"] > 20 && reasons["not_drawn"] > 20 && reasons["unlike_real"] > 0, "{reasons:?}");

    // A steered run accepts more of its candidates, and its rows have the factor.
    let steered_graph = GRAPH.replace("variants = 40", "variants = 40\nsteering = \"liver.reference.json\"");
    std::fs::write(folder.join("steered.toml"), &steered_graph).unwrap();
    stdout_of(folder, &["run", "steered.toml", "--out", "steered"]);
    let steered = rows(&folder.join("steered"));
    let share = |rows: &[SampleRow]| {
        rows.iter().filter(|row| row.record.outcome.is_accepted()).count() as f64 / rows.len() as f64
    };
    assert!(share(&steered) > 1.05 * share(&plain), "{} {}", share(&steered), share(&plain));
    let factors: Vec<f64> = steered
        .iter()
        .filter_map(|row| row.record.geometry.as_ref())
        .map(|geometry| geometry.steering_factor.unwrap())
        .collect();
    assert!(factors.iter().all(|factor| (0.25..=4.0).contains(factor)) && factors.iter().any(|factor| *factor > 1.0));

    // A steered synthesis needs a quality test with the same file.
    let uncorrected = steered_graph.replace("calibrate = {", "# calibrate = {");
    let checked = check(&GraphFile::new("graph.toml", folder, uncorrected), &Registry::standard());
    assert!(
        checked
            .problems
            .iter()
            .any(|problem| problem.message
                == "expected `test` to correct for the steering of `tumors`, got no reference")
    );
    // Candidates of a run serve as well as new ones; those of a steered run are refused.
    let of_run = ["calibrate", "graph.toml", "--labeled", "labeled.toml", "--run", "plain", "--out", "second.json"];
    let printed = stdout_of(folder, &of_run);
    assert!(printed.contains("AUC of a classifier") && printed.contains("second.json"), "{printed}");
    let second = Reference::read(&folder.join("second.json")).unwrap();
    assert_eq!(
        second.organs["liver"].real_tumors,
        Reference::read(&folder.join("liver.reference.json")).unwrap().organs["liver"].real_tumors
    );
    let refused = freetumor_in(folder, &["calibrate", "graph.toml", "--labeled", "labeled.toml", "--run", "steered"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("expected a run without steering"));
}

#[test]
fn calibrate_refuses_too_few_tumors() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: String| std::fs::write(folder.path().join("graph.toml"), text).unwrap();
    let message = |labeled: &str, more: &[&str]| {
        let args = [&["calibrate", "graph.toml", "--labeled", labeled, "--out", "reference.json"], more].concat();
        let output = freetumor_in(folder.path(), &args);
        assert_eq!(output.status.code(), Some(2));
        assert!(!folder.path().join("reference.json").exists());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    std::fs::write(folder.path().join("labeled.toml"), LABELED.replace("count = 30", "count = 4")).unwrap();
    write(GRAPH.replace("count = 10", "count = 2"));
    assert!(message("organ", &[]).contains("expected a file or a mask stage of the pipeline, got organ"));
    let few = message("labeled.toml", &["--candidates", "100"]);
    assert!(
        few.contains("liver: expected at least 3 real tumors") || few.contains("expected an effective number"),
        "{few}"
    );
    let none = message("organs", &["--candidates", "100"]);
    assert!(none.contains("liver: expected at least 3 real tumors with all scores, got 0 of 0"), "{none}");
    write(GRAPH.replace("calibrate = {", "# calibrate = {"));
    assert!(message("labeled.toml", &[]).contains("expected a quality test with `calibrate`, got none"));
}

#[test]
fn reference_must_have_every_organ() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"format":1,"scores":["diameter_mm","delta_hu"],"cap":5.0,"floor":0.02,"conditions":["invisible_fraction < 0.9"],"synthesis":"","scorers":[],"organs":{}}"#;
    std::fs::write(folder.path().join("liver.reference.json"), text).unwrap();
    let checked = check(&GraphFile::new("graph.toml", folder.path(), GRAPH), &Registry::standard());
    let messages: Vec<&str> = checked.problems.iter().map(|problem| problem.message.as_str()).collect();
    let expected =
        ["the reference was made with other settings of `tumors`", "the reference has no real tumors of the liver"];
    assert_eq!(messages, expected);
    // An invalid reference is an error of a run; `freetumor calibrate` replaces it.
    std::fs::write(folder.path().join("liver.reference.json"), "{}").unwrap();
    let file = GraphFile::new("graph.toml", folder.path(), GRAPH);
    assert!(check_for_calibration(&file, &Registry::standard()).problems.is_empty());
    let checked = check(&GraphFile::new("graph.toml", folder.path(), GRAPH), &Registry::standard());
    assert!(
        checked.problems[0].message.contains("expected a reference of `freetumor calibrate`"),
        "{:?}",
        checked.problems
    );
}
