//! Requests of other processes, which a run takes in between two epochs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use crate::error::{ErrorKind, Result};
use crate::record::{ColumnCondition, FaultRecord};
use crate::run::requests::{Request, Response, are_waiting, finish, waiting};
use crate::store::DurableStorage;

use super::changes::ScanChanges;
use super::run::{current_entries, process};
use super::schedule::Schedule;
use super::withdrawal::{WithdrawalRequest, apply_withdrawal};
use super::{Ledger, RunOptions, StageRunner};

/// The decision of a run to end its epochs early because requests wait: the same for all workers, which come to it at different times.
pub(super) struct Interruption {
    store: Arc<dyn DurableStorage>,
    /// For each number of epochs that were fed, whether requests waited then.
    decided: Mutex<HashMap<usize, bool>>,
}

impl Interruption {
    pub fn new(store: Arc<dyn DurableStorage>) -> Self {
        Self { store, decided: Mutex::default() }
    }

    /// Returns whether a worker ends after `epochs` epochs.
    pub fn ends_after(&self, epochs: usize) -> bool {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        *decided.entry(epochs).or_insert_with(|| are_waiting(&*self.store))
    }
}

/// Takes in all waiting requests; returns whether there were any. A request that is refused does not end the run.
///
/// # Errors
/// If a request cannot be read, or its processing had to stop; it is then taken in by the next run.
pub(super) fn take_in(runner: &Arc<StageRunner>, ledger: &Arc<Ledger>, options: &RunOptions) -> Result<bool> {
    let store = ledger.store();
    let requests = waiting(&store)?;
    for (id, request) in &requests {
        let response = match execute(request, runner, ledger, options) {
            Err(error) if error.kind() != ErrorKind::Other => return Err(error),
            Err(error) => error.into(),
            Ok(value) => Response::Done(value),
        };
        finish(&*store, id, &response)?;
    }
    Ok(!requests.is_empty())
}

fn execute(
    request: &Request,
    runner: &Arc<StageRunner>,
    ledger: &Arc<Ledger>,
    options: &RunOptions,
) -> Result<serde_json::Value> {
    match request.clone() {
        Request::Withdraw { scans, patients, by_content, purge } => {
            let request = WithdrawalRequest { scans, patients, by_content };
            let receipt = apply_withdrawal(runner, ledger, &request, purge, options)?;
            Ok(json!(receipt))
        }
        Request::Retry { conditions } => {
            let conditions = conditions
                .iter()
                .map(|text| text.parse::<ColumnCondition<FaultRecord>>())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| crate::error::Error::new(error.message))?;
            let selects = |row: &FaultRecord| conditions.iter().all(|condition| condition.holds(row));
            let pending = current_entries(&runner.plan, ledger, &ledger.failed_scans(&selects)?)?;
            let processed = pending.len();
            let changes = ScanChanges { pending, ..ScanChanges::default() };
            let (open, next) = ledger.open_epochs()?;
            let scans = ledger.scans()?;
            let schedule = Schedule::new(&runner.plan, open, next, &scans, &changes, None);
            process(runner, ledger, &scans, schedule.without_interruption(), options)?;
            Ok(json!({ "processed_scans": processed }))
        }
        Request::Tag { name } => Ok(json!(ledger.tag(&name)?)),
        Request::Vacuum { keep_epochs } => {
            ledger.project()?;
            Ok(json!({ "deleted": ledger.purge(keep_epochs)? }))
        }
    }
}
