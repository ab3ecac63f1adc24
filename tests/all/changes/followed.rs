//! Tests of runs that follow their sources.

use std::sync::Arc;
use std::time::{Duration, Instant};

use freetumor::dataflow::{FollowOptions, Progress, RunOptions, follow};

use super::archive::Archive;
use super::assert_equal_content;

/// Waits until a condition holds; a test that waits for a minute fails.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "a minute passed before {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn followed_source_is_processed_as_scans_come_change_and_go() {
    let archive = Archive::new();
    let progress = Arc::new(Progress::default());
    let options = FollowOptions { rescan: Duration::from_millis(200), max_delay: Duration::ZERO };
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let plan = archive.plan_with(3, &["sources.scans.settle=\"0 s\""]);
            let plan = freetumor::graph::Plan { max_missing: 1.0, ..plan };
            follow(plan, &archive.path("run"), &RunOptions::default(), &options, &progress)
        });
        let committed = || progress.snapshot().committed;
        archive.add("a", 0);
        wait_until("the first scan is committed", || committed() > 0);
        let before = committed();
        archive.add("b", 1);
        wait_until("the second scan is committed", || committed() > before);
        let before = committed();
        archive.add("a", 5);
        wait_until("the changed scan is committed", || committed() > before);
        let before = committed();
        archive.remove("b");
        wait_until("the removed scan is committed", || committed() > before);
        // A change in several files may have been listed in between.
        wait_until("nothing is left to do", || {
            let report = freetumor::run::RunFolder::open(archive.path("run")).unwrap();
            let entries = report.ingested(report.next_ingest().unwrap()).unwrap().entries;
            let listed = archive.plan(3).list(0).unwrap();
            let versions = |(id, version)| entries.get(&id).is_some_and(|entry| entry.version == version);
            entries.len() == listed.len()
                && listed.iter().map(|entry| (entry.scan_id, entry.version)).all(versions)
                && report.head().is_some_and(|head| report.next_ingest().unwrap() == head + 1)
        });
        progress.request_stop();
        run.join().unwrap().unwrap()
    });
    assert_eq!((report.scans, report.failed_scans), (1, 0), "{report:?}");
    assert!(report.removed_scans.contains(&archive.scan_id("b")));
    // The last commit may be of a state in which the files of the scan were incomplete.
    archive.run_sets("run", &["sources.scans.settle=\"0 s\""]);
    archive.run_sets("new", &["sources.scans.settle=\"0 s\""]);
    assert_equal_content(&archive.content("run"), &archive.content("new"), "following");
}

#[test]
fn scan_that_is_still_written_waits() {
    let archive = Archive::new();
    archive.add("a", 0);
    archive.write_scan("b", 1);
    let path = archive.path("ct/b/ct.nii");
    std::fs::File::options().write(true).open(path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let progress = Arc::new(Progress::default());
    let options = FollowOptions { rescan: Duration::from_millis(100), max_delay: Duration::ZERO };
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let plan = archive.plan_with(3, &["sources.scans.settle=\"1 h\""]);
            follow(plan, &archive.path("run"), &RunOptions::default(), &options, &progress)
        });
        wait_until("the complete scan is committed", || progress.snapshot().committed > 0);
        archive.write("b/.done", b"");
        let before = progress.snapshot().finished;
        wait_until("the marked scan is finished", || progress.snapshot().finished > before);
        wait_until("its epoch is committed", || progress.snapshot().committed > 1);
        progress.request_stop();
        run.join().unwrap().unwrap()
    });
    // Its labels are missing.
    assert_eq!((report.scans, report.newly_failed_scans.as_slice()), (2, &[archive.scan_id("b")][..]));
}
