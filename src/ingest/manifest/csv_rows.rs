//! Rows of CSV with a header.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};

use super::row::{Row, Rows};

/// Reads the rows of CSV; in files with the extension `tsv`, fields are separated by tabs. A row is malformed if it does not have as many
/// fields as the header.
///
/// # Errors
/// Returns a message if the file or its header cannot be read.
pub(super) fn read(path: &Path) -> Result<Rows, String> {
    let is_tsv = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tsv"));
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut reader = ReaderBuilder::new()
        .flexible(true)
        .delimiter(if is_tsv { b'\t' } else { b',' })
        .from_reader(BufReader::new(file));
    let name = |field: &[u8]| {
        let field = field.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(field);
        String::from_utf8_lossy(field.trim_ascii()).into_owned()
    };
    let columns: Vec<String> = reader.byte_headers().map_err(|error| error.to_string())?.iter().map(name).collect();
    let index = |name: &str| columns.iter().position(|column| column == name);
    let mut rows = Rows { rows: Vec::new(), columns: columns.iter().cloned().collect() };
    let mut record = ByteRecord::new();
    let mut lines = Lines::open(path).map_err(|error| error.to_string())?;
    loop {
        let line = reader.position().line();
        match reader.read_byte_record(&mut record) {
            Ok(false) => return Ok(rows),
            Ok(true) => {}
            Err(error) => return Err(format!("line {line}: {error}")),
        }
        let start = record.position().map_or(0, csv::Position::byte);
        let line = lines.line_at(start).map_err(|error| error.to_string())?;
        rows.rows.push(match record.len() == columns.len() {
            true => Row::new(line, |name| Some(record.get(index(name)?)?.to_vec())),
            false => Row::malformed(
                line,
                format!("expected {} fields as in the header, got {}", columns.len(), record.len()),
            ),
        });
    }
}

/// Counts the lines of a file up to a byte: the parser may report the position of an empty line before a record.
struct Lines {
    file: BufReader<File>,
    byte: u64,
    line: u64,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::new(File::open(path)?), byte: 0, line: 1 })
    }

    /// Returns the line of the first byte at or after an offset that is not the end of a line. Offsets must not decrease.
    fn line_at(&mut self, byte: u64) -> io::Result<u64> {
        loop {
            let buffer = self.file.fill_buf()?;
            let Some(next) = buffer.first() else { return Ok(self.line) };
            if self.byte < byte {
                let count = buffer.len().min(usize::try_from(byte - self.byte).unwrap_or(usize::MAX));
                self.line += buffer[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
                self.byte += count as u64;
                self.file.consume(count);
            } else if matches!(next, b'\n' | b'\r') {
                self.line += u64::from(*next == b'\n');
                self.byte += 1;
                self.file.consume(1);
            } else {
                return Ok(self.line);
            }
        }
    }
}
