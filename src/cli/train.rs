//! `freetumor train`: the three stages of training.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::messages::style;
use super::network::DeviceName;
use super::print::{ignore_closed_pipe, pluralize, print_error, print_json, print_problems};
use super::run::{at_least_one, default_memory_bytes};
use crate::error::{Error, Result};
use crate::graph::{GraphFile, Registry};
use crate::nn::weights::Precision;
use crate::train::run::{Progress, TrainingReport, format_numbers};
use crate::train::{CheckedTask, Fold, TrainingObserver, TrainingOptions, TrainingOutcome, TrainingStage, check};

/// Train the networks: a segmentor, a generator with its discriminator, the final segmentor
///
/// The file has sources and stages like a pipeline, and a section [train] with the networks, settings and data. Output folder and device
/// are set by flags. An interrupted training run resumes with --resume and ends with the same bits. Losses and scores are written to a
/// Parquet table in the folder, with plots of curves and pictures of slices.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// Stage of training
    #[arg(value_enum)]
    pub stage: StageName,
    /// Training file, such as pipelines/train-segmentor-small.toml
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Output folder [default: runs/NAME, by the name in the file]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Device that trains the networks
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
    /// Override a setting of the file, such as train.steps=2000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Train this many segmentors, each without the patients of one fold of the labeled patients, into OUT/fold-0, OUT/fold-1, …
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(2..=100))]
    pub folds: Option<u64>,
    /// Resume the training run in the folder
    #[arg(long)]
    pub resume: bool,
    /// Threads that make batches [default: one per four cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory for preprocessed scans [default: half of the machine's, at most 8 GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Write weights with 16 bits, half as large, for inference. Checkpoints keep all bits
    #[arg(long)]
    pub half: bool,
    /// Take at most this many steps, then stop with a checkpoint
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// File with the secret that patient keys are derived with [default: $FREETUMOR_PATIENT_KEY, or one kept in the user's
    /// configuration folder]
    #[arg(long, value_name = "FILE")]
    pub patient_key_file: Option<PathBuf>,
}

/// The stages of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StageName {
    /// A segmentor on real tumors, which later scores synthetic ones
    Segmentor,
    /// A generator and a discriminator, with a fixed segmentor
    Synthesis,
    /// The final segmentor on real and synthetic tumors
    Segmentation,
}

impl StageName {
    fn stage(self) -> TrainingStage {
        match self {
            Self::Segmentor => TrainingStage::Segmentor,
            Self::Synthesis => TrainingStage::Synthesis,
            Self::Segmentation => TrainingStage::Segmentation,
        }
    }
}

impl TrainArgs {
    fn options(&self, name: &str) -> Result<TrainingOptions> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(TrainingOptions {
            out: self.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(name)),
            device: self.device.kind(),
            resume: self.resume,
            loader_threads: at_least_one("--threads", self.threads.unwrap_or((cores / 4).max(1)))?,
            memory_bytes: self.memory.map_or_else(default_memory_bytes, |size| size.as_u64()),
            precision: if self.half { Precision::Half } else { Precision::Single },
            limit: self.limit,
        })
    }
}

/// Runs the training and returns the exit code: 1 if scans were skipped.
///
/// # Errors
/// If the training could not start or had to stop.
pub fn train(args: &TrainArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let file = GraphFile::open(&args.config)?.with_sets(&args.set);
    let stage = args.stage.stage();
    if args.folds.is_some() && stage != TrainingStage::Segmentor {
        return Err(Error::new(format!("expected the stage `segmentor` with --folds, got `{}`", stage.name()))
            .with_hint("only segmentors are cross-fitted: they score real tumors"));
    }
    let count = args.folds.unwrap_or(1) as usize;
    let (mut any_failed, mut reports) = (false, Vec::new());
    for index in 0..count {
        let CheckedTask { problems, task } = check(stage, &file, registry);
        if index == 0 {
            print_problems(&file, &problems.iter().collect::<Vec<_>>(), stderr)?;
        }
        let Some(mut task) = task else { return Ok(2) };
        let mut options = args.options(task.name())?;
        if args.folds.is_some() {
            task = task.with_fold(Fold { index, count });
            options.out = options.out.join(format!("fold-{index}"));
        }
        let mut progress = TrainingProgress::new(stage.name(), &mut *stderr);
        let outcome = task.run(&options, &mut progress);
        progress.finish();
        let TrainingOutcome { report, failed_scans } = outcome?;
        if !args.json {
            if args.folds.is_some() {
                ignore_closed_pipe(writeln!(stdout, "fold {index} of {count}"))?;
            }
            ignore_closed_pipe(write!(stdout, "{}", Summary(&report)))?;
        }
        if failed_scans > 0 {
            let list = report.folder.join("private").join("scans.jsonl");
            let scans = pluralize(failed_scans, "scan");
            writeln!(stderr, "warning: skipped {scans}; {} lists the file of each scan", list.display())
                .map_err(print_error)?;
        }
        any_failed |= failed_scans > 0;
        reports.push(report);
    }
    match (args.json, args.folds, reports.first()) {
        (true, None, Some(report)) => print_json(report, stdout)?,
        (true, ..) => print_json(&reports, stdout)?,
        _ => {}
    }
    Ok(u8::from(any_failed))
}

