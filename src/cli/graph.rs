//! `freetumor graph`: a drawing of a pipeline.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::print::{ignore_closed_pipe, print_problems};
use crate::error::Result;
use crate::graph::{GraphFile, Problem, Registry, Severity, check, draw};

/// Draw a pipeline
///
/// The drawing is written to standard output. Kinds and inputs must be valid; scans and other settings are not needed.
#[derive(Args, Clone, Debug)]
pub struct GraphArgs {
    /// The graph file
    pub pipeline: PathBuf,
    /// Format of the drawing
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    pub format: Format,
}

/// The format of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text that code hosts and editors render
    Mermaid,
    /// A picture for browsers and papers
    Svg,
}

/// Draws the pipeline of `args` with the kinds of `registry` and returns the exit code: 2 if the graph is invalid.
///
/// # Errors
/// If the file cannot be read or the output cannot be written.
pub fn graph(args: &GraphArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let file = GraphFile::open(&args.pipeline)?;
    let checked = check(&file, registry);
    let Some(nodes) = &checked.nodes else {
        let errors: Vec<&Problem> =
            checked.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        print_problems(&file, &errors, stderr)?;
        return Ok(2);
    };
    let stem = args.pipeline.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let title = checked.plan.as_ref().map_or(stem, |plan| plan.name.clone());
    let drawing = match args.format {
        Format::Mermaid => draw::mermaid(nodes),
        Format::Svg => draw::svg(&title, nodes),
    };
    ignore_closed_pipe(stdout.write_all(drawing.as_bytes()))?;
    Ok(0)
}
