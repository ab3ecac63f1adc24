//! The command `freetumor run`: nothing to do, numbers of the summary, streams, sockets, layouts, and paths that are not UTF-8.

#![cfg(unix)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use freetumor::record::parquet::decode_part;
use freetumor::record::{FaultRecord, SampleRow, ScanRecord, Status};
use freetumor::run::RunFolder;
use serde_json::Value;

use crate::survey::add_scan;

/// Small abdomens, a training set and a stream.
const GRAPH: &str = r#"
[pipeline]
name = "command"
epoch_scans = 2
split = { train = 1.0 }
[sources.phantoms]
kind = "phantom"
count = 4
shape = [40, 36, 32]
spacing_mm = [8.0, 8.0, 8.0]
[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]
[stages.tumors]
kind = "rules"
inputs = ["organs"]
min_diameter_voxels = 1.5
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
[stages.test]
kind = "quality-test"
inputs = ["contrast"]
accept = ["delta_hu < 1000"]
[sinks.set]
kind = "decathlon"
inputs = ["test"]
[sinks.flow]
kind = "stream"
inputs = ["test"]
"#;

/// A source of scans in the folder `ct`, and two masks of them.
const ARCHIVE: &str = r#"
[sources.archive]
kind = "folder"
root = "ct"
include = ["*/ct.nii"]
[stages.first]
kind = "labels"
inputs = ["archive"]
pattern = "first.nii"
organs = ["liver"]
[stages.second]
kind = "labels"
inputs = ["archive"]
pattern = "second.nii"
organs = ["kidney"]
"#;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(graph: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.toml"), graph).unwrap();
        Self { folder }
    }

    /// Returns a place with a scan whose label files of both masks are missing.
    fn with_failing_scan() -> Self {
        let place = Self::new(&format!("{GRAPH}{ARCHIVE}").replacen(
            "inputs = [\"organs\"]",
            "inputs = [\"organs\", \"first\", \"second\"]",
            1,
        ));
        add_scan(place.folder.path(), "a", 3, false);
        place
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
        command.env("FREETUMOR_PATIENT_KEY", "a secret for tests only").env_remove("RUST_LOG");
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(&[&["run", "a.toml", "--out", "run"], arguments].concat()).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the names of the members of a complete tar.
fn members(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn run_without_scans_exits_with_2_and_creates_no_folder() {
    let place = Place::new(&GRAPH.replace("count = 4", "count = 0"));
    let empty = place.run(&[]);
    assert_eq!(empty.status.code(), Some(2));
    assert!(
        text(&empty.stderr).contains("the source `phantoms` has no scans: `count` is 0"),
        "{}",
        text(&empty.stderr)
    );
    assert!(!place.path("run").exists());
    let place = Place::new(GRAPH);
    let limited = place.run(&["--limit", "0"]);
    assert_eq!(limited.status.code(), Some(2));
    assert!(text(&limited.stderr).contains("limit of at least 1 for a new run folder"), "{}", text(&limited.stderr));
    assert!(!place.path("run").exists());
}

#[test]
fn run_with_nothing_to_do_states_the_reason() {
    let place = Place::with_failing_scan();
    assert_eq!(place.run(&["--limit", "2"]).status.code().map(|code| code < 2), Some(true));
    let limited = place.run(&["--limit", "0"]);
    assert!(text(&limited.stdout).contains("nothing to do: 3 scans left out by `--limit`; 2 scans committed"));
    assert!(text(&limited.stderr).contains("warning: `--limit` leaves out 3 scans"));
    place.run(&[]);
    // The disk of the archive is no longer mounted.
    std::fs::remove_dir_all(place.path("ct/a")).unwrap();
    let unmounted = place.run(&[]);
    let stderr = text(&unmounted.stderr);
    assert_eq!(unmounted.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("the source `archive` has lost 1 of 1 scans") && stderr.contains("mounted"), "{stderr}");
}

#[test]
fn numbers_of_summary_equal_rows_of_tables() {
    let place = Place::with_failing_scan();
    let run = place.run(&[]);
    assert_eq!(run.status.code(), Some(1), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("1 scan failed with 2 faults"), "{}", text(&run.stdout));
    let report: Value = serde_json::from_slice(&place.run(&["--json"]).stdout).unwrap();
    let folder = RunFolder::open(place.path("run")).unwrap();
    let parts = |table| folder.files(table, None).unwrap().into_iter().map(|file| folder.read_verified(&file).unwrap());
    let scans: Vec<ScanRecord> = parts("scans").flat_map(|part| decode_part(part).unwrap()).collect();
    let faults: Vec<FaultRecord> = parts("faults").flat_map(|part| decode_part(part).unwrap()).collect();
    let samples: Vec<SampleRow> = parts("samples").flat_map(|part| decode_part(part).unwrap()).collect();
    let failed = scans.iter().filter(|scan| scan.status == Status::Fault).count();
    let accepted = samples.iter().filter(|row| row.record.outcome.is_accepted()).count();
    let numbers =
        ["scans", "failed_scans", "faults", "accepted", "rejected"].map(|name| report[name].as_u64().unwrap());
    let rows = [scans.len(), failed, faults.len(), accepted, samples.len() - accepted].map(|count| count as u64);
    assert_eq!(numbers, rows);
    assert_eq!((failed, faults.len()), (1, 2));
    let kinds: u64 = report["fault_kinds"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(kinds, rows[2]);
}

#[test]
fn training_set_without_validation_samples_is_a_warning() {
    let place = Place::new(&GRAPH.replace("kind = \"decathlon\"", "kind = \"nnunet\""));
    let run = place.run(&[]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let expected = "warning: the sink `set` has no validation samples: nnU-Net cannot train fold 0";
    assert!(text(&run.stderr).contains(expected), "{}", text(&run.stderr));
    let report: Value = serde_json::from_slice(&place.run(&["--json"]).stdout).unwrap();
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{report}");
}

#[test]
fn socket_that_cannot_be_bound_is_reported_before_the_run() {
    let place = Place::new(GRAPH);
    std::fs::write(place.path("file"), "").unwrap();
    let long = "s".repeat(200);
    for socket in ["no/such/folder/s", "file", &long] {
        let run = place.run(&["--sink", "flow", "--socket", socket]);
        assert_eq!(run.status.code(), Some(2), "{socket}");
        assert!(text(&run.stderr).contains("cannot listen on"), "{}", text(&run.stderr));
        assert!(!place.path("run").exists(), "{socket}");
    }
    assert!(place.path("file").exists(), "a file of the user is kept");
}

#[test]
fn complete_stream_ends_with_0_in_spite_of_failed_scans() {
    let place = Place::with_failing_scan();
    let run = place.run(&["--sink", "flow", "--passes", "1"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("1 scan failed with 2 faults"), "{}", text(&run.stderr));
    let report: Value = serde_json::from_slice(&place.run(&["--json"]).stdout).unwrap();
    assert_eq!(members(&run.stdout).len() as u64, 3 * report["accepted"].as_u64().unwrap());
}

#[test]
fn several_readers_stream_a_finished_run_at_once() {
    let place = Place::new(GRAPH);
    assert_eq!(place.run(&[]).status.code(), Some(0));
    // A writer holds the lock: readers of a finished run do not need it.
    let lock = freetumor::store::lock(&place.path("run/staging/lock")).unwrap();
    let start = || {
        let mut command = place.command(&["run", "a.toml", "--out", "run", "--sink", "flow", "--passes", "1"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let readers = [start(), start(), start()].map(|child| child.wait_with_output().unwrap());
    for reader in &readers {
        assert_eq!(reader.status.code(), Some(0), "{}", text(&reader.stderr));
        assert_eq!(reader.stdout, readers[0].stdout);
    }
    assert!(!members(&readers[0].stdout).is_empty());
    drop(lock);
}

#[test]
fn run_stops_when_the_reader_of_its_stream_disconnects() {
    // The first scan is committed; the program of the next ones never ends.
    let program = "if mkdir first 2>/dev/null; then cp labels.nii \"$0\"; else sleep 100000; fi";
    let graph = GRAPH.replace("epoch_scans = 2", "epoch_scans = 1").replace(
        "kind = \"labels\"\ninputs = [\"phantoms\"]\norgans = [\"liver\"]",
        "kind = \"command\"\ninputs = [\"phantoms\"]\norgans = { liver = { ids = [1] } }\nscheme = \"custom\"\n\
         argv = [\"/bin/sh\", \"-c\", \"cd {graph} && PROGRAM\", \"{output}\"]\noutput = \"labels.nii\"",
    );
    let place = Place::new(&graph.replace("PROGRAM", &program.replace('"', "\\\"")));
    crate::command::write_labels_of(&place.path("a.toml"), &place.path("labels.nii"));
    let first = place.run(&["--limit", "1"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let mut command = place.command(&["run", "a.toml", "--out", "run", "--sink", "flow"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 512]).unwrap();
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(RunFolder::open(place.path("run")).unwrap().head(), Some(0), "the committed epoch stays");
}

#[test]
fn damaged_layout_is_repaired_and_files_of_the_user_are_refused() {
    let place = Place::new(GRAPH);
    assert_eq!(place.run(&[]).status.code(), Some(0));
    let labels = place.path("run/layouts/set/labelsTr");
    let names = || std::fs::read_dir(&labels).unwrap().map(|entry| entry.unwrap().path()).collect::<BTreeSet<_>>();
    let first = names().into_iter().next().unwrap();
    let whole = std::fs::read(&first).unwrap();
    // A copy without hard links that was cut off.
    std::fs::remove_file(&first).unwrap();
    std::fs::write(&first, &whole[..50]).unwrap();
    assert_eq!(place.run(&[]).status.code(), Some(0));
    assert_eq!(std::fs::read(&first).unwrap(), whole);
    // A name like that of a sample does not make a file of the user one of the run.
    let own = labels.join("0123456789abcdef.nii.gz");
    std::fs::write(&own, "of the user").unwrap();
    std::fs::write(labels.join("notes.txt"), "of the user").unwrap();
    let refused = place.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("labelsTr/0123456789abcdef.nii.gz") && stderr.contains("notes.txt"), "{stderr}");
    assert_eq!(std::fs::read(&own).unwrap(), b"of the user");
    std::fs::remove_file(&own).unwrap();
    std::fs::remove_file(labels.join("notes.txt")).unwrap();
    assert_eq!(place.run(&[]).status.code(), Some(0));
}

/// Some file systems accept only names in UTF-8.
#[cfg(target_os = "linux")]
#[test]
fn json_of_paths_that_are_not_utf8_is_complete() {
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new(GRAPH);
    let (out, graph) = (place.path(OsStr::from_bytes(b"r\xffn")), place.path(OsStr::from_bytes(b"b\xff.toml")));
    std::fs::write(&graph, GRAPH).unwrap();
    let run = |arguments: &[&OsStr]| {
        let mut command = place.command(&[]);
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        output.stdout
    };
    let [out, graph] = [out.as_os_str(), graph.as_os_str()];
    let [run_name, to, json] = ["run", "--out", "--json"].map(OsStr::new);
    let files = [OsStr::new("files"), out, OsStr::new("samples")];
    run(&[run_name, OsStr::new("a.toml"), to, out]);
    for output in [
        run(&[run_name, OsStr::new("a.toml"), to, out, json]),
        run(&[&files[..], &[json]].concat()),
        run(&[OsStr::new("validate"), graph, json]),
    ] {
        let parsed: Value = serde_json::from_slice(&output).unwrap();
        assert!(parsed.is_object());
    }
    let listed = run(&files);
    let first = listed.split(|byte| *byte == b'\n').next().unwrap();
    assert!(Path::new(OsStr::from_bytes(first)).is_file(), "{}", text(first));
}
