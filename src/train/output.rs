//! Atomic writes of the files of a training run.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::nn::weights::{Precision, write_safetensors};
use crate::store::write_atomic;

/// Writes a temporary file next to `path`, syncs it, and renames it to `path`.
///
/// # Errors
/// Returns an error if the file cannot be written; the previous file stays.
pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, |out| out.write_all(bytes))
}

/// Writes tensors in the format of [`write_safetensors`], atomically.
///
/// # Errors
/// Returns an error if the file cannot be written, or the tensors cannot be stored in the format; the previous file stays.
pub(super) fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
    precision: Precision,
) -> Result<()> {
    write(path, |out| write_safetensors(out, tensors, metadata, precision))
}

fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_atomic(path, fill).map_err(|error| {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let error = Error::io("cannot write", path, error);
        if full { error.with_hint("free disk space, then resume with `--resume`") } else { error }
    })
}
