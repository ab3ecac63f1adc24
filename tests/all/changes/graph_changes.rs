//! Tests of run folders whose graph changes between runs: rows and samples are those of a run of the new graph into a new folder.

use freetumor::dataflow::RunReport;

use super::archive::{Archive, Content};
use super::{archive_of_four, assert_equal_content};

/// Runs a changed graph into the folder `run` and into a new folder, and compares both; returns the report of the changed run.
fn assert_as_new_with(archive: &Archive, sets: &[&str]) -> RunReport {
    let report = archive.run_sets("run", sets);
    archive.run_sets("new", sets);
    assert_equal_content(&archive.content("run"), &archive.content("new"), &sets.join(" "));
    std::fs::remove_dir_all(archive.path("new")).unwrap();
    report
}

fn samples_of(content: &Content) -> usize {
    content.samples.len()
}

#[test]
fn changed_synthesis_processes_all_scans_again() {
    let (archive, before) = archive_of_four();
    let report = assert_as_new_with(&archive, &["stages.synthesize.variants=2"]);
    assert_eq!((report.affected_scans.len(), report.changed_scans.len(), report.new_scans), (4, 0, 0));
    assert_eq!(report.graph_change, ["`variants` of the stage `synthesize` is 1 in the folder and 2 in this run"]);
    assert!(samples_of(&archive.content("run")) > samples_of(&before));
    // The old state remains readable.
    let folder = freetumor::run::RunFolder::open(archive.path("run")).unwrap();
    assert_eq!(folder.manifest().graphs.len(), 1);
    assert_ne!(folder.current_manifest().unwrap(), *folder.manifest());
    let first = folder.snapshot(Some(1)).unwrap();
    assert!(first.files.values().all(|file| folder.read_verified(file).is_ok()));
    let again = archive.run_sets("run", &["stages.synthesize.variants=2"]);
    assert_eq!((again.processed_scans, again.epochs, again.graph_change.len()), (0, report.epochs, 0));
    // And back.
    let back = archive.run("run").unwrap();
    assert_eq!(back.affected_scans.len(), 4);
    assert_eq!(archive.content("run"), before);
}

#[test]
fn added_and_removed_sinks_have_the_samples_of_all_scans() {
    let (archive, _) = archive_of_four();
    let added = [
        "sinks.second.kind=\"nnunet\"",
        "sinks.second.inputs=[\"filter\"]",
        "sinks.rejected.kind=\"patches\"",
        "sinks.rejected.inputs=[\"filter.rejected\"]",
    ];
    assert_as_new_with(&archive, &added);
    assert!(archive.path("run").join("layouts/second").exists());
    assert_as_new_with(&archive, &[]);
}

#[test]
fn size_of_epochs_changes_nothing() {
    let (archive, before) = archive_of_four();
    let report = archive.run_sets("run", &["pipeline.epoch_scans=2"]);
    assert_eq!((report.processed_scans, report.graph_change.len()), (0, 1));
    let folder = freetumor::run::RunFolder::open(archive.path("run")).unwrap();
    assert_eq!(folder.current_manifest().unwrap().pipeline["pipeline"]["epoch_scans"], 2);
    assert_eq!(archive.content("run").samples, before.samples);
}

#[test]
fn removed_source_removes_its_scans() {
    let (archive, before) = archive_of_four();
    let second = [
        "sources.bodies.kind=\"phantom\"",
        "sources.bodies.count=2",
        "sources.bodies.shape=[48, 40, 32]",
        "sources.bodies.spacing_mm=[7.0, 7.0, 8.0]",
        "stages.others.kind=\"labels\"",
        "stages.others.inputs=[\"bodies\"]",
        "stages.others.organs=[\"liver\"]",
        "stages.more.kind=\"rules\"",
        "stages.more.inputs=[\"others\"]",
        "stages.test.kind=\"quality-test\"",
        "stages.test.inputs=[\"more\"]",
        "stages.test.accept=[\"invisible_fraction < 0.9\"]",
        "sinks.more_set.kind=\"patches\"",
        "sinks.more_set.inputs=[\"test\"]",
    ];
    let report = assert_as_new_with(&archive, &second);
    assert_eq!((report.new_scans, report.affected_scans.len(), report.scans), (2, 0, 6));
    let report = archive.run("run").unwrap();
    assert_eq!((report.removed_scans.len(), report.processed_scans), (2, 0));
    assert_eq!(archive.content("run").samples, before.samples);
}

#[test]
fn interrupted_epoch_of_the_old_graph_is_processed_by_the_new_one() {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c", "d"].into_iter().enumerate() {
        archive.add(case, content);
    }
    archive.run("run").unwrap();
    // As if the process had been killed before its last commit.
    std::fs::remove_file(archive.path("run/epochs/000000000001.json")).unwrap();
    let report = assert_as_new_with(&archive, &["stages.synthesize.variants=2"]);
    assert_eq!((report.pending_scans, report.failed_scans, report.scans), (0, 0, 4));
}
