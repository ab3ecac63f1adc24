//! Text headers in front of voxels, and the data files that they name.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Component, Path};

use super::FILE_BLOCK_BYTES;
use crate::error::{Fault, FaultKind};
use crate::ingest::file::open_regular;

/// Maximum bytes of a text header. Headers with a table of segments have a few hundred kilobytes.
const HEADER_BYTES: u64 = 4 << 20;

/// The lines of a text header, read from a file whose remaining bytes are voxels.
pub(in crate::ingest) struct HeaderText<R> {
    reader: R,
    position: u64,
    lines: usize,
}

impl<R: BufRead> HeaderText<R> {
    /// Creates the lines of a header that starts at the next byte of `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, position: 0, lines: 0 }
    }

    /// Reads the next line without its line end; `None` at the end of the file. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// Returns `corrupt` if the header has more than 4 MiB, `io` if the system cannot read the file.
    pub fn line(&mut self) -> Result<Option<String>, Fault> {
        let mut line = Vec::new();
        let left = HEADER_BYTES - self.position;
        let read = self.reader.by_ref().take(left).read_until(b'\n', &mut line);
        let read = read.map_err(|error| {
            Fault::read(FaultKind::Io, format!("the system cannot read the file: {}", error.kind()))
        })?;
        self.position += read as u64;
        self.lines += 1;
        if self.position == HEADER_BYTES {
            return Err(Fault::read(
                FaultKind::Corrupt,
                format!("expected a header of at most {} MiB, got a longer one", HEADER_BYTES >> 20),
            ));
        }
        if line.is_empty() {
            return Ok(None);
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(String::from_utf8_lossy(line).into_owned()))
    }

    /// Returns the number of lines that were read.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Returns the number of bytes that were read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the reader, whose next byte follows the last line.
    pub fn into_reader(self) -> R {
        self.reader
    }
}

impl<'a, R: BufRead + Seek + 'a> HeaderText<R> {
    /// Returns the file with the voxels: the data file that the header at `path` names, or, without a data file, the bytes after the header
    /// in this file of `file_bytes` bytes.
    ///
    /// # Errors
    /// The errors of [`DataFile::open`].
    pub fn into_voxel_file(
        self,
        file_bytes: u64,
        data_file: Option<&DataFile>,
        path: &Path,
    ) -> Result<VoxelFile<'a>, Fault> {
        let header_bytes = self.position;
        let Some(data_file) = data_file else {
            let bytes = file_bytes.saturating_sub(header_bytes);
            return Ok(VoxelFile { reader: Box::new(self.reader), bytes, header_bytes });
        };
        let (reader, bytes) = data_file.open(path)?;
        Ok(VoxelFile { reader: Box::new(reader), bytes, header_bytes })
    }
}

/// A reader that can skip bytes.
pub(in crate::ingest) trait SeekableReader: BufRead + Seek {}

impl<R: BufRead + Seek> SeekableReader for R {}

/// The voxels of a text header, after the header or in a data file.
pub(in crate::ingest) struct VoxelFile<'a> {
    /// The reader. The next byte is the first after the header, or the first of the data file.
    pub reader: Box<dyn SeekableReader + 'a>,
    /// Number of bytes from the next byte to the end of the file.
    pub bytes: u64,
    /// Number of bytes of the header.
    pub header_bytes: u64,
}

/// A data file that a header names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct DataFile(String);

impl DataFile {
    /// Checks the name of a data file; `field` is the name of its field in messages.
    ///
    /// # Errors
    /// Returns `unsupported` unless the name is that of a file in the folder of the header: another folder may belong to another patient,
    /// and its content is not part of the scan.
    pub fn new(name: &str, field: &str) -> Result<Self, Fault> {
        let mut parts = Path::new(name).components().filter(|part| *part != Component::CurDir);
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(file)), None) if !name.contains(['\\', '\0']) && !name.ends_with('/') => {
                Ok(Self(file.to_string_lossy().into_owned()))
            }
            _ => Err(Fault::read(
                FaultKind::Unsupported,
                format!("expected the name of a file in the folder of its header in `{field}`, got a path"),
            )),
        }
    }

    /// Returns the name of the file.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Opens the data file of the header at `header`, and returns it with its length in bytes.
    ///
    /// # Errors
    /// Returns the faults of opening a file; `missing` if the file does not exist.
    pub fn open(&self, header: &Path) -> Result<(BufReader<File>, u64), Fault> {
        let (file, bytes) = open_regular(&header.with_file_name(&self.0)).map_err(|fault| match fault.kind {
            FaultKind::Missing => Fault::read(
                FaultKind::Missing,
                "the data file that the header names does not exist: copy header and data file together",
            ),
            _ => fault.during("the data file that the header names"),
        })?;
        Ok((BufReader::with_capacity(FILE_BLOCK_BYTES, file), bytes))
    }
}

