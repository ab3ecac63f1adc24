//! Tests of the tables: columns, encoding and decoding.

use std::sync::Arc;

use freetumor::error::{Fault, FaultKind};
use freetumor::random::Key;
use freetumor::record::SampleRow;
use freetumor::record::parquet::{Row, decode_part, encode_part, row_count};
use freetumor::record::schema::Table;
use freetumor::record::{FaultRecord, Outcome, Placement, ScanRecord};
use freetumor::score::Score;
use freetumor::store::{DurableFolder, DurableStorage};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::fixture;

fn rows(count: u64) -> (Vec<SampleRow>, Vec<ScanRecord>, Vec<FaultRecord>) {
    let root = tempfile::tempdir().unwrap();
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root.path()));
    let spool = freetumor::run::spool::Spool::new(store, []);
    let (mut samples, mut scans, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let outcome = fixture::spool_scan(&spool, 4, &fixture::entry(number), [8, 8, 6]).unwrap();
        assert!(outcome.files.iter().all(|files| files.volumes.is_none()), "without sinks no volume is encoded");
        for (index, record) in outcome.samples.into_iter().enumerate() {
            let placement = Placement {
                image_path: (index % 2 == 0).then(|| format!("data/{index}.image.nii.gz")),
                shard: (index % 3 == 0).then(|| "data/1.tar".to_owned()),
                shard_offset_bytes: (index % 3 == 0).then_some(512 * index as u64),
                ..Placement::default()
            };
            samples.push(SampleRow { record, placement });
        }
        scans.push(outcome.scan);
        faults.extend(outcome.faults);
    }
    let entry = fixture::entry(0);
    faults.push(FaultRecord {
        scan_id: entry.scan_id,
        dataset: entry.dataset,
        source: entry.source,
        epoch: 4,
        fault: Fault::mask(FaultKind::NonFinite, "expected numbers, got 3 NaN"),
    });
    (samples, scans, faults)
}

fn check<R: Row + Clone + PartialEq + std::fmt::Debug>(rows: Vec<R>) {
    assert!(rows.len() > 1, "{}", R::TABLE.name());
    let part = encode_part(4, rows.clone()).unwrap();
    let mut shuffled = rows.clone();
    shuffled.reverse();
    shuffled.rotate_left(rows.len() / 3);
    assert_eq!(encode_part(4, shuffled).unwrap(), part, "the order of rows does not matter");
    assert_eq!(row_count(part.bytes.clone()).unwrap(), rows.len() as u64);
    assert_eq!(part.entry.path, format!("data/000000000004-{}.parquet", part.entry.sha256));
    let mut sorted = rows;
    R::sort(&mut sorted);
    assert_eq!(decode_part::<R>(part.bytes).unwrap(), sorted);
    let empty = encode_part::<R>(4, Vec::new()).unwrap();
    assert_eq!(decode_part::<R>(empty.bytes).unwrap(), []);
}

#[test]
fn rows_round_trip_through_parquet() {
    let (samples, scans, faults) = rows(24);
    let accepted = samples.iter().filter(|row| row.record.outcome == Outcome::Accepted).count();
    assert!(accepted > 5 && samples.iter().any(|row| row.record.geometry.is_none()) && faults.len() > 2);
    check(samples);
    check(scans);
    check(faults);
}

#[test]
fn score_that_is_not_finite_is_absent() {
    let (samples, ..) = rows(4);
    assert!(samples.iter().all(|row| row.record.scores.get(Score::HuRing).is_none()));
    assert!(samples.iter().all(|row| row.record.scores.get(Score::Cnr).is_some()));
}

#[test]
fn decode_part_of_other_table_names_missing_column() {
    let (_, scans, _) = rows(4);
    let bytes = encode_part(4, scans).unwrap().bytes;
    let error = decode_part::<FaultRecord>(bytes.clone()).unwrap_err();
    assert!(error.to_string().contains("stage"), "{error}");
    assert!(decode_part::<ScanRecord>(bytes[..bytes.len() / 2].to_vec()).is_err());
}

#[test]
fn parquet_metadata_documents_columns() {
    let (samples, ..) = rows(4);
    let bytes = encode_part(4, samples).unwrap().bytes;
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let file = reader.metadata().file_metadata();
    assert_eq!(file.created_by(), Some("freetumor"));
    let schema = parquet::arrow::parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).unwrap();
    for (column, (field, stored)) in
        Table::Samples.columns().iter().zip(schema.fields().iter().zip(file.schema().get_fields()))
    {
        assert_eq!(stored.get_basic_info().id(), column.id, "{}", column.name);
        assert_eq!(field.metadata()["doc"], column.doc);
        assert_eq!(field.metadata().get("unit").map_or("", String::as_str), column.unit);
    }
}

#[test]
fn unsigned_64_bit_integer_round_trips() {
    let (mut samples, ..) = rows(1);
    samples.truncate(1);
    samples[0].record.seed = u64::MAX;
    let part = encode_part(0, samples).unwrap();
    assert_eq!(decode_part::<SampleRow>(part.bytes).unwrap()[0].record.seed, u64::MAX);
}

#[test]
fn seal_fails_on_rows_of_other_epoch() {
    let root = tempfile::tempdir().unwrap();
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root.path()));
    let spool = freetumor::run::spool::Spool::new(Arc::clone(&store), []);
    let outcome = fixture::spool_scan(&spool, 1, &fixture::entry(0), [8, 8, 6]).unwrap();
    let error = freetumor::run::seal::seal(&*store, 2, vec![outcome], &[]).unwrap_err();
    assert!(error.to_string().contains("another epoch"), "{error}");
}

#[test]
fn geometry_that_is_not_finite_is_fault() {
    let root = tempfile::tempdir().unwrap();
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root.path()));
    let spool = freetumor::run::spool::Spool::new(store, []);
    let mut outcome = (0..)
        .map(|number| fixture::spool_scan(&spool, 0, &fixture::entry(number), [8, 8, 6]).unwrap())
        .find(|outcome| outcome.samples.iter().any(|record| record.geometry.is_some()))
        .unwrap();
    let mut random = Key::root(1).stream("pick");
    let with_site: Vec<usize> = (0..3).filter(|i| outcome.samples[*i].geometry.is_some()).collect();
    let picked = with_site[random.index(with_site.len())];
    outcome.samples[picked].geometry.as_mut().unwrap().sphericity = f64::INFINITY;
    assert_eq!(spool.save(0, outcome).unwrap().unwrap_err().kind, FaultKind::NonFinite);
}
