//! The run folder: crashes, readers, other pipelines, damage.

mod simulated;

use std::collections::BTreeMap;
use std::sync::Arc;

use freetumor::cli::files::{FilesArgs, files};
use freetumor::error::ErrorKind;
use freetumor::random::Key;
use freetumor::record::FileEntry;
use freetumor::run::seal::{SealedEpoch, seal};
use freetumor::run::{CHECKPOINT_INTERVAL, Counts, RunFolder};
use freetumor::sink::Layout;
use freetumor::store::canonical;
use freetumor::store::{Durable, Folder, REPLACEABLE, STAGING};
use rayon::prelude::*;
use simulated::SimulatedDisk;

use crate::sinks::fixture;

const SHAPE: [usize; 3] = [9, 8, 5];
const EPOCHS: u64 = 2;
const SCANS: u64 = 3;

fn on(disk: &SimulatedDisk) -> Arc<dyn Durable> {
    Arc::new(Folder::on(Box::new(disk.clone()), "RUN"))
}

fn drive(disk: &SimulatedDisk, sinks: &[Arc<dyn Layout>]) -> freetumor::error::Result<()> {
    fixture::run(&on(disk), sinks, EPOCHS, SCANS, SHAPE).map(drop)
}

fn lasting(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let top = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    files.into_iter().filter(|(name, _)| top(name) != STAGING && !REPLACEABLE.contains(&&*top(name))).collect()
}

fn without_staging(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.into_iter().filter(|(name, _)| !name.starts_with(STAGING)).collect()
}

/// Every file with a final name is whole, and what is committed verifies.
fn check_survivors(disk: &SimulatedDisk, reference: &BTreeMap<String, Vec<u8>>, place: &str) {
    for (name, content) in lasting(disk.files()) {
        let whole = reference.get(&name).unwrap_or_else(|| panic!("{place}: {name} is no file of the whole run"));
        assert!(*whole == content, "{place}: {name} is torn");
    }
    if let Ok(folder) = RunFolder::open_in(on(disk)) {
        let found = folder.verify().unwrap();
        assert!(found.problems.is_empty(), "{place}: {:?}", found.problems);
        assert_eq!(found.commits, folder.head().map_or(0, |head| head + 1));
    }
}

#[test]
fn a_run_that_is_stopped_anywhere_ends_with_the_same_bytes() {
    let sinks = fixture::sinks();
    let whole = SimulatedDisk::default();
    drive(&whole, &sinks).unwrap();
    let reference = without_staging(whole.files());
    assert!(reference.keys().filter(|name| name.ends_with(".tar")).count() >= 4, "{:?}", reference.keys());
    assert!(reference.keys().filter(|name| name.starts_with("layouts/")).count() > 10);
    let steps = whole.steps();
    assert!(steps > 300, "{steps}");
    (0..steps).into_par_iter().for_each(|step| {
        let place = format!("stopped before step {step} of {steps}");
        let disk = SimulatedDisk::default();
        disk.stop_before(step);
        drive(&disk, &sinks).unwrap_err();
        // Every step once, in turn as a process that dies and as a loss of power.
        let left = match step % 2 {
            0 => disk.after_kill(),
            _ => disk.after_power_loss(Key::root(3).number("step", step)),
        };
        check_survivors(&left, &reference, &place);
        // The second try may be stopped too.
        left.stop_before(step / 2);
        let _ = drive(&left, &sinks);
        let left = left.after_power_loss(Key::root(4).number("step", step));
        check_survivors(&left, &reference, &place);
        drive(&left, &sinks).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(without_staging(left.files()) == reference, "{place}: other files at the end");
    });
}

#[test]
fn what_was_spooled_before_a_restart_is_used_again_and_what_was_damaged_is_not() {
    let sinks = fixture::sinks();
    let disk = SimulatedDisk::default();
    let store = on(&disk);
    let mut writer = RunFolder::create_or_resume_in(Arc::clone(&store), &fixture::manifest(7)).unwrap();
    let entries: Vec<_> = (0..6).map(fixture::entry).collect();
    writer.ingest(&entries).unwrap();
    let spool = writer.spool(fixture::each(&sinks));
    let outcomes: Vec<_> = entries.iter().map(|entry| fixture::work(&spool, 0, entry, SHAPE).unwrap()).collect();
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
    assert!(!disk.files().keys().any(|name| name.starts_with("staging/0")), "nothing stays of a committed epoch");
}

