//! The command: a file for each subcommand, which parses arguments, calls the library and prints.
//!
//! This module owns flags, messages on the terminal and exit codes: 0 without failures, 1 with failed scans, cases or expectations, 2 if
//! the command could not run. Results go to standard output; progress, warnings and errors to standard error.

pub mod calibrate;
pub mod completions;
pub mod decode;
pub mod diff;
pub mod evaluate;
mod explain;
pub mod export;
pub mod files;
pub mod graph;
mod help;
pub mod infer;
mod init;
pub mod inspect;
mod load;
mod messages;
pub mod network;
mod plan;
mod print;
mod progress;
mod recorded;
mod replay;
pub mod retry;
pub mod run;
mod scan;
pub mod scans;
pub mod schema;
mod signals;
pub mod status;
mod stream;
mod summary;
pub mod tag;
pub mod train;
pub mod vacuum;
pub mod validate;
pub mod withdraw;

use std::io::{Write, stdout};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::graph::{Registry, Resources};
use crate::inference::Networks;
use crate::ingest::dicom::Decoder;
use crate::nn::device::DeviceKind;
use crate::nn::service::Service;
use crate::simd::Class;
use messages::{LogFormat, MessageStyle, Messages};

/// Heading of the options that every subcommand has.
const GLOBAL: &str = "Global options";

/// Turns unlabeled CT archives into quality-filtered, traceable training sets of synthetic tumors.
#[derive(Debug, Parser)]
#[command(name = "freetumor", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print no warnings, progress or log on standard error, only errors; the result is still printed on standard output
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GLOBAL)]
    quiet: bool,
    /// Print more of the log; twice for all of the log. RUST_LOG selects modules
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = GLOBAL)]
    verbose: u8,
    /// Format of the lines on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, help_heading = GLOBAL)]
    log_format: LogFormat,
    /// Compute networks on the CPU with this class of instructions; the results have the same bits on every processor that supports the
    /// class: for tests, and to resume a run of another processor [default: the widest class of this processor]
    #[arg(long, global = true, value_name = "CLASS", value_parser = class_parser(), help_heading = GLOBAL)]
    kernel_class: Option<Class>,
}

/// Returns the command with its complete help.
fn command() -> clap::Command {
    help::with_help(Cli::command())
}

