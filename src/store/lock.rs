//! File locks, for one writer at a time if the file system supports locks.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::{fmt, io};

use crate::error::{Error, ErrorKind};

/// An exclusive lock, released on drop or when the process ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a forked child that has not called `exec` yet also has the file open.
        let _ = self.file.unlock();
    }
}

/// The reason why a lock could not be acquired.
#[derive(Debug)]
pub enum LockError {
    /// Another process has locked the file.
    Held,
    /// The file system does not support locks; some network shares do not.
    Unsupported,
    /// The file could not be created or locked.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("the file is locked by another process"),
            Self::Unsupported => f.write_str("the file system does not support locks"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LockError {}

/// Locks a file without waiting for another process that has locked the file. Creates the file if absent, accessible only to its owner;
/// an existing file becomes empty.
///
/// # Errors
/// If another process holds the lock or the lock cannot be acquired.
///
/// ```
/// use freetumor::store::{LockError, lock};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("lock");
/// let first = lock(&path)?;
/// assert!(matches!(lock(&path), Err(LockError::Held)));
/// drop(first);
/// assert!(lock(&path).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lock(path: &Path) -> Result<FileLock, LockError> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(LockError::Io)?;
    match file.try_lock() {
        Ok(()) => Ok(FileLock { file }),
        Err(TryLockError::WouldBlock) => Err(LockError::Held),
        Err(TryLockError::Error(error)) if is_unsupported(&error) => Err(LockError::Unsupported),
        Err(TryLockError::Error(error)) => Err(LockError::Io(error)),
    }
}

/// Returns whether a process holds the lock of a file, without acquiring it, which would disturb a process that starts; `None` if the
/// system does not tell.
///
/// ```
/// use freetumor::store::{is_locked, lock};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("lock");
/// assert_ne!(is_locked(&path), Some(true));
/// let held = lock(&path)?;
/// assert_ne!(is_locked(&path), Some(false));
/// drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn is_locked(path: &Path) -> Option<bool> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let Ok(metadata) = path.metadata() else { return Some(false) };
        let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let file = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
        // A line is `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`.
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        Some(locks.lines().any(|line| line.split_whitespace().nth(5) == Some(file.as_str())))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

/// Locks a file as [`lock`] does; `None` if the file system does not support locks. `held` creates the error if another process holds
/// the lock.
///
/// # Errors
/// The error of `held`, or an error if the file cannot be created or locked.
pub fn lock_if_supported(path: &Path, held: impl FnOnce() -> Error) -> crate::error::Result<Option<FileLock>> {
    match lock(path) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Unsupported) => Ok(None),
        Err(LockError::Held) => Err(held().with_kind(ErrorKind::Locked)),
        Err(LockError::Io(cause)) => Err(Error::io("cannot lock", path, cause)),
    }
}

#[cfg(unix)]
fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // The error codes of file systems without locks, or whose server has no locks.
    let codes = [Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOLCK, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| codes.contains(&errno))
}

#[cfg(not(unix))]
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_in_missing_folder_is_io_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = lock(&folder.path().join("missing/lock")).unwrap_err();
        assert!(matches!(&error, LockError::Io(cause) if cause.kind() == io::ErrorKind::NotFound), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn error_codes_without_lock_support_are_unsupported() {
        use rustix::io::Errno;
        assert!(is_unsupported(&Errno::NOLCK.into()) && is_unsupported(&Errno::OPNOTSUPP.into()));
        assert!(!is_unsupported(&Errno::IO.into()) && !is_unsupported(&io::Error::other("else")));
    }
}
