//! The command: a file for each subcommand, which parses arguments, calls the library and prints.
//!
//! This room owns flags, messages on the terminal and exit codes: 0 without failures, 1 with failed scans or cases, 2 if the command
//! could not run. Results go to standard output; progress, warnings and errors to standard error.

pub mod decode;
pub mod evaluate;
pub mod export;
pub mod files;
pub mod graph;
pub mod infer;
pub mod inspect;
mod load;
pub mod network;
mod print;
mod progress;
pub mod run;
mod scan;
pub mod schema;
mod stream;
pub mod train;
pub mod validate;

use std::io::{IsTerminal, Write, stderr, stdout};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};

use crate::error::Result;
use crate::graph::{Registry, Resources};
use crate::inference::Networks;
use crate::ingest::dicom::Decoder;
use crate::nn::device::DeviceKind;
use crate::nn::service::Service;
use crate::simd::Class;

/// Turns unlabeled CT archives into quality-filtered, traceable training sets of synthetic tumors.
#[derive(Debug, Parser)]
#[command(name = "freetumor", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Format of log lines on standard error; RUST_LOG selects their level, such as info or freetumor=debug
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Compute networks on the CPU with this class of instructions; the results are the same bits on every processor that supports the
    /// class: for tests, and to resume a run of another processor [default: the widest of this processor]
    #[arg(long, global = true, value_name = "CLASS", value_parser = class_parser())]
    kernel_class: Option<Class>,
}

fn class_parser() -> impl TypedValueParser<Value = Class> {
    PossibleValuesParser::new(Class::ALL.map(Class::name)).try_map(|name| name.parse::<Class>())
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Validate(validate::ValidateArgs),
    Graph(graph::GraphArgs),
    Schema(schema::SchemaArgs),
    Files(files::FilesArgs),
    Export(export::ExportArgs),
    Inspect(inspect::InspectArgs),
    Infer(infer::InferArgs),
    Evaluate(evaluate::EvaluateArgs),
    Train(train::TrainArgs),
    #[command(hide = true)]
    DecodeDicom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

impl Cli {
    /// Returns the resources of this machine for reading archives and running networks.
    fn resources(&self) -> Resources {
        let (patient_secret, device, batch) = match &self.command {
            Command::Run(args) => (args.patient_key_file.clone(), args.device.kind(), args.batch()),
            Command::Train(args) => (args.patient_key_file.clone(), DeviceKind::Cpu, 1),
            _ => (None, DeviceKind::Cpu, 1),
        };
        // Compressed DICOM is decoded in a child process, so that a crash of a decoder fails one scan, not the run.
        let decoder = std::env::current_exe().map_or_else(|_| Decoder::in_process(), Decoder::child);
        Resources { decoder, patient_secret, networks: Networks::new(Service::new(device, batch)) }
    }

    /// Runs the subcommand and returns the exit code: 0 without failures, 1 with failed scans or cases, 2 if the command could not run.
    ///
    /// # Errors
    /// If the command could not run or had to stop.
    pub fn run(&self) -> Result<u8> {
        start_log(self.log_format);
        if let Some(class) = self.kernel_class {
            Class::select(class)?;
        }
        let (stdout, stderr): (&mut dyn Write, &mut dyn Write) = (&mut stdout().lock(), &mut stderr());
        let registry = Registry::with_resources(&self.resources());
        match &self.command {
            Command::Run(args) => {
                crate::error::exit_on_uncaught_panics();
                run::run(args, &registry, stdout, stderr)
            }
            Command::Validate(args) => validate::validate(args, &registry, stdout, stderr),
            Command::Graph(args) => graph::graph(args, &registry, stdout, stderr),
            Command::Schema(args) => schema::schema(args, &registry, stdout),
            Command::Files(args) => files::files(args, stdout),
            Command::Export(args) => {
                crate::error::exit_on_uncaught_panics();
                export::export(args, &registry, stdout, stderr)
            }
            Command::Inspect(args) => inspect::inspect(args, stdout),
            Command::Infer(args) => infer::infer(args, stdout),
            Command::Evaluate(args) => evaluate::evaluate(args, stdout, stderr),
            Command::Train(args) => train::train(args, &registry, stdout, stderr),
            Command::DecodeDicom => Ok(decode::run()),
        }
    }
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    // Each span logs its duration when it closes: one line per stage and scan at level info.
    let log = log.with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
