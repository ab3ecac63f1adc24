//! The results of an evaluation on disk.

use std::path::Path;

use serde::Serialize;

use super::measurement::Measurements;
use super::metrics::{EvaluationPlan, Summary, cases_table, lesions_table, plot, summarize};
use super::output::{create_folder, to_json, write_file};
use super::problem::CaseProblem;
use crate::error::Result;

/// The summary of an evaluation, with the cases that could not be measured.
#[derive(Clone, Debug, Serialize)]
pub struct EvaluationReport {
    /// The arms, metrics and comparisons.
    #[serde(flatten)]
    pub summary: Summary,
    /// Cases that could not be measured.
    pub problems: Vec<CaseProblem>,
    /// The number of resamples of every interval.
    pub resamples: usize,
}

impl EvaluationReport {
    /// Summarizes measurements.
    pub fn new(plan: &EvaluationPlan, measurements: &Measurements) -> Self {
        let summary = summarize(plan, &measurements.rows);
        Self { summary, problems: measurements.problems.clone(), resamples: plan.resamples }
    }

    /// Serializes the report as indented JSON with a trailing newline.
    ///
    /// # Errors
    /// Returns an error if the report cannot be serialized, which does not occur for names and numbers.
    pub fn to_json(&self) -> Result<String> {
        to_json("summary", self)
    }
}

/// Writes `cases.parquet`, `lesions.parquet`, a plot for each organ, and `summary.json` into a folder, and replaces the files of an
/// earlier evaluation.
///
/// # Errors
/// Returns an error if the folder cannot be created or written.
pub fn write_results(
    folder: &Path,
    plan: &EvaluationPlan,
    measurements: &Measurements,
    report: &EvaluationReport,
) -> Result<()> {
    create_folder(folder)?;
    write_file(&folder.join("cases.parquet"), &cases_table(plan, &measurements.rows)?)?;
    write_file(&folder.join("lesions.parquet"), &lesions_table(plan, &measurements.rows)?)?;
    for organ in &plan.organs {
        let name = if plan.organs.len() == 1 { "plot.png".to_owned() } else { format!("plot-{}.png", organ.name) };
        write_file(&folder.join(name), &plot(&report.summary, &organ.name)?.to_png()?)?;
    }
    write_file(&folder.join("summary.json"), report.to_json()?.as_bytes())
}
