//! Messages about the settings of samples, and the space that samples need.

use std::path::Path;

use freetumor::graph::{GraphFile, Registry, check, required_space};

use super::GRAPH;
use crate::dataflow::plan_of;

/// Returns the messages, labels and hints of a graph.
fn problems(graph: &str) -> Vec<String> {
    let checked = check(&GraphFile::new("test.toml", Path::new("."), graph), &Registry::standard());
    let text = |problem: &freetumor::graph::Problem| {
        format!("{} | {} | {}", problem.message, problem.label, problem.hint.clone().unwrap_or_default())
    };
    checked.problems.iter().map(text).collect()
}

#[test]
fn invalid_numbers_and_shares_are_reported() {
    for (old, new, expected) in [
        ("[3, 7]", "[3, 2]", "from 1 to 100, got [3, 2]"),
        ("[3, 7]", "[0, 2]", "from 1 to 100, got [0, 2]"),
        ("[3, 7]", "[1, 101]", "from 1 to 100, got [1, 101]"),
        ("[3, 7]", "\"real\"", "as-real"),
        ("[3, 7]", "3", "tumors_per_scan"),
        ("[3, 7]", "[1, 2, 3]", "tumors_per_scan"),
        ("negatives = 0.4", "negatives = 1.5", "expected a fraction from 0 to 1, got 1.5"),
        ("negatives = 0.4", "negatives = \"some\"", "negatives"),
    ] {
        let found = problems(&GRAPH.replace(old, new));
        assert!(found.len() == 1 && found[0].contains(expected), "{new}: {found:?}");
    }
    assert_eq!(problems(GRAPH), [""; 0]);
    assert_eq!(problems(&GRAPH.replace("[3, 7]", "\"as-real\"")), [""; 0]);
}

#[test]
fn settings_without_effect_on_trainer_are_warnings() {
    let sink = "\n[sinks.training]\nkind = \"trainer\"\ninputs = [\"filter\"]\n";
    let found = problems(&format!("{GRAPH}{sink}"));
    for setting in ["tumors_per_scan", "negatives"] {
        let message = format!("`{setting}` has no effect on the sink `training`");
        assert!(found.iter().any(|problem| problem.starts_with(&message)), "{found:?}");
    }
}

#[test]
fn negatives_of_same_scans_from_two_stages_are_a_warning() {
    let second = r#"
        [stages.again]
        kind = "rules"
        inputs = ["organs"]
        salt = "again"
        negatives = 0.1
        [stages.contrast]
        kind = "intensity"
        inputs = ["again"]
        [stages.other]
        kind = "quality-test"
        inputs = ["contrast"]
        accept = ["delta_hu < -10"]
    "#;
    let shared = GRAPH.replace(
        "[sinks.boxes]\nkind = \"patches\"\ninputs = [\"filter\"]",
        "[sinks.boxes]\nkind = \"patches\"\ninputs = [\"filter\", \"other\"]",
    );
    let found = problems(&format!("{shared}{second}"));
    let expected = "the sink `boxes` gets negatives of the same scans from `synthesize` and `again`";
    assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    let own = format!("{GRAPH}{second}[sinks.more]\nkind = \"patches\"\ninputs = [\"other\"]\n");
    assert_eq!(problems(&own), [""; 0]);
}

#[test]
fn required_space_counts_samples_and_negatives() {
    let only = |graph: &str| {
        let end = graph.find("[sinks.volumes]").unwrap();
        let graph = graph[..end].replace("[stages.strict]", "[stages.unused]").replace("negatives = 0.4", "");
        let start = graph.find("[stages.unused]").unwrap();
        let stop = graph.find("[sinks.decathlon]").unwrap();
        format!("{}{}", &graph[..start], &graph[stop..])
    };
    let space = |graph: &str| required_space(&plan_of(graph, Path::new(".")), &[(10, 1_000_000)]);
    let one = only(&GRAPH.replace("tumors_per_scan = [3, 7]", ""));
    let (several, negatives) = (only(GRAPH), only(GRAPH).replace("variants = 2", "variants = 2\nnegatives = 0.5"));
    let patch = 100_000;
    // Two variants of a tumor in each of two organs; two samples of five tumors; and half of the scans.
    assert_eq!(space(&one), (40, 4 * 1_000_000 + 40 * patch));
    assert_eq!(space(&several), (20, 2 * 1_000_000 + 100 * patch));
    assert_eq!(space(&negatives), (25, 2_500_000 + 100 * patch));
}
