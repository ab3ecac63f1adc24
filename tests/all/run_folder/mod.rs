//! Tests of the run folder: crashes, readers, other pipelines, damage.

mod removal;
mod simulated_file_system;

use std::collections::BTreeMap;
use std::sync::Arc;

use freetumor::cli::files::{FilesArgs, files};
use freetumor::error::ErrorKind;
use freetumor::random::Key;
use freetumor::record::FileEntry;
use freetumor::run::seal::{SealedEpoch, seal};
use freetumor::run::{CHECKPOINT_INTERVAL, Counts, EpochChanges, Revision, RunFolder};
use freetumor::sink::Layout;
use freetumor::store::canonical;
use freetumor::store::{DurableFolder, DurableStorage, REPLACEABLE, STAGING};
use rayon::prelude::*;
use simulated_file_system::SimulatedFileSystem;

use crate::sinks::fixture;

const SHAPE: [usize; 3] = [9, 8, 5];
const EPOCHS: u64 = 2;
const SCANS: u64 = 3;

fn store_on(file_system: &SimulatedFileSystem) -> Arc<dyn DurableStorage> {
    Arc::new(DurableFolder::on(Box::new(file_system.clone()), "RUN"))
}

fn drive(file_system: &SimulatedFileSystem, sinks: &[Arc<dyn Layout>]) -> freetumor::error::Result<()> {
    fixture::run(&store_on(file_system), sinks, EPOCHS, SCANS, SHAPE).map(drop)
}

fn committed_files(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let top = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    files.into_iter().filter(|(name, _)| top(name) != STAGING && !REPLACEABLE.contains(&&*top(name))).collect()
}

fn without_staging(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.into_iter().filter(|(name, _)| !name.starts_with(STAGING)).collect()
}

/// Checks that every file with a final name is complete and that the commits verify.
fn check_survivors(file_system: &SimulatedFileSystem, reference: &BTreeMap<String, Vec<u8>>, context: &str) {
    for (name, content) in committed_files(file_system.files()) {
        let whole =
            reference.get(&name).unwrap_or_else(|| panic!("{context}: {name} is not a file of the complete run"));
        assert!(*whole == content, "{context}: {name} is incomplete");
    }
    if let Ok(folder) = RunFolder::open_in(store_on(file_system)) {
        let report = folder.verify().unwrap();
        assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
        let first = folder.base().map_or(0, |base| base.epoch + 1);
        assert_eq!(report.commits, folder.head().map_or(0, |head| head + 1 - first));
    }
}

#[test]
fn run_interrupted_at_any_step_resumes_to_same_bytes() {
    let sinks = fixture::sinks();
    let whole = SimulatedFileSystem::default();
    drive(&whole, &sinks).unwrap();
    let reference = without_staging(whole.files());
    assert!(reference.keys().filter(|name| name.ends_with(".tar")).count() >= 4, "{:?}", reference.keys());
    assert!(reference.keys().filter(|name| name.starts_with("layouts/")).count() > 10);
    let steps = whole.steps();
    assert!(steps > 300, "{steps}");
    (0..steps).into_par_iter().for_each(|step| {
        let context = format!("stopped before step {step} of {steps}");
        let file_system = SimulatedFileSystem::default();
        file_system.stop_before(step);
        drive(&file_system, &sinks).unwrap_err();
        // Alternate between a killed process and a power loss.
        let left = match step % 2 {
            0 => file_system.after_kill(),
            _ => file_system.after_power_loss(Key::root(3).number("step", step)),
        };
        check_survivors(&left, &reference, &context);
        // The second attempt may also be interrupted.
        left.stop_before(step / 2);
        let _ = drive(&left, &sinks);
        let left = left.after_power_loss(Key::root(4).number("step", step));
        check_survivors(&left, &reference, &context);
        drive(&left, &sinks).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(without_staging(left.files()) == reference, "{context}: other files at the end");
    });
}

