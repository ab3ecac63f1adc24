//! Printing that all commands share.

use std::io::Write;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::graph::{GraphFile, Problem, Severity};

/// Prints problems in the form of compiler messages, and their count.
///
/// # Errors
/// If `stderr` cannot be written.
pub fn print_problems(file: &GraphFile, problems: &[&Problem], stderr: &mut dyn Write) -> Result<()> {
    for problem in problems {
        writeln!(stderr, "{problem}").map_err(print_error)?;
    }
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let counts: Vec<String> = [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| pluralize(count, noun))
        .collect();
    if counts.is_empty() {
        return Ok(());
    }
    writeln!(stderr, "{}: {}", file.name(), counts.join(", ")).map_err(print_error)
}

/// Formats a count with its noun in singular or plural: `1 source`, `2 sources`, `0 syntheses`.
pub fn pluralize(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix("is")) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}es"),
        _ => format!("{count} {noun}s"),
    }
}

/// Returns the error for failed output.
pub fn print_error(error: std::io::Error) -> Error {
    Error::new(format!("cannot print: {error}")).with_source(error)
}

/// Prints a value as indented JSON, or nothing if the value has no JSON form.
///
/// # Errors
/// If the value cannot be serialized or printed; a closed pipe is not an error.
pub fn print_json(value: &impl Serialize, out: &mut dyn Write) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from);
    ignore_closed_pipe(text.and_then(|text| writeln!(out, "{text}")))
}

/// Converts the result of printing; a closed pipe is not an error.
///
/// # Errors
/// If printing failed for another reason.
pub fn ignore_closed_pipe(written: std::io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(print_error(error)),
        _ => Ok(()),
    }
}
