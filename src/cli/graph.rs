//! `freetumor graph`: a drawing of a pipeline.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::print::{print_problems, printed};
use crate::error::Result;
use crate::graph::{GraphFile, Problem, Registry, Severity, check, draw};

/// Draw a pipeline
///
/// The drawing goes to standard output. It needs kinds and inputs to be right, but neither scans nor good settings.
#[derive(Args, Clone, Debug)]
pub struct GraphArgs {
    /// The graph file
    pub pipeline: PathBuf,
    /// What to draw with
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    pub format: Format,
}

/// What a drawing is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text that code hosts and editors draw
    Mermaid,
    /// A picture for browsers and papers
    Svg,
}

/// Draws the pipeline of `args` with the kinds of `registry` and gives the exit code: 2 where there is no graph to draw.
///
/// # Errors
/// Where the file cannot be read or nothing can be printed.
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
    printed(stdout.write_all(drawing.as_bytes()))?;
    Ok(0)
}
