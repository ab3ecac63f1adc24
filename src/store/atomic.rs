//! Atomic writes of single files outside of run folders.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes or replaces a file atomically: the content is written to a temporary file in the same folder, synced and renamed. After a
/// crash the path has either the old or the complete new content.
///
/// # Errors
/// If the file cannot be written or `fill` fails; the temporary file is removed.
///
/// ```
/// use std::io::Write;
/// use freetumor::store::write_atomic;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("a.txt");
/// write_atomic(&path, |out| out.write_all(b"one"))?;
/// let failed = write_atomic(&path, |out| out.write_all(b"two").and(Err(std::io::Error::other("stopped"))));
/// assert!(failed.is_err() && std::fs::read(&path)? == b"one");
/// assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    write_named(folder, fill, |()| path.to_owned())
}

/// Writes or replaces a file as [`write_atomic`] does, with mode 0600, also while it is being written.
///
/// # Errors
/// The same errors as [`write_atomic`].
pub fn write_private(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    write_with_mode(folder, 0o600, fill, |()| path.to_owned())
}

/// The prefix of temporary files of [`write_atomic`] and [`write_named`]: a killed process may leave one.
pub const UNFINISHED: &str = ".staged-";

/// Writes a file in `folder` as [`write_atomic`] does, with a name that is derived from the content: `path` maps the result of `fill` to
/// the path of the file, in the same folder. Returns the result of `fill`.
///
/// # Errors
/// The same errors as [`write_atomic`].
pub fn write_named<T>(
    folder: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    path: impl FnOnce(&T) -> PathBuf,
) -> io::Result<T> {
    // The umask applies.
    write_with_mode(folder, 0o666, fill, path)
}

#[cfg_attr(not(unix), allow(unused_variables, reason = "modes exist on Unix only"))]
fn write_with_mode<T>(
    folder: &Path,
    mode: u32,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    path: impl FnOnce(&T) -> PathBuf,
) -> io::Result<T> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    let staged = builder.prefix(UNFINISHED).tempfile_in(folder)?;
    let mut file = BufWriter::new(staged.as_file());
    let written = fill(&mut file)?;
    file.flush()?;
    drop(file);
    staged.as_file().sync_all()?;
    staged.persist(path(&written)).map_err(|error| error.error)?;
    // The rename is durable after the sync of the folder.
    File::open(folder)?.sync_all()?;
    Ok(written)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn written_file_has_default_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, plain] = ["whole", "plain"].map(|name| folder.path().join(name));
        write_atomic(&whole, |out| out.write_all(b"one")).unwrap();
        std::fs::write(&plain, b"one").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }
}
