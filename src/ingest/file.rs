//! Files of scans: opening them, and their names.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Fault, FaultKind};

/// Opens a regular file, and says how long it is.
///
/// # Errors
/// `missing` where there is none; `unsupported` for anything else, such as a named pipe, which would wait for a writer for
/// ever; `io` where the system refuses.
pub(super) fn open_regular(path: &Path) -> Result<(File, u64), Fault> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Fault::read(FaultKind::Missing, "the file is not there"),
        kind => Fault::read(FaultKind::Io, format!("the system cannot open the file: {kind}")),
    };
    // Asked before opening.
    let metadata = path.metadata().map_err(refused)?;
    check_regular(metadata.file_type())?;
    Ok((File::open(path).map_err(refused)?, metadata.len()))
}

/// Refuses what is no file, by its name.
pub(super) fn check_regular(file_type: FileType) -> Result<(), Fault> {
    if file_type.is_file() {
        return Ok(());
    }
    Err(Fault::read(FaultKind::Unsupported, format!("expected a file, came {}", name_of(file_type))))
}

#[cfg(unix)]
fn name_of(file_type: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if file_type.is_dir() => "a folder",
        () if file_type.is_fifo() => "a named pipe",
        () if file_type.is_socket() => "a socket",
        () if file_type.is_char_device() || file_type.is_block_device() => "a device",
        () => "something else",
    }
}

#[cfg(not(unix))]
fn name_of(file_type: FileType) -> &'static str {
    if file_type.is_dir() { "a folder" } else { "something else" }
}

/// Whether a file is a DICOM slice, by its magic.
pub fn is_dicom_slice(path: &Path) -> bool {
    let mut start = [0; 132];
    let read = |(mut file, _): (File, u64)| file.read_exact(&mut start).is_ok();
    open_regular(path).is_ok_and(read) && &start[128..] == b"DICM"
}

/// A file name without the endings of its format.
pub(super) fn stem(name: &str) -> &str {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.strip_suffix(".nii").unwrap_or(name)
}
