//! Files of a training, there whole or not at all.

use std::path::Path;

use crate::error::{Error, Result};
use crate::store::write_whole;

/// Writes a file beside `path`, syncs it, and renames it over whatever was there.
///
/// # Errors
/// Where it cannot be written; what was there stays.
pub(super) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, |out| out.write_all(bytes)).map_err(|error| {
        let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let error = Error::io("cannot write", path, error);
        if full { error.with_hint("free some space and go on with --resume") } else { error }
    })
}
