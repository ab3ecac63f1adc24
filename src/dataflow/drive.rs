//! What each timely worker does: feeds epochs in, and waits for commits.

use std::sync::Arc;
use std::time::Duration;

use timely::worker::Worker;

use crate::ingest::ScanEntry;

use super::build::{Handles, Shared, build};
use super::schedule::Schedule;

/// Epochs that may be open at once: while one is being sealed, the next is worked on.
const OPEN_EPOCHS: u64 = 2;

/// How long a waiting worker sleeps before it looks whether the run has to stop; work that is done wakes it at once.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Drives one worker through the schedule.
pub(super) fn drive(worker: &mut Worker, shared: &Shared, schedule: &Schedule) {
    let dataflow = worker.next_dataflow_index();
    let mut handles = worker.dataflow(|scope| build(scope, shared));
    if feed(worker, shared, schedule, &mut handles) {
        return;
    }
    // The run has to stop: what is open stays uncommitted, and a later run goes on from there.
    drop(handles);
    worker.drop_dataflow(dataflow);
}

/// Feeds all epochs; false where the run has to stop.
fn feed(worker: &mut Worker, shared: &Shared, schedule: &Schedule, handles: &mut Handles) -> bool {
    let plan = &shared.work.plan;
    let Some(first) = schedule.epochs().first() else { return true };
    handles.entries.iter_mut().for_each(|input| input.advance_to(first.epoch));
    if let Some(mut counted) = handles.counted.take().filter(|_| worker.index() == 0) {
        counted.advance_to(first.epoch);
        for (group, count) in shared.ledger.counted() {
            counted.send((group, first.epoch, count));
        }
    }
    for work in schedule.epochs() {
        if let Err(error) = shared.ledger.open_epoch(work) {
            shared.abort.set(error);
            return false;
        }
        for entry in &work.entries {
            let source = plan.sources.iter().position(|node| node.name == entry.source);
            if let Some(source) = source.filter(|_| places(entry, worker.index(), worker.peers())) {
                handles.entries[source].send(Arc::clone(entry));
            }
        }
        handles.entries.iter_mut().for_each(|input| input.advance_to(work.epoch + 1));
        while handles.committed.less_than(&(work.epoch + 1).saturating_sub(OPEN_EPOCHS - 1)) {
            if shared.abort.is_set() {
                return false;
            }
            worker.step_or_park(Some(LOOK_EVERY));
        }
    }
    // No more will come.
    handles.entries.clear();
    while !handles.committed.done() {
        if shared.abort.is_set() {
            return false;
        }
        worker.step_or_park(Some(LOOK_EVERY));
    }
    true
}

/// Whether a worker works on a scan: by the scan's id, so that any process knows without decoding anything.
fn places(entry: &ScanEntry, worker: usize, workers: usize) -> bool {
    entry.scan_id.partition() % workers as u64 == worker as u64
}
