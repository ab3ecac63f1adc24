//! The names of file types in messages.

use std::fs::FileType;

/// Returns the name of a file type in messages, such as `a folder` or `a named pipe`.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let file_type = std::fs::metadata(folder.path())?.file_type();
/// assert_eq!(freetumor::error::file_type_name(file_type), "a folder");
/// # Ok::<(), std::io::Error>(())
/// ```
#[cfg(unix)]
pub fn file_type_name(file_type: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if file_type.is_file() => "a file",
        () if file_type.is_dir() => "a folder",
        () if file_type.is_symlink() => "a symbolic link",
        () if file_type.is_fifo() => "a named pipe",
        () if file_type.is_socket() => "a socket",
        () if file_type.is_char_device() || file_type.is_block_device() => "a device",
        () => "a file of unknown type",
    }
}

/// Returns the name of a file type in messages, such as `a folder`.
#[cfg(not(unix))]
pub fn file_type_name(file_type: FileType) -> &'static str {
    match () {
        () if file_type.is_file() => "a file",
        () if file_type.is_dir() => "a folder",
        () if file_type.is_symlink() => "a symbolic link",
        () => "a file of unknown type",
    }
}
