//! The `freetumor` command: parse, run, report, exit code.

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;
use freetumor::cli::Cli;
use freetumor::nn::kernel::prepare_process;

fn main() -> ExitCode {
    prepare_process(1);
    match Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // If standard error is closed, the message is lost, but not the exit code.
            let _ = writeln!(stderr(), "error: {error}");
            if let Some(hint) = error.hint() {
                let _ = writeln!(stderr(), "hint: {hint}");
            }
            ExitCode::from(2)
        }
    }
}
