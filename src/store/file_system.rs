//! The primitive operations of a file system, small enough that a test can interrupt between any two of them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The operations of a file system, without a guarantee of durability except by [`FileSystem::sync`]. Names are relative, with components
/// separated by `/`; the empty name is the root.
///
/// # Errors
/// The errors of the operating system: `NotFound` if the name does not exist, `AlreadyExists` if the new name of a link exists.
pub trait FileSystem: Send + Sync {
    /// Creates an empty file that only its owner may access; truncates an existing file.
    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>>;

    /// Opens a file for reading.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;

    /// Opens a file for reading from a byte offset. The default implementation reads and discards the bytes before the offset.
    fn open_at(&self, name: &str, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.open(name)?;
        io::copy(&mut file.by_ref().take(offset), &mut io::sink())?;
        Ok(file)
    }

    /// Syncs the content of a file, or the list of names in a folder, so that it survives a power loss.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Creates one folder, readable only by its owner if `private`; an existing folder is not an error.
    fn make_folder(&self, name: &str, private: bool) -> io::Result<()>;

    /// Copies the read permissions of `folder` to a file.
    fn make_public(&self, name: &str, folder: &str) -> io::Result<()>;

    /// Removes the permissions of other users from a folder and its content, if the folder exists. Files with a second hard link are
    /// unchanged: committed files stay readable.
    fn make_private(&self, folder: &str) -> io::Result<()>;

    /// Creates a hard link; the new name must not exist.
    fn link(&self, name: &str, second: &str) -> io::Result<()>;

    /// Returns whether two names are hard links to one file. The default implementation recognizes no links.
    fn is_same_file(&self, _name: &str, _second: &str) -> io::Result<bool> {
        Ok(false)
    }

    /// Renames a file and replaces an existing file of the new name.
    fn rename(&self, name: &str, new: &str) -> io::Result<()>;

    /// Removes a file, or a folder with its content.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns whether a file or folder of that name exists.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Returns the length of a file in bytes.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// Returns the names in a folder, in any order.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
}

/// The local file system below a root folder.
#[derive(Clone, Debug)]
pub struct LocalFileSystem {
    root: PathBuf,
}

impl LocalFileSystem {
    /// Creates a file system rooted at `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn file(&self, name: &str) -> io::Result<File> {
        let path = self.path(name);
        // Linux opens a folder without an error and fails at the first read.
        if path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"));
        }
        File::open(path)
    }
}

impl FileSystem for LocalFileSystem {
    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(BufWriter::with_capacity(1 << 18, options.open(self.path(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.file(name)?))
    }

    fn open_at(&self, name: &str, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.file(name)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.path(name))?.sync_all()
    }

    fn make_folder(&self, name: &str, private: bool) -> io::Result<()> {
        let path = self.path(name);
        let mut builder = DirBuilder::new();
        builder.recursive(name.is_empty());
        #[cfg(unix)]
        if private {
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        }
        match builder.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Ok(()) if name.is_empty() => {
                // The parent of a bare name is the empty path.
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                File::open(parent)?.sync_all()
            }
            result => result,
        }
    }

    #[cfg(unix)]
    fn make_public(&self, name: &str, folder: &str) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(self.path(folder))?.permissions().mode() & 0o644;
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode))
    }

    #[cfg(not(unix))]
    fn make_public(&self, _name: &str, _folder: &str) -> io::Result<()> {
        Ok(())
    }

    #[cfg(unix)]
    fn make_private(&self, folder: &str) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        for entry in walkdir::WalkDir::new(self.path(folder)) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            let (metadata, is_folder) = (entry.metadata().map_err(io::Error::from)?, entry.file_type().is_dir());
            let mode = if is_folder { 0o700 } else { 0o600 };
            let is_shared = !is_folder && metadata.nlink() > 1;
            if !is_shared && !entry.file_type().is_symlink() && metadata.permissions().mode() & 0o777 != mode {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode))?;
            }
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn make_private(&self, _folder: &str) -> io::Result<()> {
        Ok(())
    }

    fn link(&self, name: &str, second: &str) -> io::Result<()> {
        fs::hard_link(self.path(name), self.path(second))
    }

    #[cfg(unix)]
    fn is_same_file(&self, name: &str, second: &str) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let [own, other] = [fs::metadata(self.path(name))?, fs::metadata(self.path(second))?];
        Ok(own.dev() == other.dev() && own.ino() == other.ino())
    }

    fn rename(&self, name: &str, new: &str) -> io::Result<()> {
        fs::rename(self.path(name), self.path(new))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        if fs::symlink_metadata(&path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path(name).try_exists()
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.len())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        fs::read_dir(self.path(folder))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}
