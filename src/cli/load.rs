//! From a graph file to its plan.

use std::io::Write;
use std::path::Path;

use super::print::print_problems;
use crate::error::Result;
use crate::graph::{GraphFile, Plan, Registry, Severity, check};

/// The plan of a graph file; `None` where it has errors, which are printed on `stderr`.
///
/// # Errors
/// Where the file cannot be read or nothing can be printed.
pub fn load_plan(path: &Path, sets: &[String], registry: &Registry, stderr: &mut dyn Write) -> Result<Option<Plan>> {
    let file = GraphFile::open(path)?.with_sets(sets);
    let checked = check(&file, registry);
    print_problems(&file, &checked.problems.iter().collect::<Vec<_>>(), stderr)?;
    Ok(checked.plan.filter(|_| !checked.problems.iter().any(|problem| problem.severity == Severity::Error)))
}
