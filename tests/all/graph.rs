//! Checks of graph files: results, messages and output.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use freetumor::cli::graph::{Format, GraphArgs, graph};
use freetumor::cli::schema::schema_text;
use freetumor::cli::validate::{ValidateArgs, validate};
use freetumor::error::{ConfigError, Fault, Result};
use freetumor::graph::{CheckedGraph, GraphFile, InputSpec, Port, Registry, Scoring, Synthesis, SynthesisNode, check};
use freetumor::ingest::{Scan, ScanEntry, ScanHeader, Source};
use freetumor::mask::{MaskedScan, Organ};
use freetumor::score::{Score, ScoreStage, Scorer, Scores};
use freetumor::synth::{Attempt, Attempts, Candidate, Synthesize};
use freetumor::volume::HuWindow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common;

const PIPELINES: [&str; 3] = ["quickstart", "liver", "abdomen"];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn check_text(text: &str, sets: &[&str]) -> CheckedGraph {
    check(&GraphFile::new("a.toml", project("pipelines"), text).with_sets(sets), &Registry::standard())
}

/// Formats all problems of a file.
fn display(checked: &CheckedGraph) -> String {
    checked.problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// Returns exit code and both streams of `validate`, without machine-dependent paths.
fn run_validate(text: &str, sets: &[&str], json: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    std::fs::write(&path, text).unwrap();
    let args = ValidateArgs {
        pipelines: vec![path],
        set: sets.iter().map(ToString::to_string).collect(),
        out: folder.path().to_owned(),
        json,
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let code = validate(&args, &Registry::standard(), &mut stdout, &mut stderr).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(&*folder.path().to_string_lossy(), "FOLDER");
    format!("exit {code}\n--- stdout\n{}--- stderr\n{}", text(stdout), text(stderr))
}

/// A small valid graph.
const VALID: &str = r#"
[pipeline]
name = "valid"
[sources.phantoms]
kind = "phantom"
count = 4
shape = [32, 32, 24]
[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver", "kidney"]
[stages.tumors]
kind = "rules"
inputs = ["organs"]
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
[stages.test]
kind = "quality-test"
inputs = ["contrast"]
accept = ["delta_hu < -10 HU"]
[sinks.set]
kind = "webdataset"
inputs = ["test"]
"#;

#[test]
fn validate_accepts_valid_graph() {
    insta::assert_snapshot!(run_validate(VALID, &[], false));
}

#[test]
fn pipelines_of_project_are_valid() {
    for name in PIPELINES {
        if name != "quickstart" && common::shared("ct").is_none() {
            continue;
        }
        let file = GraphFile::open(project(&format!("pipelines/{name}.toml"))).unwrap();
        let checked = check(&file, &Registry::standard());
        assert_eq!(display(&checked), "", "{name}");
        let plan = checked.plan.unwrap();
        assert_eq!(plan.name, name);
        let feeds = |node: &SynthesisNode| node.branches.iter().all(|branch| !branch.feeds.is_empty());
        assert!(plan.syntheses.iter().all(|node| feeds(node) && !node.organs.is_empty()), "{plan:?}");
        if name != "quickstart" {
            let listed = plan.sources.iter().map(|node| node.source.list().unwrap().len());
            assert!(listed.clone().all(|scans| scans > 0), "{name}: {:?}", listed.collect::<Vec<_>>());
        }
    }
}

#[test]
fn scans_of_one_patient_share_patient_key() {
    if common::shared("ct").is_none() {
        return;
    }
    let file = GraphFile::open(project("pipelines/liver.toml")).unwrap();
    let plan = check(&file, &Registry::standard()).plan.unwrap();
    let entries = plan.sources[0].source.list().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].patient_key, entries[1].patient_key);
}

#[test]
fn validate_reports_all_errors_of_settings_and_wiring() {
    let text = r#"
[pipeline]
name = "bad"
epoch_scans = 0
split = { train = 0.8, validation = 0.1, test = 0.2 }
[sources.phantoms]
kind = "phantom"
cuont = 3
[stages.organs]
kind = "label"
inputs = ["phantom"]
[stages.tumors]
kind = "rules"
inputs = ["phantoms"]
variants = "two"
[stages.score]
kind = "intensity"
inputs = ["tumors.rejected", "tumors", "tumors"]
[stages.test]
kind = "quality-test"
inputs = ["tumors"]
[stages.ring_a]
kind = "intensity"
inputs = ["ring_b"]
[stages.ring_b]
kind = "intensity"
inputs = ["ring_a"]
[stages.lost]
kind = "quality-test"
[sinks.set]
kind = "intensity"
inputs = ["score"]
[sinks.after]
kind = "decathlon"
inputs = ["set", "test.accepted"]
"#;
    insta::assert_snapshot!(run_validate(text, &[], false));
}

#[test]
fn validate_reports_all_setting_errors() {
    let sets = [
        "stages.test.attempts=0",
        "stages.test.accept=[\"found_fraction > 0.7\", \"delta-hu < -10\", \"invisible_fraction < 30 %\"]",
        "stages.tumors.variants=0",
        "stages.tumors.organs=[\"lung\"]",
        "stages.contrast.rings_mm=[1, 2]",
        "sources.phantoms.body=\"abdomn\"",
        "pipeline.seed=-1",
        "pipeline.split.train=1.5",
        "stages.tset.attempts=3",
        "sinks.set.buckets=many",
    ];
    insta::assert_snapshot!(run_validate(VALID, &sets, false));
}

#[test]
fn condition_on_missing_score_is_reported() {
    let checked = check_text(VALID, &["stages.test.accept=[\"delta_hu < -10\", \"found_fraction > 0.7\"]"]);
    insta::assert_snapshot!(display(&checked));
}

#[test]
fn validate_prints_json() {
    let output = run_validate(VALID, &["stages.test.kind=quality"], true);
    let json: serde_json::Value =
        serde_json::from_str(output.split("--- stdout\n").nth(1).unwrap().split("--- stderr").next().unwrap()).unwrap();
    let problem = &json["pipelines"][0]["problems"][0];
    assert_eq!(json["pipelines"][0]["good"], false);
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["location"]["file"], "--set");
    assert_eq!(problem["location"]["column"], "stages.test.kind=".len() + 1);
    assert_eq!(problem["hint"], "did you mean `quality-test`?");
    assert!(output.starts_with("exit 2\n") && output.ends_with("--- stderr\n"), "{output}");
}

