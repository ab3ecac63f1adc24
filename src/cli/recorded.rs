//! Options and plans of commands that process a run folder with the graph file that it records.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::load::load_plan;
use super::print::print_error;
use super::run::{at_least_one, default_memory_bytes, select_recorded_kernel_class};
use crate::dataflow::RunOptions;
use crate::error::{Error, Result};
use crate::graph::{GraphFile, Plan, Registry};
use crate::run::RunFolder;
use crate::run::requests::{Request, Response, submit, wait};

/// Options of commands that process scans of a run folder.
#[derive(Args, Clone, Debug)]
pub struct RecordedArgs {
    /// Graph file, if paths in it have changed [default: the one that the run folder records]
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// File with the secret that patient keys are derived with [default: $FREETUMOR_PATIENT_KEY, or one kept in the user's
    /// configuration folder]
    #[arg(long, value_name = "FILE")]
    pub patient_key_file: Option<PathBuf>,
}

impl RecordedArgs {
    /// Returns the plan of a run folder.
    ///
    /// # Errors
    /// If the folder is not a run folder, or its graph file has errors, which are printed on `stderr`.
    pub fn plan(&self, run: &Path, registry: &Registry, stderr: &mut dyn Write) -> Result<Plan> {
        let folder = RunFolder::open(run)?;
        select_recorded_kernel_class(run)?;
        let file = match &self.pipeline {
            Some(path) => GraphFile::open(path)?,
            None => GraphFile::of_run(&folder)?,
        };
        load_plan(&file, registry, stderr)?.ok_or_else(|| {
            Error::new(format!("the graph file of {} has errors", run.display())).with_hint(
                "if scans, masks or weights were moved, pass a graph file with the new paths with `--pipeline`",
            )
        })
    }

    /// Returns the options of processing.
    ///
    /// # Errors
    /// If an option is out of its range.
    pub fn options(&self) -> Result<RunOptions> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = at_least_one("--threads", self.threads.unwrap_or(cores))?;
        Ok(RunOptions { threads, memory_bytes: default_memory_bytes(), ..RunOptions::default() })
    }
}

/// Writes a request to the process that writes a run folder, waits for its result and returns it as JSON.
///
/// # Errors
/// If the request was refused, or the process ended before it executed the request.
pub fn send_request(run: &Path, request: &Request, stderr: &mut dyn Write) -> Result<serde_json::Value> {
    let folder = run.display();
    writeln!(stderr, "note: another process writes to {folder}: it executes the request between two epochs")
        .map_err(print_error)?;
    match wait(run, &submit(run, request)?)? {
        Response::Done(value) => Ok(value),
        Response::Refused { message, hint } => {
            let error = Error::new(message);
            Err(hint.map_or(Error::new(error.to_string()), |hint| error.with_hint(hint)))
        }
    }
}
