//! `freetumor decode-dicom`: decodes compressed DICOM slices for another `freetumor` process, apart from it.

use std::io::{BufWriter, stdin, stdout};

use crate::ingest::dicom::serve;

/// Serves requests on standard input until it ends; 2 where it is spoken to by something else.
pub fn run() -> u8 {
    match serve(stdin().lock(), BufWriter::new(stdout().lock())) {
        Ok(()) => 0,
        Err(_) => 2,
    }
}
