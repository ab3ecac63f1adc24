//! `freetumor run`: runs a pipeline.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use crate::dataflow::{FollowOptions, Progress, RunOptions, RunReport, follow};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{GraphFile, Plan, Registry};
use crate::review::draw_contact_sheet;
use crate::run::RunFolder;
use crate::simd::Class;
use crate::sink::Output;
use crate::time_span::TimeSpan;

use super::load::load_plan;
use super::network::DeviceName;
use super::print::{ignore_closed_pipe, pluralize, print_json};
use super::progress::ProgressReporter;
use super::signals::stop_on_signals;
use super::stream::{RunState, Stream};
use super::summary::Summary;

/// Minimum memory for open scans; a smaller value has probably lost its unit.
const MIN_MEMORY_BYTES: u64 = 1 << 20;

/// Run a pipeline.
///
/// Reads every scan that the pipeline's sources list, finds organs, places tumors, scores them, and commits accepted samples and the
/// rows of all candidates to the run folder, epoch by epoch. Run the command again into the same folder to resume an interrupted
/// run and to process changes: new scans are processed, changed scans are processed again, and scans that are gone are removed with their
/// samples.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Graph file, such as pipelines/quickstart.toml
    pub pipeline: PathBuf,
    /// Run folder [default: runs/NAME, by the pipeline's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Override a setting of the graph file, such as stages.filter.attempts=3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Worker threads of timely dataflow, which schedule the work; --threads sets those that compute
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub workers: usize,
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory for open scans [default: half of the machine's, at most 8 GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Device that runs the networks
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
    /// Maximum number of windows per batch; does not change the results [default: 1 on a CPU, 4 on a GPU]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub batch: Option<usize>,
    /// Process at most this many scans
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Follow the sources: process scans as their files come, change and go, until the process gets SIGTERM or Ctrl-C
    #[arg(long, conflicts_with = "limit")]
    pub follow: bool,
    /// With --follow: longest time between two listings of the sources, for network shares, which send no notifications
    #[arg(long, value_name = "TIME", default_value = "1 min", requires = "follow")]
    pub rescan: TimeSpan,
    /// With --follow: longest time for which scans wait for others of their epoch
    #[arg(long, value_name = "TIME", default_value = "1 min", requires = "follow")]
    pub max_delay: TimeSpan,
    /// Write the samples of this sink of kind `stream` as a tar to standard output, during the run and repeatedly after it; the summary
    /// goes to standard error
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// With --sink: number of passes over all samples; 0 repeats until the reader closes the stream
    #[arg(long, value_name = "N", default_value_t = 0, requires = "sink")]
    pub passes: u64,
    /// With --sink: listen on this Unix socket instead of standard output, for one reader after the other
    #[arg(long, value_name = "PATH", requires = "sink")]
    pub socket: Option<PathBuf>,
    /// Scans for which the command ends with exit code 1: those that failed in this run, any failed or pending scan of the folder, or none
    #[arg(long, value_name = "SCANS", value_enum, default_value_t = FailOn::New)]
    pub fail_on: FailOn,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// File with the secret that patient keys are derived with [default: $FREETUMOR_PATIENT_KEY, or one kept in the user's
    /// configuration folder]
    #[arg(long, value_name = "FILE")]
    pub patient_key_file: Option<PathBuf>,
}

/// The scans for which a run ends with exit code 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Scans that failed or became pending in this run.
    #[default]
    New,
    /// Any failed or pending scan of the run folder.
    Any,
    /// None.
    None,
}

impl FailOn {
    /// Returns the exit code of a run with this report; a failed expectation is a failure for any selection of scans.
    pub(super) fn exit_code(self, report: &RunReport) -> u8 {
        let fails = match self {
            Self::New => !report.newly_failed_scans.is_empty() || !report.newly_pending_scans.is_empty(),
            Self::Any => report.failed_scans > 0 || report.pending_scans > 0,
            Self::None => false,
        };
        u8::from(fails || report.expectations.iter().any(|result| !result.is_met))
    }
}