#[test]
fn a_writer_that_was_replaced_is_fenced() {
    let disk = SimulatedDisk::default();
    let [mut first, mut second] =
        [(); 2].map(|()| RunFolder::create_or_resume_in(on(&disk), &fixture::manifest(7)).unwrap());
    first.ingest(&[fixture::entry(0)]).unwrap();
    assert!(second.ingest(&[fixture::entry(1)]).unwrap_err().to_string().contains("fenced"));
    // Equal work is no conflict: both would write the same.
    assert_eq!(second.ingest(&[fixture::entry(0)]).unwrap(), 0);
    first.commit(SealedEpoch::default()).unwrap();
    let other = SealedEpoch { counts: Counts { scans: 1, ..Counts::default() }, ..SealedEpoch::default() };
    assert!(second.commit(other).unwrap_err().to_string().contains("fenced"));
}

#[test]
fn epochs_are_committed_in_order_and_only_after_their_manifest() {
    let disk = SimulatedDisk::default();
    let mut writer = RunFolder::create_or_resume_in(on(&disk), &fixture::manifest(7)).unwrap();
    assert!(writer.commit(SealedEpoch::default()).is_err(), "nothing was ingested");
    writer.ingest(&[fixture::entry(0)]).unwrap();
    writer.ingest(&[fixture::entry(1)]).unwrap();
    assert!(writer.commit(SealedEpoch { epoch: 1, ..SealedEpoch::default() }).is_err());
    writer.commit(SealedEpoch::default()).unwrap();
    let twice = writer.ingest(&[fixture::entry(2), fixture::entry(2)]).unwrap_err();
    assert!(twice.to_string().contains("twice"));
    let again = RunFolder::create_or_resume_in(on(&disk), &fixture::manifest(7)).unwrap();
    assert_eq!((again.next_epoch(), again.next_ingest()), (1, 2));
    assert_eq!(again.folder().scan_entries(1).unwrap(), [fixture::entry(1)]);
    assert_eq!(again.ingested().unwrap().len(), 2);
}

#[test]
fn a_folder_keeps_to_its_own_pipeline() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("run");
    let first = RunFolder::create_or_resume(&path, &fixture::manifest(7)).unwrap();
    let busy = RunFolder::create_or_resume(&path, &fixture::manifest(7)).err().unwrap();
    assert!(busy.to_string().contains("another process"), "{busy}");
    drop(first);
    let error = RunFolder::create_or_resume(&path, &fixture::manifest(8)).err().unwrap();
    assert!(
        error.to_string().contains("the seed is 7 there and 8 here") && error.hint().unwrap().contains("--out"),
        "{error}"
    );
    RunFolder::create_or_resume(&path, &fixture::manifest(7)).unwrap();
}

#[test]
fn a_folder_of_an_older_format_is_refused_by_number() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("run.json"), r#"{"format": 2, "seed": 7}"#).unwrap();
    for error in [
        RunFolder::open(place.path()).err().unwrap(),
        RunFolder::create_or_resume(place.path(), &fixture::manifest(7)).err().unwrap(),
    ] {
        assert!(error.to_string().contains("has format 2, this program reads format 3"), "{error}");
        assert!(error.hint().unwrap().contains("the version of freetumor that wrote it"), "{error:?}");
    }
}

