//! Rows of Parquet.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::row::{COLUMNS, Row, Rows};

/// Reads the rows of Parquet.
///
/// # Errors
/// Returns a message if the file is damaged, or a column cannot be read.
pub(super) fn read(path: &Path) -> Result<Rows, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    let schema = reader.metadata().file_metadata().schema();
    let fields = schema.get_fields();
    let columns = fields.iter().map(|field| field.name().to_owned()).collect();
    let read = fields.iter().filter(|field| COLUMNS.contains(&field.name())).cloned().collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(read).build();
    let projection = projection.map_err(|error| error.to_string())?;
    let mut rows = Rows { rows: Vec::new(), columns };
    let found = reader.get_row_iter(Some(projection)).map_err(|error| error.to_string())?;
    for (line, row) in (1..).zip(found) {
        let row = row.map_err(|error| format!("row {line}: {error}"))?;
        rows.rows.push(Row::new(line, |name| {
            let (_, value) = row.get_column_iter().find(|(column, _)| *column == name)?;
            match value {
                Field::Null => None,
                Field::Str(text) => Some(text.clone().into_bytes()),
                Field::Bytes(bytes) => Some(bytes.data().to_vec()),
                other => Some(other.to_string().into_bytes()),
            }
        }));
    }
    Ok(rows)
}
