//! The samples of run folders that a training run uses, as the Parquet table `samples.parquet` of the training run.
//!
//! The receipt of a withdrawal names the training runs that used samples of the withdrawn scans.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::output::write_bytes;
use crate::error::{Error, Result};
use crate::id::ScanId;

/// The name of the table in the folder of a training run.
pub const USED_SAMPLES: &str = "samples.parquet";

/// Depth to which folders are searched for training runs.
const MAX_DEPTH: usize = 4;

/// A sample that a training run uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsedSample {
    /// The run folder: SHA-256 of its `run.json`.
    pub run: String,
    /// The commit whose state was used.
    pub epoch: u64,
    /// The id of the sample.
    pub sample_id: String,
    /// The id of the scan.
    pub scan_id: ScanId,
}

/// Writes the table of a training run.
///
/// ```
/// use freetumor::train::used_samples::{UsedSample, read, trainings_with, write};
/// let folder = tempfile::tempdir()?;
/// let scan_id = "00ff2a0000000001".parse()?;
/// let sample = UsedSample { run: "5e".into(), epoch: 3, sample_id: "0a".into(), scan_id };
/// std::fs::create_dir(folder.path().join("training"))?;
/// let path = folder.path().join("training/samples.parquet");
/// write(&path, &[sample.clone()])?;
/// assert_eq!(read(&path)?, [sample]);
/// let found = trainings_with(&[folder.path().to_owned()], "5e", &[scan_id].into())?;
/// assert_eq!(found[0].1, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, samples: &[UsedSample]) -> Result<()> {
    let unwritable = |cause: String| Error::new(format!("cannot write {}: {cause}", path.display()));
    let text = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
    let columns = vec![
        text(samples.iter().map(|sample| sample.run.clone()).collect()),
        Arc::new(UInt64Array::from(samples.iter().map(|sample| sample.epoch).collect::<Vec<_>>())) as ArrayRef,
        text(samples.iter().map(|sample| sample.sample_id.clone()).collect()),
        text(samples.iter().map(|sample| sample.scan_id.to_string()).collect()),
    ];
    let schema = Arc::new(schema());
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|cause| unwritable(cause.to_string()))?;
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).map_err(|cause| unwritable(cause.to_string()))?;
    writer.write(&batch).map_err(|cause| unwritable(cause.to_string()))?;
    writer.close().map_err(|cause| unwritable(cause.to_string()))?;
    write_bytes(path, &bytes)
}

/// Reads the table of a training run.
///
/// # Errors
/// If the file cannot be read or has other columns.
pub fn read(path: &Path) -> Result<Vec<UsedSample>> {
    let invalid = |cause: &str| Error::new(format!("cannot read {}: {cause}", path.display()));
    let bytes = std::fs::read(path).map_err(|cause| Error::io("cannot read", path, cause))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).and_then(|builder| builder.build());
    let mut samples = Vec::new();
    for batch in reader.map_err(|cause| invalid(&cause.to_string()))? {
        let batch = batch.map_err(|cause| invalid(&cause.to_string()))?;
        let text = |name| batch.column_by_name(name)?.as_any().downcast_ref::<StringArray>();
        let epochs = batch.column_by_name("epoch").and_then(|column| column.as_any().downcast_ref::<UInt64Array>());
        let (Some(runs), Some(epochs), Some(ids), Some(scans)) =
            (text("run"), epochs, text("sample_id"), text("scan_id"))
        else {
            return Err(invalid("expected the columns run, epoch, sample_id and scan_id, got others"));
        };
        for row in 0..batch.num_rows() {
            samples.push(UsedSample {
                run: runs.value(row).to_owned(),
                epoch: epochs.value(row),
                sample_id: ids.value(row).to_owned(),
                scan_id: scans.value(row).parse()?,
            });
        }
    }
    Ok(samples)
}

/// Returns the training runs in or below folders that used samples of these scans of a run folder, each with the number of samples.
///
/// # Errors
/// If a table cannot be read.
pub fn trainings_with(folders: &[PathBuf], run: &str, scans: &BTreeSet<ScanId>) -> Result<Vec<(PathBuf, usize)>> {
    let mut found = Vec::new();
    for folder in folders {
        std::fs::read_dir(folder).map_err(|cause| Error::io("cannot list the training runs in", folder, cause))?;
        let walk = walkdir::WalkDir::new(folder).max_depth(MAX_DEPTH).sort_by_file_name();
        for entry in
            walk.into_iter().filter_map(std::result::Result::ok).filter(|entry| entry.file_name() == USED_SAMPLES)
        {
            let used = read(entry.path())?;
            let count = used.iter().filter(|sample| sample.run == run && scans.contains(&sample.scan_id)).count();
            if count > 0 {
                found.push((entry.path().parent().unwrap_or(folder).to_owned(), count));
            }
        }
    }
    Ok(found)
}

fn schema() -> Schema {
    let field = |id: usize, name: &str, kind: DataType, doc: &str| {
        let id = (parquet::arrow::PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string());
        Field::new(name, kind, false).with_metadata(HashMap::from([id, ("doc".to_owned(), doc.to_owned())]))
    };
    Schema::new(vec![
        field(1, "run", DataType::Utf8, "The run folder: SHA-256 of its run.json."),
        field(2, "epoch", DataType::UInt64, "The commit whose state was used."),
        field(3, "sample_id", DataType::Utf8, "The id of the sample."),
        field(4, "scan_id", DataType::Utf8, "The id of the scan."),
    ])
}
