//! `freetumor decode-dicom`: decodes compressed DICOM slices for another `freetumor` process, apart from it.

use std::io::{BufWriter, stdin, stdout};
use std::process::ExitCode;

use freetumor::ingest::dicom::serve;

/// Serves requests on standard input until it ends; 2 where it is spoken to by something else.
pub fn run() -> ExitCode {
    match serve(stdin().lock(), BufWriter::new(stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}
