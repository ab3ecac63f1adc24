//! Opening of scan files, and their names.

use std::ffi::OsStr;
use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Fault, FaultKind, file_type_name};

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
        true => "the target of the link does not exist: check that its disk is mounted",
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

/// Returns whether a file is a DICOM slice, by its magic bytes.
pub fn is_dicom_slice(path: &Path) -> bool {
    let mut start = [0; 132];
    let read = |(mut file, _): (File, u64)| file.read_exact(&mut start).is_ok();
    open_regular(path).is_ok_and(read) && &start[128..] == b"DICM"
}

/// Returns a file name without the extensions `.nii` and `.nii.gz`, in upper or lower case.
pub(crate) fn stem(name: &OsStr) -> &OsStr {
    let without = |name, extension: &str| {
        let path = Path::new(name);
        let found = path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        path.file_stem().filter(|_| found).unwrap_or(name)
    };
    without(without(name, "gz"), "nii")
}

/// Returns a file name as [`stem`] does.
pub(super) fn name_stem(name: &str) -> &str {
    stem(name.as_ref()).to_str().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stem_is_name_without_extensions_of_nifti() {
        for name in ["a.nii", "a.nii.gz", "a.NII.GZ", "a.Nii.gz", "a.gz", "a"] {
            assert_eq!(name_stem(name), "a", "{name}");
        }
        for name in ["a.b", ".nii", "a.nii.bz2", "nii"] {
            assert_eq!(name_stem(name), name);
        }
        assert_eq!(name_stem("a.b.nii.gz"), "a.b");
    }
}
