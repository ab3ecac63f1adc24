//! Tests of requests to a process that writes a run folder.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use freetumor::error::ErrorKind;
use freetumor::run::RunFolder;
use freetumor::run::requests::{Request, Response, submit, wait};

use super::archive::Archive;
use super::failures::disturbed;
use super::withdrawals::{scan_request, withdraw_from};

#[test]
fn running_process_executes_requests_between_epochs() {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c", "d", "e", "f", "g"].into_iter().enumerate() {
        archive.add(case, content);
    }
    let run = archive.path("run");
    let first = ["a", "b", "c", "d", "e", "f", "g"].into_iter().min_by_key(|case| archive.scan_id(case)).unwrap();
    let scan = archive.scan_id(first);
    let (is_submitted, waiting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let (submitted, started) = (Arc::clone(&is_submitted), Arc::clone(&waiting));
        let running = scope.spawn(|| {
            disturbed(&archive, move |_| {
                // The first scans wait until the request is there.
                started.store(true, Ordering::SeqCst);
                while !submitted.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            })
        });
        while !waiting.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(withdraw_from(&archive, &scan_request([scan]), false).unwrap_err().kind(), ErrorKind::Locked);
        let withdraw =
            Request::Withdraw { scans: [scan].into(), patients: BTreeSet::new(), by_content: false, purge: false };
        let unknown = Request::Retry { conditions: vec!["no_such_column = 1".to_owned()] };
        let tag = Request::Tag { name: "first".parse().unwrap() };
        let ids = [withdraw, unknown, tag].map(|request| submit(&run, &request).unwrap());
        is_submitted.store(true, Ordering::SeqCst);
        let [withdrawn, refused, tagged] = ids.map(|id| wait(&run, &id).unwrap());
        let report = running.join().unwrap().unwrap();
        assert_eq!((report.scans, report.processed_scans, report.faults), (6, 7, 0));
        let Response::Done(receipt) = withdrawn else { panic!("{withdrawn:?}") };
        assert_eq!(receipt["scans"][0], scan.to_string());
        assert!(matches!(refused, Response::Refused { .. }), "{refused:?}");
        let Response::Done(tag) = tagged else { panic!("{tagged:?}") };
        let folder = RunFolder::open(&run).unwrap();
        let epoch = folder.epoch_at(&"first".parse().unwrap()).unwrap();
        assert_eq!(tag["epoch"], epoch);
        assert!(folder.epoch_at(&"second".parse().unwrap()).unwrap_err().hint().unwrap().contains("first"));
    });
    archive.remove(first);
    super::assert_as_new(&archive, "requests to a running process");
    assert!(std::fs::read_dir(run.join("requests")).unwrap().next().is_none());
}
