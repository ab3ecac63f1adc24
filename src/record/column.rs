//! A column of a table: name, type, documentation, and access to the value in a row.
//!
//! Each table lists its columns once (`record/columns/`). Schemas, JSON descriptions, Parquet files and conditions on columns are
//! derived from that list.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, ListBuilder, StringArray, StringBuilder,
    StructArray, StructBuilder, UInt32Array, UInt64Array,
};
use arrow::array::{ArrayBuilder, Float64Builder};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, UInt32Type, UInt64Type};

use crate::error::{Error, Result};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8.
    Text,
    /// u32.
    U32,
    /// u64.
    U64,
    /// i64.
    I64,
    /// f64.
    F64,
    /// True or false.
    Flag,
    /// A list of organs with their volumes in ml.
    Organs,
    /// A list of score stages with their digests.
    Stages,
}

impl ColumnType {
    /// Returns the name used in `freetumor schema`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "utf8",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F64 => "float64",
            Self::Flag => "bool",
            Self::Organs => "list<struct<organ: utf8, volume_ml: float64>>",
            Self::Stages => "list<struct<stage: utf8, digest: utf8>>",
        }
    }

    pub(super) fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::I64 => DataType::Int64,
            Self::F64 => DataType::Float64,
            Self::Flag => DataType::Boolean,
            Self::Organs => DataType::List(Arc::new(organ_item())),
            Self::Stages => DataType::List(Arc::new(stage_item())),
        }
    }
}

fn organ_fields() -> Fields {
    Fields::from(vec![
        annotated(Field::new("organ", DataType::Utf8, false), 301, "", "Name of the organ in the graph file."),
        annotated(
            Field::new("volume_ml", DataType::Float64, false),
            302,
            "ml",
            "Volume of the organ, tumors included.",
        ),
    ])
}

fn organ_item() -> Field {
    annotated(Field::new("element", DataType::Struct(organ_fields()), false), 300, "", "One organ in the mask.")
}

fn stage_fields() -> Fields {
    Fields::from(vec![
        annotated(Field::new("stage", DataType::Utf8, false), 311, "", "Name of the score stage in the graph file."),
        annotated(Field::new("digest", DataType::Utf8, false), 312, "", "Digest of the stage's settings and weights."),
    ])
}

fn stage_item() -> Field {
    annotated(Field::new("element", DataType::Struct(stage_fields()), false), 310, "", "One score stage.")
}

/// A column as schemas describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The field id; an id is never reused.
    pub id: i32,
    /// The name, with the unit as a suffix if the column has a unit.
    pub name: &'static str,
    /// The type.
    pub kind: ColumnType,
    /// Whether a value may be absent.
    pub nullable: bool,
    /// The unit; `""` for a dimensionless number or a string.
    pub unit: &'static str,
    /// One sentence that describes the column.
    pub doc: &'static str,
}

impl Column {
    pub(super) fn field(&self) -> Field {
        annotated(Field::new(self.name, self.kind.arrow(), self.nullable), self.id, self.unit, self.doc)
    }
}

/// A function that reads a value from a row; `None` if the row has no value.
pub type Getter<R, T> = Box<dyn Fn(&R) -> Option<T> + Send + Sync>;
/// A function that writes a value into a row.
pub type Setter<R, T> = Box<dyn Fn(&mut R, T) -> Result<()> + Send + Sync>;

/// Access to the value of one column in a row.
pub enum Access<R> {
    /// UTF-8.
    Text(Getter<R, String>, Setter<R, String>),
    /// u32.
    U32(Getter<R, u32>, Setter<R, u32>),
    /// u64.
    U64(Getter<R, u64>, Setter<R, u64>),
    /// i64.
    I64(Getter<R, i64>, Setter<R, i64>),
    /// f64.
    F64(Getter<R, f64>, Setter<R, f64>),
    /// Organs with their volumes in ml.
    Organs(Getter<R, Vec<(String, f64)>>, Setter<R, Vec<(String, f64)>>),
    /// Stages with their digests.
    Stages(Getter<R, Vec<(String, String)>>, Setter<R, Vec<(String, String)>>),
}

/// A column with access to its values in a row.
pub struct Descriptor<R> {
    /// The column as schemas describe it.
    pub column: Column,
    /// Access to the values of the column.
    pub access: Access<R>,
}

/// A value of a row, for conditions on columns.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A number.
    Number(f64),
}

impl<R> Descriptor<R> {
    /// Returns the value in a row; `None` if the row has no value or the value is neither a string nor a number.
    pub fn value(&self, row: &R) -> Option<Value> {
        match &self.access {
            Access::Text(get, _) => get(row).map(Value::Text),
            Access::U32(get, _) => get(row).map(|value| Value::Number(f64::from(value))),
            Access::U64(get, _) => get(row).map(|value| Value::Number(value as f64)),
            Access::I64(get, _) => get(row).map(|value| Value::Number(value as f64)),
            Access::F64(get, _) => get(row).map(Value::Number),
            Access::Organs(..) | Access::Stages(..) => None,
        }
    }

    /// Returns the Arrow array of the column for these rows.
    pub fn array(&self, rows: &[R]) -> ArrayRef {
        match &self.access {
            Access::Text(get, _) => Arc::new(rows.iter().map(get).collect::<StringArray>()),
            Access::U32(get, _) => Arc::new(rows.iter().map(get).collect::<UInt32Array>()),
            Access::U64(get, _) => Arc::new(rows.iter().map(get).collect::<UInt64Array>()),
            Access::I64(get, _) => Arc::new(rows.iter().map(get).collect::<Int64Array>()),
            Access::F64(get, _) => Arc::new(rows.iter().map(get).collect::<Float64Array>()),
            Access::Organs(get, _) => {
                let volumes: Box<dyn ArrayBuilder> = Box::new(Float64Builder::new());
                list_array(rows, get, organ_item(), organ_fields(), volumes, |values, volume_ml: f64| {
                    values.field_builder::<Float64Builder>(1).map(|volumes| volumes.append_value(volume_ml))
                })
            }
            Access::Stages(get, _) => {
                let digests: Box<dyn ArrayBuilder> = Box::new(StringBuilder::new());
                list_array(rows, get, stage_item(), stage_fields(), digests, |values, digest: String| {
                    values.field_builder::<StringBuilder>(1).map(|digests| digests.append_value(digest))
                })
            }
        }
    }