#[test]
fn callers_tell_errors_by_their_kind() {
    let place = tempfile::tempdir().unwrap();
    let first = RunFolder::create_or_resume(place.path(), &fixture::manifest(7)).unwrap();
    let kind = |seed| RunFolder::create_or_resume(place.path(), &fixture::manifest(seed)).err().unwrap().kind();
    assert_eq!(kind(7), ErrorKind::Locked);
    assert_eq!(kind(8), ErrorKind::OtherPipeline);
    drop(first);
    let store: Arc<dyn Durable> = Arc::new(Folder::local(place.path()));
    let writer = fixture::run(&store, &fixture::sinks(), 1, 4, SHAPE).unwrap();
    assert_eq!(store.create("epochs/000000000000.json", b"another").unwrap_err().kind(), ErrorKind::Fenced);
    let part = writer.folder().files("samples", None).unwrap()[0].clone();
    std::fs::remove_file(place.path().join(&part.path)).unwrap();
    assert_eq!(writer.folder().check_length(&part).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn the_folder_of_a_table_holds_the_head_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let store: Arc<dyn Durable> = Arc::new(Folder::local(place.path()));
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
    // A link that is lost or damaged is made again, a part that does not count goes, a file of another name stays.
    let samples = place.path().join("samples");
    let [first, second] = &head("samples")[..] else { panic!("two epochs") };
    std::fs::remove_file(samples.join(first)).unwrap();
    std::fs::remove_file(samples.join(second)).unwrap();
    std::fs::write(samples.join(second), "torn").unwrap();
    std::fs::write(samples.join(format!("{:012}-{}.parquet", 7, "0".repeat(64))), "stray").unwrap();
    std::fs::write(samples.join("notes.txt"), "mine").unwrap();
    writer.project(fixture::each(&fixture::sinks())).unwrap();
    assert_eq!(listed("samples"), [first.as_str(), second.as_str(), "notes.txt"]);
    for name in [first, second] {
        assert_eq!(
            std::fs::read(samples.join(name)).unwrap(),
            std::fs::read(place.path().join("data").join(name)).unwrap()
        );
    }
}

#[test]
fn files_of_somebody_else_are_left_alone() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("thesis.doc"), "my only copy").unwrap();
    let error = RunFolder::create_or_resume(place.path(), &fixture::manifest(7)).err().unwrap();
    assert!(error.to_string().contains("thesis.doc") && error.hint().unwrap().contains("--out"), "{error}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    // What a run leaves that was stopped at its very beginning is no obstacle.
    std::fs::remove_file(place.path().join("thesis.doc")).unwrap();
    std::fs::create_dir(place.path().join(STAGING)).unwrap();
    RunFolder::create_or_resume(place.path(), &fixture::manifest(7)).unwrap();
}

/// Commits of nothing but names: enough for replaying.
fn long_run(disk: &SimulatedDisk, epochs: u64) {
    let mut writer = RunFolder::create_or_resume_in(on(disk), &fixture::manifest(7)).unwrap();
    let file = |epoch: u64| FileEntry {
        path: format!("data/{epoch}"),
        table: "webdataset".into(),
        bytes: epoch,
        sha256: String::new(),
        rows: 1,
    };
    for epoch in writer.next_epoch()..epochs {
        writer.ingest(&[]).unwrap();
        let remove = if epoch % 3 == 2 { vec![file(epoch - 1)] } else { Vec::new() };
        let counts = Counts { scans: 2, ..Counts::default() };
        writer.commit(SealedEpoch { epoch, add: vec![file(epoch)], remove, counts }).unwrap();
    }
}

