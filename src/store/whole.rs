//! A single file outside of any run folder, there whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes a file, or replaces it: beside its place first, synced, then renamed. Whatever stops the machine, its name has
/// the old content or all of the new one.
///
/// # Errors
/// Where the file cannot be written, or `fill` fails; nothing is left behind.
///
/// ```
/// use std::io::Write;
/// use freetumor::store::write_whole;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("a.txt");
/// write_whole(&path, |out| out.write_all(b"one"))?;
/// let failed = write_whole(&path, |out| out.write_all(b"two").and(Err(std::io::Error::other("stopped"))));
/// assert!(failed.is_err() && std::fs::read(&path)? == b"one");
/// assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    write_named(folder, fill, |()| path.to_owned())
}

/// What the names of unfinished files of [`write_whole`] and [`write_named`] begin with: a process that is killed may leave one.
pub const UNFINISHED: &str = ".staged-";

/// As [`write_whole`] for a file whose name follows from its content: `path`, in the same folder, is a function of what `fill`
/// returns, which is returned in turn.
///
/// # Errors
/// As for [`write_whole`].
pub fn write_named<T>(
    folder: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    path: impl FnOnce(&T) -> PathBuf,
) -> io::Result<T> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    // Less what the process takes away from every file that it makes; temporary ones are their owner's alone otherwise.
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let staged = builder.prefix(UNFINISHED).tempfile_in(folder)?;
    let mut file = BufWriter::new(staged.as_file());
    let written = fill(&mut file)?;
    file.flush()?;
    drop(file);
    staged.as_file().sync_all()?;
    staged.persist(path(&written)).map_err(|error| error.error)?;
    // The rename itself is durable once the folder is.
    File::open(folder)?.sync_all()?;
    Ok(written)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn others_may_read_what_they_may_read_of_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, plain] = ["whole", "plain"].map(|name| folder.path().join(name));
        write_whole(&whole, |out| out.write_all(b"one")).unwrap();
        std::fs::write(&plain, b"one").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }
}
