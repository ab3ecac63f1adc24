//! Tests of `[[expectations]]`: checked at the end of each run and before each tag, without effect on results.

use std::path::Path;
use std::process::Command;

use freetumor::graph::{GraphFile, Registry, check};
use freetumor::run::RunFolder;
use serde_json::Value;

const GRAPH: &str = r#"
[pipeline]
name = "expected"

[sources.bodies]
kind = "phantom"
count = 2
shape = [48, 40, 32]
spacing_mm = [7.0, 7.0, 8.0]

[stages.organs]
kind = "labels"
inputs = ["bodies"]
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
attempts = 3
accept = ["delta_hu < -12"]

[sinks.out]
kind = "patches"
inputs = ["test"]
"#;

const MET: &str = r#"
[[expectations]]
name = "livers get tumors"
table = "samples"
where = ["organ = 'liver'", "kind = synthetic"]
rows = { min = 1 }
share = { where = "verdict = accepted", min = 0.0 }
column = "delta_hu"
mean = { max = "0 HU" }

[[expectations]]
name = "no scan fails"
table = "faults"
rows = { max = 0 }
"#;

const FAILED: &str = r#"
[[expectations]]
name = "many scans"
table = "scans"
where = "status = done"
rows = { min = 100 }
"#;

fn freetumor(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_freetumor")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Runs the graph with expectations.
fn run(folder: &Path, expectations: &str, more: &[&str]) -> (i32, String, String) {
    let graph = folder.join("graph.toml");
    std::fs::write(&graph, format!("{GRAPH}{expectations}")).unwrap();
    let out = folder.join("run");
    let arguments = ["run", graph.to_str().unwrap(), "--out", out.to_str().unwrap(), "--threads", "2"];
    freetumor(&[&arguments, more].concat())
}

#[test]
fn failed_expectation_is_exit_code_1_and_refuses_tags() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (code, stdout, stderr) = run(folder.path(), MET, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("Expectations: 0 of 4 failed\n  met     livers get tumors: expected at least 1 rows"),
        "{stdout}"
    );
    let (code, stdout, _) = freetumor(&["tag", out.to_str().unwrap(), "v1"]);
    assert_eq!((code, stdout.as_str()), (0, "v1  commit 0\n"));
    let head = RunFolder::open(&out).unwrap().head();

    // Another expectation processes no scan again; a commit records it.
    let (code, stdout, _) = run(folder.path(), &format!("{MET}{FAILED}"), &["--json"]);
    assert_eq!(code, 1);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&report["processed_scans"], &report["new_attempts"], &report["scans"]),
        (&0.into(), &0.into(), &2.into())
    );
    let failed: Vec<_> =
        report["expectations"].as_array().unwrap().iter().filter(|result| result["is_met"] == false).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (&failed[0]["name"], &failed[0]["value"], &failed[0]["min"]),
        (&"many scans".into(), &2.0.into(), &100.0.into())
    );
    assert_eq!(RunFolder::open(&out).unwrap().head(), head.map(|head| head + 1));
    let (code, stdout, stderr) = freetumor(&["tag", out.to_str().unwrap(), "v2"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("1 of 5 expectations failed"), "{stderr}");
    assert!(stderr.contains("many scans: expected at least 100 rows of `scans`, got 2"), "{stderr}");

    // Nothing changed since: the exit code is the same, and no commit is added.
    let (code, stdout, _) = run(folder.path(), &format!("{MET}{FAILED}"), &["--fail-on", "none"]);
    assert!(code == 1 && stdout.contains("  failed  many scans"), "{stdout}");
    assert_eq!(RunFolder::open(&out).unwrap().head(), head.map(|head| head + 1));
    let (code, ..) = run(folder.path(), MET, &[]);
    assert_eq!(code, 0);
    assert_eq!(freetumor(&["tag", out.to_str().unwrap(), "v2"]).0, 0);
}

fn checked(expectations: &str) -> freetumor::graph::CheckedGraph {
    check(&GraphFile::new("a.toml", ".", format!("{GRAPH}{expectations}")), &Registry::standard())
}

#[test]
fn expectations_are_not_part_of_the_digest() {
    let (without, with) = (checked("").plan.unwrap(), checked(MET).plan.unwrap());
    assert_eq!(without.digest, with.digest);
    assert_eq!(without.source_graphs(), with.source_graphs());
    assert_eq!(with.expectations.len(), 2);
    let recorded = GraphFile::from_resolved("run.json", Path::new("."), &with.resolved).unwrap();
    assert_eq!(check(&recorded, &Registry::standard()).plan.unwrap().expectations, with.expectations);
}

#[test]
fn every_error_of_an_expectation_is_located() {
    let text = r#"
[[expectations]]
name = "a"
table = "sample"
rows = { min = 1 }

[[expectations]]
name = "b"
table = "samples"
where = ["organ = liver", "diameter < 20"]
column = "delta_hu"
mean = { min = "3 mm" }
median = { min = 3 }

[[expectations]]
name = "b"
table = "scans"
share = { where = "status = done", min = 30 }
"#;
    let problems: Vec<String> = checked(text).problems.iter().map(ToString::to_string).collect();
    let text = problems.join("\n");
    for expected in [
        "`expectations.table` cannot be `sample`",
        "unknown key `median` in `expectations`",
        "expected a column of `samples`, got `diameter`",
        "hint: did you mean `diameter_mm`?",
        "delta_hu is in HU, got `mm`",
        "two expectations are named `b`",
        "no value meets 30: `share` is between 0 and 1",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(text.contains("|                           ^^^^^^^^^^^^^^^"), "{text}");
    let single = checked("\n[expectations]\nname = \"a\"\n").problems;
    assert!(
        single[0].message == "`expectations` is a table"
            && single[0].hint.as_ref().unwrap().contains("[[expectations]]")
    );
}
