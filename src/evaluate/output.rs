//! Atomic writes of the files of an evaluation.

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::store::write_atomic;

/// Serializes a value as indented JSON with a trailing newline.
pub(super) fn to_json(name: &str, value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(format!("cannot write the {name}: {error}")).with_source(error))?;
    Ok(format!("{json}\n"))
}

pub(super) fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| Error::io("cannot create the folder", path, error))
}

pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |out| out.write_all(bytes)).map_err(|error| Error::io("cannot write", path, error))
}
