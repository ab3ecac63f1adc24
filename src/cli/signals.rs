//! Signals that end a run.

use std::sync::Arc;

use crate::dataflow::Progress;
use crate::error::{Error, Result};

/// The exit code of a process that a second signal ends at once.
const INTERRUPTED: i32 = 130;

/// Requests a stop at the first SIGINT or SIGTERM: committed epochs stay, and the next run resumes. The second signal ends the process at
/// once, which loses no committed epoch either.
///
/// # Errors
/// If the handler cannot be installed.
pub fn stop_on_signals(progress: &Arc<Progress>) -> Result<()> {
    let progress = Arc::clone(progress);
    ctrlc::set_handler(move || {
        if progress.is_stop_requested() {
            std::process::exit(INTERRUPTED);
        }
        progress.request_stop();
    })
    .map_err(|cause| Error::new(format!("cannot handle signals: {cause}")).with_source(cause))
}
