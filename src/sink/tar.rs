//! Tar archives whose headers contain only names and lengths: equal members have equal bytes.

use std::io::{self, Read, Write};

/// Bytes of a tar block; headers and contents start at multiples of the block size.
pub const BLOCK_BYTES: u64 = 512;

/// Calls `visit` with the name and the content of every file in an archive, in the order of the archive.
///
/// # Errors
/// If the archive cannot be read, or `visit` returns an error.
pub fn for_each_member(
    archive: impl Read,
    visit: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    for member in tar::Archive::new(archive).entries()? {
        let mut member = member?;
        let name = member.path()?.to_string_lossy().into_owned();
        if member.header().entry_type().is_file() {
            visit(&name, &mut member)?;
        }
    }
    Ok(())
}

/// A writer of an archive or of a part of an archive: concatenated parts form an archive, which ends with two empty blocks.
///
/// ```
/// use freetumor::sink::tar::TarWriter;
/// let mut archive = TarWriter::new(Vec::new());
/// archive.append("key.json", 2, &mut &b"{}"[..])?;
/// archive.finish()?;
/// let bytes = archive.into_inner();
/// assert_eq!(bytes.len() % 512, 0);
/// assert_eq!(tar::Archive::new(&bytes[..]).entries()?.count(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TarWriter<W> {
    out: W,
    written: u64,
}

impl<W: Write> TarWriter<W> {
    /// Creates a writer whose first member starts at the current position of `out`.
    pub fn new(out: W) -> Self {
        Self { out, written: 0 }
    }

    /// Returns the number of bytes written so far: the offset of the next member's header.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes a regular file of `length` bytes.
    ///
    /// # Errors
    /// If the name is longer than tar allows, `content` has another length, or writing fails.
    pub fn append(&mut self, name: &str, length: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(length);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        let copied = io::copy(&mut content.take(length + 1), &mut self.out)?;
        if copied != length {
            return Err(io::Error::other(format!("{name}: expected {length} bytes, got {copied}")));
        }
        let padding = length.next_multiple_of(BLOCK_BYTES) - length;
        // The padding is shorter than one block.
        self.out.write_all(&[0; BLOCK_BYTES as usize][..padding as usize])?;
        self.written += BLOCK_BYTES + length + padding;
        Ok(())
    }

    /// Appends members that another writer wrote, without the end of an archive.
    ///
    /// # Errors
    /// If `part` has another length, or writing fails.
    pub fn append_part(&mut self, length: u64, part: &mut dyn Read) -> io::Result<()> {
        let copied = io::copy(&mut part.take(length + 1), &mut self.out)?;
        if copied != length {
            return Err(io::Error::other(format!("expected a part of an archive with {length} bytes, got {copied}")));
        }
        self.written += length;
        Ok(())
    }

    /// Flushes the underlying writer.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Returns the underlying writer.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Ends the archive with two empty blocks.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(&mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES as usize])?;
        self.out.flush()
    }
}
