//! Tests of whole runs: comparison with the loop, restarts, faults, memory budgets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::error::Result;
use freetumor::graph::{GraphFile, Plan, Registry, Resources, check};
use freetumor::id::ScanId;
use freetumor::ingest::nifti::{self, Datatype};
use freetumor::record::parquet::decode_part;
use freetumor::record::{QualityRecord, ScanRecord, Status};
use freetumor::run::RunFolder;
use freetumor::store::FileDigest;
use freetumor::volume::{Affine, Grid};

use crate::for_loop::plain_loop;

/// A pipeline of small phantoms with every kind of stage.
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

/// Returns the plan of a graph; panics with all problems.
pub fn plan_of(text: &str, folder: &Path) -> Plan {
    let checked = check(&GraphFile::new("test.toml", folder, text), &Registry::standard());
    let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")))
}

fn run_text(text: &str, folder: &Path, options: RunOptions) -> Result<RunReport> {
    run(plan_of(text, folder), folder, &options, &Arc::new(Progress::default()))
}

/// Returns every committed or projected file below a folder with its digest; staging and telemetry may differ between equal runs.
pub fn committed(folder: &Path) -> BTreeMap<String, FileDigest> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        // `private/pipeline.json` has the folder of the graph file, which differs between tests.
        // Only the command draws the contact sheet.
        let excluded = ["staging", "telemetry", "private/pipeline.json", "contact_sheet.png"];
        if entry.file_type().is_file() && !excluded.iter().any(|start| name.starts_with(start)) {
            files.insert(name, FileDigest::of(&std::fs::read(entry.path()).unwrap()));
        }
    }
    files
}

#[test]
fn dataflow_writes_same_bytes_as_loop() {
    let plain = tempfile::tempdir().unwrap();
    plain_loop(plan_of(PHANTOMS, plain.path()), plain.path()).unwrap();
    let expected = committed(plain.path());
    assert!(expected.keys().any(|name| name.ends_with(".image.nii.gz")), "{:?}", expected.keys());
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
fn second_run_processes_only_new_scans() {
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
fn run_fails_on_folder_of_other_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    run_text(PHANTOMS, folder.path(), RunOptions { limit: Some(1), ..RunOptions::default() }).unwrap();
    let changed = PHANTOMS.replace("name = \"test\"", "name = \"other\"");
    let error = run_text(&changed, folder.path(), RunOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`name` of the pipeline is \"test\" in the folder and \"other\""), "{error}");
    assert!(error.hint().unwrap().contains("--out"));
}

#[test]
fn memory_budget_is_respected_and_does_not_change_results() {
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

/// A folder of small scans with a pipeline.
struct Archive {
    folder: tempfile::TempDir,
}

impl Archive {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "a secret for tests only").unwrap();
        Self { folder }
    }

    /// Adds a scan of one value, with or without a label file.
    fn add(&self, case: &str, hu: i16, labeled: bool) {
        let path = self.folder.path().join("ct").join(case);
        std::fs::create_dir_all(&path).unwrap();
        let grid = Grid { shape: [3, 2, 2], affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
        let write = |name: &str, datatype, voxels: Vec<u8>| {
            let mut file = nifti::encode_header(&grid, datatype, "").unwrap().to_vec();
            file.extend(voxels);
            std::fs::write(path.join(name), file).unwrap();
        };
        write("ct.nii", Datatype::I16, [hu; 12].into_iter().flat_map(i16::to_le_bytes).collect());
        if labeled {
            write("labels.nii", Datatype::U8, vec![1; 12]);
        }
    }

    fn run(&self, out: &str, epoch_scans: usize) -> Result<RunReport> {
        let text = format!(
            r#"
            [pipeline]
            name = "archive"
            epoch_scans = {epoch_scans}
            [sources.scans]
            kind = "folder"
            root = "ct"
            include = ["*/ct.nii"]
            [stages.organs]
            kind = "labels"
            inputs = ["scans"]
            pattern = "labels.nii"
            scheme = "custom"
            organs = {{ liver = {{ ids = [1] }} }}
            [stages.synthesize]
            kind = "rules"
            inputs = ["organs"]
            [stages.score]
            kind = "intensity"
            inputs = ["synthesize"]
            [stages.filter]
            kind = "quality-test"
            inputs = ["score"]
            accept = ["delta_hu < -10"]
            "#
        );
        let secret = Some(self.folder.path().join("secret"));
        let registry = Registry::with_resources(&Resources { patient_secret: secret, ..Resources::default() });
        let checked = check(&GraphFile::new("test.toml", self.folder.path(), text), &registry);
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        let plan = checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")));
        run(plan, &self.folder.path().join(out), &RunOptions::default(), &Arc::new(Progress::default()))
    }

    /// Returns the status and the original of every scan.
    fn scans(&self, out: &str) -> BTreeMap<ScanId, (Status, Option<ScanId>)> {
        let folder = RunFolder::open(self.folder.path().join(out)).unwrap();
        let files = folder.files("scans", None).unwrap();
        let rows =
            files.iter().flat_map(|file| decode_part::<ScanRecord>(folder.read_verified(file).unwrap()).unwrap());
        rows.map(|row| (row.scan_id, (row.status, row.duplicate_of))).collect()
    }
}

