//! `freetumor validate`: every problem of a graph at once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value as Json, json};

use super::print::{counted, print_problems, unprinted};
use super::run::fed_by_training;
use crate::error::Result;
use crate::graph::{GraphFile, Problem, Registry, Severity, Survey, check, survey};
use crate::train::{self, ScanCounts, TrainingStage};

/// How long a source may take to list its scans: validation is for people who wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Check pipelines, and files for training, without running anything
///
/// Every problem is shown at once with its place, what was expected, and a hint. Stages are built, sources are listed,
/// and the free disk is compared with what the samples could need. Of a file with a section [train] weights are looked
/// for and scans counted. Exits with 0 where all of them would run (warnings are allowed), with 2 where one would not.
#[derive(Args, Clone, Debug)]
pub struct ValidateArgs {
    /// Graph files, and files for training
    #[arg(required = true, value_name = "PIPELINE")]
    pub pipelines: Vec<PathBuf>,
    /// Put a setting on top of the files, such as stages.filter.attempts=3
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where the run would write, for the free disk
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Checks the pipelines of `args` with the kinds of `registry` and gives the exit code.
///
/// # Errors
/// Where a file cannot be read or nothing can be printed.
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
                    "file": path, "good": listed.is_some(), "trains": stage.name(), "scans": listed, "problems": problems,
                }));
                continue;
            }
            print_problems(&file, &problems, stderr)?;
            if let Some(listed) = listed {
                let name = file.name();
                writeln!(stdout, "{name}: good for `freetumor train {}`: {}", stage.name(), scans(&listed))
                    .map_err(unprinted)?;
            }
            continue;
        }
        let checked = check(&file, registry);
        let survey = checked.plan.as_ref().map(|_| survey(&checked, &args.out, PATIENCE));
        let trains = checked.plan.as_ref().and_then(|plan| fed_by_training(plan, path));
        let trains = trains.map(|(message, hint)| Problem::of_file(Severity::Error, message, Some(hint)));
        let surveyed = survey.iter().flat_map(|survey| &survey.problems);
        let problems: Vec<&Problem> = checked.problems.iter().chain(surveyed).chain(&trains).collect();
        let good = !checked.is_bad() && !problems.iter().any(|problem| problem.severity == Severity::Error);
        if !good {
            code = 2;
        }
        if args.json {
            let digest = checked.plan.as_ref().map(|plan| &plan.digest);
            reports.push(report(path, good, digest, survey.as_ref(), &problems));
        } else {
            print_problems(&file, &problems, stderr)?;
            if let (true, Some(plan), Some(survey)) = (good, &checked.plan, &survey) {
                let numbers = [
                    counted(plan.sources.len(), "source"),
                    counted(plan.masks.len(), "mask"),
                    counted(plan.syntheses.len(), "synthesis"),
                    counted(plan.sinks.len(), "sink"),
                ];
                writeln!(stdout, "{}: good: {}{}", file.name(), numbers.join(", "), needs(survey))
                    .map_err(unprinted)?;
            }
        }
    }
    if args.json {
        let text = serde_json::to_string_pretty(&json!({ "pipelines": reports })).map_err(std::io::Error::from);
        text.and_then(|text| writeln!(stdout, "{text}")).map_err(unprinted)?;
    }
    Ok(code)
}

/// What is wrong with a file for training, and the scans that it takes where nothing keeps it from starting.
fn check_training(stage: TrainingStage, file: &GraphFile, registry: &Registry) -> (Vec<Problem>, Option<ScanCounts>) {
    let train::CheckedTask { mut problems, task } = train::check(stage, file, registry);
    let listed = task.map(train::TrainingTask::count_scans);
    let wrong = match &listed {
        Some(Err(error)) => Some(Problem::of_file(Severity::Error, error.to_string(), error.hint().map(str::to_owned))),
        Some(Ok(ScanCounts { labeled: 0, .. })) => {
            let hint = "do its sources list scans, and has [pipeline] a share left for training?".to_owned();
            Some(Problem::of_file(Severity::Error, "there is no labeled scan to train on", Some(hint)))
        }
        _ => None,
    };
    let listed = listed.and_then(Result::ok).filter(|_| wrong.is_none());
    problems.extend(wrong);
    (problems, listed)
}

/// The scans of a training in words.
fn scans(listed: &ScanCounts) -> String {
    let ScanCounts { labeled, validation, unlabeled, runs, fresh } = listed;
    let mut text = format!("{}, {validation} for validation", counted(*labeled, "labeled scan"));
    if *unlabeled > 0 {
        text += &format!(", {unlabeled} with organs only");
    }
    for tumors in runs {
        text += &format!(", {} of a run", counted(*tumors, "accepted tumor"));
    }
    for scans in fresh {
        text += &format!(", fresh tumors in {}", counted(*scans, "scan"));
    }
    text
}

fn report(path: &Path, good: bool, digest: Option<&String>, survey: Option<&Survey>, problems: &[&Problem]) -> Json {
    json!({
        "file": path,
        "good": good,
        "digest": digest,
        "scans": survey.and_then(|survey| survey.scans),
        "most_samples": survey.and_then(|survey| survey.samples),
        "needed_bytes": survey.and_then(|survey| survey.needed_bytes),
        "free_bytes": survey.and_then(|survey| survey.free_bytes),
        "problems": problems,
    })
}

fn needs(survey: &Survey) -> String {
    match (survey.scans, survey.samples, survey.needed_bytes) {
        (Some(scans), Some(samples), Some(bytes)) => format!(
            "; {}, at most {} in {}",
            counted(scans, "scan"),
            counted(samples as usize, "sample"),
            ByteSize(bytes)
        ),
        _ => String::new(),
    }
}