/// Prints the progress of a training on standard error: a bar on a terminal, lines at intervals otherwise.
struct TrainingProgress<'a> {
    stage: &'static str,
    stderr: &'a mut dyn Write,
    bar: Option<ProgressBar>,
    /// Time of the next line.
    next: Duration,
    pause: Duration,
}

impl<'a> TrainingProgress<'a> {
    fn new(stage: &'static str, stderr: &'a mut dyn Write) -> Self {
        Self { stage, stderr, bar: None, next: Duration::from_secs(2), pause: Duration::from_secs(4) }
    }

    /// Removes the bar.
    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Creates a bar that started `elapsed` ago.
fn bar(elapsed: Duration) -> ProgressBar {
    let bar = ProgressBar::new(0).with_elapsed(elapsed);
    match ProgressStyle::with_template("{elapsed_precise} {bar:24.cyan/dim} {pos}/{len} steps  {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl TrainingObserver for TrainingProgress<'_> {
    fn warning(&mut self, message: &str) -> Result<()> {
        let mut write = || writeln!(self.stderr, "warning: {message}").map_err(print_error);
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn progress(&mut self, progress: &Progress<'_>) {
        let defined: Vec<_> = progress.scores.iter().filter(|(_, value)| value.is_finite()).cloned().collect();
        let scores = if defined.is_empty() { String::new() } else { format!("  [{}]", format_numbers(&defined)) };
        let left = time(progress.remaining);
        if style().has_bar() {
            let bar = self.bar.get_or_insert_with(|| bar(progress.elapsed));
            bar.set_length(progress.steps);
            bar.set_position(progress.step);
            bar.set_message(format!("{left} left  {}{scores}", format_numbers(progress.numbers)));
            return;
        }
        if progress.elapsed < self.next {
            return;
        }
        // Long training runs need fewer lines: the pauses grow to a minute.
        self.next = progress.elapsed + self.pause;
        self.pause = (self.pause * 3 / 2).min(Duration::from_secs(60));
        let (elapsed, numbers) = (progress.elapsed.as_secs_f64(), format_numbers(progress.numbers));
        let _ = writeln!(
            self.stderr,
            "{elapsed:7.1} s  {} {}/{}, {left} left, {numbers}{scores}",
            self.stage, progress.step, progress.steps
        );
        // Each line is a message of its own: without this, lines that start with spaces would wait for the next message.
        let _ = self.stderr.flush();
    }
}

/// Formats a duration as `43 s`, `12 min` or `3 h 20 min`.
fn time(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6000 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Formats the report of a training as text.
struct Summary<'a>(&'a TrainingReport);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TrainingReport { stage, step, steps, new_steps, seconds, waiting_share, scores, best, folder } = self.0;
        if *new_steps == 0 && step < steps {
            writeln!(f, "{stage}: step {step} of {steps}, no new steps")?;
        } else if *new_steps == 0 {
            writeln!(f, "{stage}: nothing to do, already at step {step} of {steps}")?;
        } else {
            let each = seconds / *new_steps as f64;
            let waiting = 100.0 * waiting_share;
            let new_steps = pluralize(*new_steps as usize, "step");
            writeln!(
                f,
                "{stage}: step {step} of {steps}; {new_steps} in {seconds:.1} s, {each:.3} s per step, {waiting:.0}% of the time waiting for batches"
            )?;
        }
        let scores: BTreeMap<_, _> = scores.iter().filter(|(_, value)| value.is_finite()).collect();
        for (name, value) in scores {
            writeln!(f, "  {name:<28}{value:.4}")?;
        }
        if let Some((score, step)) = best {
            writeln!(f, "  best at step {step}: {score:.4}")?;
        }
        let folder = folder.display();
        writeln!(f, "\nOutputs:\n  {:<16}{folder}/weights", "weights")?;
        writeln!(f, "  {:<16}{folder}/history.parquet", "history")?;
        writeln!(f, "  {:<16}{folder}/curves.png, {folder}/pictures", "plots")?;
        if step < steps {
            writeln!(f, "  to resume       the same command with --resume")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_formats_seconds_minutes_and_hours() {
        let times = [3, 99, 100, 3601, 12_000].map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(times, ["3 s", "99 s", "1 min", "60 min", "3 h 20 min"]);
    }
}