#[test]
fn epoch_without_attempts_adds_no_quality_rows() {
    let archive = Archive::new();
    archive.add("a", 10, true);
    archive.run("out", 4).unwrap();
    // A scan of equal content has a row of `scans` and no attempts.
    archive.add("b", 10, true);
    let report = archive.run("out", 4).unwrap();
    assert_eq!((report.new_scans, report.duplicates), (1, 1));
    let folder = RunFolder::open(archive.folder.path().join("out")).unwrap();
    let tables = |epoch| {
        let (commit, _) = folder.commit(epoch).unwrap();
        commit.add.into_iter().map(|file| file.table).collect::<Vec<_>>()
    };
    assert!(tables(0).contains(&"quality".to_owned()));
    assert_eq!(tables(1), ["scans"]);
    let parts = |table| folder.files(table, None).unwrap();
    let rows = |file| decode_part::<QualityRecord>(folder.read_verified(file).unwrap()).unwrap();
    let attempts: i64 = parts("quality").iter().flat_map(rows).map(|row| row.attempts).sum();
    assert_eq!(attempts as u64, report.accepted + report.rejected);
}

#[test]
fn epoch_size_does_not_change_status_of_equal_and_failed_scans() {
    let archive = Archive::new();
    for pair in 0..6 {
        // Of two equal scans one has no labels; its fault is kept if it is first.
        archive.add(&format!("a{pair}"), 10 * pair, false);
        archive.add(&format!("b{pair}"), 10 * pair, true);
    }
    let all = [1, 3, 100].map(|epoch_scans| {
        let out = format!("run{epoch_scans}");
        archive.run(&out, epoch_scans).unwrap();
        archive.scans(&out)
    });
    assert!(all[0] == all[1] && all[1] == all[2], "{all:#?}");
    let count = |status: Status| all[0].values().filter(|(scan_status, _)| *scan_status == status).count();
    assert_eq!(count(Status::Done), 6);
    assert!(count(Status::Fault) > 0 && count(Status::Duplicate) > 0, "{all:#?}");
}

#[test]
fn resumed_run_fails_on_damaged_tables() {
    let archive = Archive::new();
    archive.add("a", 10, true);
    archive.run("run", 4).unwrap();
    let folder = archive.folder.path().join("run");
    for table in ["samples", "scans", "quality"] {
        let file = RunFolder::open(&folder).unwrap().files(table, None).unwrap().remove(0);
        let whole = std::fs::read(folder.join(&file.path)).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        std::fs::write(folder.join(&file.path), &damaged).unwrap();
        let error = archive.run("run", 4).unwrap_err();
        assert!(error.to_string().contains(&file.path) && error.hint().is_some(), "{error}");
        std::fs::write(folder.join(&file.path), &whole[1..]).unwrap();
        let opened = RunFolder::open(&folder).unwrap();
        assert!(opened.check_length(&file).unwrap_err().to_string().contains("bytes"));
        std::fs::write(folder.join(&file.path), &whole).unwrap();
    }
    assert_eq!(archive.run("run", 4).unwrap().new_scans, 0);
}

/// Returns the names and lengths of the members of a tar in their order.
fn members(bytes: &[u8]) -> Vec<(String, usize)> {
    let mut archive = tar::Archive::new(bytes);
    let member = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), content.len())
    };
    archive.entries().unwrap().map(member).collect()
}