/// Moves a reader forward by `bytes`, which its file must have.
pub(in crate::ingest) fn skip_bytes(reader: &mut (impl BufRead + Seek), bytes: u64) -> Result<(), Fault> {
    let failed = || Fault::read(FaultKind::Io, "the system cannot seek in the file");
    reader.seek_relative(i64::try_from(bytes).map_err(|_| failed())?).map_err(|_| failed())
}

/// Parses `N` finite decimal numbers with whitespace between them; `field` is the name of their field in messages.
///
/// # Errors
/// Returns `corrupt` for any other text.
pub(in crate::ingest) fn decimals<const N: usize>(text: &str, field: &str) -> Result<[f64; N], Fault> {
    let numbers: Option<Vec<f64>> = text.split_whitespace().map(|part| part.parse().ok()).collect();
    match numbers.and_then(|numbers| <[f64; N]>::try_from(numbers).ok()) {
        Some(numbers) if numbers.iter().all(|number| number.is_finite()) => Ok(numbers),
        _ => Err(unexpected(field, &format!("{N} decimal number(s)"))),
    }
}

/// Parses `N` integers with whitespace between them; `field` is the name of their field in messages.
///
/// # Errors
/// Returns `corrupt` for any other text.
pub(in crate::ingest) fn integers<const N: usize>(text: &str, field: &str) -> Result<[i64; N], Fault> {
    let numbers: Option<Vec<i64>> = text.split_whitespace().map(|part| part.parse().ok()).collect();
    numbers
        .and_then(|numbers| <[i64; N]>::try_from(numbers).ok())
        .ok_or_else(|| unexpected(field, &format!("{N} integer(s)")))
}

/// Returns the fault of a field with another value than `expected`. The value is not repeated, because it may be free text.
fn unexpected(field: &str, expected: &str) -> Fault {
    Fault::read(FaultKind::Corrupt, format!("expected {expected} in `{field}`, got another value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_file_is_only_a_name_in_the_folder_of_its_header() {
        for (name, file) in [("ct.raw", "ct.raw"), ("./ct 1.raw", "ct 1.raw")] {
            assert_eq!(DataFile::new(name, "data file").map(|found| found.0), Ok(file.to_owned()));
        }
        for name in ["", ".", "..", "../ct.raw", "/etc/passwd", "a/b.raw", "a\\b.raw", "C:\\b.raw", "a/", "a\0b"] {
            assert_eq!(DataFile::new(name, "data file").unwrap_err().kind, FaultKind::Unsupported, "{name}");
        }
    }

    #[test]
    fn lines_end_with_either_line_end_and_reader_follows_last_line() {
        let mut text = HeaderText::new(&b"one\r\ntwo\nvoxels"[..]);
        assert_eq!((text.line().unwrap().as_deref(), text.line().unwrap().as_deref()), (Some("one"), Some("two")));
        assert_eq!((text.position(), text.lines()), (9, 2));
        assert_eq!(text.into_reader(), b"voxels");
    }

    #[test]
    fn endless_header_is_corrupt() {
        let mut text = HeaderText::new(std::io::BufReader::new(std::io::repeat(b'#')));
        assert_eq!(text.line().unwrap_err().kind, FaultKind::Corrupt);
    }

    #[test]
    fn numbers_are_finite_and_as_many_as_expected() {
        assert_eq!(decimals::<3>(" 1 -2.5\t3e0 ", "f"), Ok([1.0, -2.5, 3.0]));
        assert_eq!(integers::<2>("4 5", "f"), Ok([4, 5]));
        for text in ["1 2", "1 2 nan", "1 2 3 4", "1,2,3", "1 2 inf", ""] {
            assert_eq!(decimals::<3>(text, "f").unwrap_err().kind, FaultKind::Corrupt, "{text}");
        }
        assert!(integers::<1>("99999999999999999999", "f").is_err() && integers::<1>("1.5", "f").is_err());
    }
}