fn class_parser() -> impl TypedValueParser<Value = Class> {
    PossibleValuesParser::new(Class::ALL.map(Class::name)).try_map(|name| name.parse::<Class>())
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Run(run::RunArgs),
    Validate(validate::ValidateArgs),
    Graph(graph::GraphArgs),
    Schema(schema::SchemaArgs),
    Files(files::FilesArgs),
    Status(status::StatusArgs),
    Tag(tag::TagArgs),
    Diff(diff::DiffArgs),
    Plan(plan::PlanArgs),
    Explain(explain::ExplainArgs),
    Replay(replay::ReplayArgs),
    Scans(scans::ScansArgs),
    Retry(retry::RetryArgs),
    Withdraw(withdraw::WithdrawArgs),
    Vacuum(vacuum::VacuumArgs),
    Export(export::ExportArgs),
    Inspect(inspect::InspectArgs),
    Infer(infer::InferArgs),
    Evaluate(evaluate::EvaluateArgs),
    Train(train::TrainArgs),
    Calibrate(calibrate::CalibrateArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
    #[command(hide = true)]
    DecodeDicom,
}

impl Cli {
    /// Parses the arguments of the process. Help and version are printed, and a wrong usage is reported, before the process exits.
    pub fn parse_arguments() -> Self {
        let error = match command().try_get_matches().and_then(|matches| Self::from_arg_matches(&matches)) {
            Ok(cli) => return cli,
            Err(error) => error,
        };
        let arguments: Vec<_> = std::env::args_os().collect();
        let is_json = arguments.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json")
            || arguments.iter().any(|argument| argument == "--log-format=json");
        if !is_json || !error.use_stderr() {
            error.exit();
        }
        let style = MessageStyle { format: LogFormat::Json, ..MessageStyle::default() };
        style.install();
        let message = error.to_string();
        // A closed standard error loses the message, not the exit code.
        let _ = writeln!(Messages::new(style), "{}", message.lines().collect::<Vec<_>>().join(" "));
        std::process::exit(error.exit_code())
    }

    fn style(&self) -> MessageStyle {
        MessageStyle { format: self.log_format, quiet: self.quiet, verbose: self.verbose }
    }

    /// Prints an error of [`Cli::run`].
    pub fn print_error(&self, error: &Error) {
        let mut messages = Messages::new(self.style());
        // If standard error is closed, the message is lost, but not the exit code.
        let _ = writeln!(messages, "error: {error}");
        if let Some(hint) = error.hint() {
            let _ = writeln!(messages, "hint: {hint}");
        }
    }

    /// Returns the resources of this machine for reading archives and running networks.
    fn resources(&self) -> Resources {
        let (patient_secret, device, batch) = match &self.command {
            Command::Run(args) => (args.patient_key_file.clone(), args.device.kind(), args.batch()),
            Command::Train(args) => (args.patient_key_file.clone(), DeviceKind::Cpu, 1),
            Command::Plan(args) => (args.patient_key_file.clone(), DeviceKind::Cpu, 1),
            Command::Scans(scans::ScansArgs { recorded, .. })
            | Command::Retry(retry::RetryArgs { recorded, .. })
            | Command::Replay(replay::ReplayArgs { recorded, .. })
            | Command::Vacuum(vacuum::VacuumArgs { recorded, .. })
            | Command::Withdraw(withdraw::WithdrawArgs { recorded, .. }) => {
                (recorded.patient_key_file.clone(), DeviceKind::Cpu, 1)
            }
            _ => (None, DeviceKind::Cpu, 1),
        };
        // Compressed DICOM is decoded in a child process, so that a crash of a decoder fails one scan, not the run.
        let decoder = std::env::current_exe().map_or_else(|_| Decoder::in_process(), Decoder::in_child_process);
        Resources { decoder, patient_secret, networks: Networks::new(Service::new(device, batch)) }
    }

    /// Runs the subcommand and returns the exit code: 0 without failures, 1 with failed scans, cases or expectations, 2 if the command
    /// could not run.
    ///
    /// # Errors
    /// If the command could not run or had to stop.
    pub fn run(&self) -> Result<u8> {
        self.style().install();
        if let Some(class) = self.kernel_class {
            Class::select(class)?;
        }
        let (stdout, stderr): (&mut dyn Write, &mut dyn Write) =
            (&mut stdout().lock(), &mut Messages::new(self.style()));
        let registry = Registry::with_resources(&self.resources());
        match &self.command {
            Command::Run(args) => {
                crate::error::exit_on_uncaught_panics();
                run::run(args, &registry, stdout, stderr)
            }
            Command::Init(args) => init::init(args, &registry, stdout, stderr),
            Command::Validate(args) => validate::validate(args, &registry, stdout, stderr),
            Command::Graph(args) => graph::graph(args, &registry, stdout, stderr),
            Command::Schema(args) => schema::schema(args, &registry, stdout),
            Command::Files(args) => files::files(args, stdout),
            Command::Status(args) => status::status(args, stdout),
            Command::Tag(args) => tag::run(args, stdout, stderr),
            Command::Diff(args) => diff::diff(args, stdout),
            Command::Plan(args) => plan::plan(args, &registry, stdout, stderr),
            Command::Explain(args) => explain::explain(args, stdout),
            Command::Replay(args) => replay::run(args, &registry, stdout, stderr),
            Command::Scans(args) => scans::scans(args, &registry, stdout, stderr),
            Command::Retry(args) => {
                crate::error::exit_on_uncaught_panics();
                retry::run(args, &registry, stdout, stderr)
            }
            Command::Withdraw(args) => {
                crate::error::exit_on_uncaught_panics();
                withdraw::run(args, &registry, stdout, stderr)
            }
            Command::Vacuum(args) => vacuum::run(args, &registry, stdout, stderr),
            Command::Export(args) => {
                crate::error::exit_on_uncaught_panics();
                export::export(args, &registry, stdout, stderr)
            }
            Command::Inspect(args) => inspect::inspect(args, &registry, stdout),
            Command::Infer(args) => infer::infer(args, stdout),
            Command::Evaluate(args) => evaluate::evaluate(args, stdout, stderr),
            Command::Train(args) => train::train(args, &registry, stdout, stderr),
            Command::Calibrate(args) => calibrate::calibrate(args, &registry, stdout, stderr),
            Command::Completions(args) => completions::completions(args, command(), stdout),
            Command::Man(args) => completions::man(args, command(), stdout),
            Command::DecodeDicom => Ok(decode::run()),
        }
    }
}
