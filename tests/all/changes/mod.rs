//! Tests of run folders whose sources change between runs: rows and samples are those of a run that ingested only the last state.

pub mod archive;
mod failures;
mod followed;
mod graph_changes;
mod histories;
mod live;
mod withdrawals;

use freetumor::dataflow::RunOptions;
use freetumor::record::Status;

use archive::{Archive, Content};

/// Returns an archive of four scans, and the content of its run folder `run`.
fn archive_of_four() -> (Archive, Content) {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c", "d"].into_iter().enumerate() {
        archive.add(case, content);
    }
    let report = archive.run("run").unwrap();
    assert_eq!((report.new_scans, report.faults, report.epochs), (4, 0, 2));
    let content = archive.content("run");
    assert!(report.accepted > 2 && content.members.len() > 4 && content.layout.len() > 4, "{report:?}");
    (archive, content)
}

/// Asserts that `run` has the content of a run into a new folder.
fn assert_as_new(archive: &Archive, context: &str) {
    let new = format!("new after {context}");
    archive.run(&new).unwrap();
    assert_equal_content(&archive.content("run"), &archive.content(&new), context);
}

/// Asserts that two run folders have equal content.
fn assert_equal_content(own: &Content, expected: &Content, context: &str) {
    assert_eq!(own.scans, expected.scans, "{context}");
    assert_eq!(own.faults, expected.faults, "{context}");
    assert_eq!(own.samples.len(), expected.samples.len(), "{context}");
    assert!(own.samples == expected.samples, "{context}: other rows of samples");
    assert_eq!(own.quality, expected.quality, "{context}");
    assert_eq!(own.counts, expected.counts, "{context}");
    assert_eq!(own.layout, expected.layout, "{context}");
    assert!(own.members == expected.members, "{context}: other members of shards");
}

#[test]
fn only_the_changed_scan_is_processed_again() {
    let (archive, before) = archive_of_four();
    archive.add("b", 7);
    let report = archive.run("run").unwrap();
    assert_eq!(report.changed_scans, [archive.scan_id("b")]);
    assert_eq!((report.processed_scans, report.new_scans, report.scans), (1, 0, 4));
    assert_ne!(archive.content("run"), before);
    assert_as_new(&archive, "change");
    let again = archive.run("run").unwrap();
    assert_eq!((again.processed_scans, again.epochs), (0, report.epochs));
}

#[test]
fn changed_and_added_label_files_are_detected() {
    let (archive, before) = archive_of_four();
    archive.write_labels("c", 2, false);
    archive.write_scan("e", 9);
    let report = archive.run("run").unwrap();
    assert_eq!((report.changed_scans.as_slice(), report.new_scans), (&[archive.scan_id("c")][..], 1));
    assert_eq!(report.newly_failed_scans, [archive.scan_id("e")]);
    assert_as_new(&archive, "other labels");
    archive.write_labels("c", 2, true);
    archive.write_labels("e", 9, true);
    let report = archive.run("run").unwrap();
    assert_eq!((report.changed_scans.len(), report.failed_scans, report.newly_failed_scans.len()), (2, 0, 0));
    assert_as_new(&archive, "labels of a failed scan");
    archive.remove("e");
    let report = archive.run("run").unwrap();
    assert_eq!(report.removed_scans, [archive.scan_id("e")]);
    assert_eq!(archive.content("run"), before);
}

#[test]
fn earlier_state_remains_readable() {
    let (archive, _) = archive_of_four();
    let folder = freetumor::run::RunFolder::open(archive.path("run")).unwrap();
    let before = folder.snapshot(None).unwrap();
    archive.remove("a");
    archive.add("b", 11);
    archive.run("run").unwrap();
    let folder = freetumor::run::RunFolder::open(archive.path("run")).unwrap();
    assert_eq!(folder.snapshot(before.head.epoch).unwrap(), before);
    assert_ne!(folder.snapshot(None).unwrap().files, before.files);
    assert!(before.files.values().all(|file| folder.read_verified(file).is_ok()));
}

#[test]
fn samples_of_a_removed_scan_are_removed() {
    let (archive, _) = archive_of_four();
    archive.remove("d");
    let report = archive.run("run").unwrap();
    assert_eq!((report.removed_scans.as_slice(), report.scans), (&[archive.scan_id("d")][..], 3));
    assert_as_new(&archive, "removal");
    archive.add("d", 3);
    assert_eq!(archive.run("run").unwrap().new_scans, 1);
    assert_as_new(&archive, "return");
}

#[test]
fn source_that_lost_too_many_scans_stops_before_any_change() {
    let (archive, before) = archive_of_four();
    for case in ["a", "b", "c"] {
        std::fs::rename(archive.path("ct").join(case), archive.path(case)).unwrap();
    }
    archive.add("e", 5);
    let error = archive.run("run").unwrap_err();
    assert!(error.to_string().contains("the source `scans` has lost 3 of 4 scans"), "{error}");
    assert!(error.hint().unwrap().contains("mounted"), "{error:?}");
    assert_eq!(archive.content("run"), before);
    for case in ["a", "b", "c"] {
        std::fs::rename(archive.path(case), archive.path("ct").join(case)).unwrap();
    }
    let report = archive.run("run").unwrap();
    assert_eq!((report.new_scans, report.removed_scans.len()), (1, 0));
}

