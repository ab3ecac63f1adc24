//! Tests of epochs that replace and remove scans, and of purges: crashes at every step, equal bytes at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use freetumor::error::{ErrorKind, Result};
use freetumor::random::Key;
use freetumor::run::seal::seal;
use freetumor::run::{EpochChanges, Removal, RunFolder, RunWriter, ScansByEpoch, remove_scans};
use freetumor::sink::Layout;
use freetumor::store::DurableStorage;
use rayon::prelude::*;

use super::{SHAPE, SimulatedFileSystem, check_survivors, store_on, without_staging};
use crate::sinks::fixture;

/// Writes two epochs, and a third one that processes a scan of the first again and removes one of the second.
fn write_changes(store: &Arc<dyn DurableStorage>, sinks: &[Arc<dyn Layout>]) -> Result<RunWriter> {
    let mut writer = fixture::run(store, sinks, 2, 3, SHAPE)?;
    let (again, gone) = (fixture::entry(1), fixture::entry(4).scan_id);
    if writer.next_ingest() == 2 {
        writer.ingest(&EpochChanges {
            entries: vec![again.clone()],
            removed: vec![gone],
            ..EpochChanges::default()
        })?;
    }
    if writer.next_epoch() == 2 {
        let spool = writer.spool(fixture::layouts(sinks));
        let outcome = match spool.load_verified(2, again.scan_id)? {
            Some(outcome) => outcome,
            None => fixture::spool_scan(&spool, 2, &again, SHAPE)?,
        };
        let inputs = fixture::layout_inputs(sinks);
        let mut sealed = seal(&**store, 2, vec![outcome], &inputs)?;
        let removed_scans = ScansByEpoch::from([(0, [again.scan_id].into()), (1, [gone].into())]);
        let Removal { add, remove, counts } = remove_scans(writer.folder(), &removed_scans, &inputs)?;
        sealed.add.extend(add);
        (sealed.remove, sealed.removed) = (remove, counts);
        writer.commit(sealed)?;
        spool.clear(2)?;
    }
    writer.project(fixture::layouts(sinks))?;
    Ok(writer)
}

#[test]
fn removal_of_no_scan_changes_no_file() {
    let sinks = fixture::sinks();
    let file_system = SimulatedFileSystem::default();
    let store = store_on(&file_system);
    let writer = fixture::run(&store, &sinks, 2, 3, SHAPE).unwrap();
    let before = file_system.files();
    // A scan that is not in the epoch: the epoch is sealed again, to the same bytes.
    let removed_scans = ScansByEpoch::from([(0, [fixture::entry(77).scan_id].into()), (1, [].into())]);
    let removal = remove_scans(writer.folder(), &removed_scans, &fixture::layout_inputs(&sinks)).unwrap();
    assert_eq!(removal, Removal::default());
    assert!(without_staging(file_system.files()) == without_staging(before));
}

#[test]
fn changes_and_purge_interrupted_at_any_step_resume_to_same_bytes() {
    let sinks = fixture::sinks();
    let whole = SimulatedFileSystem::default();
    write_changes(&store_on(&whole), &sinks).unwrap();
    let changed = without_staging(whole.files());
    let before_purge = whole.steps();
    let drive = |file_system: &SimulatedFileSystem| {
        let mut writer = write_changes(&store_on(file_system), &sinks)?;
        writer.purge(0)?;
        Ok::<_, freetumor::error::Error>(writer)
    };
    drive(&whole).unwrap();
    let reference = without_staging(whole.files());
    assert!(reference.len() < changed.len() && reference.keys().any(|name| name.ends_with(".base.json")));
    let every: BTreeMap<String, Vec<u8>> = changed.into_iter().chain(reference.clone()).collect();
    let folder = RunFolder::open_in(store_on(&whole)).unwrap();
    assert!(folder.verify().unwrap().problems.is_empty());
    assert_eq!(folder.snapshot(Some(1)).unwrap_err().kind(), ErrorKind::Purged);
    assert_eq!((folder.head(), folder.ingested(3).unwrap().entries.len()), (Some(2), 5));
    let counts = folder.head_at(None).unwrap().counts;
    assert_eq!(counts.scans, 5);
    // Steps before the third epoch are those of another test.
    let first = {
        let file_system = SimulatedFileSystem::default();
        fixture::run(&store_on(&file_system), &sinks, 2, 3, SHAPE).unwrap();
        file_system.steps()
    };
    let last = whole.steps();
    assert!(before_purge > first + 50 && last > before_purge + 20, "{first} {before_purge} {last}");
    (first..last).into_par_iter().for_each(|step| {
        let context = format!("stopped before step {step} of {last}");
        let file_system = SimulatedFileSystem::default();
        file_system.stop_before(step);
        if drive(&file_system).is_ok() {
            // The purge of a whole run reads what the first drive has written already.
            return;
        }
        let left = match step % 2 {
            0 => file_system.after_kill(),
            _ => file_system.after_power_loss(Key::root(5).number("step", step)),
        };
        check_files(&left, &every, &context);
        drive(&left).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(without_staging(left.files()) == reference, "{context}: other files at the end");
        check_survivors(&left, &reference, &context);
    });
}

/// Checks that every file that a reader may read is complete.
fn check_files(file_system: &SimulatedFileSystem, every: &BTreeMap<String, Vec<u8>>, context: &str) {
    for (name, content) in super::committed_files(file_system.files()) {
        let whole = every.get(&name).unwrap_or_else(|| panic!("{context}: {name} is a file of no state"));
        assert!(*whole == content, "{context}: {name} is incomplete");
    }
    if let Ok(folder) = RunFolder::open_in(store_on(file_system)) {
        let report = folder.verify().unwrap();
        assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
    }
}
