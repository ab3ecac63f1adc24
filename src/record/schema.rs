//! The columns of the tables: names with units, types, and what they mean.
//!
//! A column's id is its number in Parquet's and Delta's and Iceberg's sense: it never changes and is never used again, so
//! that a column may be renamed or moved without old files becoming unreadable.

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
    /// A row for every attempt at a tumor.
    Samples,
    /// A row for every scan.
    Scans,
    /// A row for every fault that ended the work on a scan.
    Faults,
    /// A row for every change of the number of attempts in a group.
    Quality,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Samples, Self::Scans, Self::Faults, Self::Quality];

    /// The name, which is also that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Scans => "scans",
            Self::Faults => "faults",
            Self::Quality => "quality",
        }
    }

    /// What a row is.
    pub fn doc(self) -> &'static str {
        match self {
            Self::Samples => {
                "One row for every attempt at a synthetic tumor and quality test that decided on it, accepted or rejected."
            }
            Self::Scans => "One row for every scan that was ingested.",
            Self::Faults => "One row for every fault that ended the work on a scan.",
            Self::Quality => {
                "One row for every group of attempts and epoch that changed their number: the sum over epochs is the number of attempts."
            }
        }
    }

    /// The table of that name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(format!("there is no table {name:?}")).with_hint(format!("the tables are {names}"))
        })
    }

    /// Its columns, in order.
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

    /// The Arrow schema: each field carries its `PARQUET:field_id`, `doc` and, where it has one, its `unit`.
    pub fn schema(self) -> Arc<Schema> {
        schema_of(self.name(), self.doc(), &self.columns())
    }
}

/// The Arrow schema of a table that no run folder holds; see [`Table::schema`].
pub fn schema_of(name: &str, doc: &str, columns: &[Column]) -> Arc<Schema> {
    let fields: Vec<Field> = columns.iter().map(Column::field).collect();
    let metadata = HashMap::from([("table".to_owned(), name.to_owned()), ("doc".to_owned(), doc.to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// A table's columns as JSON, for `freetumor schema` and the files in `schemas/`.
///
/// # Errors
/// Where there is no such table.
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
    fn ids_and_names_are_unique_and_units_are_said() {
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

    /// `FREETUMOR_WRITE=1` writes them anew.
    #[test]
    fn the_files_in_schemas_are_what_the_program_says() {
        for table in Table::ALL {
            let place = format!("{}/schemas/{}.schema.json", env!("CARGO_MANIFEST_DIR"), table.name());
            let text = crate::store::canonical::pretty(&table_json(table.name()).unwrap()).unwrap();
            if std::env::var_os("FREETUMOR_WRITE").is_some() {
                std::fs::write(&place, &text).unwrap();
            }
            assert_eq!(String::from_utf8(std::fs::read(&place).unwrap()).unwrap(), String::from_utf8(text).unwrap());
        }
    }

    #[test]
    fn an_unknown_table_is_named_with_the_known_ones() {
        let error = table_json("sample").unwrap_err();
        assert!(error.to_string().contains("sample") && error.hint().unwrap().contains("samples, scans, faults"));
    }
}
