//! The loop of a timely worker: feed epochs and wait for commits.

use std::sync::Arc;
use std::time::Duration;

use timely::worker::Worker;

use crate::error::{Error, ErrorKind};
use crate::ingest::ScanEntry;

use super::Epoch;
use super::build::{Handles, SharedState, build};
use super::schedule::Schedule;

/// Maximum number of open epochs: while one epoch is sealed, the next is processed.
const OPEN_EPOCHS: u64 = 2;

/// Maximum sleep of a waiting worker between checks for an abort; finished work activates the worker at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs the epochs of the schedule on one worker; returns when all are committed or the run must stop.
pub(super) fn drive(worker: &mut Worker, shared: &SharedState, schedule: &Schedule) {
    let dataflow = worker.next_dataflow_index();
    let mut handles = worker.dataflow(|scope| build(scope, shared));
    if feed(worker, shared, schedule, &mut handles) {
        return;
    }
    // The run has to stop: open epochs stay uncommitted, and a later run resumes them.
    drop(handles);
    worker.drop_dataflow(dataflow);
}

/// Feeds all epochs; returns false if the run has to stop.
fn feed(worker: &mut Worker, shared: &SharedState, schedule: &Schedule, handles: &mut Handles) -> bool {
    let plan = &shared.runner.plan;
    let Some(first) = schedule.epochs().first() else { return true };
    handles.entries.iter_mut().for_each(|input| input.advance_to(first.epoch));
    handles.markers.iter_mut().for_each(|input| input.advance_to(first.epoch));
    if let Some(mut earlier_counts) = handles.earlier_counts.take().filter(|_| worker.index() == 0) {
        // Before the first epoch: a group that the epoch empties would otherwise change by nothing, and emit nothing.
        let before = first.epoch.saturating_sub(1);
        earlier_counts.advance_to(before);
        for (group, count) in shared.ledger.quality_counts() {
            earlier_counts.send((group, before, count));
        }
    }
    for (index, epoch_work) in schedule.epochs().iter().enumerate() {
        if index > 0 && !schedule.is_uninterrupted() && shared.interruption.ends_after(index) {
            break;
        }
        // Rows that the epoch removes must be durable before their attempts are counted.
        if epoch_work.replaces && !wait_for(worker, shared, handles, epoch_work.epoch) {
            return false;
        }
        if let Err(error) = shared.ledger.open_epoch(epoch_work) {
            shared.abort.set(error);
            return false;
        }
        for entry in &epoch_work.entries {
            let source = plan.sources.iter().position(|node| node.name == entry.source);
            if let Some(source) = source.filter(|_| is_assigned(entry, worker.index(), worker.peers())) {
                handles.entries[source].send(Arc::clone(entry));
            }
        }
        if let Some(markers) = handles.markers.as_mut().filter(|_| worker.index() == 0) {
            markers.send(());
        }
        handles.entries.iter_mut().for_each(|input| input.advance_to(epoch_work.epoch + 1));
        handles.markers.iter_mut().for_each(|input| input.advance_to(epoch_work.epoch + 1));
        if !wait_for(worker, shared, handles, (epoch_work.epoch + 1).saturating_sub(OPEN_EPOCHS - 1)) {
            return false;
        }
    }
    // Close the inputs.
    handles.entries.clear();
    handles.markers = None;
    while !handles.committed.done() {
        if must_stop(shared) {
            return false;
        }
        worker.step_or_park(Some(CHECK_INTERVAL));
    }
    true
}

/// Waits until all epochs before `epoch` are committed; returns false if the run has to stop.
fn wait_for(worker: &mut Worker, shared: &SharedState, handles: &Handles, epoch: Epoch) -> bool {
    while handles.committed.less_than(&epoch) {
        if must_stop(shared) {
            return false;
        }
        worker.step_or_park(Some(CHECK_INTERVAL));
    }
    true
}

/// Returns whether the run has to stop, because of an error or on request.
fn must_stop(shared: &SharedState) -> bool {
    if shared.runner.progress.is_stop_requested() {
        let error = Error::new("the run was stopped on request; committed epochs stay").with_kind(ErrorKind::Stopped);
        shared.abort.set(error.with_hint("run the same command again to resume"));
    }
    shared.abort.is_set()
}

/// Returns whether a scan is assigned to a worker. The assignment depends only on the scan id.
fn is_assigned(entry: &ScanEntry, worker: usize, workers: usize) -> bool {
    entry.scan_id.partition() % workers as u64 == worker as u64
}
