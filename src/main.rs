//! The `freetumor` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("decode-dicom") => ExitCode::from(freetumor::cli::decode::run()),
        _ => ExitCode::SUCCESS,
    }
}
