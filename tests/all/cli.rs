//! Options that every subcommand has, completions and manual pages.

use std::process::{Command, Output};

fn freetumor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only").env_remove("RUST_LOG");
    command.args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A graph with one warning.
const GRAPH: &str = r#"
[pipeline]
name = "options"
[sources.phantoms]
kind = "phantom"
count = 2
shape = [40, 36, 32]
spacing_mm = [8.0, 8.0, 8.0]
[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]
[stages.unused]
kind = "lung"
inputs = ["phantoms"]
[stages.tumors]
kind = "rules"
inputs = ["organs"]
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
[stages.test]
kind = "quality-test"
inputs = ["contrast"]
accept = ["delta_hu < 1000"]
"#;

#[test]
fn json_log_has_only_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.toml");
    std::fs::write(&graph, GRAPH).unwrap();
    let (graph, out) = (graph.to_str().unwrap(), folder.path().join("out"));
    let out = out.to_str().unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["run", graph, "--out", out, "--log-format", "json"], "WARN"),
        (&["run", "missing.toml", "--log-format", "json"], "ERROR"),
        (&["validate", graph, "--set", "stages.test.accept=[\"x\"]", "--log-format=json"], "ERROR"),
        (&["--log-format", "json", "unknown"], "ERROR"),
    ];
    for (arguments, expected) in cases {
        let text = stderr(&freetumor(arguments));
        let levels: Vec<String> = text
            .lines()
            .map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
                assert!(event["fields"]["message"].is_string() && event["timestamp"].is_string(), "{line}");
                event["level"].as_str().unwrap().to_owned()
            })
            .collect();
        assert!(levels.iter().any(|level| level == expected), "{arguments:?}\n{text}");
    }
}

#[test]
fn problem_is_one_event_and_errors_pass_every_filter() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.toml");
    std::fs::write(&graph, GRAPH.replace("count = 2", "count = \"x\"")).unwrap();
    let graph = graph.to_str().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.env("RUST_LOG", "freetumor::nn=debug").args(["validate", graph, "--log-format", "json"]);
    let text = stderr(&command.output().unwrap());
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let error = events.iter().find(|event| event["level"] == "ERROR").unwrap();
    assert!(error["fields"]["message"].as_str().unwrap().contains("| count = \"x\""), "{text}");
    let quiet = stderr(&freetumor(&["validate", graph, "-q"]));
    assert!(quiet.contains("| count = \"x\"") && !quiet.contains("1 error"), "{quiet}");
}

#[test]
fn quiet_prints_errors_only() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.toml");
    std::fs::write(&graph, GRAPH).unwrap();
    let graph = graph.to_str().unwrap();
    assert!(stderr(&freetumor(&["validate", graph])).contains("is unused"));
    assert_eq!(stderr(&freetumor(&["validate", graph, "--quiet"])), "");
    let failed = freetumor(&["-q", "validate", "missing.toml"]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(stderr(&failed).contains("error"), "{}", stderr(&failed));
    assert_eq!(freetumor(&["-q", "-v", "validate", graph]).status.code(), Some(2), "contradicting options");
}

/// The example reads with the standard library alone; its training needs PyTorch and is not run here.
#[cfg(unix)]
#[test]
fn example_reads_samples_from_a_stream() {
    if !crate::command::has_python() {
        return;
    }
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/train_stream.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["--binary", env!("CARGO_BIN_EXE_freetumor"), "--read", "5"]);
    let output = command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().filter(|line| line.ends_with("80 x 80 x 56 voxels")).count(), 5, "{lines}");
}

#[test]
fn completions_and_manual_pages_name_every_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(freetumor(&["man", "--to", pages.to_str().unwrap()]).status.success());
    let page = String::from_utf8(freetumor(&["man"]).stdout).unwrap();
    let scripts = ["bash", "elvish", "fish", "powershell", "zsh"].map(|shell| {
        let output = freetumor(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        String::from_utf8(output.stdout).unwrap()
    });
    for subcommand in ["run", "validate", "export", "train", "evaluate", "completions"] {
        assert!(pages.join(format!("freetumor-{subcommand}.1")).exists(), "{subcommand}");
        assert!(page.contains(subcommand), "{subcommand}");
        assert!(scripts.iter().all(|script| script.contains(subcommand)), "{subcommand}");
    }
}

#[test]
fn manual_pages_have_standard_sections() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(freetumor(&["man", "--to", pages.to_str().unwrap()]).status.success());
    let files: Vec<_> = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 10, "{files:?}");
    for path in files {
        let page = std::fs::read_to_string(&path).unwrap();
        let is_main = path.ends_with("freetumor.1");
        let sections = ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS"];
        let heading = |name: &&str| page.contains(&format!(".SH {name}")) || page.contains(&format!(".SH \"{name}\""));
        let missing: Vec<_> = sections.iter().filter(|name| !heading(name)).collect();
        assert_eq!(missing, if is_main { vec![&"EXAMPLES"] } else { vec![] }, "{}", path.display());
        assert!(!page.contains("EXTRA") && page.contains("could not run"), "{}", path.display());
    }
    let page = std::fs::read_to_string(pages.join("freetumor-files.1")).unwrap();
    assert!(page.contains("\\&freetumor files runs/mine samples \\-\\-at 0"), "{page}");
}

#[test]
fn help_of_quiet_states_that_the_result_is_printed() {
    let help = String::from_utf8(freetumor(&["run", "--help"]).stdout).unwrap();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the result is still printed on standard output"), "{help}");
}

#[test]
fn help_lists_global_options_then_examples_and_exit_codes() {
    for subcommand in ["run", "validate", "graph", "files", "export", "inspect", "infer", "evaluate", "train", "man"] {
        let help = String::from_utf8(freetumor(&[subcommand, "--help"]).stdout).unwrap();
        let positions = ["Global options:", "Examples:", "Exit codes:"].map(|heading| help.find(heading));
        assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{subcommand}\n{help}");
        assert!(!help.contains('\u{1b}'), "no colours in a pipe");
    }
}
