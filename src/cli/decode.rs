//! `freetumor decode-dicom`: decodes compressed DICOM slices for another `freetumor` process.

use std::io::{BufWriter, stdin, stdout};

use crate::ingest::dicom::serve;

/// Decodes the DICOM slices requested on standard input until end of file; returns exit code 2 if a request is invalid or a pipe breaks.
pub fn run() -> u8 {
    match serve(stdin().lock(), BufWriter::new(stdout().lock())) {
        Ok(()) => 0,
        Err(_) => 2,
    }
}
