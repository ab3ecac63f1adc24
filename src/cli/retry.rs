//! `freetumor retry`: processes failed scans of a run again.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::print::print_json;
use super::progress::ProgressReporter;
use super::recorded::{RecordedArgs, send_request};
use super::run::{FailOn, print_report, print_warnings};
use crate::dataflow::{Progress, retry};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Registry;
use crate::record::{ColumnCondition, FaultRecord};
use crate::run::requests::Request;

/// Process failed scans of a run folder again
///
/// Use this command after a repair of a program, of weights or of a machine. Scans with changed files need no retry: `freetumor run`
/// processes them again. Conditions select scans by the columns of the table `faults`, such as `stage = mask` or `kind = program`.
#[derive(Args, Clone, Debug)]
pub struct RetryArgs {
    /// The run folder
    pub run: PathBuf,
    /// Condition on a column of `faults`; scans must meet all conditions [default: all failed scans]
    #[arg(long = "where", value_name = "CONDITION")]
    pub conditions: Vec<String>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Graph file, threads and secret.
    #[command(flatten)]
    pub recorded: RecordedArgs,
}

/// Processes failed scans again and returns the exit code: 1 if a scan failed again.
///
/// # Errors
/// If a condition is invalid, or the run had to stop.
pub fn run(args: &RetryArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let parse = |text: &String| {
        text.parse::<ColumnCondition<FaultRecord>>().map_err(|error| {
            let message = Error::new(format!("--where {text:?}: {}", error.message));
            error.hint.map_or(Error::new(message.to_string()), |hint| message.with_hint(hint))
        })
    };
    let conditions = args.conditions.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let selects = |row: &FaultRecord| conditions.iter().all(|condition| condition.holds(row));
    let plan = args.recorded.plan(&args.run, registry, stderr)?;
    let progress = Arc::new(Progress::default());
    let reporter = ProgressReporter::start(Arc::clone(&progress));
    let report = retry(plan, &args.run, &selects, &args.recorded.options()?, &progress);
    drop(reporter);
    let report = match report {
        Err(error) if error.kind() == ErrorKind::Locked => {
            let request = Request::Retry { conditions: args.conditions.clone() };
            print_json(&send_request(&args.run, &request, stderr)?, stdout)?;
            return Ok(0);
        }
        report => report?,
    };
    print_warnings(&report, stderr)?;
    print_report(&report, args.json, stdout)?;
    Ok(FailOn::New.exit_code(&report))
}
