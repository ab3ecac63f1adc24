//! Whole runs: the dataflow against the loop, restarts, faults, budgets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::error::Result;
use freetumor::graph::{GraphFile, Plan, Registry, check};
use freetumor::sink::durable::FileDigest;
use freetumor::tables::run::RunFolder;

use crate::for_loop::plain_loop;

/// Phantoms through every kind of stage, small enough to be run many times.
const PHANTOMS: &str = r#"
[pipeline]
name = "test"
seed = 7
epoch_scans = 4

[sources.phantoms]
kind = "phantom"
count = 10
body = "abdomen"
shape = [64, 64, 48]
spacing_mm = [5, 5, 6]

[stages.organs]
kind = "labels"
inputs = ["phantoms"]
scheme = "totalsegmentator"
organs = ["liver", "kidney"]

[stages.synthesize]
kind = "rules"
inputs = ["organs"]

[stages.score]
kind = "intensity"
inputs = ["synthesize"]

[stages.filter]
kind = "quality-test"
inputs = ["score"]
attempts = 3
accept = ["delta_hu < -12", "invisible_fraction < 0.5"]

[sinks.training_set]
kind = "decathlon"
inputs = ["filter"]

[sinks.shards]
kind = "webdataset"
inputs = ["filter", "filter.rejected"]
buckets = 2
"#;

/// The plan of a graph; panics with everything that is wrong with it.
pub fn plan_of(text: &str, folder: &Path) -> Plan {
    let checked = check(&GraphFile::new("test.toml", folder, text), &Registry::standard());
    let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")))
}

fn run_text(text: &str, folder: &Path, options: RunOptions) -> Result<RunReport> {
    run(plan_of(text, folder), folder, &options, &Arc::new(Progress::default()))
}

/// Every committed or projected file below a folder with its digest; staging and telemetry may differ between equal runs.
fn committed(folder: &Path) -> BTreeMap<String, FileDigest> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        if entry.file_type().is_file() && !name.starts_with("staging") && !name.starts_with("telemetry") {
            files.insert(name, FileDigest::of(&std::fs::read(entry.path()).unwrap()));
        }
    }
    files
}

#[test]
fn the_dataflow_gives_the_bytes_of_the_loop() {
    let plain = tempfile::tempdir().unwrap();
    plain_loop(plan_of(PHANTOMS, plain.path()), plain.path()).unwrap();
    let expected = committed(plain.path());
    assert!(expected.keys().any(|name| name.starts_with("samples/pairs/")), "{:?}", expected.keys());
    for (workers, threads) in [(1, 1), (2, 3), (4, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let options = RunOptions { workers, threads, ..RunOptions::default() };
        let report = run_text(PHANTOMS, folder.path(), options).unwrap();
        assert_eq!((report.scans, report.epochs), (10, 3));
        assert!(report.accepted > 0 && report.rejected > 0, "{report:?}");
        let own = committed(folder.path());
        assert_eq!(own.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{workers} workers");
        assert_eq!(own, expected, "{workers} workers");
        let found = RunFolder::open(folder.path()).unwrap().verify().unwrap();
        assert!(found.problems.is_empty(), "{:?}", found.problems);
    }
}

#[test]
fn a_second_run_does_no_scan_twice() {
    let folder = tempfile::tempdir().unwrap();
    let first = run_text(PHANTOMS, folder.path(), RunOptions { limit: Some(6), ..RunOptions::default() }).unwrap();
    assert_eq!((first.new_scans, first.scans), (6, 6));
    let second = run_text(PHANTOMS, folder.path(), RunOptions::default()).unwrap();
    assert_eq!((second.new_scans, second.scans), (4, 10));
    let files = committed(folder.path());
    let third = run_text(PHANTOMS, folder.path(), RunOptions::default()).unwrap();
    assert_eq!((third.new_scans, third.scans, third.accepted), (0, 10, second.accepted));
    assert_eq!(committed(folder.path()), files);
    let attempts: u64 = third.quality.iter().map(|group| group.count).sum();
    assert_eq!(attempts, third.accepted + third.rejected);
}

#[test]
fn another_pipeline_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run_text(PHANTOMS, folder.path(), RunOptions { limit: Some(1), ..RunOptions::default() }).unwrap();
    let changed = PHANTOMS.replace("seed = 7", "seed = 8");
    let error = run_text(&changed, folder.path(), RunOptions::default()).unwrap_err();
    assert!(error.to_string().contains("the seed is 7 there and 8 here"), "{error}");
    assert!(error.hint().unwrap().contains("--out"));
}

#[test]
fn a_budget_is_never_passed_and_does_not_decide_what_comes_out() {
    let runs = [u64::MAX, 4_000_000, 100_000].map(|memory_bytes| {
        let folder = tempfile::tempdir().unwrap();
        let options = RunOptions { memory_bytes, threads: 4, ..RunOptions::default() };
        let report = run_text(PHANTOMS, folder.path(), options).unwrap();
        assert_eq!((report.scans, report.faults), (10, 0));
        assert!(report.peak_lease_bytes <= memory_bytes && report.peak_lease_bytes > 0, "{}", report.peak_lease_bytes);
        committed(folder.path())
    });
    assert!(runs[0] == runs[1] && runs[1] == runs[2]);
}
