//! Requests to the process that writes a run folder: files that this process executes between two epochs.
//!
//! ```text
//! RUN/requests/ID.json          a request
//! RUN/requests/ID.result.json   its result, which the requesting process removes
//! ```
//!
//! A request remains until it is executed: if the process ends before, the next run executes the request.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{RunFolder, TagName};
use crate::error::{Error, Result};
use crate::id::{PatientKey, ScanId};
use crate::store::{DurableFolder, DurableStorage, canonical};

/// The folder of requests.
const REQUESTS: &str = "requests";

/// Interval at which a requesting process polls for the result.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A request to the process that writes a run folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Withdraw scans.
    Withdraw {
        /// The scans.
        scans: BTreeSet<ScanId>,
        /// The patients.
        patients: BTreeSet<PatientKey>,
        /// Whether other scans of equal content are withdrawn too.
        by_content: bool,
        /// Whether earlier states are deleted.
        purge: bool,
    },
    /// Process failed scans again.
    Retry {
        /// Conditions on the columns of `faults`, all of which have to hold.
        conditions: Vec<String>,
    },
    /// Create a tag for the last state.
    Tag {
        /// The name.
        name: TagName,
    },
    /// Delete earlier states.
    Vacuum {
        /// Number of commits before the last one whose states remain readable.
        keep_epochs: u64,
    },
}

/// The name of a request file without its extension.
pub type RequestId = String;

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// The result of the request, as the command prints it with `--json`.
    Done(Json),
    /// The request was refused.
    Refused {
        /// The message.
        message: String,
        /// The hint.
        hint: Option<String>,
    },
}

impl From<Error> for Response {
    fn from(error: Error) -> Self {
        Self::Refused { message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
}

/// Writes a request to the process that writes a run folder, and returns the id of the request.
///
/// # Errors
/// If the file cannot be written.
pub fn submit(run: &Path, request: &Request) -> Result<RequestId> {
    let id = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let text = canonical::pretty(request)?;
    DurableFolder::local(run).replace(&path_of(&id), &mut |out| out.write_all(&text))?;
    Ok(id)
}

/// Waits for the result of a request, and removes it.
///
/// # Errors
/// If the result cannot be read, or no process writes to the run folder any more; the next run then executes the request.
pub fn wait(run: &Path, id: &RequestId) -> Result<Response> {
    let store = DurableFolder::local(run);
    let name = result_of(id);
    loop {
        // In this order: the process writes the result before it ends.
        let is_ended = RunFolder::is_locked(run) == Some(false);
        if let Some(text) = store.read(&name)? {
            store.remove(&name)?;
            return canonical::parse(&text, &store.display_path(&name));
        }
        if is_ended {
            let message = format!("the process that wrote {} ended before it executed the request", run.display());
            return Err(Error::new(message).with_hint("run the pipeline again to execute the request"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Returns the requests in a run folder, in the order of their names. A file that is not a valid request is refused and skipped.
///
/// # Errors
/// If the requests cannot be read.
pub fn read_requests(store: &Arc<dyn DurableStorage>) -> Result<Vec<(RequestId, Request)>> {
    let mut requests = Vec::new();
    for id in request_ids(&**store)? {
        let path = path_of(&id);
        let Some(text) = store.read(&path)? else { continue };
        match canonical::parse(&text, &store.display_path(&path)) {
            Ok(request) => requests.push((id, request)),
            Err(error) => finish(&**store, &id, &error.into())?,
        }
    }
    Ok(requests)
}

/// Returns whether a run folder contains requests.
pub fn has_requests(store: &dyn DurableStorage) -> bool {
    // A folder that cannot be listed is reported when the requests are read.
    request_ids(store).is_ok_and(|ids| !ids.is_empty())
}

/// Writes the result of a request and removes the request.
///
/// # Errors
/// If files cannot be written.
pub fn finish(store: &dyn DurableStorage, id: &RequestId, response: &Response) -> Result<()> {
    let text = canonical::pretty(response)?;
    store.replace(&result_of(id), &mut |out| out.write_all(&text))?;
    store.remove(&path_of(id))
}

fn request_ids(store: &dyn DurableStorage) -> Result<Vec<RequestId>> {
    let names = store.list(REQUESTS)?.into_iter();
    let ids = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()));
    Ok(ids.filter(|id| !id.contains('.')).collect())
}

fn path_of(id: &RequestId) -> String {
    format!("{REQUESTS}/{id}.json")
}

fn result_of(id: &RequestId) -> String {
    format!("{REQUESTS}/{id}.result.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_removed_after_its_result_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(folder.path()));
        assert!(!has_requests(&*store));
        let request = Request::Vacuum { keep_epochs: 3 };
        let id = submit(folder.path(), &request).unwrap();
        store.replace("requests/0.json", &mut |out| out.write_all(b"no request")).unwrap();
        assert_eq!(read_requests(&store).unwrap(), [(id.clone(), request)]);
        assert!(matches!(wait(folder.path(), &"0".to_owned()).unwrap(), Response::Refused { .. }));
        let error = wait(folder.path(), &id).unwrap_err();
        assert!(error.hint().unwrap().contains("run the pipeline again"), "{error}");
        finish(&*store, &id, &Response::Done(Json::Null)).unwrap();
        assert!(!has_requests(&*store));
        assert_eq!(wait(folder.path(), &id).unwrap(), Response::Done(Json::Null));
        assert!(store.list("requests").unwrap().is_empty());
    }
}
