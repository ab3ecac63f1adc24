//! Records to Parquet and back.
//!
//! A part holds the rows of one table and one epoch, sorted, and its bytes depend on those rows alone: no time, no host,
//! a fixed name for the writer.

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
    FaultRecord, FileEntry, Placement, QualityGroup, QualityRecord, SampleRecord, SampleRow, ScanRecord, epoch_name,
};
use crate::error::{Error, Result};
use crate::store::{Durable, FileDigest};

/// A record that is a row of a table.
pub trait Row: Sized + Send + Sync + 'static {
    /// The table.
    const TABLE: Table;

    /// A row whose fields are yet to be filled.
    #[doc(hidden)]
    fn empty() -> Self;

    /// The columns with the access to them.
    #[doc(hidden)]
    fn descriptors() -> Vec<Descriptor<Self>>;

    /// Puts rows into the order of the table, which no two different rows share.
    fn sort(rows: &mut [Self]);

    /// The value of a column; `None` where the row has none or there is no such column of text or numbers.
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
        rows.sort_by(|a, b| (a.record.sample_id, &a.record.branch).cmp(&(b.record.sample_id, &b.record.branch)));
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

/// A Parquet file in memory, under the name that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParquetPart {
    /// `data/EPOCH-SHA256.parquet` with its digest and number of rows.
    pub entry: FileEntry,
    /// The file.
    pub bytes: Vec<u8>,
}

impl ParquetPart {
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
pub fn write_part<R: Row>(epoch: u64, mut rows: Vec<R>) -> Result<ParquetPart> {
    R::sort(&mut rows);
    let table = R::TABLE;
    let columns = R::descriptors().iter().map(|descriptor| descriptor.array(&rows)).collect();
    let bytes = encode(table, columns).map_err(|e| {
        Error::new(format!("cannot write the part of `{}` of epoch {epoch}: {e}", table.name())).with_source(e)
    })?;
    let FileDigest { bytes: length, sha256 } = FileDigest::of(&bytes);
    let path = format!("{DATA}/{}-{sha256}.parquet", epoch_name(epoch));
    let entry = FileEntry { path, table: table.name().to_owned(), bytes: length, sha256, rows: rows.len() as u64 };
    Ok(ParquetPart { entry, bytes })
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
    let descriptors = R::descriptors();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| unreadable(e.to_string()))?;
        let start = rows.len();
        rows.extend((0..batch.num_rows()).map(|_| R::empty()));
        for descriptor in &descriptors {
            let name = descriptor.column.name;
            let array = batch.column_by_name(name);
            let array = array.ok_or_else(|| unreadable(format!("expected a column {name:?}, there is none")))?;
            descriptor.fill(array, &mut rows[start..]).map_err(|e| unreadable(e.to_string()))?;
        }
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