impl RunArgs {
    /// Returns the maximum number of windows per batch.
    pub fn batch(&self) -> usize {
        let default = match self.device {
            DeviceName::Cpu => 1,
            DeviceName::Cuda => 4,
        };
        self.batch.unwrap_or(default)
    }
}

/// Returns an error message and a hint if the graph has a sink of kind `trainer`, which `freetumor run` does not support; otherwise `None`.
pub(super) fn trainer_sink_error(plan: &Plan, pipeline: &Path) -> Option<(String, String)> {
    let node = plan.sinks.iter().find(|node| matches!(node.output, Output::Trainer))?;
    let message = format!("`sinks.{}` receives samples in a training run, not in a run of the pipeline", node.name);
    Some((message, format!("run freetumor train segmentation {}", pipeline.display())))
}

/// Runs the pipeline and returns the exit code: 1 if scans or expectations failed, except for a stream on standard output, whose readers
/// take any exit code other than 0 for a failure of the stream.
///
/// # Errors
/// If the run could not start or had to stop.
pub fn run(args: &RunArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let file = GraphFile::open(&args.pipeline)?.with_sets(&args.set);
    let out = args.out.clone().or_else(|| Some(Path::new("runs").join(file.pipeline_name()?)));
    if let (Some(out), DeviceName::Cpu) = (&out, args.device) {
        select_recorded_kernel_class(out)?;
    }
    let Some(plan) = load_plan(&file, registry, stderr)? else {
        return Ok(2);
    };
    if let Some((message, hint)) = trainer_sink_error(&plan, &args.pipeline) {
        return Err(Error::new(format!("{}: {message}", args.pipeline.display())).with_hint(hint));
    }
    let out = out.unwrap_or_else(|| Path::new("runs").join(&plan.name));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if let Some(size) = args.memory.filter(|size| size.as_u64() < MIN_MEMORY_BYTES) {
        let error = Error::new(format!("--memory: expected at least 1 MiB, got {size}"));
        return Err(error.with_hint("include the unit: --memory 8GiB"));
    }
    let options = RunOptions {
        workers: at_least_one("--workers", args.workers)?,
        threads: at_least_one("--threads", args.threads.unwrap_or(cores))?,
        memory_bytes: args.memory.map_or_else(default_memory_bytes, |size| size.as_u64()),
        limit: args.limit,
    };
    // The socket is bound before the run starts: a path that cannot be bound is known at once.
    let stream = args.sink.as_ref().map(|sink| Stream::new(&plan, &out, sink, args.passes, args.socket.as_deref()));
    let progress = Arc::new(Progress::default());
    if args.sink.is_none() {
        // A signal ends a process that streams at once: readers may wait for samples that never come.
        stop_on_signals(&progress)?;
    }
    let follow_options = FollowOptions { rescan: args.rescan.into(), max_delay: args.max_delay.into() };
    let execute = |plan, out: &Path, options: &RunOptions| match args.follow {
        true => follow(plan, out, options, &follow_options, &progress),
        false => crate::dataflow::run(plan, out, options, &progress),
    };
    let Some(stream) = stream.transpose()? else {
        let reporter = ProgressReporter::start(Arc::clone(&progress));
        let report = execute(plan, &out, &options);
        drop(reporter);
        let mut report = report?;
        if !progress.is_stop_requested() {
            add_contact_sheet(&mut report, registry, stderr)?;
        }
        return summarize(&report, args, stdout, stderr);
    };
    let state = RunState::default();
    // A finished run is only read, so that several processes can stream it at once.
    let finished = if args.follow { None } else { crate::dataflow::finished(&plan, &out)? };
    if let Some(report) = finished {
        state.end(false);
        let code = summarize_on(&report, args, stderr)?;
        stream.serve(&state, &progress)?;
        return Ok(stream.exit_code(code));
    }
    std::thread::scope(|scope| {
        let reporter = ProgressReporter::start(Arc::clone(&progress));
        let streaming = scope.spawn(|| stream.serve(&state, &progress));
        let report = execute(plan, &out, &options);
        drop(reporter);
        state.end(report.is_err());
        // Print the summary now: the stream may never end.
        let code = match report {
            // The reader closed the stream after the samples that it needed.
            Err(error) if error.kind() == ErrorKind::Stopped => Ok(0),
            report => report.and_then(|report| summarize_on(&report, args, stderr)),
        };
        match streaming.join() {
            Ok(streamed) => code.and_then(|code| streamed.map(|()| stream.exit_code(code))),
            Err(_) => Err(Error::new("the stream ended in a panic; see the log")),
        }
    })
}

