//! `freetumor run`: runs a pipeline.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;

use crate::dataflow::{Progress, RunOptions, RunReport};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{GraphFile, Plan, Registry};
use crate::inference::InferencePhase;
use crate::run::RunManifest;
use crate::simd::Class;
use crate::sink::Output;

use super::load::load_plan;
use super::network::DeviceName;
use super::print::{ignore_closed_pipe, pluralize, print_json};
use super::progress::ProgressReporter;
use super::stream::{RunState, Stream};

/// Minimum memory for open scans; a smaller value has probably lost its unit.
const MIN_MEMORY_BYTES: u64 = 1 << 20;

/// Run a pipeline.
///
/// Reads every scan that the pipeline's sources list, finds organs, places tumors, scores them, and commits accepted samples and the
/// rows of all candidates to the run folder, epoch by epoch. Run it again into the same folder to resume where it stopped, or to
/// ingest new scans.
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
    /// Ingest at most this many new scans
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Write the samples of this sink of kind `stream` as a tar to standard output, during the run and repeatedly after it; the summary goes
    /// to standard error
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// With --sink: number of passes over all samples; 0 repeats until the reader closes the stream
    #[arg(long, value_name = "N", default_value_t = 0, requires = "sink")]
    pub passes: u64,
    /// With --sink: listen on this Unix socket instead of standard output, for one reader after the other
    #[arg(long, value_name = "PATH", requires = "sink")]
    pub socket: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// File with the secret that patient keys are derived with [default: $FREETUMOR_PATIENT_KEY, or one kept in the user's
    /// configuration folder]
    #[arg(long, value_name = "FILE")]
    pub patient_key_file: Option<PathBuf>,
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

/// Returns an error message and a hint if the graph has a sink of kind `trainer`, with which it cannot be run; otherwise `None`.
pub(super) fn trainer_sink_error(plan: &Plan, pipeline: &Path) -> Option<(String, String)> {
    let node = plan.sinks.iter().find(|node| matches!(node.output, Output::Trainer))?;
    let message = format!("`sinks.{}` receives samples in a training run, not in a run of the pipeline", node.name);
    Some((message, format!("run freetumor train segmentation {}", pipeline.display())))
}

