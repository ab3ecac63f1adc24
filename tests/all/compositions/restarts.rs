//! Runs that are stopped or killed, and resumed: the same bytes as an uninterrupted run.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::run::RunFolder;

use super::{GRAPH, Run};
use crate::dataflow::{committed, plan_of};

#[test]
fn stopped_run_resumes_with_same_bytes() {
    let whole = Run::new(GRAPH);
    let folder = tempfile::tempdir().unwrap();
    let mut stops = 0;
    for finished in [1, 2, 3, 4] {
        let progress = Arc::new(Progress::default());
        let watched = Arc::clone(&progress);
        let watcher = std::thread::spawn(move || {
            for _ in 0..10_000 {
                if watched.snapshot().finished >= finished {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            watched.request_stop();
        });
        let options = RunOptions { threads: 1, ..RunOptions::default() };
        let result = run(plan_of(GRAPH, folder.path()), folder.path(), &options, &progress);
        watcher.join().unwrap();
        stops += usize::from(result.is_err());
    }
    assert!(stops > 0, "expected a run that was stopped before its end");
    run(plan_of(GRAPH, folder.path()), folder.path(), &RunOptions::default(), &Arc::new(Progress::default())).unwrap();
    assert_eq!(committed(folder.path()), committed(&whole.path));
}

fn start(graph: &Path, out: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.arg("run").arg(graph).arg("--out").arg(out).args(["--threads", "1", "--quiet"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Returns whether the staging folder contains a tumor that waits for the composition of its sample.
fn has_stored_tumor(out: &Path) -> bool {
    let files = walkdir::WalkDir::new(out.join("staging")).into_iter().filter_map(Result::ok);
    files.into_iter().any(|file| file.file_name().to_string_lossy().ends_with(".tumor.tar"))
}

#[test]
fn killed_run_resumes_with_same_bytes() {
    let whole = Run::new(GRAPH);
    let folder = tempfile::tempdir().unwrap();
    let (graph, out) = (folder.path().join("graph.toml"), folder.path().join("run"));
    std::fs::write(&graph, GRAPH).unwrap();
    let mut kills = 0;
    for _ in 0..5 {
        let mut child = start(&graph, &out);
        // Killed while tumors are stored and their sample is not composed yet.
        while child.try_wait().unwrap().is_none() {
            if has_stored_tumor(&out) {
                child.kill().unwrap();
                kills += 1;
                break;
            }
        }
        child.wait().unwrap();
    }
    assert!(kills > 0, "expected a process that was killed");
    assert!(start(&graph, &out).wait().unwrap().success());
    assert_eq!(committed(&out), committed(&whole.path));
    assert!(RunFolder::open(&out).unwrap().verify().unwrap().problems.is_empty());
}
