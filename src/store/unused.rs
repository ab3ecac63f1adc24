//! Check for unused folders: no command writes into a folder with other files.

use std::path::Path;

use crate::error::{Error, Result};

/// Returns the first name in a folder that is not in `own`; `None` if there is no such name or the folder does not exist.
///
/// # Errors
/// If the folder cannot be listed.
///
/// ```
/// use freetumor::store::first_foreign;
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("lock"), "")?;
/// assert_eq!(first_foreign(folder.path(), &["lock"])?, None);
/// assert_eq!(first_foreign(folder.path(), &[])?.as_deref(), Some("lock"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn first_foreign(folder: &Path, own: &[&str]) -> Result<Option<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("cannot list", folder, error)),
    };
    let names = entries.filter_map(|entry| entry.ok()).map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| !own.contains(&name.as_str())).min())
}