#[test]
fn unused_output_is_a_warning() {
    let text = format!("{VALID}\n[stages.more]\nkind = \"labels\"\ninputs = [\"phantoms\"]\norgans = [\"spleen\"]\n");
    let checked = check_text(&text, &[]);
    insta::assert_snapshot!(display(&checked));
    assert!(checked.plan.is_some() && !checked.has_errors());
}

#[test]
fn graph_without_quality_test_is_reported() {
    for text in ["[pipeline]\nname = \"a\"\n", "[pipeline]\nname = \"a\"\n[sources.s]\nkind = \"phantom\"\n"] {
        let checked = check_text(text, &[]);
        assert!(checked.has_errors(), "{text}");
        assert!(display(&checked).contains("would make no tumors"), "{}", display(&checked));
    }
    assert!(display(&check_text("", &[])).contains("`pipeline` has no `name`"));
}

#[test]
fn conflicting_label_ids_are_reported() {
    let more = r#"
[stages.lungs]
kind = "labels"
inputs = ["phantoms"]
organs = ["lung"]
[stages.livers]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]
"#;
    let text =
        format!("{VALID}{more}").replace("inputs = [\"organs\"]", "inputs = [\"organs\", \"lungs\", \"livers\"]");
    insta::assert_snapshot!(display(&check_text(&text, &[])));
}

#[test]
fn pipeline_digest_ignores_comments_order_and_explicit_defaults() {
    let digest = |text: &str, sets: &[&str]| check_text(text, sets).plan.unwrap().digest;
    let own = digest(VALID, &[]);
    assert_eq!(own.len(), 64);
    // Comments, order, explicit defaults and the notation of a value do not count.
    let reordered = VALID.replace("[sinks.set]\nkind = \"webdataset\"\ninputs = [\"test\"]\n", "");
    let reordered = format!("# a comment\n[sinks.set]\ninputs = [\"test\"]\nkind = 'webdataset'\n{reordered}");
    assert_eq!(digest(&reordered, &[]), own);
    assert_eq!(digest(VALID, &["stages.test.attempts=10", "stages.tumors.variants=1", "pipeline.epoch_scans=16"]), own);
    // All other changes count.
    let others = [
        "stages.test.attempts=9",
        "pipeline.seed=1",
        "sources.phantoms.count=5",
        "pipeline.split.train=0.8",
        "stages.tumors.sites=reference",
    ];
    for set in others {
        let sets = if set.contains("split") { vec![set, "pipeline.split.test=0.2"] } else { vec![set] };
        assert_ne!(digest(VALID, &sets), own, "{set}");
    }
}

