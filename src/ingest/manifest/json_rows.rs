//! Rows of JSON lines: an object on each line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::row::{Row, Rows};

/// Maximum bytes of a line.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Reads the rows of JSON lines. A line that is no object, or whose values are neither strings nor numbers, is malformed.
///
/// # Errors
/// Returns a message if the file cannot be read, or has a line of more than 1 MiB.
pub(super) fn read(path: &Path) -> Result<Rows, String> {
    let mut file = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
    let mut rows = Rows::default();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let count = (&mut file).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut text);
        if count.map_err(|error| error.to_string())? == 0 {
            break;
        }
        if text.len() as u64 > MAX_LINE_BYTES {
            return Err(format!("line {line}: expected at most {MAX_LINE_BYTES} bytes, got more"));
        }
        let text = if line == 1 { text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text) } else { &text };
        if text.trim_ascii().is_empty() {
            continue;
        }
        rows.rows.push(match serde_json::from_slice::<Map<String, Value>>(text) {
            Ok(object) => {
                rows.columns
                    .extend(object.keys().filter(|name| !rows.columns.contains(*name)).cloned().collect::<Vec<_>>());
                row_of(line, &object)
            }
            // The message of the parser could contain text of the line.
            Err(error) => {
                Row::malformed(line, format!("expected a JSON object, got an error at column {}", error.column()))
            }
        });
    }
    Ok(rows)
}

fn row_of(line: u64, object: &Map<String, Value>) -> Row {
    let mut wrong = None;
    let row = Row::new(line, |name| match object.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Number(number) => Some(number.to_string().into_bytes()),
        _ => {
            wrong.get_or_insert_with(|| format!("expected a string in `{name}`, got another value"));
            None
        }
    });
    wrong.map_or(row, |reason| Row::malformed(line, reason))
}
