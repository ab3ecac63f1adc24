//! Tests of faults of the machine: a scan is pending until a later run processes it, and then the run folder equals that of a run without
//! faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use freetumor::dataflow::{Progress, RunOptions, RunReport, retry, run};
use freetumor::error::{Fault, FaultKind, Result};
use freetumor::graph::Plan;
use freetumor::id::ScanVersion;
use freetumor::ingest::{Companions, PatientSecret, Scan, ScanEntry, ScanHeader, Source};

use super::archive::Archive;
use super::assert_as_new;

/// A source with an event before each reading of a scan.
struct DisturbedSource<F> {
    source: Arc<dyn Source>,
    before_read: F,
}

impl<F: Fn(&ScanEntry) -> Result<(), Fault> + Send + Sync> Source for DisturbedSource<F> {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        self.source.list()
    }

    fn check_available(&self) -> Result<()> {
        self.source.check_available()
    }

    fn companions(&self, entry: &ScanEntry) -> Option<Arc<dyn Companions>> {
        self.source.companions(entry)
    }

    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        self.source.patient_secret()
    }

    fn version(&self, entry: &ScanEntry) -> Result<ScanVersion, Fault> {
        self.source.version(entry)
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        self.source.header(entry)
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        (self.before_read)(entry)?;
        self.source.read(entry)
    }
}

pub fn disturbed(
    archive: &Archive,
    before_read: impl Fn(&ScanEntry) -> Result<(), Fault> + Send + Sync + 'static,
) -> Result<RunReport> {
    let mut plan: Plan = archive.plan(3);
    let source = Arc::clone(&plan.sources[0].source);
    plan.sources[0].source = Arc::new(DisturbedSource { source, before_read });
    run(plan, &archive.path("run"), &RunOptions::default(), &Arc::new(Progress::default()))
}

fn archive_of_four() -> Archive {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c", "d"].into_iter().enumerate() {
        archive.add(case, content);
    }
    archive
}

#[test]
fn scan_with_fault_of_machine_is_pending_until_the_next_run() {
    let archive = archive_of_four();
    let scan = archive.scan_id("b");
    for kind in [FaultKind::Io, FaultKind::Interrupted] {
        let report = disturbed(&archive, move |entry| match entry.scan_id == scan {
            true => Err(Fault::read(kind, "the system cannot read the file: stale network file handle")),
            false => Ok(()),
        });
        let report = report.unwrap();
        assert_eq!(report.newly_pending_scans, [scan]);
        assert_eq!((report.scans, report.pending_scans, report.failed_scans), (4, 1, 0));
    }
    let report = archive.run("run").unwrap();
    assert_eq!((report.retried_scans.as_slice(), report.pending_scans, report.faults), (&[scan][..], 0, 0));
    assert_as_new(&archive, "an outage");
}

#[test]
fn work_is_retried_after_a_short_fault_of_machine() {
    let archive = archive_of_four();
    let faults = AtomicUsize::new(2);
    let report = disturbed(&archive, move |_| {
        match faults.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Err(Fault::read(FaultKind::Io, "the system cannot read the file: resource busy")),
            Err(_) => Ok(()),
        }
    });
    assert_eq!((report.unwrap().faults, archive.content("run").scans.len()), (0, 4));
    assert_as_new(&archive, "a short fault");
}

#[test]
fn vanished_root_stops_the_run_at_the_last_commit() {
    let archive = archive_of_four();
    let (root, elsewhere) = (archive.path("ct"), archive.path("elsewhere"));
    let reads = AtomicUsize::new(0);
    let error = disturbed(&archive, move |_| {
        if reads.fetch_add(1, Ordering::SeqCst) == 3 {
            // An unmounted disk leaves an empty folder.
            std::fs::rename(&root, &elsewhere).unwrap();
            std::fs::create_dir(&root).unwrap();
        }
        Ok(())
    });
    let error = error.unwrap_err();
    assert!(error.to_string().contains("is gone: it is empty") && error.hint().unwrap().contains("mount"), "{error}");
    // The open epochs are first; without them, the source is compared with the scans of the run.
    let again = archive.run("run").unwrap_err().to_string();
    assert!(again.contains("is gone") || again.contains("has lost"), "{again}");
    std::fs::remove_dir(archive.path("ct")).unwrap();
    std::fs::rename(archive.path("elsewhere"), archive.path("ct")).unwrap();
    let report = archive.run("run").unwrap();
    assert_eq!((report.scans, report.faults, report.pending_scans), (4, 0, 0));
    assert_as_new(&archive, "an unmounted disk");
}

#[test]
fn retry_processes_selected_failed_scans_again() {
    let archive = archive_of_four();
    let damaged = [archive.scan_id("a"), archive.scan_id("c")];
    // The fault is that of a program, which is repaired later: the files of the scans do not change.
    let report = disturbed(&archive, move |entry| match damaged.contains(&entry.scan_id) {
        true => Err(Fault::read(FaultKind::Program, "ended with exit code 1")),
        false => Ok(()),
    });
    assert_eq!((report.unwrap().failed_scans, archive.run("run").unwrap().processed_scans), (2, 0));
    let retry = |selects: &dyn Fn(&freetumor::record::FaultRecord) -> bool| {
        retry(archive.plan(3), &archive.path("run"), selects, &RunOptions::default(), &Arc::new(Progress::default()))
    };
    assert_eq!(retry(&|row| row.fault.kind == FaultKind::Truncated).unwrap().processed_scans, 0);
    let report = retry(&|row| row.fault.kind == FaultKind::Program).unwrap();
    assert_eq!((report.retried_scans.len(), report.failed_scans), (2, 0));
    assert_as_new(&archive, "a repaired program");
}