/// Runs the pipeline and returns the exit code: 1 if scans failed, except for a stream on standard output, whose readers take any exit code
/// other than 0 for a failure of the stream.
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
    let Some(stream) = stream.transpose()? else {
        let reporter = ProgressReporter::start(Arc::clone(&progress));
        let report = crate::dataflow::run(plan, &out, &options, &progress);
        drop(reporter);
        return summarize(&report?, args.json, stdout, stderr);
    };
    let state = RunState::default();
    // A finished run is only read, so that several processes can stream it at once.
    if let Some(report) = crate::dataflow::finished(&plan, &out)? {
        state.end(false);
        let code = summarize_on(&report, args.json, stderr)?;
        stream.serve(&state, &progress)?;
        return Ok(stream.exit_code(code));
    }
    std::thread::scope(|scope| {
        let reporter = ProgressReporter::start(Arc::clone(&progress));
        let streaming = scope.spawn(|| stream.serve(&state, &progress));
        let report = crate::dataflow::run(plan, &out, &options, &progress);
        drop(reporter);
        state.end(report.is_err());
        // Print the summary now: the stream may never end.
        let code = match report {
            // The reader closed the stream after the samples that it needed.
            Err(error) if error.kind() == ErrorKind::Stopped => Ok(0),
            report => report.and_then(|report| summarize_on(&report, args.json, stderr)),
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
fn select_recorded_kernel_class(out: &Path) -> Result<()> {
    let Some(class) = RunManifest::kernel_class_in(out) else {
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

/// Prints the warnings of a run on standard error and its report on standard output; returns the exit code.
fn summarize(report: &RunReport, json: bool, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    print_warnings(report, stderr)?;
    print_report(report, json, stdout)?;
    Ok(u8::from(report.failed_scans > 0))
}

/// Prints the warnings and the report of a run on standard error; returns the exit code.
fn summarize_on(report: &RunReport, json: bool, stderr: &mut dyn Write) -> Result<u8> {
    print_warnings(report, stderr)?;
    print_report(report, json, stderr)?;
    Ok(u8::from(report.failed_scans > 0))
}

fn print_warnings(report: &RunReport, stderr: &mut dyn Write) -> Result<()> {
    let mut written = report.warnings.iter().try_for_each(|warning| writeln!(stderr, "warning: {warning}"));
    if report.left_out_scans > 0 {
        let scans = pluralize(report.left_out_scans as usize, "new scan");
        written = written.and_then(|()| writeln!(stderr, "warning: `--limit` leaves out {scans}"));
    }
    ignore_closed_pipe(written.and_then(|()| stderr.flush()))
}

fn print_report(report: &RunReport, json: bool, out: &mut dyn Write) -> Result<()> {
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

/// Formats the report of a run as text.
struct Summary<'a>(&'a RunReport);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = self.0;
        let folder = report.folder.display();
        if report.new_scans == 0 {
            let committed = pluralize(report.scans as usize, "scan");
            let reason = match report.left_out_scans {
                0 => format!("no new scans; {committed} committed"),
                left_out => {
                    format!("{} left out by `--limit`; {committed} committed", pluralize(left_out as usize, "new scan"))
                }
            };
            writeln!(f, "{}: nothing to do: {reason}", report.pipeline)?;
        } else {
            let rate = report.new_scans as f64 / report.seconds.max(1e-3);
            let (scans, seconds) = (pluralize(report.new_scans as usize, "scan"), report.seconds);
            writeln!(f, "{}: {scans} in {seconds:.1} s, {rate:.2} per second", report.pipeline)?;
        }
        writeln!(f)?;
        self.table(f)?;
        self.reasons(f)?;
        if report.negatives > 0 {
            writeln!(f, "{} without a synthetic tumor\n", pluralize(report.negatives as usize, "sample"))?;
        }
        if report.failed_scans > 0 {
            let (scans, faults) = (report.failed_scans as usize, report.faults as usize);
            let (scans, faults) = (pluralize(scans, "scan"), pluralize(faults, "fault"));
            writeln!(f, "{scans} failed with {faults} (see the table `faults`):")?;
            for (kind, count) in &report.fault_kinds {
                writeln!(f, "  {count:>6}  {kind}")?;
            }
            writeln!(f, "  the paths of scan ids are in {folder}/private")?;
            writeln!(f)?;
        }
        self.networks(f)?;
        if report.duplicates > 0 {
            writeln!(f, "skipped {} of other scans\n", pluralize(report.duplicates as usize, "duplicate"))?;
        }
        if report.scans_without_organs > 0 {
            writeln!(
                f,
                "{} without any of the requested organs (in the table `scans`: status done, organs empty)\n",
                pluralize(report.scans_without_organs as usize, "scan")
            )?;
        }
        if report.changed_scans > 0 {
            writeln!(
                f,
                "{} changed on disk after ingest; {folder} keeps the earlier results.",
                pluralize(report.changed_scans as usize, "scan")
            )?;
            writeln!(f, "To ingest the changed scans, run into another folder: `--out DIR`.\n")?;
        }
        writeln!(f, "Outputs:")?;
        for (name, path) in &report.layouts {
            writeln!(f, "  {name:<16}{}", path.display())?;
        }
        writeln!(f, "  {:<16}freetumor files {folder} samples", "tables")?;
        writeln!(f, "  {:<16}{folder}", "run folder")
    }
}

impl Summary<'_> {
    /// Prints accepted and rejected attempts by organ and size class.
    fn table(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rows: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        for group in &self.0.quality {
            let (accepted, rejected) = rows.entry((&group.group.organ, class(&group.group.size_class))).or_default();
            *(if group.group.reason.is_none() { accepted } else { rejected }) += group.count;
        }
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "  {:<12}{:<10}{:>10}{:>10}{:>8}", "organ", "size", "accepted", "rejected", "share")?;
        let (mut all_accepted, mut all_rejected) = (0, 0);
        for ((organ, size), (accepted, rejected)) in &rows {
            let share = percent(*accepted, accepted + rejected);
            writeln!(f, "  {organ:<12}{size:<10}{accepted:>10}{rejected:>10}{share:>8}")?;
            all_accepted += accepted;
            all_rejected += rejected;
        }
        let share = percent(all_accepted, all_accepted + all_rejected);
        writeln!(f, "  {:<12}{:<10}{all_accepted:>10}{all_rejected:>10}{share:>8}\n", "all", "")
    }

    /// Prints the device time of the networks per attempt.
    fn networks(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = self.0;
        if report.networks.is_empty() {
            return Ok(());
        }
        writeln!(f, "  {:<16}{:<10}{:>9}{:>13}{:>15}", "network", "phase", "windows", "seconds", "per attempt")?;
        let attempts = report.new_attempts.max(1) as f64;
        for cost in &report.networks {
            let phase = match cost.phase {
                InferencePhase::Mask => "scans",
                InferencePhase::Generate => "sites",
                InferencePhase::Before => "before",
                InferencePhase::After => "after",
            };
            let seconds = cost.cost.device_seconds;
            let (node, windows, each) = (&cost.node, cost.cost.windows, seconds / attempts);
            writeln!(f, "  {node:<16}{phase:<10}{windows:>9}{seconds:>13.2}{each:>15.3}")?;
        }
        let other = report.other_seconds;
        writeln!(f, "  {:<16}{:<10}{:>9}{other:>13.2}{:>15.3}", "other", "", "", other / attempts)?;
        let [device, processors] = [report.device_busy_share, report.processors_busy_share].map(|share| 100.0 * share);
        writeln!(f, "  the device was busy {device:.0}% of the time, the processors {processors:.0}%\n")
    }

    /// Prints the number of rejections by reason.
    fn reasons(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for group in &self.0.quality {
            if let Some(reason) = &group.group.reason {
                *reasons.entry(reason).or_default() += group.count;
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|&(reason, count)| (std::cmp::Reverse(count), reason));
        writeln!(f, "Rejected attempts by reason (the condition that failed):")?;
        for (reason, count) in reasons {
            writeln!(f, "  {count:>6}  {reason}")?;
        }
        writeln!(f)
    }
}

fn class(name: &str) -> &str {
    if name.is_empty() { "no site" } else { name }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.0}%", 100.0 * part as f64 / whole as f64) }
}
