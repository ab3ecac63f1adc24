//! Files that are there whole or not at all.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a file beside `path`, syncs it, and renames it over whatever was there.
///
/// # Errors
/// Where it cannot be written; what was there stays.
pub(super) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let io = |error: std::io::Error| {
        let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let error = Error::io("cannot write", path, error);
        if full { error.with_hint("free some space and go on with --resume") } else { error }
    };
    let mut staged = tempfile::Builder::new().prefix(".staged-").tempfile_in(folder).map_err(io)?;
    staged.write_all(bytes).and_then(|()| staged.as_file().sync_all()).map_err(io)?;
    staged.persist(path).map_err(|error| io(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_replaced_or_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert!(write_atomic(&folder.path().join("none/a"), b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing staged stays");
    }
}
