//! `freetumor plan`: the effects of a graph on a run folder.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::load::load_plan;
use super::print::{ignore_closed_pipe, pluralize, print_json};
use super::run::select_recorded_kernel_class;
use crate::dataflow::{RunPreview, ScanTotals, preview};
use crate::error::Result;
use crate::graph::{GraphFile, Registry};

/// Print what a run of a graph into an existing run folder would do
///
/// Compares the graph with that of the last run, and the sources with the scans of the run folder. Prints the scans that would be
/// processed, tested again with stored scores, removed and kept. Nothing is written; `freetumor run PIPELINE --out RUN` makes the changes.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// The run folder
    pub run: PathBuf,
    /// Graph file, such as pipelines/quickstart.toml
    pub pipeline: PathBuf,
    /// Override a setting of the graph file, such as stages.filter.attempts=3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// File with the secret that patient keys are derived with [default: $FREETUMOR_PATIENT_KEY, or one kept in the user's
    /// configuration folder]
    #[arg(long, value_name = "FILE")]
    pub patient_key_file: Option<PathBuf>,
}

/// Prints the effects and returns the exit code: 0, or 2 if the graph has errors.
///
/// # Errors
/// If the graph cannot run in the folder, or a source cannot be listed.
pub fn plan(args: &PlanArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let file = GraphFile::open(&args.pipeline)?.with_sets(&args.set);
    select_recorded_kernel_class(&args.run)?;
    let Some(plan) = load_plan(&file, registry, stderr)? else { return Ok(2) };
    let preview = preview(&plan, &args.run)?;
    if args.json {
        print_json(&preview, stdout)?
    } else {
        ignore_closed_pipe(print(&preview, stdout))?
    }
    Ok(0)
}

fn print(preview: &RunPreview, out: &mut dyn Write) -> std::io::Result<()> {
    if preview.graph_change.is_empty() {
        writeln!(out, "{}: the graph is unchanged since the last run", preview.pipeline)?;
    } else {
        writeln!(out, "{}: the graph changed:", preview.pipeline)?;
    }
    for difference in &preview.graph_change {
        writeln!(out, "  {difference}")?;
    }
    writeln!(out, "\n  {:<34}{:>8}{:>10}{:>10}{:>10}", "", "scans", "attempts", "scores", "samples")?;
    let rows =
        [("processed", preview.processed), ("tested again, with scores", preview.retested), ("kept", preview.kept)];
    for (name, ScanTotals { scans, attempts, scores, files }) in rows {
        writeln!(out, "  {name:<34}{scans:>8}{attempts:>10}{scores:>10}{files:>10}")?;
    }
    writeln!(out)?;
    let reasons = [
        (preview.new_scans as usize, "new"),
        (preview.changed_scans.len(), "with changed files"),
        (preview.affected_scans.len(), "affected by the change of the graph"),
        (preview.retried_scans.len(), "pending, or duplicates of changed scans"),
        (preview.removed_scans.len(), "removed, with samples"),
    ];
    for (scans, reason) in reasons.into_iter().filter(|(scans, _)| *scans > 0) {
        writeln!(out, "{}: {reason}", pluralize(scans, "scan"))?;
    }
    if preview.processed.scans > 0 {
        match preview.thread_seconds {
            Some(seconds) => {
                writeln!(out, "processing takes about {seconds:.0} s of computation, by the telemetry of earlier runs")?
            }
            None => writeln!(out, "no estimate of the time: the run folder has no telemetry")?,
        }
    }
    Ok(())
}