#[test]
fn load_verified_returns_intact_spools_and_removes_damaged_ones() {
    let sinks = fixture::sinks();
    let file_system = SimulatedFileSystem::default();
    let store = store_on(&file_system);
    let mut writer = RunFolder::create_or_resume_in(Arc::clone(&store), &fixture::manifest(7)).unwrap();
    let entries: Vec<_> = (0..6).map(fixture::entry).collect();
    writer.ingest(&EpochChanges::of_entries(entries.clone())).unwrap();
    let spool = writer.spool(fixture::layouts(&sinks));
    let outcomes: Vec<_> = entries.iter().map(|entry| fixture::spool_scan(&spool, 0, entry, SHAPE).unwrap()).collect();
    let damaged =
        outcomes.iter().find(|outcome| outcome.files.first().is_some_and(|files| files.volumes.is_some())).unwrap();
    let image = format!("staging/000000000000/{}/{}.image.nii.gz", damaged.scan.scan_id, damaged.files[0].sample_id);
    let mut bytes = store.read(&image).unwrap().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    store.stage(&image, &mut |out| out.write_all(&bytes)).unwrap();
    for (entry, outcome) in entries.iter().zip(&outcomes) {
        let loaded = spool.load_verified(0, entry.scan_id).unwrap();
        if entry.scan_id == damaged.scan.scan_id {
            assert_eq!(loaded, None);
            assert!(!store.exists(&image).unwrap(), "a damaged spool is removed");
        } else {
            assert_eq!(loaded.as_ref(), Some(outcome));
        }
    }
    spool.clear_committed(1).unwrap();
    assert!(
        !file_system.files().keys().any(|name| name.starts_with("staging/0")),
        "no staged file of a committed epoch remains"
    );
}

#[test]
fn slower_of_two_writers_is_fenced() {
    let file_system = SimulatedFileSystem::default();
    let [mut first, mut second] =
        [(); 2].map(|()| RunFolder::create_or_resume_in(store_on(&file_system), &fixture::manifest(7)).unwrap());
    first.ingest(&EpochChanges::of_entries([fixture::entry(0)])).unwrap();
    assert!(second.ingest(&EpochChanges::of_entries([fixture::entry(1)])).unwrap_err().to_string().contains("fenced"));
    // Equal manifests are not a conflict: both writers write the same bytes.
    assert_eq!(second.ingest(&EpochChanges::of_entries([fixture::entry(0)])).unwrap(), 0);
    first.commit(SealedEpoch::default()).unwrap();
    let other = SealedEpoch { counts: Counts { scans: 1, ..Counts::default() }, ..SealedEpoch::default() };
    assert!(second.commit(other).unwrap_err().to_string().contains("fenced"));
}

#[test]
fn commit_fails_out_of_order_or_without_manifest() {
    let file_system = SimulatedFileSystem::default();
    let mut writer = RunFolder::create_or_resume_in(store_on(&file_system), &fixture::manifest(7)).unwrap();
    assert!(writer.commit(SealedEpoch::default()).is_err(), "nothing was ingested");
    writer.ingest(&EpochChanges::of_entries([fixture::entry(0)])).unwrap();
    writer.ingest(&EpochChanges::of_entries([fixture::entry(1)])).unwrap();
    assert!(writer.commit(SealedEpoch { epoch: 1, ..SealedEpoch::default() }).is_err());
    writer.commit(SealedEpoch::default()).unwrap();
    let twice = writer.ingest(&EpochChanges::of_entries([fixture::entry(2), fixture::entry(2)])).unwrap_err();
    assert!(twice.to_string().contains("twice"));
    let again = RunFolder::create_or_resume_in(store_on(&file_system), &fixture::manifest(7)).unwrap();
    assert_eq!((again.next_epoch(), again.next_ingest()), (1, 2));
    assert_eq!(again.folder().scan_entries(1).unwrap(), [fixture::entry(1)]);
    assert_eq!(again.ingested().unwrap().entries.len(), 2);
}

#[test]
fn create_or_resume_fails_on_locked_folder_and_other_pipeline() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let first = RunFolder::create_or_resume(&path, &fixture::manifest(7)).unwrap();
    let locked = RunFolder::create_or_resume(&path, &fixture::manifest(7)).err().unwrap();
    assert!(locked.to_string().contains("another process"), "{locked}");
    drop(first);
    let error = RunFolder::create_or_resume(&path, &fixture::manifest(8)).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("`name` of the pipeline is \"fixture 7\" in the folder and \"fixture 8\" in this run")
            && error.hint().unwrap().contains("--out"),
        "{error}"
    );
    RunFolder::create_or_resume(&path, &fixture::manifest(7)).unwrap();
}

