//! Tests of exports, compared with the sinks of the same run.

mod conditions;
mod mismatches;
mod resume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::export::select::SelectionConfig;
use freetumor::export::{ExportLayout, ExportOptions, ExportReport, export};
use freetumor::graph::{GraphFile, Registry, check};
use freetumor::run::RunFolder;
use freetumor::sink::{DecathlonConfig, NnunetConfig, WebDatasetConfig};
use freetumor::store::FileDigest;

/// Two sources of phantoms, and a sink of each kind that can be exported.
pub const PHANTOMS: &str = r#"
[pipeline]
name = "test"
seed = 7
epoch_scans = 3
split = { train = 0.5, validation = 0.25, test = 0.25 }

[sources.first]
kind = "phantom"
count = 4
body = "abdomen"
shape = [64, 64, 48]
spacing_mm = [5, 5, 6]

[sources.second]
kind = "phantom"
count = 3
seed = 5
body = "abdomen"
shape = [48, 64, 40]
spacing_mm = [6, 5, 7]

[stages.organs]
kind = "labels"
inputs = ["first", "second"]
scheme = "totalsegmentator"
organs = ["liver", "pancreas", "kidney"]

[stages.synthesize]
kind = "rules"
inputs = ["organs"]
variants = 2

[stages.score]
kind = "intensity"
inputs = ["synthesize"]

[stages.filter]
kind = "quality-test"
inputs = ["score"]
attempts = 3
accept = ["delta_hu < -12", "invisible_fraction < 0.5"]

[sinks.nnunet]
kind = "nnunet"
inputs = ["filter"]
dataset_id = 905
dataset_name = "Phantoms"
gzip_level = 4

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
"#;

/// A finished run with its folder.
pub struct Run {
    pub folder: RunFolder,
    pub path: PathBuf,
    parent: tempfile::TempDir,
}

impl Run {
    /// Runs [`PHANTOMS`].
    pub fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let checked = check(&GraphFile::new("test.toml", parent.path(), PHANTOMS), &Registry::standard());
        let plan = checked.plan.unwrap_or_else(|| panic!("{:?}", checked.problems));
        let report = run(plan, &path, &RunOptions::default(), &Arc::new(Progress::default())).unwrap();
        assert!(report.epochs > 1 && report.accepted > 8 && report.rejected > 0 && report.faults == 0, "{report:?}");
        Self { folder: RunFolder::open(&path).unwrap(), path, parent }
    }

    /// Returns a path next to the run folder.
    pub fn sibling(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    pub fn export(&self, options: &ExportOptions) -> ExportReport {
        export(&self.folder, options, &Registry::standard()).unwrap()
    }

    /// Returns the message of an export that must fail.
    pub fn export_error(&self, options: &ExportOptions) -> String {
        export(&self.folder, options, &Registry::standard()).unwrap_err().to_string()
    }

    /// Returns options for an export of all accepted samples into a folder next to the run folder.
    pub fn options(&self, to: &str, layout: ExportLayout) -> ExportOptions {
        let (to, selection) = (self.sibling(to), SelectionConfig::default());
        ExportOptions { to, layout, selection, pipeline: None, threads: 2 }
    }
}

/// Returns the layouts with the settings of the sinks of [`PHANTOMS`], and the names of the sinks.
pub fn layouts() -> [(&'static str, ExportLayout); 4] {
    let nnunet = NnunetConfig { dataset_id: 905, dataset_name: "Phantoms".into(), gzip_level: 4 };
    let decathlon = DecathlonConfig { gzip_level: 4, ..DecathlonConfig::default() };
    let config = WebDatasetConfig { buckets: 2, gzip_level: 4 };
    [
        ("nnunet", ExportLayout::Nnunet(nnunet)),
        ("decathlon", ExportLayout::Decathlon(decathlon)),
        ("volumes", ExportLayout::Webdataset { name: "volumes".into(), config }),
        ("boxes", ExportLayout::Patches { name: "boxes".into() }),
    ]
}

/// Returns every file below a folder with its digest, without the journal of an export.
pub fn files(folder: &Path) -> BTreeMap<String, FileDigest> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        if entry.file_type().is_file() && !name.starts_with(".freetumor-export.") {
            files.insert(name, FileDigest::of(&std::fs::read(entry.path()).unwrap()));
        }
    }
    files
}

#[test]
fn export_writes_same_bytes_as_sink_in_every_layout() {
    let run = Run::new();
    let accepted = run.folder.head_at(None).unwrap().counts.accepted;
    for (sink, layout) in layouts() {
        let options = run.options(sink, layout);
        let report = run.export(&options);
        assert!(report.is_complete() && report.samples as u64 == accepted, "{sink}: {report:?}");
        assert_eq!(report.scans_read > 0, sink != "boxes", "{sink}");
        let (own, expected) = (files(&options.to), files(&run.path.join("layouts").join(sink)));
        assert_eq!(own.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{sink}");
        assert_eq!(own, expected, "{sink}");
    }
}

#[test]
fn number_of_threads_does_not_change_files() {
    let run = Run::new();
    for (sink, layout) in layouts() {
        let options = ExportOptions { threads: 5, ..run.options(sink, layout) };
        run.export(&options);
        assert_eq!(files(&options.to), files(&run.path.join("layouts").join(sink)), "{sink}");
    }
}

#[test]
fn run_records_folder_of_graph_file() {
    let run = Run::new();
    assert_eq!(run.folder.private_pipeline().unwrap().unwrap().folder, run.sibling(""));
    let committed = run.folder.content_digest(None).unwrap();
    std::fs::remove_file(run.path.join("private/pipeline.json")).unwrap();
    assert_eq!(run.folder.content_digest(None).unwrap(), committed);
    assert!(run.folder.verify().unwrap().problems.is_empty());
    let [(_, nnunet), ..] = layouts();
    let message = run.export_error(&run.options("out", nnunet.clone()));
    assert!(message.contains("private/pipeline.json with the sources of the scans"), "{message}");
    std::fs::write(run.sibling("test.toml"), PHANTOMS).unwrap();
    let options = ExportOptions { pipeline: Some(run.sibling("test.toml")), ..run.options("out", nnunet) };
    assert!(run.export(&options).is_complete());
}