#[test]
fn stream_writes_committed_samples_in_every_pass() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.toml");
    let stream = "\n[sinks.stream]\nkind = \"stream\"\ninputs = [\"filter\"]\n";
    std::fs::write(&graph, format!("{PHANTOMS}{stream}")).unwrap();
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
        command.arg("run").arg(&graph).arg("--out").arg(folder.path().join("run")).args(more);
        command.output().unwrap()
    };
    let first = run(&["--sink", "stream", "--passes", "3"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(String::from_utf8_lossy(&first.stderr).contains("accepted"), "the summary is on standard error");
    let stream_members = members(&first.stdout);
    let pass_length = stream_members.len() / 3;
    let keys = |stream_members: &[(String, usize)]| -> Vec<String> {
        let key = |(name, _): &(String, usize)| name.split('.').next().unwrap().to_owned();
        stream_members
            .chunks(3)
            .map(|sample| {
                let kinds: Vec<&str> = sample.iter().map(|(name, _)| name.split_once('.').unwrap().1).collect();
                assert_eq!(kinds, ["image.nii.gz", "json", "label.nii.gz"]);
                assert!(sample.iter().all(|member| key(member) == key(&sample[0]) && member.1 > 0));
                key(&sample[0])
            })
            .collect()
    };
    let (one, two, three) = (
        keys(&stream_members[..pass_length]),
        keys(&stream_members[pass_length..2 * pass_length]),
        keys(&stream_members[2 * pass_length..]),
    );
    let sorted = |keys: &[String]| {
        let mut keys = keys.to_vec();
        keys.sort();
        keys
    };
    assert!(one.len() > 3 && sorted(&one) == sorted(&two) && sorted(&two) == sorted(&three));
    assert_ne!(two, three, "every pass has its own order");
    let list = std::fs::read(folder.path().join("run/layouts/training_set/dataset.json")).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(one.len(), list["training"].as_array().unwrap().len(), "samples of other splits are not streamed");
    // A second run has no new scans and writes the same stream.
    let again = run(&["--sink", "stream", "--passes", "3"]);
    assert!(again.stdout == first.stdout);
    let none = run(&["--sink", "shards"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("use one of its streams: stream"));
}

#[cfg(unix)]
#[test]
fn socket_serves_all_samples_after_reader_disconnects() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.toml");
    let stream = "\n[sinks.stream]\nkind = \"stream\"\ninputs = [\"filter\"]\n";
    std::fs::write(&graph, format!("{PHANTOMS}{stream}")).unwrap();
    let socket = folder.path().join("socket");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.arg("run").arg(&graph).arg("--out").arg(folder.path().join("run"));
    command.args(["--sink", "stream", "--passes", "2", "--socket"]).arg(&socket);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let connect = || loop {
        match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    let mut first_bytes = [0; 4096];
    std::io::Read::read_exact(&mut connect(), &mut first_bytes).unwrap();
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut connect(), &mut all).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(all[..4096], first_bytes);
    assert!(members(&all).len() >= 6 && !socket.exists());
}

/// The command replaces an existing socket but no other file.
#[cfg(unix)]
#[test]
fn existing_file_at_path_of_socket_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.toml");
    let stream = "\n[sinks.stream]\nkind = \"stream\"\ninputs = [\"filter\"]\n";
    std::fs::write(&graph, format!("{PHANTOMS}{stream}")).unwrap();
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "kept").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.arg("run").arg(&graph).arg("--out").arg(folder.path().join("run"));
    let output = command.args(["--sink", "stream", "--passes", "1", "--socket"]).arg(&precious).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read(&precious).unwrap(), b"kept");
}

/// A closed pipe is not an error: the run itself is complete.
#[test]
fn closed_pipe_does_not_change_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.toml");
    std::fs::write(&graph, GRAPH_OF_PHANTOMS).unwrap();
    let out = folder.path().join("out");
    let (graph, out) = (graph.to_str().unwrap(), out.to_str().unwrap());
    for args in [&["run", graph, "--out", out, "--json"][..], &["schema", "pipeline"], &["graph", graph]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
        command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only").args(args);
        let mut child =
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

const GRAPH_OF_PHANTOMS: &str = r#"
[pipeline]
name = "closed"
[sources.bodies]
kind = "phantom"
count = 1
shape = [40, 36, 32]
spacing_mm = [8.0, 8.0, 8.0]
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
accept = ["delta_hu < -10"]
[sinks.set]
kind = "decathlon"
inputs = ["test"]
"#;
