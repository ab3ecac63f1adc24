//! What a file system does, step by step: small enough that a test can stop it between any two steps.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The operations of a file system, without any promise of durability except for [`Disk::sync`]. Names are relative,
/// parts separated by `/`; the empty name is the root.
///
/// # Errors
/// As the operating system says: `NotFound` where there is nothing of that name, `AlreadyExists` where a link's new
/// name is taken.
pub trait Disk: Send + Sync {
    /// A new, empty file, for its owner only; one that exists is emptied.
    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>>;

    /// A file, to be read.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;

    /// A file, to be read from a byte on; a disk that can seek need not read what is before.
    fn open_at(&self, name: &str, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.open(name)?;
        io::copy(&mut file.by_ref().take(offset), &mut io::sink())?;
        Ok(file)
    }

    /// Makes a file's content, or a folder's list of names, survive a loss of power.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Makes one folder, readable by its owner only where `private`; one that exists is fine.
    fn make_folder(&self, name: &str, private: bool) -> io::Result<()>;

    /// Makes a file readable by those who may read `folder`, as the umask or whoever made the folder has decided.
    fn make_public(&self, name: &str, folder: &str) -> io::Result<()>;

    /// Takes the permissions of others from a folder and all that is in it, where it exists. Files with a second name are left as
    /// they are: what is committed stays readable.
    fn make_private(&self, folder: &str) -> io::Result<()>;

    /// Gives a file a second name, which must be free.
    fn link(&self, name: &str, second: &str) -> io::Result<()>;

    /// Gives a file another name, which may be taken.
    fn rename(&self, name: &str, new: &str) -> io::Result<()>;

    /// Removes a file, or a folder with all that is in it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Whether there is a file or folder of that name.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// The length of a file.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// The names in a folder, in any order.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
}

/// A folder of this machine's file system.
#[derive(Clone, Debug)]
pub struct LocalDisk {
    root: PathBuf,
}

impl LocalDisk {
    /// Everything below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn file(&self, name: &str) -> io::Result<File> {
        let path = self.path(name);
        // Linux opens a folder happily and fails at the first read.
        if path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        File::open(path)
    }
}

impl Disk for LocalDisk {
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
                // A bare name has the empty path as its parent.
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
