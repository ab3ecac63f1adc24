//! File systems without hard links.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub(super) const NO_LINKS_HINT: &str =
    "choose a folder on one file system with hard links (not FAT, exFAT, or most mounts of object stores)";

/// Checks that files below a path, which need not exist, can be created and have hard links. No file remains.
///
/// # Errors
/// If the path or its nearest existing parent is not writable, or the file system has no hard links.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// freetumor::store::check_writable(&folder.path().join("a/b"))?;
/// assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
/// std::fs::write(folder.path().join("a"), "a file")?;
/// assert!(freetumor::store::check_writable(&folder.path().join("a/b")).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check_writable(path: &Path) -> Result<()> {
    let unwritable = |cause| Error::io("cannot create", path, cause).with_hint("choose a writable folder with `--out`");
    let folder = existing_parent(path).map_err(unwritable)?;
    let file = probe(&folder).map_err(unwritable)?;
    check_link(&file, path)
}

/// Checks that files below a path, which need not exist, can have hard links. No file remains. A path that is not writable is not an
/// error here.
///
/// # Errors
/// If the file system has no hard links.
pub fn check_links(path: &Path) -> Result<()> {
    match existing_parent(path).and_then(|folder| probe(&folder)) {
        Ok(file) => check_link(&file, path),
        Err(_) => Ok(()),
    }
}

/// Returns the path or its nearest parent that exists.
fn existing_parent(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let parent = path.ancestors().find(|parent| parent.exists()).unwrap_or(&path);
    Ok(parent.to_owned())
}

/// Creates a temporary file, which is removed on drop.
fn probe(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(super::UNFINISHED).tempfile_in(folder)
}

fn check_link(file: &tempfile::NamedTempFile, path: &Path) -> Result<()> {
    let second = file.path().with_extension("link");
    let linked = std::fs::hard_link(file.path(), &second);
    // The link exists only if it was created.
    let _ = std::fs::remove_file(&second);
    match linked {
        Err(error) if is_without_links(&error) => Err(no_links_error(path, error)),
        _ => Ok(()),
    }
}

/// Returns the error for a path on a file system without hard links.
pub(super) fn no_links_error(path: &Path, error: io::Error) -> Error {
    let message = format!("hard links cannot be created at {}: {error}", path.display());
    Error::new(message).with_hint(NO_LINKS_HINT).with_source(error)
}

/// Returns whether an error of creating a hard link is that of a file system without hard links: FAT returns EPERM, others ENOTSUP or
/// ENOSYS. A folder without write permission returns EACCES.
#[cfg(unix)]
pub(super) fn is_without_links(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::PERM, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS];
    Errno::from_io_error(error).is_some_and(|errno| codes.contains(&errno))
}

#[cfg(not(unix))]
pub(super) fn is_without_links(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn error_codes_without_link_support_are_recognized() {
        for errno in [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS] {
            assert!(is_without_links(&errno.into()), "{errno:?}");
        }
        for errno in [Errno::ACCESS, Errno::EXIST, Errno::XDEV, Errno::NOSPC] {
            assert!(!is_without_links(&errno.into()), "{errno:?}");
        }
        let error = no_links_error(Path::new("run"), Errno::PERM.into());
        assert!(error.to_string().contains("hard links") && error.hint().is_some(), "{error}");
    }
}