#[test]
fn older_format_error_names_versions() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("run.json"), r#"{"format": 4, "seed": 7}"#).unwrap();
    for error in [
        RunFolder::open(root.path()).err().unwrap(),
        RunFolder::create_or_resume(root.path(), &fixture::manifest(7)).err().unwrap(),
    ] {
        assert!(error.to_string().contains("expected format 6, got 4"), "{error}");
        assert!(error.hint().unwrap().contains("run the pipeline again into a new folder"), "{error:?}");
    }
}

#[test]
fn errors_have_distinct_kinds() {
    let root = tempfile::tempdir().unwrap();
    let first = RunFolder::create_or_resume(root.path(), &fixture::manifest(7)).unwrap();
    let kind = |seed| RunFolder::create_or_resume(root.path(), &fixture::manifest(seed)).err().unwrap().kind();
    assert_eq!(kind(7), ErrorKind::Locked);
    assert_eq!(kind(8), ErrorKind::OtherPipeline);
    drop(first);
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root.path()));
    let writer = fixture::run(&store, &fixture::sinks(), 1, 4, SHAPE).unwrap();
    assert_eq!(store.create("epochs/000000000000.json", b"another").unwrap_err().kind(), ErrorKind::Fenced);
    let part = writer.folder().files("samples", None).unwrap()[0].clone();
    std::fs::remove_file(root.path().join(&part.path)).unwrap();
    assert_eq!(writer.folder().check_length(&part).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn table_folder_links_only_parquet_parts_of_last_commit() {
    let root = tempfile::tempdir().unwrap();
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root.path()));
    let writer = fixture::run(&store, &fixture::sinks(), 2, 4, SHAPE).unwrap();
    let head = |table: &str| -> Vec<String> {
        let files = writer.folder().files(table, None).unwrap();
        files.iter().map(|file| file.path.strip_prefix("data/").unwrap().to_owned()).collect()
    };
    let listed = |table: &str| store.list(table).unwrap();
    for table in ["samples", "scans", "faults"] {
        assert_eq!(listed(table), head(table), "{table}");
        assert!(!head(table).is_empty());
    }
    // A missing or damaged link is recreated, an outdated part is removed, a file of another name is kept.
    let samples = root.path().join("samples");
    let [first, second] = &head("samples")[..] else { panic!("two epochs") };
    std::fs::remove_file(samples.join(first)).unwrap();
    std::fs::remove_file(samples.join(second)).unwrap();
    std::fs::write(samples.join(second), "torn").unwrap();
    std::fs::write(samples.join(format!("{:012}-{}.parquet", 7, "0".repeat(64))), "stray").unwrap();
    std::fs::write(samples.join("notes.txt"), "mine").unwrap();
    writer.project(fixture::layouts(&fixture::sinks())).unwrap();
    assert_eq!(listed("samples"), [first.as_str(), second.as_str(), "notes.txt"]);
    for name in [first, second] {
        assert_eq!(
            std::fs::read(samples.join(name)).unwrap(),
            std::fs::read(root.path().join("data").join(name)).unwrap()
        );
    }
}

#[test]
fn create_or_resume_fails_on_folder_with_foreign_files() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("thesis.doc"), "my only copy").unwrap();
    let error = RunFolder::create_or_resume(root.path(), &fixture::manifest(7)).err().unwrap();
    assert!(error.to_string().contains("thesis.doc") && error.hint().unwrap().contains("--out"), "{error}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    // The staging folder of a run that was interrupted at its start is not an error.
    std::fs::remove_file(root.path().join("thesis.doc")).unwrap();
    std::fs::create_dir(root.path().join(STAGING)).unwrap();
    RunFolder::create_or_resume(root.path(), &fixture::manifest(7)).unwrap();
}