/// Selects the kernel class that the run folder records, so that a resumed run computes the same bits. Call this function before any
/// computation: the first computation fixes the class of the process.
///
/// # Errors
/// If this processor lacks the class, or `--kernel-class` selects another one.
pub(super) fn select_recorded_kernel_class(out: &Path) -> Result<()> {
    let Some(class) = RunFolder::kernel_class_of(out) else {
        return Ok(());
    };
    Class::select(class).map_err(|_| {
        let (problem, hint) = if Class::available().contains(&class) {
            (
                format!("`--kernel-class` selects {}", Class::current()),
                "omit `--kernel-class`: a run is resumed with its recorded class",
            )
        } else {
            (
                "this processor lacks the class".to_owned(),
                "resume the run on a processor that has this class, or write to another folder with `--out`",
            )
        };
        Error::new(format!("{} was started with the kernel class {class}, but {problem}", out.display()))
            .with_hint(hint)
    })
}

/// Draws the contact sheet of a run that changed its samples. A sheet that cannot be drawn is a warning: the samples are committed.
fn add_contact_sheet(report: &mut RunReport, registry: &Registry, stderr: &mut dyn Write) -> Result<()> {
    if report.processed_scans == 0 && report.retested_scans.is_empty() {
        return Ok(());
    }
    let drawn = RunFolder::open(&report.folder).and_then(|folder| draw_contact_sheet(&folder, registry));
    match drawn {
        Ok(sheet) => report.contact_sheet = sheet.map(|sheet| sheet.path),
        Err(error) => ignore_closed_pipe(writeln!(stderr, "warning: no contact sheet: {error}"))?,
    }
    Ok(())
}

/// Prints the warnings of a run on standard error and its report on standard output; returns the exit code.
fn summarize(report: &RunReport, args: &RunArgs, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    print_warnings(report, stderr)?;
    print_report(report, args.json, stdout)?;
    Ok(args.fail_on.exit_code(report))
}

/// Prints the warnings and the report of a run on standard error; returns the exit code.
fn summarize_on(report: &RunReport, args: &RunArgs, stderr: &mut dyn Write) -> Result<u8> {
    print_warnings(report, stderr)?;
    print_report(report, args.json, stderr)?;
    Ok(args.fail_on.exit_code(report))
}

pub(super) fn print_warnings(report: &RunReport, stderr: &mut dyn Write) -> Result<()> {
    let mut written = report.warnings.iter().try_for_each(|warning| writeln!(stderr, "warning: {warning}"));
    if report.left_out_scans > 0 {
        let scans = pluralize(report.left_out_scans as usize, "scan");
        written = written.and_then(|()| writeln!(stderr, "warning: `--limit` leaves out {scans}"));
    }
    ignore_closed_pipe(written.and_then(|()| stderr.flush()))
}

pub(super) fn print_report(report: &RunReport, json: bool, out: &mut dyn Write) -> Result<()> {
    if json { print_json(report, out) } else { ignore_closed_pipe(write!(out, "{}", Summary(report))) }
}

pub(super) fn at_least_one(flag: &str, value: usize) -> Result<usize> {
    if value == 0 { Err(Error::new(format!("{flag} must be at least 1"))) } else { Ok(value) }
}

/// Returns half of the machine's memory, at most 8 GiB; 2 GiB if the memory is unknown.
pub(super) fn default_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    total.map_or(2 << 30, |kib| (kib * 512).min(8 << 30))
}
