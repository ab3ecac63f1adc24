//! Tests of run folders whose graph changes between runs: rows and samples are those of a run of the new graph into a new folder.

use freetumor::dataflow::RunReport;

use super::archive::{Archive, Content};
use super::{archive_of_four, assert_equal_content};

/// Runs a changed graph into the folder `run` and into a new folder, and compares both; returns the report of the changed run.
fn assert_as_new_with(archive: &Archive, sets: &[&str]) -> RunReport {
    let report = archive.run_sets("run", sets);
    archive.run_sets("new", sets);
    let (own, expected) = (without_pipeline(archive.content("run")), without_pipeline(archive.content("new")));
    assert_equal_content(&own, &expected, &sets.join(" "));
    std::fs::remove_dir_all(archive.path("new")).unwrap();
    report
}

/// Returns content without the digest of the pipeline, which is that of the graph by which a scan was processed.
pub fn without_pipeline(mut content: Content) -> Content {
    for sample in &mut content.samples {
        sample["row"].as_object_mut().unwrap().remove("pipeline_digest");
    }
    content.samples.sort_by_key(serde_json::Value::to_string);
    content
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
        "[sinks.second]\nkind = 'decathlon'\ninputs = ['filter']",
        "[sinks.rejected]\nkind = 'patches'\ninputs = ['filter.rejected']",
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
        "[sources.bodies]\nkind = 'phantom'\ncount = 2\nshape = [48, 40, 32]\nspacing_mm = [7.0, 7.0, 8.0]",
        "[stages.others]\nkind = 'labels'\ninputs = ['bodies']\norgans = ['liver']",
        "[stages.more]\nkind = 'rules'\ninputs = ['others']\nsalt = 'more'",
        "[stages.test]\nkind = 'quality-test'\ninputs = ['values']\naccept = ['delta_hu < -5']",
        "[stages.values]\nkind = 'intensity'\ninputs = ['more']",
        "[sinks.more_set]\nkind = 'patches'\ninputs = ['test']",
    ];
    let report = assert_as_new_with(&archive, &second);
    assert_eq!((report.new_scans, report.affected_scans.len(), report.scans), (2, 0, 6));
    let report = archive.run("run").unwrap();
    assert_eq!((report.removed_scans.len(), report.processed_scans), (2, 0));
    assert_eq!(without_pipeline(archive.content("run")).samples, without_pipeline(before).samples);
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

#[test]
fn changed_threshold_is_decided_from_stored_scores() {
    let (archive, before) = archive_of_four();
    // Rejects more: attempts that were accepted are followed by attempts that were not made, except for tumors whose last one was accepted.
    let report = assert_as_new_with(&archive, &["stages.filter.accept=[\"delta_hu < -20\"]"]);
    assert_eq!(report.affected_scans.len() + report.retested_scans.len(), 4);
    // Accepts more: every decision follows from stored scores; patches of rejected candidates may be missing.
    let report = assert_as_new_with(&archive, &["stages.filter.accept=[\"delta_hu < -12\"]"]);
    assert_eq!(report.affected_scans.len() + report.retested_scans.len(), 4);
    assert_eq!(archive.content("run").samples, before.samples);
}

