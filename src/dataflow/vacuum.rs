//! Deletion of earlier states of a run folder.

use std::path::Path;

use crate::error::Result;
use crate::graph::Plan;

use super::Ledger;

/// Deletes the states of a run folder before the last commit and the `keep_epochs` commits before it. Returns the paths of the deleted
/// files.
///
/// # Errors
/// If the folder belongs to another pipeline, is locked by another process, or files cannot be deleted.
pub fn vacuum(plan: Plan, folder: &Path, keep_epochs: u64) -> Result<Vec<String>> {
    let (ledger, _) = Ledger::open(folder, &plan.with_keyed_digest()?)?;
    // Links to files that are no longer named are removed before the files.
    ledger.project()?;
    ledger.purge(keep_epochs)
}
