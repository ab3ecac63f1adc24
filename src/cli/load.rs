//! From a graph file to its plan.

use std::io::Write;

use super::print::print_problems;
use crate::error::Result;
use crate::graph::{GraphFile, Plan, Registry, Severity, check};

/// The plan of a graph file; `None` where it has errors, which are printed on `stderr`.
///
/// # Errors
/// Where nothing can be printed.
pub fn load_plan(file: &GraphFile, registry: &Registry, stderr: &mut dyn Write) -> Result<Option<Plan>> {
    let checked = check(file, registry);
    print_problems(file, &checked.problems.iter().collect::<Vec<_>>(), stderr)?;
    Ok(checked.plan.filter(|_| !checked.problems.iter().any(|problem| problem.severity == Severity::Error)))
}