    /// Writes the array of a batch into its rows.
    ///
    /// # Errors
    /// If the array has another type, a required value is missing, or a value is outside the range of the column.
    pub fn fill(&self, array: &ArrayRef, rows: &mut [R]) -> Result<()> {
        // The field names inside a list differ between Parquet writers; the fields are checked below.
        let is_list_column = matches!(self.access, Access::Organs(..) | Access::Stages(..)) && is_list(array);
        if array.data_type() != &self.column.kind.arrow() && !is_list_column {
            let (name, got) = (self.column.name, array.data_type());
            let expected = self.column.kind.name();
            return Err(Error::new(format!("column {name:?}: expected type {expected}, got {got}")));
        }
        match &self.access {
            Access::Text(_, set) => {
                let array = array.as_string::<i32>();
                self.for_each_value(array, rows, |row, index| set(row, array.value(index).to_owned()))
            }
            Access::U32(_, set) => {
                let array = array.as_primitive::<UInt32Type>();
                self.for_each_value(array, rows, |row, index| set(row, array.value(index)))
            }
            Access::U64(_, set) => {
                let array = array.as_primitive::<UInt64Type>();
                self.for_each_value(array, rows, |row, index| set(row, array.value(index)))
            }
            Access::I64(_, set) => {
                let array = array.as_primitive::<Int64Type>();
                self.for_each_value(array, rows, |row, index| set(row, array.value(index)))
            }
            Access::F64(_, set) => {
                let array = array.as_primitive::<Float64Type>();
                self.for_each_value(array, rows, |row, index| set(row, array.value(index)))
            }
            Access::Organs(_, set) => {
                let list = self.list(array)?;
                self.for_each_value(list, rows, |row, index| {
                    let (names, structs) = self.entries(list, index)?;
                    let volumes =
                        structs.column(1).as_primitive_opt::<Float64Type>().ok_or_else(|| self.type_error())?;
                    set(row, names.iter().flatten().map(str::to_owned).zip(volumes.values().iter().copied()).collect())
                })
            }
            Access::Stages(_, set) => {
                let list = self.list(array)?;
                self.for_each_value(list, rows, |row, index| {
                    let (names, structs) = self.entries(list, index)?;
                    let digests = structs.column(1).as_string_opt::<i32>().ok_or_else(|| self.type_error())?;
                    let digests = digests.iter().flatten().map(str::to_owned);
                    set(row, names.iter().flatten().map(str::to_owned).zip(digests).collect())
                })
            }
        }
    }

    fn for_each_value(
        &self,
        array: &dyn Array,
        rows: &mut [R],
        set: impl Fn(&mut R, usize) -> Result<()>,
    ) -> Result<()> {
        for (index, row) in rows.iter_mut().enumerate() {
            if array.is_valid(index) {
                set(row, index)?;
            } else if !self.column.nullable {
                return Err(Error::new(format!("column {:?}: expected a value in every row", self.column.name)));
            }
        }
        Ok(())
    }

    fn list<'a>(&self, array: &'a ArrayRef) -> Result<&'a ListArray> {
        array.as_list_opt::<i32>().ok_or_else(|| self.type_error())
    }

    /// Returns the list of one row: the names, and the entries with all their columns.
    fn entries(&self, list: &ListArray, row: usize) -> Result<(StringArray, StructArray)> {
        let entries = list.value(row);
        let entries = entries.as_struct_opt().filter(|entries| entries.num_columns() == 2);
        let entries = entries.ok_or_else(|| self.type_error())?.clone();
        let names = entries.column(0).as_string_opt::<i32>().ok_or_else(|| self.type_error())?.clone();
        Ok((names, entries))
    }

    fn type_error(&self) -> Error {
        Error::new(format!("column {:?}: expected type {}", self.column.name, self.column.kind.name()))
    }
}

fn is_list(array: &ArrayRef) -> bool {
    matches!(array.data_type(), DataType::List(_))
}

/// Builds an array of lists of pairs; the first item of a pair is a string.
fn list_array<R, T>(
    rows: &[R],
    get: &Getter<R, Vec<(String, T)>>,
    item: Field,
    fields: Fields,
    second: Box<dyn ArrayBuilder>,
    append: impl Fn(&mut StructBuilder, T) -> Option<()>,
) -> ArrayRef {
    let builder = StructBuilder::new(fields, vec![Box::new(StringBuilder::new()), second]);
    let mut lists = ListBuilder::new(builder).with_field(Arc::new(item));
    for row in rows {
        for (name, value) in get(row).unwrap_or_default() {
            let entry = lists.values();
            // Both builders were added above.
            if let Some(names) = entry.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            let _ = append(entry, value);
            entry.append(true);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

fn annotated(field: Field, id: i32, unit: &str, doc: &str) -> Field {
    let mut metadata = HashMap::from([
        (::parquet::arrow::PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string()),
        ("doc".to_owned(), doc.to_owned()),
    ]);
    if !unit.is_empty() {
        metadata.insert("unit".to_owned(), unit.to_owned());
    }
    field.with_metadata(metadata)
}