#[test]
fn readers_replay_from_checkpoints_and_stop_at_a_gap() {
    let disk = SimulatedDisk::default();
    let epochs = 2 * CHECKPOINT_INTERVAL + 7;
    long_run(&disk, epochs);
    let folder = RunFolder::open_in(on(&disk)).unwrap();
    assert_eq!(folder.head(), Some(epochs - 1));
    let before = disk.steps();
    let snapshot = folder.snapshot(None).unwrap();
    assert!(disk.steps() - before < 20, "a checkpoint saves the reading of {epochs} commits");
    assert_eq!(snapshot.head.counts.scans, 2 * epochs);
    // Checkpoints are written and read piece by piece, with the same text as any other file.
    let name = format!("epochs/{:012}.checkpoint.json", 2 * CHECKPOINT_INTERVAL - 1);
    let text = &disk.files()[&name];
    let checkpoint: freetumor::run::Checkpoint = canonical::parse(text, &name).unwrap();
    let replayed = folder.snapshot(Some(2 * CHECKPOINT_INTERVAL - 1)).unwrap();
    assert!(checkpoint.files.iter().eq(replayed.files.values()) && checkpoint.counts == replayed.head.counts);
    assert!(canonical::pretty(&checkpoint).unwrap() == *text);
    let expected = |last: u64| (0..=last).filter(|epoch| epoch % 3 != 1 || epoch + 1 > last).count();
    for at in [0, 1, 2, CHECKPOINT_INTERVAL - 2, CHECKPOINT_INTERVAL - 1, CHECKPOINT_INTERVAL, epochs - 1] {
        assert_eq!(folder.files("webdataset", Some(at)).unwrap().len(), expected(at), "at {at}");
    }
    assert!(folder.snapshot(Some(epochs)).unwrap_err().to_string().contains("the last is 206"));
    // Without the commits of epoch 150 on, and without any checkpoint, the first 150 still count.
    let path = tempfile::tempdir().unwrap();
    for (name, content) in disk.files() {
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
fn a_reader_sees_new_commits_when_it_looks_again() {
    let disk = SimulatedDisk::default();
    long_run(&disk, 3);
    let mut folder = RunFolder::open_in(on(&disk)).unwrap();
    assert!(!folder.refresh().unwrap());
    long_run(&disk, 5);
    assert_eq!(folder.head(), Some(2));
    assert!(folder.refresh().unwrap());
    assert_eq!(folder.head(), Some(4));
}

#[test]
fn every_damage_is_found() {
    let place = tempfile::tempdir().unwrap();
    let store: Arc<dyn Durable> = Arc::new(Folder::local(place.path()));
    let writer = fixture::run(&store, &fixture::sinks(), 2, 4, SHAPE).unwrap();
    let found = writer.folder().verify().unwrap();
    assert!(found.problems.is_empty() && found.commits == 2 && found.files > 10, "{found:?}");
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
        let path = place.path().join(&name);
        let whole = std::fs::read(&path).unwrap();
        // A replacement, not a write through the hard link that a layout shares.
        std::fs::remove_file(&path).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        let found = RunFolder::open(place.path()).unwrap().verify().unwrap();
        assert!(!found.problems.is_empty(), "{name}: a changed bit");
        std::fs::remove_file(&path).unwrap();
        if !name.starts_with("epochs/") {
            let found = RunFolder::open(place.path()).unwrap().verify().unwrap();
            assert!(!found.problems.is_empty(), "{name}: removed");
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(RunFolder::open(place.path()).unwrap().verify().unwrap().problems.is_empty());
}

#[test]
fn a_missing_private_folder_is_said_so() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = RunFolder::create_or_resume(place.path(), &fixture::manifest(7)).unwrap();
    writer.ingest(&[fixture::entry(0)]).unwrap();
    std::fs::remove_dir_all(place.path().join("private")).unwrap();
    let error = writer.folder().scan_entries(0).unwrap_err();
    assert!(error.to_string().contains("private") && error.hint().is_some(), "{error}");
}

#[test]
fn paths_of_scans_stay_private() {
    let disk = SimulatedDisk::default();
    drive(&disk, &fixture::sinks()).unwrap();
    for (name, content) in disk.files() {
        let told = name.contains("Jane") || content.windows(4).any(|window| window == b"Jane");
        assert_eq!(told, name.starts_with("private/"), "{name}");
    }
}

#[test]
fn files_prints_what_is_committed() {
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    let store: Arc<dyn Durable> = Arc::new(Folder::local(&run));
    fixture::run(&store, &fixture::sinks(), 2, 4, SHAPE).unwrap();
    let print = |table: &str, at: Option<u64>, json: bool| -> freetumor::error::Result<String> {
        let mut out = Vec::new();
        let code = files(&FilesArgs { run: run.clone(), table: table.into(), at, json }, &mut out)?;
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
    assert!(error.to_string().contains("the last is 1"), "{error}");
    let error = files(
        &FilesArgs { run: place.path().join("other"), table: "samples".into(), at: None, json: false },
        &mut Vec::new(),
    );
    assert!(error.unwrap_err().hint().is_some());
}

#[test]
fn sealing_does_not_depend_on_the_order_of_scans() {
    let sinks = fixture::sinks();
    let disk = SimulatedDisk::default();
    let store = on(&disk);
    let spool = freetumor::run::spool::Spool::new(Arc::clone(&store), fixture::each(&sinks));
    let mut outcomes: Vec<_> =
        (0..6).map(|number| fixture::work(&spool, 0, &fixture::entry(number), SHAPE).unwrap()).collect();
    let forwards = seal(&*store, 0, outcomes.clone(), &fixture::feeds(&sinks)).unwrap();
    outcomes.reverse();
    assert_eq!(seal(&*store, 0, outcomes, &fixture::feeds(&sinks)).unwrap(), forwards);
    assert!(forwards.counts.accepted > 3 && forwards.counts.rejected.len() == 2, "{:?}", forwards.counts);
}