/// Writes a run of commits without files, for replaying.
fn long_run(file_system: &SimulatedFileSystem, epochs: u64) {
    let mut writer = RunFolder::create_or_resume_in(store_on(file_system), &fixture::manifest(7)).unwrap();
    let file = |epoch: u64| FileEntry {
        path: format!("data/{epoch}"),
        table: "webdataset".into(),
        bytes: epoch,
        sha256: String::new(),
        rows: 1,
    };
    for epoch in writer.next_epoch()..epochs {
        writer.ingest(&EpochChanges::default()).unwrap();
        let remove = if epoch % 3 == 2 { vec![file(epoch - 1)] } else { Vec::new() };
        let counts = Counts { scans: 2, ..Counts::default() };
        let sealed = SealedEpoch { epoch, add: vec![file(epoch)], remove, counts, removed: Counts::default() };
        writer.commit(sealed).unwrap();
    }
}

#[test]
fn reader_replays_from_checkpoint_and_stops_at_gap() {
    let file_system = SimulatedFileSystem::default();
    let epochs = 2 * CHECKPOINT_INTERVAL + 7;
    long_run(&file_system, epochs);
    let folder = RunFolder::open_in(store_on(&file_system)).unwrap();
    assert_eq!(folder.head(), Some(epochs - 1));
    let before = file_system.steps();
    let snapshot = folder.snapshot(None).unwrap();
    assert!(file_system.steps() - before < 20, "a checkpoint replaces the reading of {epochs} commits");
    assert_eq!(snapshot.head.counts.scans, 2 * epochs);
    // Checkpoints are streamed, with the same content as canonical JSON.
    let name = format!("epochs/{:012}.checkpoint.json", 2 * CHECKPOINT_INTERVAL - 1);
    let text = &file_system.files()[&name];
    let checkpoint: freetumor::run::Checkpoint = canonical::parse(text, &name).unwrap();
    let replayed = folder.snapshot(Some(2 * CHECKPOINT_INTERVAL - 1)).unwrap();
    assert!(checkpoint.files.iter().eq(replayed.files.values()) && checkpoint.counts == replayed.head.counts);
    assert!(canonical::pretty(&checkpoint).unwrap() == *text);
    let expected = |last: u64| (0..=last).filter(|epoch| epoch % 3 != 1 || epoch + 1 > last).count();
    for at in [0, 1, 2, CHECKPOINT_INTERVAL - 2, CHECKPOINT_INTERVAL - 1, CHECKPOINT_INTERVAL, epochs - 1] {
        assert_eq!(folder.files("webdataset", Some(at)).unwrap().len(), expected(at), "at {at}");
    }
    assert!(folder.snapshot(Some(epochs)).unwrap_err().to_string().contains("the last commit is 206"));
    // Without commit 150 and without checkpoints, the first 150 commits remain valid.
    let path = tempfile::tempdir().unwrap();
    for (name, content) in file_system.files() {
        let gap = name == "epochs/000000000150.json" || name.contains("checkpoint");
        if !gap && !name.starts_with(STAGING) {
            let full = path.path().join(&name);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, content).unwrap();
        }
    }
    let folder = RunFolder::open(path.path()).unwrap();
    assert_eq!(folder.head(), Some(149));
    assert_eq!(folder.files("webdataset", None).unwrap().len(), expected(149));
}

#[test]
fn refresh_reads_new_commits() {
    let file_system = SimulatedFileSystem::default();
    long_run(&file_system, 3);
    let mut folder = RunFolder::open_in(store_on(&file_system)).unwrap();
    assert!(!folder.refresh().unwrap());
    long_run(&file_system, 5);
    assert_eq!(folder.head(), Some(2));
    assert!(folder.refresh().unwrap());
    assert_eq!(folder.head(), Some(4));
}

