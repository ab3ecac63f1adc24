//! Samples of several tumors, and negatives: whole runs, compared with the loop, with tumors that are made again, and with exports.

mod negatives;
mod restarts;
mod validate;
mod voxels;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::record::parquet::decode_part;
use freetumor::record::{QualityRecord, SampleId, SampleKind, SampleRow};
use freetumor::run::RunFolder;

use crate::dataflow::{committed, plan_of};
use crate::export::files;
use crate::for_loop::plain_loop;

/// Phantoms with real tumors, two quality tests on one synthesis, and a sink of each kind of layout. The tumors are large and many, so that
/// some overlap.
const GRAPH: &str = r#"
[pipeline]
name = "compositions"
seed = 7
epoch_scans = 3
split = { train = 0.5, validation = 0.25, test = 0.25 }

[sources.phantoms]
kind = "phantom"
count = 7
body = "abdomen"
shape = [64, 64, 48]
spacing_mm = [5, 5, 6]
lesions = { organs = ["liver"], mean = 2.0, diameter_mm = 30.0 }

[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = { liver = { ids = [5], tumor_ids = [118] }, kidney = { ids = [2, 3] } }

[stages.synthesize]
kind = "rules"
inputs = ["organs"]
variants = 2
tumors_per_scan = [3, 7]
negatives = 0.4
diameter_mm = [20, 60]

[stages.score]
kind = "intensity"
inputs = ["synthesize"]

[stages.filter]
kind = "quality-test"
inputs = ["score"]
attempts = 3
accept = ["delta_hu < -12", "invisible_fraction < 0.5"]

[stages.strict]
kind = "quality-test"
inputs = ["score"]
attempts = 4
accept = ["delta_hu < -25", "invisible_fraction < 0.5"]

[sinks.decathlon]
kind = "decathlon"
inputs = ["filter"]
gzip_level = 4

[sinks.volumes]
kind = "webdataset"
inputs = ["filter"]
buckets = 2
gzip_level = 4

[sinks.boxes]
kind = "patches"
inputs = ["filter"]

[sinks.all]
kind = "webdataset"
inputs = ["strict", "strict.rejected"]
gzip_level = 4
"#;

/// A finished run of [`GRAPH`] or of a changed graph.
struct Run {
    path: PathBuf,
    parent: tempfile::TempDir,
    report: RunReport,
}

impl Run {
    fn new(graph: &str) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let plan = plan_of(graph, parent.path());
        let report = run(plan, &path, &RunOptions::default(), &Arc::new(Progress::default())).unwrap();
        Self { path, parent, report }
    }

    fn folder(&self) -> RunFolder {
        RunFolder::open(&self.path).unwrap()
    }

    fn rows(&self) -> Vec<SampleRow> {
        let folder = self.folder();
        let parts = folder.files("samples", None).unwrap();
        parts.iter().flat_map(|file| decode_part::<SampleRow>(folder.read_verified(file).unwrap()).unwrap()).collect()
    }
}

fn is_accepted(row: &&SampleRow) -> bool {
    row.record.outcome.is_accepted() && row.record.kind == SampleKind::Synthetic
}

