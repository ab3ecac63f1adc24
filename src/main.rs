//! The `freetumor` command.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("decode-dicom") => cli::decode::run(),
        _ => ExitCode::SUCCESS,
    }
}