#[test]
fn verify_detects_damage_of_every_file() {
    let root = tempfile::tempdir().unwrap();
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root.path()));
    let writer = fixture::run(&store, &fixture::sinks(), 2, 4, SHAPE).unwrap();
    let report = writer.folder().verify().unwrap();
    assert!(report.problems.is_empty() && report.commits == 2 && report.files > 10, "{report:?}");
    let names: Vec<String> = writer
        .folder()
        .snapshot(None)
        .unwrap()
        .files
        .keys()
        .cloned()
        .chain(writer.folder().files("pairs", None).unwrap().into_iter().map(|file| file.path))
        .chain(["epochs/000000000000.json".into(), "ingest/000000000001.json".into()])
        .collect();
    for name in names {
        let path = root.path().join(&name);
        let whole = std::fs::read(&path).unwrap();
        // Replace the file, as a layout shares the hard link.
        std::fs::remove_file(&path).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        let report = RunFolder::open(root.path()).unwrap().verify().unwrap();
        assert!(!report.problems.is_empty(), "{name}: a changed bit");
        std::fs::remove_file(&path).unwrap();
        if !name.starts_with("epochs/") {
            let report = RunFolder::open(root.path()).unwrap().verify().unwrap();
            assert!(!report.problems.is_empty(), "{name}: removed");
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(RunFolder::open(root.path()).unwrap().verify().unwrap().problems.is_empty());
}

#[test]
fn scan_entries_fails_without_private_folder() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = RunFolder::create_or_resume(root.path(), &fixture::manifest(7)).unwrap();
    writer.ingest(&EpochChanges::of_entries([fixture::entry(0)])).unwrap();
    std::fs::remove_dir_all(root.path().join("private")).unwrap();
    let error = writer.folder().scan_entries(0).unwrap_err();
    assert!(error.to_string().contains("private") && error.hint().is_some(), "{error}");
}

#[test]
fn only_private_files_contain_paths_of_scans() {
    let file_system = SimulatedFileSystem::default();
    drive(&file_system, &fixture::sinks()).unwrap();
    for (name, content) in file_system.files() {
        let has_path = name.contains("Jane") || content.windows(4).any(|window| window == b"Jane");
        assert_eq!(has_path, name.starts_with("private/"), "{name}");
    }
}

#[test]
fn files_command_lists_committed_files() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(&run));
    fixture::run(&store, &fixture::sinks(), 2, 4, SHAPE).unwrap();
    let print = |table: &str, at: Option<u64>, json: bool| -> freetumor::error::Result<String> {
        let mut out = Vec::new();
        let code =
            files(&FilesArgs { run: run.clone(), table: table.into(), at: at.map(Revision::Commit), json }, &mut out)?;
        assert_eq!(code, 0);
        Ok(String::from_utf8(out).unwrap())
    };
    for table in ["samples", "scans", "pairs", "webdataset", "webdataset.index"] {
        let text = print(table, None, false).unwrap();
        assert!(text.lines().count() >= 2, "{table}: {text}");
        assert!(text.lines().all(|line| std::path::Path::new(line).is_file()), "{text}");
    }
    assert_eq!(print("samples", Some(0), false).unwrap().lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&print("samples", None, true).unwrap()).unwrap();
    assert_eq!((json["epoch"].as_u64(), json["files"].as_array().unwrap().len()), (Some(1), 2));
    let error = print("sample", None, false).unwrap_err();
    assert!(error.to_string().contains("\"sample\"") && error.hint().unwrap().contains("samples"), "{error}");
    let error = print("samples", Some(2), false).unwrap_err();
    assert!(error.to_string().contains("the last commit is 1"), "{error}");
    let error = files(
        &FilesArgs { run: root.path().join("other"), table: "samples".into(), at: None, json: false },
        &mut Vec::new(),
    );
    assert!(error.unwrap_err().hint().is_some());
}

#[test]
fn seal_does_not_depend_on_order_of_scans() {
    let sinks = fixture::sinks();
    let file_system = SimulatedFileSystem::default();
    let store = store_on(&file_system);
    let spool = freetumor::run::spool::Spool::new(Arc::clone(&store), fixture::layouts(&sinks));
    let mut outcomes: Vec<_> =
        (0..6).map(|number| fixture::spool_scan(&spool, 0, &fixture::entry(number), SHAPE).unwrap()).collect();
    let forwards = seal(&*store, 0, outcomes.clone(), &fixture::layout_inputs(&sinks)).unwrap();
    outcomes.reverse();
    assert_eq!(seal(&*store, 0, outcomes, &fixture::layout_inputs(&sinks)).unwrap(), forwards);
    assert!(forwards.counts.accepted > 3 && forwards.counts.rejected.len() == 2, "{:?}", forwards.counts);
}