#[test]
fn dataflow_writes_same_bytes_as_loop() {
    let plain = tempfile::tempdir().unwrap();
    plain_loop(plan_of(GRAPH, plain.path()), plain.path()).unwrap();
    let expected = committed(plain.path());
    for (workers, threads, memory_bytes) in [(1, 1, u64::MAX), (4, 2, 100_000), (2, 3, u64::MAX)] {
        let folder = tempfile::tempdir().unwrap();
        let options = RunOptions { workers, threads, memory_bytes, ..RunOptions::default() };
        let report =
            run(plan_of(GRAPH, folder.path()), folder.path(), &options, &Arc::new(Progress::default())).unwrap();
        assert!(report.faults == 0 && report.accepted > 20 && report.negatives > 0, "{report:?}");
        let own = committed(folder.path());
        assert_eq!(own.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{workers} workers");
        assert_eq!(own, expected, "{workers} workers");
        let found = RunFolder::open(folder.path()).unwrap().verify().unwrap();
        assert!(found.problems.is_empty(), "{:?}", found.problems);
    }
}

#[test]
fn rows_are_unique_by_sample_branch_and_tumor() {
    let run = Run::new(GRAPH);
    let rows = run.rows();
    let key = |row: &SampleRow| (row.record.sample_id, row.record.branch.clone(), row.record.tumor_id);
    let keys: BTreeSet<_> = rows.iter().map(key).collect();
    assert_eq!(keys.len(), rows.len());
    // All rows of a sample have the files and the digest of the sample; a candidate that is in no sample has its own.
    let mut samples: BTreeMap<SampleId, Vec<&SampleRow>> = BTreeMap::new();
    rows.iter().for_each(|row| samples.entry(row.record.sample_id).or_default().push(row));
    for (sample_id, rows) in &samples {
        let same = |row: &&SampleRow| {
            (&row.placement, row.record.candidate_digest) == (&rows[0].placement, rows[0].record.candidate_digest)
        };
        assert!(rows.iter().all(same), "{sample_id}");
        let synthetic = rows.iter().filter(|row| row.record.kind == SampleKind::Synthetic);
        let candidates: BTreeSet<_> = synthetic.map(|row| row.record.candidate_id.unwrap()).collect();
        assert_eq!(candidates.len() == 1, candidates.contains(sample_id), "{sample_id}");
    }
    let several = |branch: &str| {
        let of = |rows: &&Vec<&SampleRow>| {
            rows.iter().copied().filter(is_accepted).filter(|row| row.record.branch == branch).count() > 1
        };
        samples.values().filter(of).count()
    };
    assert!(several("filter") > 5 && several("strict") > 5, "{} {}", several("filter"), several("strict"));
    let shared = samples.values().filter(|rows| {
        let branches: BTreeSet<&str> =
            rows.iter().copied().filter(is_accepted).map(|row| row.record.branch.as_str()).collect();
        branches.len() == 2
    });
    assert!(shared.count() > 0, "expected a sample of both quality tests");
    let overlaps = rows.iter().filter(|row| row.record.outcome.reason() == Some("overlaps")).count();
    assert!(overlaps > 0, "expected tumors that overlap");
    let quality: i64 = {
        let folder = run.folder();
        let parts = folder.files("quality", None).unwrap();
        let rows = |file| decode_part::<QualityRecord>(folder.read_verified(file).unwrap()).unwrap();
        parts.iter().flat_map(rows).map(|row| row.attempts).sum()
    };
    let attempts = rows.iter().filter(|row| row.record.kind == SampleKind::Synthetic).count();
    assert_eq!((quality as usize, run.report.accepted + run.report.rejected), (attempts, attempts as u64));
}

#[test]
fn number_of_tumors_changes_no_candidate() {
    let candidates = |graph: &str| -> BTreeMap<SampleId, Vec<(String, String)>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for SampleRow { record, .. } in Run::new(graph).rows() {
            if let Some(id) = record.candidate_id {
                found
                    .entry(id)
                    .or_default()
                    .push((record.branch, format!("{:?} {:?}", record.geometry, record.scores)));
            }
        }
        found.values_mut().for_each(|rows| rows.sort());
        found
    };
    let own = candidates(GRAPH);
    for numbers in ["tumors_per_scan = \"as-real\"", "tumors_per_scan = [1, 1]", ""] {
        let other = candidates(&GRAPH.replace("tumors_per_scan = [3, 7]", numbers).replace("negatives = 0.4", ""));
        let both: Vec<_> = own.keys().filter(|id| other.contains_key(id)).collect();
        assert!(both.len() > 5, "{numbers}: {} candidates in both runs", both.len());
        assert!(both.iter().all(|id| own[id] == other[id]), "{numbers}");
    }
}

#[test]
fn export_writes_same_bytes_as_sinks() {
    use freetumor::export::select::SelectionConfig;
    use freetumor::export::{ExportLayout, ExportOptions, export};
    use freetumor::graph::Registry;
    use freetumor::sink::{DecathlonConfig, WebDatasetConfig};

    let run = Run::new(GRAPH);
    let decathlon = DecathlonConfig { gzip_level: 4, ..DecathlonConfig::default() };
    let config = WebDatasetConfig { buckets: 2, gzip_level: 4 };
    let layouts = [
        ("decathlon", ExportLayout::Decathlon(decathlon)),
        ("volumes", ExportLayout::Webdataset { name: "volumes".into(), config }),
        ("boxes", ExportLayout::Patches { name: "boxes".into() }),
    ];
    for (sink, layout) in layouts {
        let selection =
            SelectionConfig { conditions: vec!["branch = filter".parse().unwrap()], ..SelectionConfig::default() };
        let to = run.parent.path().join(sink);
        let options = ExportOptions { to, layout, selection, pipeline: None, threads: 2 };
        let report = export(&run.folder(), &options, &Registry::standard()).unwrap();
        assert!(report.is_complete() && report.samples > 8, "{sink}: {report:?}");
        let (own, expected) = (files(&options.to), files(&run.path.join("layouts").join(sink)));
        assert_eq!(own.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{sink}");
        assert_eq!(own, expected, "{sink}");
    }
}

/// Returns the JSON of every sample in the shards of a `webdataset` sink, by key.
fn descriptions(layout: &Path) -> BTreeMap<String, serde_json::Value> {
    let mut found = BTreeMap::new();
    for shard in walkdir::WalkDir::new(layout).into_iter().map(Result::unwrap) {
        if shard.path().extension().is_some_and(|extension| extension == "tar") {
            let mut archive = tar::Archive::new(std::fs::File::open(shard.path()).unwrap());
            for member in archive.entries().unwrap() {
                let member = member.unwrap();
                let name = member.path().unwrap().to_string_lossy().into_owned();
                if let Some(key) = name.strip_suffix(".json") {
                    found.insert(key.to_owned(), serde_json::from_reader(member).unwrap());
                }
            }
        }
    }
    found
}

#[test]
fn description_of_sample_has_all_of_its_tumors() {
    let run = Run::new(GRAPH);
    let descriptions = descriptions(&run.path.join("layouts/volumes"));
    let mut tumors: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for row in run.rows().iter().filter(|row| row.record.branch == "filter" && row.record.outcome.is_accepted()) {
        tumors.entry(row.record.sample_id.to_string()).or_default().push(row.record.tumor_id);
    }
    assert_eq!(descriptions.keys().collect::<Vec<_>>(), tumors.keys().collect::<Vec<_>>());
    for (key, description) in descriptions {
        let others = description["other_tumors"].as_array().cloned().unwrap_or_default();
        let own = std::iter::once(&description).chain(&others).map(|row| row["tumor_id"].as_u64().unwrap() as u32);
        assert_eq!(own.collect::<Vec<_>>(), tumors[&key]);
    }
}
