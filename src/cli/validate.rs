//! `freetumor validate`: reports all problems of a graph at once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value as Json, json};

use super::print::{pluralize, print_error, print_problems};
use super::run::trainer_sink_error;
use crate::error::Result;
use crate::graph::{GraphFile, Problem, Registry, Severity, Survey, check, check_scans, survey};
use crate::train::{self, ScanCounts, TrainingStage};

/// Timeout for listing the scans of a source.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);

/// Check pipelines and training files without running anything
///
/// All problems are reported at once, each with location, expectation and hint. Stages are built, sources are listed, the headers of scans
/// and label files are checked, and the free disk space is compared with an upper bound of the required space. For a training file, weights
/// are checked and scans counted. The exit code is 0 if all files are valid (warnings are allowed), 2 otherwise.
#[derive(Args, Clone, Debug)]
pub struct ValidateArgs {
    /// Graph files and training files
    #[arg(required = true, value_name = "PIPELINE")]
    pub pipelines: Vec<PathBuf>,
    /// Override a setting of the files, such as stages.filter.attempts=3
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Output folder of the run, for the check of free disk space
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Checks the pipelines of `args` with the kinds of `registry` and returns the exit code.
///
/// # Errors
/// If a file cannot be read or the output cannot be written.
pub fn validate(
    args: &ValidateArgs,
    registry: &Registry,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<u8> {
    let mut code = 0;
    let mut reports = Vec::new();
    for path in &args.pipelines {
        let file = GraphFile::open(path)?.with_sets(&args.set);
        if let Some(stage) = train::stage_of(&file) {
            let (problems, listed) = check_training(stage, &file, registry);
            let problems: Vec<&Problem> = problems.iter().collect();
            if listed.is_none() {
                code = 2;
            }
            if args.json {
                reports.push(json!({
                    "file": path.to_string_lossy(), "good": listed.is_some(), "trains": stage.name(), "scans": listed, "problems": problems,
                }));
                continue;
            }
            print_problems(&file, &problems, stderr)?;
            if let Some(listed) = listed {
                let name = file.name();
                writeln!(stdout, "{name}: valid for `freetumor train {}`: {}", stage.name(), scans(&listed))
                    .map_err(print_error)?;
            }
            continue;
        }
        let checked = check(&file, registry);
        let survey = survey(&checked, &args.out, LIST_TIMEOUT);
        let trainer_sink = checked.plan.as_ref().and_then(|plan| trainer_sink_error(plan, path));
        let trainer_sink =
            trainer_sink.map(|(message, hint)| Problem::without_location(Severity::Error, message, Some(hint)));
        let mut problems: Vec<&Problem> =
            checked.problems.iter().chain(&survey.problems).chain(&trainer_sink).collect();
        problems.sort_by_key(|problem| position(problem, file.name()));
        let is_valid = !checked.has_errors() && !problems.iter().any(|problem| problem.severity == Severity::Error);
        if !is_valid {
            code = 2;
        }
        if args.json {
            let digest = checked.plan.as_ref().map(|plan| &plan.digest);
            reports.push(report(path, is_valid, digest, &survey, &problems));
        } else {
            print_problems(&file, &problems, stderr)?;
            if let (true, Some(plan)) = (is_valid, &checked.plan) {
                let numbers = [
                    pluralize(plan.sources.len(), "source"),
                    pluralize(plan.masks.len(), "mask"),
                    pluralize(plan.syntheses.len(), "synthesis"),
                    pluralize(plan.sinks.len(), "sink"),
                ];
                writeln!(stdout, "{}: valid: {}{}", file.name(), numbers.join(", "), needs(&survey))
                    .map_err(print_error)?;
            }
        }
    }
    if args.json {
        let text = serde_json::to_string_pretty(&json!({ "pipelines": reports })).map_err(std::io::Error::from);
        text.and_then(|text| writeln!(stdout, "{text}")).map_err(print_error)?;
    }
    Ok(code)
}

/// Returns the position of a problem: in the file, then in overrides, then without a location.
fn position(problem: &Problem, file: &str) -> (u8, usize, usize) {
    match &problem.location {
        Some(location) if location.file == file => (0, location.line, location.column),
        Some(_) => (1, 0, 0),
        None => (2, 0, 0),
    }
}

/// Returns the problems of a training file, and its scans if the training could start.
fn check_training(stage: TrainingStage, file: &GraphFile, registry: &Registry) -> (Vec<Problem>, Option<ScanCounts>) {
    let train::CheckedTask { mut problems, task } = train::check(stage, file, registry);
    if let Some(task) = &task {
        problems.extend(check_scans(&task.scan_stages(), LIST_TIMEOUT));
    }
    let listed = task.map(train::TrainingTask::count_scans);
    let problem = match &listed {
        Some(Err(error)) => {
            Some(Problem::without_location(Severity::Error, error.to_string(), error.hint().map(str::to_owned)))
        }
        Some(Ok(ScanCounts { labeled: 0, .. })) => {
            let hint = "check that its sources list scans, and that [pipeline] has a share for training".to_owned();
            Some(Problem::without_location(Severity::Error, "there is no labeled scan to train on", Some(hint)))
        }
        _ => None,
    };
    problems.extend(problem);
    let is_valid = problems.iter().all(|problem| problem.severity != Severity::Error);
    let listed = listed.and_then(Result::ok).filter(|_| is_valid);
    (problems, listed)
}

/// Formats the scans of a training.
fn scans(listed: &ScanCounts) -> String {
    let ScanCounts { labeled, validation, unlabeled, runs, fresh } = listed;
    let mut text = format!("{}, {}", pluralize(*labeled, "labeled scan"), pluralize(*validation, "validation scan"));
    if *unlabeled > 0 {
        text += &format!(", {} with organs only", pluralize(*unlabeled, "scan"));
    }
    for tumors in runs {
        text += &format!(", {} of a run folder", pluralize(*tumors, "accepted tumor"));
    }
    for scans in fresh {
        text += &format!(", fresh tumors in {}", pluralize(*scans, "scan"));
    }
    text
}

fn report(path: &Path, is_valid: bool, digest: Option<&String>, survey: &Survey, problems: &[&Problem]) -> Json {
    json!({
        "file": path.to_string_lossy(),
        "good": is_valid,
        "digest": digest,
        "scans": survey.scans,
        "most_samples": survey.samples,
        "needed_bytes": survey.needed_bytes,
        "free_bytes": survey.free_bytes,
        "sources": survey.sources,
        "problems": problems,
    })
}

fn needs(survey: &Survey) -> String {
    match (survey.scans, survey.samples, survey.needed_bytes) {
        (Some(scans), Some(samples), Some(bytes)) => format!(
            "; {}, at most {} in {}",
            pluralize(scans, "scan"),
            pluralize(samples as usize, "sample"),
            ByteSize(bytes)
        ),
        _ => String::new(),
    }
}