#[test]
fn one_attempt_is_decided_without_processing() {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        archive.add(case, content);
    }
    // A duplicate of a retested scan.
    archive.add("f", 0);
    let sets = |threshold: &str| {
        vec![
            "stages.filter.attempts=1".to_owned(),
            // Images of all candidates: a sink of accepted ones would need those that were rejected before.
            "sinks.training_set.inputs=[\"filter\", \"filter.rejected\"]".to_owned(),
            "stages.synthesize.variants=4".to_owned(),
            format!("stages.filter.accept=[\"delta_hu < {threshold}\"]"),
        ]
    };
    let run = |threshold: &str| {
        let sets = sets(threshold);
        assert_as_new_with(&archive, &sets.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let first = run("-5");
    let mut outcomes = vec![(first.accepted, first.rejected)];
    for threshold in ["-30", "-12", "-5"] {
        let report = run(threshold);
        assert_eq!((report.retested_scans.len(), report.processed_scans, report.duplicates), (6, 0, 1), "{threshold}");
        outcomes.push((report.accepted, report.rejected));
    }
    assert_eq!(outcomes[0], outcomes[3]);
    assert!(outcomes[1].0 < outcomes[2].0 && outcomes[2].0 < outcomes[0].0, "{outcomes:?}");
    // A changed scan of an epoch whose candidates were tested again.
    archive.add("b", 9);
    let report = run("-5");
    assert_eq!((report.changed_scans.len(), report.processed_scans, report.retested_scans.len()), (1, 1, 0));
}

#[test]
fn interrupted_decisions_of_one_graph_are_replaced_by_those_of_another() {
    for (next, variants) in [("-12", "4"), ("-30", "2"), ("-5", "4")] {
        let archive = Archive::new();
        for (content, case) in ["a", "b", "c", "d"].into_iter().enumerate() {
            archive.add(case, content);
        }
        let sets = |threshold: &str, variants: &str| {
            [
                "stages.filter.attempts=1".to_owned(),
                "sinks.training_set.inputs=[\"filter\", \"filter.rejected\"]".to_owned(),
                format!("stages.synthesize.variants={variants}"),
                format!("stages.filter.accept=[\"delta_hu < {threshold}\"]"),
            ]
        };
        let run = |sets: &[String]| archive.run_sets("run", &sets.iter().map(String::as_str).collect::<Vec<_>>());
        run(&sets("-5", "4"));
        let report = run(&sets("-30", "4"));
        assert_eq!(report.retested_scans.len(), 4);
        // As if the process had been killed before the commit of the new decisions.
        let epoch = report.epochs - 1;
        std::fs::remove_file(archive.path(&format!("run/epochs/{epoch:012}.json"))).unwrap();
        let sets = sets(next, variants);
        let report = assert_as_new_with(&archive, &sets.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((report.scans, report.pending_scans), (4, 0), "{next} {variants}");
    }
}

#[test]
fn added_sink_of_patches_needs_no_processing() {
    let (archive, _) = archive_of_four();
    let report = assert_as_new_with(&archive, &["[sinks.second]\nkind = 'patches'\ninputs = ['filter']"]);
    assert_eq!((report.retested_scans.len(), report.processed_scans), (4, 0));
    let report = assert_as_new_with(&archive, &[]);
    assert_eq!((report.retested_scans.len(), report.processed_scans), (4, 0));
}

#[test]
fn preview_counts_what_the_run_does() {
    let (archive, _) = archive_of_four();
    let sets = ["stages.synthesize.variants=2"];
    let preview = freetumor::dataflow::preview(&archive.plan_with(3, &sets), &archive.path("run")).unwrap();
    assert_eq!((preview.affected_scans.len(), preview.retested_scans.len(), preview.kept.scans), (4, 0, 0));
    assert!(preview.processed.attempts > 0 && preview.thread_seconds.is_some_and(|seconds| seconds > 0.0));
    let unchanged = freetumor::dataflow::preview(&archive.plan(3), &archive.path("run")).unwrap();
    assert_eq!((unchanged.kept.scans, unchanged.processed.scans, unchanged.graph_change.len()), (4, 0, 0));
    assert_eq!(unchanged.kept.attempts, preview.processed.attempts);
    assert_eq!(archive.run_sets("run", &sets).affected_scans, preview.affected_scans);
}

#[test]
fn failed_scan_is_processed_again_by_another_version_of_freetumor() {
    let (archive, _) = archive_of_four();
    archive.write("e/ct.nii", b"not a NIfTI file");
    let report = archive.run("run").unwrap();
    assert_eq!(report.newly_failed_scans, [archive.scan_id("e")]);
    assert_eq!(archive.run("run").unwrap().processed_scans, 0);
    rewrite_code_version(&archive.path("run"));
    let report = archive.run("run").unwrap();
    assert_eq!((report.retried_scans.as_slice(), report.processed_scans), (&[archive.scan_id("e")][..], 1));
    assert_eq!(report.graph_change, ["the version of freetumor is \"0.0.9\" in the folder and \"0.1.0\" in this run"]);
    assert_eq!(archive.run("run").unwrap().processed_scans, 0);
}

/// Makes a run folder that of an earlier version of freetumor: its manifest, and the digests that name the manifest in all commits.
fn rewrite_code_version(run: &std::path::Path) {
    let sha256 = |bytes: &[u8]| freetumor::store::FileDigest::of(bytes).sha256;
    let manifest = std::fs::read_to_string(run.join("run.json")).unwrap();
    let version = format!("\"code_version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(manifest.contains(&version));
    let earlier = manifest.replace(&version, "\"code_version\": \"0.0.9\"");
    std::fs::write(run.join("run.json"), &earlier).unwrap();
    let (mut before, mut now) = (sha256(manifest.as_bytes()), sha256(earlier.as_bytes()));
    let settings = (before.clone(), now.clone());
    for epoch in 0.. {
        let path = run.join(format!("epochs/{epoch:012}.json"));
        let Ok(text) = std::fs::read_to_string(&path) else { break };
        let rewritten = text.replace(&before, &now).replace(&settings.0, &settings.1);
        (before, now) = (sha256(text.as_bytes()), sha256(rewritten.as_bytes()));
        std::fs::write(&path, rewritten).unwrap();
    }
}
