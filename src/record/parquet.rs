//! Encoding of records as Parquet, and decoding.
//!
//! A part holds the sorted rows of one table and one epoch. Its bytes depend only on these rows: no time, no host name, and a fixed
//! writer name.

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::column::{Descriptor, Value};
use super::columns;
use super::file::DATA;
use super::schema::Table;
use super::{
    FaultRecord, FileEntry, Placement, QualityGroup, QualityRecord, SampleId, SampleRecord, SampleRow, ScanRecord,
    epoch_name,
};
use crate::error::{Error, Result};
use crate::store::{DurableStorage, FileDigest};

/// A record that is a row of a table.
pub trait Row: Sized + Send + Sync + 'static {
    /// The table.
    const TABLE: Table;

    /// Returns a row with placeholder values, to be filled.
    #[doc(hidden)]
    fn empty() -> Self;

    /// Returns the columns with access to their values.
    #[doc(hidden)]
    fn descriptors() -> Vec<Descriptor<Self>>;

    /// Sorts rows into the order of the table, which is strict for different rows.
    fn sort(rows: &mut [Self]);

    /// Returns the value of a column; `None` if the row has no value or the table has no such column of strings or numbers.
    fn value(&self, column: &str) -> Option<Value> {
        Self::descriptors().iter().find(|descriptor| descriptor.column.name == column)?.value(self)
    }
}

impl Row for SampleRow {
    const TABLE: Table = Table::Samples;

    fn empty() -> Self {
        Self { record: SampleRecord::empty(), placement: Placement::default() }
    }

    fn descriptors() -> Vec<Descriptor<Self>> {
        columns::samples::descriptors()
    }

    fn sort(rows: &mut [Self]) {
        fn key(row: &SampleRow) -> (SampleId, &str, u32) {
            (row.record.sample_id, &row.record.branch, row.record.tumor_id)
        }
        rows.sort_by(|a, b| key(a).cmp(&key(b)));
    }
}

impl Row for ScanRecord {
    const TABLE: Table = Table::Scans;

    fn empty() -> Self {
        Self::empty()
    }

    fn descriptors() -> Vec<Descriptor<Self>> {
        columns::scans::descriptors()
    }

    fn sort(rows: &mut [Self]) {
        rows.sort_by_key(|row| row.scan_id);
    }
}

impl Row for FaultRecord {
    const TABLE: Table = Table::Faults;

    fn empty() -> Self {
        Self::empty()
    }

    fn descriptors() -> Vec<Descriptor<Self>> {
        columns::faults::descriptors()
    }

    fn sort(rows: &mut [Self]) {
        rows.sort_by(|a, b| (a.scan_id, &a.fault).cmp(&(b.scan_id, &b.fault)));
    }
}

impl Row for QualityRecord {
    const TABLE: Table = Table::Quality;

    fn empty() -> Self {
        Self { group: QualityGroup::default(), epoch: 0, attempts: 0 }
    }

    fn descriptors() -> Vec<Descriptor<Self>> {
        columns::quality::descriptors()
    }

    fn sort(rows: &mut [Self]) {
        rows.sort();
    }
}

/// A Parquet file in memory with its future name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParquetPart {
    /// The path `data/EPOCH-SHA256.parquet` with digest and number of rows.
    pub entry: FileEntry,
    /// The content of the file.
    pub bytes: Vec<u8>,
}

impl ParquetPart {
    /// Writes the part durably.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn publish(self, store: &dyn DurableStorage) -> Result<FileEntry> {
        store.create(&self.entry.path, &self.bytes)?;
        Ok(self.entry)
    }
}

/// Encodes the rows of one table and epoch as Parquet: sorted, compressed, with equal bytes for equal rows.
///
/// # Errors
/// If Arrow or Parquet fails.
pub fn encode_part<R: Row>(epoch: u64, mut rows: Vec<R>) -> Result<ParquetPart> {
    R::sort(&mut rows);
    let table = R::TABLE;
    let columns = R::descriptors().iter().map(|descriptor| descriptor.array(&rows)).collect();
    let bytes = encode(table, columns).map_err(|e| {
        Error::new(format!("cannot encode the part of `{}` of epoch {epoch}: {e}", table.name())).with_source(e)
    })?;
    let FileDigest { bytes: length, sha256 } = FileDigest::of(&bytes);
    let path = format!("{DATA}/{}-{sha256}.parquet", epoch_name(epoch));
    let entry = FileEntry { path, table: table.name().to_owned(), bytes: length, sha256, rows: rows.len() as u64 };
    Ok(ParquetPart { entry, bytes })
}

/// Decodes the rows of a Parquet file that [`encode_part`] encoded.
///
/// # Errors
/// If the bytes are not such a file.
pub fn decode_part<R: Row>(bytes: Vec<u8>) -> Result<Vec<R>> {
    let invalid = |e: String| Error::new(format!("cannot decode a part of `{}`: {e}", R::TABLE.name()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
        .and_then(|builder| builder.build())
        .map_err(|e| invalid(e.to_string()))?;
    let descriptors = R::descriptors();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| invalid(e.to_string()))?;
        let start = rows.len();
        rows.extend((0..batch.num_rows()).map(|_| R::empty()));
        for descriptor in &descriptors {
            let name = descriptor.column.name;
            let array = batch.column_by_name(name);
            let array = array.ok_or_else(|| invalid(format!("expected a column {name:?}, got none")))?;
            descriptor.fill(array, &mut rows[start..]).map_err(|e| invalid(e.to_string()))?;
        }
    }
    Ok(rows)
}

/// Returns the number of rows in the metadata of a Parquet file.
///
/// # Errors
/// If the bytes are not a Parquet file.
pub fn row_count(bytes: Vec<u8>) -> Result<u64> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
        .map_err(|e| Error::new(format!("not a Parquet file: {e}")).with_source(e))?;
    Ok(u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0))
}

/// Encodes a batch as a Parquet file: compressed, with equal bytes for equal rows.
///
/// # Errors
/// If Parquet fails.
pub fn encode_batch(batch: &RecordBatch) -> Result<Vec<u8>> {
    encode_with(batch).map_err(|e| Error::new(format!("cannot encode a Parquet table: {e}")).with_source(e))
}

fn encode(table: Table, columns: Vec<ArrayRef>) -> parquet::errors::Result<Vec<u8>> {
    encode_with(&RecordBatch::try_new(table.schema(), columns)?)
}

fn encode_with(batch: &RecordBatch) -> parquet::errors::Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by("freetumor".to_owned())
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(bytes)
}
