//! Requests of other processes, which a run executes between two epochs.

use std::sync::Arc;

use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::record::{ColumnCondition, FaultRecord};
use crate::run::requests::{Request, Response, finish, read_requests};

use super::changes::ScanChanges;
use super::process::{current_entries, process};
use super::schedule::Schedule;
use super::withdrawal::{WithdrawalRequest, apply_withdrawal};
use super::{Ledger, RunOptions, StageRunner};

/// Executes all requests and returns whether there were any. A refused request does not end the run.
///
/// # Errors
/// If a request cannot be read, or its processing had to stop; the next run then executes the request.
pub(super) fn execute_requests(runner: &Arc<StageRunner>, ledger: &Arc<Ledger>, options: &RunOptions) -> Result<bool> {
    let store = ledger.store();
    let requests = read_requests(&store)?;
    for (id, request) in &requests {
        let response = match execute(request, runner, ledger, options) {
            Err(error) if error.kind() == ErrorKind::Refused => error.into(),
            Err(error) => return Err(error),
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
            // After a purge, nothing in the run folder names the scans or their samples, and so neither does the result.
            match receipt.is_purged {
                true => Ok(json!({ "epoch": receipt.epoch, "is_purged": true, "purged_files": receipt.purged.len() })),
                false => Ok(json!(receipt)),
            }
        }
        Request::Retry { conditions } => {
            let conditions = conditions
                .iter()
                .map(|text| text.parse::<ColumnCondition<FaultRecord>>())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| Error::new(error.message).with_kind(ErrorKind::Refused))?;
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
