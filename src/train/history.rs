//! The losses and scores of every step, as a Parquet table.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::output::write_bytes;
use crate::error::{Error, Result};

/// One named value (loss, Dice, learning rate) of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricRow {
    /// The step, counted from 0; for a validation, the last step before it.
    pub step: u64,
    /// `train` or `validation`.
    pub phase: &'static str,
    /// Name of the metric: the name of a loss, `dice liver_tumor`, `rate`.
    pub name: Arc<str>,
    /// The value; NaN if undefined, such as the Dice of an absent class.
    pub value: f64,
}

/// The phase of training steps.
pub const TRAIN: &str = "train";
/// The phase of validations.
pub const VALIDATION: &str = "validation";

/// The losses and scores of a training run so far. The file contains no times, so that equal training runs write equal files.
///
/// ```
/// use freetumor::train::history::{History, TRAIN};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("history.parquet");
/// let mut history = History::default();
/// for step in 0..4 {
///     history.add(step, TRAIN, [("loss".to_owned(), 1.0 / (1.0 + step as f64))]);
/// }
/// history.write(&path)?;
/// let read = History::read(&path, 2)?;
/// assert_eq!(read.rows().len(), 2);
/// assert_eq!((read.rows()[1].step, read.rows()[1].value), (1, 0.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    rows: Vec<MetricRow>,
    names: HashMap<String, Arc<str>>,
}

impl History {
    /// Adds the values of a step.
    pub fn add(&mut self, step: u64, phase: &'static str, values: impl IntoIterator<Item = (String, f64)>) {
        for (name, value) in values {
            let name = match self.names.get(&name) {
                Some(known) => Arc::clone(known),
                None => {
                    let shared: Arc<str> = name.as_str().into();
                    self.names.insert(name, Arc::clone(&shared));
                    shared
                }
            };
            self.rows.push(MetricRow { step, phase, name, value });
        }
    }

    /// Returns all rows, in the order in which they were added.
    pub fn rows(&self) -> &[MetricRow] {
        &self.rows
    }

    /// Returns the values of one metric in one phase, each with its step.
    pub fn series<'a>(&'a self, phase: &'a str, name: &'a str) -> impl Iterator<Item = (u64, f64)> + 'a {
        let rows = self.rows.iter().filter(move |row| row.phase == phase && &*row.name == name);
        rows.map(|row| (row.step, row.value))
    }

    /// Returns the names of the metrics of a phase, in the order of their first rows.
    pub fn names(&self, phase: &str) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for row in self.rows.iter().filter(|row| row.phase == phase) {
            if !names.contains(&row.name) {
                names.push(Arc::clone(&row.name));
            }
        }
        names
    }

    /// Writes the table atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = self
            .encode()
            .map_err(|cause| Error::new(format!("cannot write {}: {cause}", path.display())).with_source(cause))?;
        write_bytes(path, &bytes)
    }

    fn encode(&self) -> parquet::errors::Result<Vec<u8>> {
        let schema = Arc::new(schema());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.rows.iter().map(|row| row.step).collect::<UInt64Array>()),
            Arc::new(self.rows.iter().map(|row| Some(row.phase)).collect::<StringArray>()),
            Arc::new(self.rows.iter().map(|row| Some(&*row.name)).collect::<StringArray>()),
            Arc::new(self.rows.iter().map(|row| row.value).collect::<Float64Array>()),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by("freetumor".to_owned())
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(bytes)
    }

    /// Reads the rows of the steps before `until`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or has other columns.
    pub fn read(path: &Path, until: u64) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|cause| Error::io("cannot read", path, cause))?;
        let invalid = |cause: String| {
            Error::new(format!("{} is not a history of `freetumor train`: {cause}", path.display()))
                .with_hint("restore the file, or start from scratch with another `--out`")
        };
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).and_then(|builder| builder.build());
        let mut history = Self::default();
        for batch in reader.map_err(|cause| invalid(cause.to_string()))? {
            let batch = batch.map_err(|cause| invalid(cause.to_string()))?;
            history
                .append(&batch, until)
                .ok_or_else(|| invalid("expected the columns `step`, `phase`, `name` and `value`".to_owned()))?;
        }
        Ok(history)
    }

    fn append(&mut self, batch: &RecordBatch, until: u64) -> Option<()> {
        let steps = batch.column_by_name("step")?.as_any().downcast_ref::<UInt64Array>()?;
        let text = |name| batch.column_by_name(name)?.as_any().downcast_ref::<StringArray>();
        let (phases, names) = (text("phase")?, text("name")?);
        let values = batch.column_by_name("value")?.as_any().downcast_ref::<Float64Array>()?;
        for row in (0..steps.len()).filter(|row| steps.value(*row) < until) {
            let phase = [TRAIN, VALIDATION].into_iter().find(|phase| *phase == phases.value(row))?;
            self.add(steps.value(row), phase, [(names.value(row).to_owned(), values.value(row))]);
        }
        Some(())
    }
}

fn schema() -> Schema {
    let field = |id: usize, name: &str, kind: DataType, doc: &str| {
        let id = (parquet::arrow::PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string());
        Field::new(name, kind, false).with_metadata(HashMap::from([id, ("doc".to_owned(), doc.to_owned())]))
    };
    Schema::new(vec![
        field(1, "step", DataType::UInt64, "The step, counted from 0; for a validation, the last step before it."),
        field(2, "phase", DataType::Utf8, "train or validation."),
        field(3, "name", DataType::Utf8, "The name of the loss, score or rate."),
        field(4, "value", DataType::Float64, "The value; NaN if undefined."),
    ])
}
