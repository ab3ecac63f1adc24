//! The columns of the tables: names with units, types and documentation.
//!
//! A column's id is a field id as in Parquet, Delta and Iceberg: an id never changes and is never reused, so a column may be renamed
//! or moved while old files stay readable.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};

use super::column::Descriptor;
pub use super::column::{Column, ColumnType};
use super::columns;
use crate::error::{Error, Result};

/// A table of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row for each attempt at a tumor and quality test, and for each negative.
    Samples,
    /// One row for each scan.
    Scans,
    /// One row for each fault that ended the processing of a scan.
    Faults,
    /// One row for each change of the number of attempts in a group.
    Quality,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 4] = [Self::Samples, Self::Scans, Self::Faults, Self::Quality];

    /// Returns the name of the table and of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Scans => "scans",
            Self::Faults => "faults",
            Self::Quality => "quality",
        }
    }

    /// Returns one sentence that describes a row.
    pub fn doc(self) -> &'static str {
        match self {
            Self::Samples => {
                "One row for each attempt at a synthetic tumor and quality test that decided on the attempt, accepted or rejected, and for each negative."
            }
            Self::Scans => "One row for each ingested scan.",
            Self::Faults => "One row for each fault that ended the processing of a scan.",
            Self::Quality => {
                "One row for each group of attempts and each epoch that added or removed attempts; the sum of `attempts` over all epochs is the group's number of attempts."
            }
        }
    }

    /// Returns the table of that name.
    ///
    /// # Errors
    /// If there is no table of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(format!("there is no table {name:?}")).with_hint(format!("the tables are {names}"))
        })
    }

    /// Returns the columns in their order.
    pub fn columns(self) -> Vec<Column> {
        fn of<R>(descriptors: &[Descriptor<R>]) -> Vec<Column> {
            descriptors.iter().map(|descriptor| descriptor.column).collect()
        }
        match self {
            Self::Samples => of(&columns::samples::descriptors()),
            Self::Scans => of(&columns::scans::descriptors()),
            Self::Faults => of(&columns::faults::descriptors()),
            Self::Quality => of(&columns::quality::descriptors()),
        }
    }

    /// Returns the Arrow schema; the metadata of each field has `PARQUET:field_id`, `doc` and, if the column has a unit, `unit`.
    pub fn schema(self) -> Arc<Schema> {
        schema_of(self.name(), self.doc(), &self.columns())
    }
}

/// Returns the Arrow schema of a table that is not part of a run folder; see [`Table::schema`].
pub fn schema_of(name: &str, doc: &str, columns: &[Column]) -> Arc<Schema> {
    let fields: Vec<Field> = columns.iter().map(Column::field).collect();
    let metadata = HashMap::from([("table".to_owned(), name.to_owned()), ("doc".to_owned(), doc.to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Returns the columns of a table as JSON, for `freetumor schema` and the files in `schemas/`.
///
/// # Errors
/// If there is no such table.
pub fn table_json(name: &str) -> Result<serde_json::Value> {
    let table = Table::from_name(name)?;
    let columns: Vec<_> = table
        .columns()
        .iter()
        .map(|column| {
            let mut json = serde_json::json!({
                "id": column.id,
                "name": column.name,
                "type": column.kind.name(),
                "nullable": column.nullable,
                "doc": column.doc,
            });
            if !column.unit.is_empty() {
                json["unit"] = column.unit.into();
            }
            json
        })
        .collect();
    Ok(serde_json::json!({ "table": table.name(), "doc": table.doc(), "columns": columns }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn columns_have_unique_ids_and_names_and_matching_units() {
        for table in Table::ALL {
            let columns = table.columns();
            let ids: BTreeSet<i32> = columns.iter().map(|c| c.id).collect();
            let names: BTreeSet<&str> = columns.iter().map(|c| c.name).collect();
            assert!(ids.len() == columns.len() && names.len() == columns.len(), "{table:?}");
            for column in columns {
                assert!(column.doc.ends_with('.'), "{}", column.name);
                for (suffix, unit) in [("_mm", "mm"), ("_mm3", "mm3"), ("_bytes", "byte"), ("_voxels", "voxel")] {
                    assert!(
                        !column.name.ends_with(suffix) || column.unit == unit,
                        "{} in {}",
                        column.name,
                        column.unit
                    );
                }
            }
        }
    }

    /// `FREETUMOR_WRITE=1` regenerates the files.
    #[test]
    fn schema_files_equal_generated_schemas() {
        for table in Table::ALL {
            let path = format!("{}/schemas/{}.schema.json", env!("CARGO_MANIFEST_DIR"), table.name());
            let text = crate::store::canonical::pretty(&table_json(table.name()).unwrap()).unwrap();
            if std::env::var_os("FREETUMOR_WRITE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            assert_eq!(String::from_utf8(std::fs::read(&path).unwrap()).unwrap(), String::from_utf8(text).unwrap());
        }
    }

    #[test]
    fn unknown_table_error_lists_tables() {
        let error = table_json("sample").unwrap_err();
        assert!(error.to_string().contains("sample") && error.hint().unwrap().contains("samples, scans, faults"));
    }
}
