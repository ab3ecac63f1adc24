//! Loads the plan of a graph file.

use std::io::Write;

use super::print::print_problems;
use crate::error::Result;
use crate::graph::{GraphFile, Plan, Registry, Severity, check};

/// Returns the plan of a graph file; `None` if the file has errors, which are printed on `stderr`.
///
/// # Errors
/// If `stderr` cannot be written.
pub fn load_plan(file: &GraphFile, registry: &Registry, stderr: &mut dyn Write) -> Result<Option<Plan>> {
    let checked = check(file, registry);
    print_problems(file, &checked.problems.iter().collect::<Vec<_>>(), stderr)?;
    Ok(checked.plan.filter(|_| !checked.problems.iter().any(|problem| problem.severity == Severity::Error)))
}
