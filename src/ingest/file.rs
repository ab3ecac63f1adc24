//! Opening of scan files, and their names.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Fault, FaultKind, file_type_name};

/// Opens a regular file and returns it with its length in bytes.
///
/// # Errors
/// Returns `missing` if the file does not exist; `unsupported` if the path is not a regular file, such as a named pipe, which would
/// block until a writer opens it; `io` if the system cannot open the file.
pub(super) fn open_regular(path: &Path) -> Result<(File, u64), Fault> {
    let open_fault = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => missing(path),
        kind => Fault::read(FaultKind::Io, format!("the system cannot open the file: {kind}")),
    };
    // Checked before opening, because opening a named pipe blocks.
    let metadata = path.metadata().map_err(open_fault)?;
    check_regular(metadata.file_type())?;
    Ok((File::open(path).map_err(open_fault)?, metadata.len()))
}

/// Returns the fault of a path that does not exist, or that is a link to such a path.
pub(super) fn missing(path: &Path) -> Fault {
    let message = match path.is_symlink() {
        true => "the target of the link does not exist: check that the disk of the target is mounted",
        false => "the file does not exist",
    };
    Fault::read(FaultKind::Missing, message)
}

/// Returns `unsupported` if the file type is not a regular file; the message names the type.
pub(super) fn check_regular(file_type: FileType) -> Result<(), Fault> {
    if file_type.is_file() {
        return Ok(());
    }
    Err(Fault::read(FaultKind::Unsupported, format!("expected a file, got {}", file_type_name(file_type))))
}

/// Checks that a folder of scans is still there and not empty: an unmounted disk leaves an empty folder.
///
/// # Errors
/// Returns an error if the folder cannot be listed or is empty.
pub(super) fn check_root(root: &Path) -> crate::error::Result<()> {
    let gone = |cause: &str| {
        let error = Error::new(format!("the folder of scans {} is gone: {cause}", root.display()));
        Err(error.with_hint("mount its disk and run the same command again to resume; committed epochs stay"))
    };
    match std::fs::read_dir(root).and_then(|mut entries| entries.next().transpose()) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => gone("it is empty"),
        Err(error) => gone(&error.kind().to_string()),
    }
}

/// Returns whether a file is a DICOM slice, by its magic bytes.
pub fn is_dicom_slice(path: &Path) -> bool {
    let mut start = [0; 132];
    let read = |(mut file, _): (File, u64)| file.read_exact(&mut start).is_ok();
    open_regular(path).is_ok_and(read) && &start[128..] == b"DICM"
}

/// Endings of files that contain a scan or a label map, in lower case.
const VOLUME_ENDINGS: [&str; 6] = [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"];

/// Returns the name of a NIfTI, NRRD or MetaImage file without its ending, in upper or lower case; `None` for the name of another file.
///
/// ```
/// use freetumor::ingest::case_name;
/// assert_eq!(case_name("case-1.nii.gz"), Some("case-1"));
/// assert_eq!(case_name("CASE-1.MHD"), Some("CASE-1"));
/// assert_eq!(case_name("case-1.raw"), None);
/// ```
pub fn case_name(name: &str) -> Option<&str> {
    VOLUME_ENDINGS.iter().find_map(|ending| {
        let (case, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
        end.eq_ignore_ascii_case(ending).then_some(case)
    })
}

/// Returns a file name without the ending of a scan or a label map.
pub(super) fn stem(name: &str) -> &str {
    case_name(name).unwrap_or(name)
}
