//! Records to Parquet and back.
//!
//! A part holds the rows of one table and one epoch, sorted, and its bytes depend on those rows alone: no time, no host,
//! a fixed name for the writer.

mod columns;
mod read;

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::durable::{Durable, FileDigest};
use super::schema::Table;
use super::{FaultRecord, FileEntry, Placement, QualityRecord, SampleRecord, ScanRecord, epoch_name};
use crate::error::{Error, Result};

/// A row of `samples`.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// What the stages say.
    pub record: SampleRecord,
    /// Where the sinks put it; empty for what was rejected.
    pub placement: Placement,
}

/// A record that is a row of a table.
pub trait Row: Sized {
    /// The table.
    const TABLE: Table;

    /// Puts rows into the order of the table, which no two different rows share.
    fn sort(rows: &mut [Self]);

    /// The columns of rows, in the order of the schema.
    fn columns(rows: &[Self]) -> Vec<ArrayRef>;

    /// The rows of a batch with the table's schema.
    ///
    /// # Errors
    /// Where the batch has another schema, or a value that no record can hold.
    fn read(batch: &RecordBatch) -> Result<Vec<Self>>;
}

impl Row for SampleRow {
    const TABLE: Table = Table::Samples;

    fn sort(rows: &mut [Self]) {
        rows.sort_by(|a, b| a.record.sample_id.cmp(&b.record.sample_id));
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        columns::samples(rows)
    }

    fn read(batch: &RecordBatch) -> Result<Vec<Self>> {
        read::samples(batch)
    }
}

impl Row for ScanRecord {
    const TABLE: Table = Table::Scans;

    fn sort(rows: &mut [Self]) {
        rows.sort_by(|a, b| a.scan_id.cmp(&b.scan_id));
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        columns::scans(rows)
    }

    fn read(batch: &RecordBatch) -> Result<Vec<Self>> {
        read::scans(batch)
    }
}

impl Row for FaultRecord {
    const TABLE: Table = Table::Faults;

    fn sort(rows: &mut [Self]) {
        rows.sort_by(|a, b| (&a.scan_id, &a.fault).cmp(&(&b.scan_id, &b.fault)));
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        columns::faults(rows)
    }

    fn read(batch: &RecordBatch) -> Result<Vec<Self>> {
        read::faults(batch)
    }
}

impl Row for QualityRecord {
    const TABLE: Table = Table::Quality;

    fn sort(rows: &mut [Self]) {
        rows.sort();
    }

    fn columns(rows: &[Self]) -> Vec<ArrayRef> {
        columns::quality(rows)
    }

    fn read(batch: &RecordBatch) -> Result<Vec<Self>> {
        read::quality(batch)
    }
}

/// A Parquet file in memory, under the name that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `TABLE/EPOCH-SHA256.parquet` with its digest and number of rows.
    pub entry: FileEntry,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Part {
    /// Makes the part durable.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn publish(self, store: &dyn Durable) -> Result<FileEntry> {
        store.create(&self.entry.path, &self.bytes)?;
        Ok(self.entry)
    }
}

/// The rows of one table and epoch as Parquet: sorted, compressed, the same bytes for the same rows.
///
/// # Errors
/// Where Arrow or Parquet refuse.
pub fn write_part<R: Row>(epoch: u64, mut rows: Vec<R>) -> Result<Part> {
    R::sort(&mut rows);
    let table = R::TABLE;
    let bytes = encode(table, R::columns(&rows)).map_err(|e| {
        Error::new(format!("cannot write the part of `{}` of epoch {epoch}: {e}", table.name())).with_source(e)
    })?;
    let FileDigest { bytes: length, sha256 } = FileDigest::of(&bytes);
    let path = format!("{}/{}-{sha256}.parquet", table.name(), epoch_name(epoch));
    let entry = FileEntry { path, table: table.name().to_owned(), bytes: length, sha256, rows: rows.len() as u64 };
    Ok(Part { entry, bytes })
}

/// The rows of a Parquet file that [`write_part`] made.
///
/// # Errors
/// Where the bytes are no such file.
pub fn read_part<R: Row>(bytes: Vec<u8>) -> Result<Vec<R>> {
    let unreadable = |e: String| Error::new(format!("cannot read a part of `{}`: {e}", R::TABLE.name()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
        .and_then(|builder| builder.build())
        .map_err(|e| unreadable(e.to_string()))?;
    let mut rows = Vec::new();
    for batch in reader {
        rows.extend(R::read(&batch.map_err(|e| unreadable(e.to_string()))?)?);
    }
    Ok(rows)
}

/// The number of rows that a Parquet file says it has.
///
/// # Errors
/// Where the bytes are no Parquet file.
pub fn rows_of(bytes: Vec<u8>) -> Result<u64> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
        .map_err(|e| Error::new(format!("no Parquet file: {e}")).with_source(e))?;
    Ok(u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0))
}

/// A batch as a Parquet file: compressed, the same bytes for the same rows.
///
/// # Errors
/// Where Parquet refuses.
pub fn encode_batch(batch: &RecordBatch) -> Result<Vec<u8>> {
    encode_with(batch).map_err(|e| Error::new(format!("cannot write a Parquet table: {e}")).with_source(e))
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
