//! One writer at a time, where the file system knows locks.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::{fmt, io};

use crate::error::{Error, ErrorKind};

/// An exclusive lock. Dropping it releases the lock; the system does so when the process ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child of this process that has not reached its program yet has it open, too.
        let _ = self.file.unlock();
    }
}

/// Why a lock could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held,
    /// The file system does not know locks, as some network shares.
    Unsupported,
    /// The file could not be created or locked.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("it is locked by another process"),
            Self::Unsupported => f.write_str("its file system does not support locks"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LockError {}

/// Locks a file, which is created where it does not exist, for its owner only; its content is lost. It does not wait.
///
/// # Errors
/// Where another process has the lock, or it cannot be taken.
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

/// Locks a file as [`lock`] does; `None` where the file system does not support locks. `held` is the error where another process has
/// the lock.
///
/// # Errors
/// That of `held`, or where the file cannot be created or locked.
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
    // What file systems answer that have no locks, or whose server has none.
    let answers = [Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOLCK, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| answers.contains(&errno))
}

#[cfg(not(unix))]
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_in_a_missing_folder_is_an_io_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = lock(&folder.path().join("missing/lock")).unwrap_err();
        assert!(matches!(&error, LockError::Io(cause) if cause.kind() == io::ErrorKind::NotFound), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn answers_of_file_systems_without_locks_are_known() {
        use rustix::io::Errno;
        assert!(is_unsupported(&Errno::NOLCK.into()) && is_unsupported(&Errno::OPNOTSUPP.into()));
        assert!(!is_unsupported(&Errno::IO.into()) && !is_unsupported(&io::Error::other("else")));
    }
}