#[test]
fn plan_has_edges_of_file() {
    let more = r#"
[stages.strict]
kind = "quality-test"
inputs = ["contrast"]
attempts = 3
accept = ["cnr < -2"]
[sinks.all]
kind = "decathlon"
inputs = ["strict", "strict.rejected"]
"#;
    let plan = check_text(&format!("{VALID}{more}"), &[]).plan.unwrap();
    // Both quality tests decide on the same candidates.
    let [synthesis] = &plan.syntheses[..] else { panic!("one synthesis: {:?}", plan.syntheses) };
    let names: Vec<_> = synthesis.attempts.branches.iter().map(|branch| branch.name.as_str()).collect();
    assert_eq!((synthesis.attempts.name.as_str(), &names[..]), ("tumors", &["test", "strict"][..]));
    let feeds = |at: usize| {
        let named = synthesis.branches[at].feeds.iter().map(|feed| (plan.sinks[feed.sink].name.as_str(), feed.port));
        named.collect::<Vec<_>>()
    };
    assert_eq!(feeds(0), [("set", Port::Main)]);
    assert_eq!(feeds(1), [("all", Port::Main), ("all", Port::Rejected)]);
    let strict = &synthesis.attempts.branches[1];
    assert_eq!((strict.test.attempts(), synthesis.masks.as_slice(), strict.scorers.len()), (3, &[0][..], 1));
    assert_eq!(plan.masks_of(0).count(), 1);
    assert_eq!(plan.syntheses_of(0).count(), 1);
    let organs: Vec<_> = plan.sinks[0].organs.iter().map(|organ| organ.name.as_str()).collect();
    assert_eq!(organs, ["liver", "kidney"]);
    for (index, node) in plan.nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|input| input.from < index), "each node is after its inputs");
    }
}

/// Settings of the kinds in these tests.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TestConfig {
    /// The window in HU.
    window_hu: Option<[f32; 2]>,
    /// Fails with this.
    fail: Option<String>,
}

impl TestConfig {
    fn input_spec(&self) -> Result<InputSpec, Vec<ConfigError>> {
        if let Some(message) = &self.fail {
            return Err(vec![ConfigError::new("fail", message)]);
        }
        let window = self.window_hu.map(|[low_hu, high_hu]| HuWindow { low_hu, high_hu });
        Ok(InputSpec { window, spacing_mm: None })
    }
}

/// A stage that is never run: only its node in the graph matters.
struct Idle(&'static [Score]);

impl Source for Idle {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        Ok(Vec::new())
    }
    fn header(&self, _: &ScanEntry) -> Result<ScanHeader, Fault> {
        unreachable!("nothing is listed")
    }
    fn read(&self, _: &ScanEntry) -> Result<Scan, Fault> {
        unreachable!("nothing is listed")
    }
}

impl Synthesize for Idle {
    fn site_plan<'s>(&'s self, _: &'s MaskedScan, _: &'s Organ) -> Result<Box<dyn Attempts + 's>, Fault> {
        Ok(Box::new(Idle(&[])))
    }
}

impl Attempts for Idle {
    fn attempt(&self, _: freetumor::synth::AttemptKey) -> Result<Attempt, Fault> {
        Ok(Attempt::Rejected { reason: "idle".into() })
    }
}

impl ScoreStage for Idle {
    fn scores(&self) -> &'static [Score] {
        self.0
    }
    fn baseline<'s>(&'s self, _: &'s MaskedScan, _: &'s Organ) -> Result<Box<dyn Scorer + 's>, Fault> {
        Ok(Box::new(Idle(&[])))
    }
}

impl Scorer for Idle {
    fn score(&self, _: &Candidate, _: &mut Scores) -> Result<(), Fault> {
        Ok(())
    }
}

/// Returns the built-in kinds and custom ones; `segmentor` is a mask, a synthesis and a score.
fn registry_with_test_kinds() -> Registry {
    let mut registry = Registry::standard();
    registry.add_synthesis("segmentor", "Synthesizes.", |config: TestConfig, context| {
        let (input_spec, organs) = (config.input_spec()?, context.organs.to_vec());
        Ok(Synthesis {
            synthesize: Arc::new(Idle(&[])),
            organs,
            variants: 1,
            numbers: None,
            negatives: 0.0,
            model: "idle".into(),
            steering: None,
            input_spec,
        })
    });
    registry.add_score("segmentor", "Scores.", |config: TestConfig, _| {
        let input_spec = config.input_spec()?;
        Ok(Scoring { stage: Arc::new(Idle(&[Score::FoundFraction])), input_spec })
    });
    registry.add_score("other", "Scores too.", |config: TestConfig, _| {
        config.input_spec().map(|input_spec| Scoring { stage: Arc::new(Idle(&[Score::Realness])), input_spec })
    });
    registry.add_source("empty", "Has nothing.", |_: TestConfig, _| Ok(Arc::new(Idle(&[])) as Arc<dyn Source>));
    registry
}

const OWN: &str = r#"
[pipeline]
name = "own"
[sources.phantoms]
kind = "empty"
[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]
[stages.made]
kind = "segmentor"
inputs = ["organs"]
window_hu = [-175, 250]
[stages.found]
kind = "segmentor"
inputs = ["made"]
[stages.real]
kind = "other"
inputs = ["made"]
[stages.test]
kind = "quality-test"
inputs = ["found", "real"]
accept = ["found_fraction > 0.7", "realness > 0.2"]
"#;

