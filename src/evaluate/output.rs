//! Files that an evaluation writes: whole, in place of earlier ones.

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::store::write_whole;

/// A value as indented JSON, with a line end.
pub(super) fn to_json(name: &str, value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(format!("cannot write the {name}: {error}")).with_source(error))?;
    Ok(format!("{json}\n"))
}

pub(super) fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| Error::io("cannot make the folder", path, error))
}

pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, |out| out.write_all(bytes)).map_err(|error| Error::io("cannot write", path, error))
}
