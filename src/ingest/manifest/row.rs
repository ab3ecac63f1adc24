//! The rows of a manifest, independent of its format.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The columns that are read.
pub(super) const COLUMNS: [&str; 5] = ["uri", "dataset", "patient", "split", "mask"];

/// A row of a manifest. Values are absent if they are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// The line in the file; in Parquet, the number of the row, counted from 1.
    pub line: u64,
    /// The reason why the row cannot be read at all.
    pub malformed: Option<String>,
    /// Values may be any bytes, as paths.
    pub uri: Option<Vec<u8>>,
    pub dataset: Option<String>,
    pub patient: Option<String>,
    pub split: Option<String>,
    pub mask: Option<Vec<u8>>,
}

impl Row {
    /// Creates a row from the values of its columns.
    pub fn new(line: u64, mut value_of: impl FnMut(&str) -> Option<Vec<u8>>) -> Self {
        let mut value =
            |name| value_of(name).map(|value| value.trim_ascii().to_vec()).filter(|value| !value.is_empty());
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        Self {
            line,
            malformed: None,
            uri: value("uri"),
            dataset: value("dataset").map(text),
            patient: value("patient").map(text),
            split: value("split").map(text),
            mask: value("mask"),
        }
    }

    /// Creates a row that cannot be read for this reason.
    pub fn malformed(line: u64, reason: String) -> Self {
        Self { line, malformed: Some(reason), ..Self::default() }
    }
}

/// The rows of a manifest and its columns.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub rows: Vec<Row>,
    /// Names of all columns.
    pub columns: BTreeSet<String>,
}

/// The format of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ManifestFormat {
    Csv,
    JsonLines,
    Parquet,
}

impl ManifestFormat {
    /// Recognizes the format of a file by its first bytes.
    ///
    /// # Errors
    /// The error of reading the file.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let mut start = Vec::new();
        File::open(path)?.take(4096).read_to_end(&mut start)?;
        let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&start).trim_ascii_start();
        Ok(match () {
            () if start.starts_with(b"PAR1") => Self::Parquet,
            () if text.starts_with(b"{") => Self::JsonLines,
            () => Self::Csv,
        })
    }

    /// Returns the noun for the number of a row in messages: `line` or `row`.
    pub fn row_noun(self) -> &'static str {
        if self == Self::Parquet { "row" } else { "line" }
    }
}