#[test]
fn inputs_decide_role_of_kind() {
    let checked = check(&GraphFile::new("a.toml", ".", OWN), &registry_with_test_kinds());
    assert_eq!(display(&checked), "");
    let plan = checked.plan.unwrap();
    let roles: Vec<_> = plan.nodes.iter().map(|node| (node.name.as_str(), node.role.name())).collect();
    assert!(roles.contains(&("made", "synthesis")) && roles.contains(&("found", "score")), "{roles:?}");
    // Parallel score stages are merged.
    let scores: Vec<_> = plan.syntheses[0].attempts.scorers.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(scores, ["found", "real"]);
    assert_eq!(plan.syntheses.len(), 1);
}

#[test]
fn conflicting_windows_are_reported() {
    let file = GraphFile::new("a.toml", ".", OWN).with_set("stages.found.window_hu=[-1000, 500]");
    insta::assert_snapshot!(display(&check(&file, &registry_with_test_kinds())));
}

#[test]
fn duplicate_score_is_reported() {
    let text = OWN.replace("kind = \"other\"", "kind = \"segmentor\"").replace(", \"realness > 0.2\"", "");
    insta::assert_snapshot!(display(&check(&GraphFile::new("a.toml", ".", text), &registry_with_test_kinds())));
}

#[test]
fn failed_stage_is_reported_once() {
    // Dependent stages are checked as far as possible, and consequential errors are not reported.
    for stage in ["made", "found", "real"] {
        let file = GraphFile::new("a.toml", ".", OWN).with_set(&format!("stages.{stage}.fail=broken"));
        let checked = check(&file, &registry_with_test_kinds());
        let messages: Vec<_> = checked.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages, ["broken"], "{stage}");
        assert!(checked.plan.is_none() && checked.nodes.is_some());
    }
    let file = GraphFile::new("a.toml", ".", VALID).with_set("stages.organs.organs=[\"lifer\"]");
    assert_eq!(check(&file, &Registry::standard()).problems.len(), 1);
}

#[test]
fn graph_command_draws_pipeline_without_scans() {
    let draw = |format| {
        let folder = tempfile::tempdir().unwrap();
        let pipeline = folder.path().join("liver.toml");
        std::fs::copy(project("pipelines/liver.toml"), &pipeline).unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = graph(&GraphArgs { pipeline, format }, &Registry::standard(), &mut stdout, &mut stderr).unwrap();
        assert_eq!((code, stderr.len()), (0, 0));
        String::from_utf8(stdout).unwrap()
    };
    insta::assert_snapshot!(draw(Format::Mermaid));
    let svg = draw(Format::Svg);
    for name in ["totalseg_dicom", "crlm_organs", "training_set", ">Candidate<"] {
        assert!(svg.contains(name), "{name}");
    }
}

/// `FREETUMOR_WRITE=1` rewrites the files.
#[test]
fn schema_files_are_current() {
    for name in ["pipeline", "training"] {
        assert_current(name);
    }
}

fn assert_current(name: &str) {
    let path = project(&format!("schemas/{name}.schema.json"));
    let text = schema_text(name, &Registry::standard()).unwrap();
    if std::env::var_os("FREETUMOR_WRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}

#[test]
fn every_kind_and_setting_has_description() {
    let schema: serde_json::Value =
        serde_json::from_str(&schema_text("pipeline", &Registry::standard()).unwrap()).unwrap();
    let kinds =
        schema["$defs"].as_object().unwrap().iter().filter(|(_, kind)| kind.pointer("/properties/kind").is_some());
    let mut count = 0;
    for (name, kind) in kinds {
        count += 1;
        assert_eq!(kind["additionalProperties"], false, "{name}");
        for (setting, about) in kind["properties"].as_object().unwrap() {
            let described = about["description"].as_str().is_some_and(|text| text.len() > 10);
            assert!(described, "{name}.{setting} has no description");
        }
    }
    assert_eq!(count, Registry::standard().kinds().len());
}

#[test]
fn score_stages_follow_only_stages_whose_scores_they_read() {
    let file = GraphFile::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/quickstart.toml")).unwrap();
    let plan = check(&file, &Registry::standard()).plan.unwrap();
    let scorers = &plan.syntheses[0].attempts.scorers;
    let after: Vec<(&str, &[usize])> = scorers.iter().map(|node| (&*node.name, &*node.after)).collect();
    let none: &[usize] = &[];
    assert_eq!(after, [("found", none), ("held_out", &[0]), ("real", none), ("shown", none)]);
}