#[test]
fn duplicate_is_processed_when_its_original_changes_or_is_removed() {
    let archive = Archive::new();
    for case in ["a", "b", "c"] {
        archive.add(case, 1);
    }
    let report = archive.run("run").unwrap();
    assert_eq!((report.duplicates, report.scans), (2, 3));
    let done = |archive: &Archive| {
        let content = archive.content("run");
        let done = content.scans.iter().find(|row| row["status"] == "done").unwrap();
        ["a", "b", "c"].into_iter().find(|case| done["scan_id"] == archive.scan_id(case).to_string()).unwrap()
    };
    let first = done(&archive);
    archive.remove(first);
    let report = archive.run("run").unwrap();
    assert_eq!((report.removed_scans.len(), report.retried_scans.len(), report.duplicates), (1, 2, 1));
    assert_as_new(&archive, "original removed");
    let second = done(&archive);
    archive.add(second, 2);
    let report = archive.run("run").unwrap();
    assert_eq!((report.changed_scans.len(), report.retried_scans.len(), report.duplicates), (1, 1, 0));
    assert_as_new(&archive, "original changed");
}

#[test]
fn scan_that_changes_while_it_is_processed_is_pending_until_the_next_run() {
    let (archive, _) = archive_of_four();
    // The manifest of the next epoch is durable before its work: a run that ends in between leaves it with the old version.
    archive.add("e", 4);
    let plan = archive.plan(3).with_keyed_digest().unwrap();
    {
        use freetumor::dataflow::{Ledger, Listing, ScanChanges, Schedule};
        let (ledger, _) = Ledger::open(&archive.path("run"), &plan).unwrap();
        let scans = ledger.scans().unwrap();
        let listing = Listing::of(&plan).unwrap();
        let changes = ScanChanges::new(&plan, &listing, &scans, &|ids| ledger.keys_of(ids)).unwrap();
        let schedule = Schedule::new(&plan, Vec::new(), 2, &scans, &changes, None);
        ledger.open_epoch(&schedule.epochs()[0]).unwrap();
    }
    archive.add("e", 8);
    let report = archive.run("run").unwrap();
    assert_eq!((report.processed_scans, report.pending_scans, report.newly_pending_scans.len()), (2, 0, 0));
    assert_as_new(&archive, "change of an open epoch");
    let folder = freetumor::run::RunFolder::open(archive.path("run")).unwrap();
    let rows = |at| {
        let files = folder.files("scans", Some(at)).unwrap();
        let decode = |file| {
            freetumor::record::parquet::decode_part::<freetumor::record::ScanRecord>(
                folder.read_verified(file).unwrap(),
            )
            .unwrap()
        };
        files.iter().flat_map(decode).find(|row| row.scan_id == archive.scan_id("e")).unwrap().status
    };
    assert_eq!((rows(2), rows(3)), (Status::Pending, Status::Done));
}

#[test]
fn changes_have_the_same_bytes_for_any_number_of_workers_and_threads() {
    let runs = [(1, 1), (3, 2)].map(|(workers, threads)| {
        let (archive, _) = archive_of_four();
        archive.remove("a");
        archive.add("c", 6);
        archive.add("e", 4);
        archive.run_with("run", 3, &RunOptions { workers, threads, ..RunOptions::default() }).unwrap();
        crate::dataflow::committed(&archive.path("run"))
    });
    assert!(runs[0] == runs[1]);
}

#[test]
fn duplicate_is_processed_although_the_run_ended_after_its_original_changed() {
    let archive = Archive::new();
    for case in ["a", "b"] {
        archive.add(case, 1);
    }
    assert_eq!(archive.run("run").unwrap().duplicates, 1);
    let content = archive.content("run");
    let original = content.scans.iter().find(|row| row["status"] == "done").unwrap()["scan_id"].clone();
    let original = if original == archive.scan_id("a").to_string() { "a" } else { "b" };
    archive.add(original, 2);
    // The limit ends the run before the duplicate.
    let limited = RunOptions { limit: Some(1), ..RunOptions::default() };
    let report = archive.run_with("run", 3, &limited).unwrap();
    assert_eq!((report.changed_scans.len(), report.left_out_scans, report.duplicates), (1, 1, 1));
    let report = archive.run("run").unwrap();
    assert_eq!((report.retried_scans.len(), report.duplicates), (1, 0));
    assert_as_new(&archive, "a limit");
}

#[cfg(unix)]
#[test]
fn unmounted_disk_of_links_or_labels_stops_the_run_before_any_change() {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c", "d"].into_iter().enumerate() {
        archive.add(case, content);
        for name in ["ct.nii", "labels.nii"] {
            let (disk, link) = (archive.path(&format!("disk/{case}-{name}")), archive.path("ct").join(case).join(name));
            std::fs::create_dir_all(disk.parent().unwrap()).unwrap();
            std::fs::rename(&link, &disk).unwrap();
            std::os::unix::fs::symlink(&disk, &link).unwrap();
        }
    }
    archive.run("run").unwrap();
    let before = archive.content("run");
    for name in ["ct.nii", "labels.nii"] {
        let moved = |case: &str| archive.path(&format!("disk/{case}-{name}"));
        for case in ["a", "b", "c"] {
            std::fs::rename(moved(case), moved(case).with_extension("away")).unwrap();
        }
        let error = archive.run("run").unwrap_err();
        assert!(error.to_string().contains("has lost 3 of 4 scans"), "{name}: {error}");
        for case in ["a", "b", "c"] {
            std::fs::rename(moved(case).with_extension("away"), moved(case)).unwrap();
        }
        assert_eq!(archive.run("run").unwrap().processed_scans, 0, "{name}");
    }
    assert_eq!(archive.content("run"), before);
}
