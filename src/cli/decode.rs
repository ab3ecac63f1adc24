//! `freetumor decode-dicom`: decodes compressed DICOM slices for another `freetumor` process.

use std::io::{BufWriter, stdin, stdout};

use crate::ingest::dicom::serve;

/// Serves requests on standard input until its end; returns exit code 2 after an invalid request.
pub fn run() -> u8 {
    match serve(stdin().lock(), BufWriter::new(stdout().lock())) {
        Ok(()) => 0,
        Err(_) => 2,
    }
}
