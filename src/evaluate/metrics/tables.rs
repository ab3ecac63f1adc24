//! The tables of cases and lesions as Parquet.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};

use super::lesions::Lesion;
use super::summary::{CaseRow, EvaluationPlan};
use crate::error::{Error, Result};
use crate::record::parquet::encode_batch;
use crate::record::schema::{Column, ColumnType, schema_of};

/// A column with the function that fills it from rows.
struct FilledColumn<R> {
    column: Column,
    values: fn(&[R]) -> ArrayRef,
}

/// Lists the columns of a table of `$row`, each with the function that fills it.
macro_rules! filled {
    ($row:ty: $($id:literal $name:literal $kind:ident $null:ident $unit:literal $doc:literal $values:expr;)*) => {
        vec![$(FilledColumn::<$row> {
            column: Column {
                id: $id, name: $name, kind: ColumnType::$kind, nullable: filled!(@$null), unit: $unit, doc: $doc,
            },
            values: $values,
        }),*]
    };
    (@always) => { false };
    (@maybe) => { true };
}

fn strings<R>(rows: &[R], get: impl Fn(&R) -> &str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(get)))
}

fn numbers<R>(rows: &[R], get: impl Fn(&R) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(get).collect::<Float64Array>())
}

fn counts<R>(rows: &[R], get: impl Fn(&R) -> u64) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(rows.iter().map(get)))
}

fn indices<R>(rows: &[R], get: impl Fn(&R) -> usize) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| u32::try_from(get(row)).unwrap_or(u32::MAX))))
}

fn flags<R>(rows: &[R], get: impl Fn(&R) -> bool) -> ArrayRef {
    Arc::new(BooleanArray::from(rows.iter().map(get).collect::<Vec<bool>>()))
}

fn encode_table<R>(name: &str, doc: &str, columns: &[FilledColumn<R>], rows: &[R]) -> Result<Vec<u8>> {
    let schema: Vec<Column> = columns.iter().map(|filled| filled.column).collect();
    let arrays = columns.iter().map(|filled| (filled.values)(rows)).collect();
    let batch = RecordBatch::try_new(schema_of(name, doc, &schema), arrays);
    encode_batch(&batch.map_err(|e| Error::new(format!("cannot write the table {name}: {e}")).with_source(e))?)
}

/// A case with the names of its arm and organ.
#[derive(Clone, Copy)]
struct NamedCase<'a> {
    plan: &'a EvaluationPlan,
    row: &'a CaseRow,
}

impl<'a> NamedCase<'a> {
    fn arm(&self) -> &'a str {
        &self.plan.arms[self.row.arm].0
    }

    fn organ(&self) -> &'a str {
        &self.plan.organs[self.row.organ].name
    }
}

/// Encodes a row for every case, organ and network as a Parquet file; the columns are documented in the schema.
///
/// # Errors
/// Returns an error if the table cannot be encoded.
pub fn cases_table(plan: &EvaluationPlan, rows: &[CaseRow]) -> Result<Vec<u8>> {
    let named: Vec<NamedCase<'_>> = rows.iter().map(|row| NamedCase { plan, row }).collect();
    let columns = filled! { NamedCase<'_>:
        1 "arm" Text always "" "The name of the arm." |rows| strings(rows, |r| r.arm());
        2 "seed" U32 always "" "The index of the network in the arm." |rows| indices(rows, |r| r.row.seed);
        3 "case" Text always "" "The name of the case, as in its file names." |rows| strings(rows, |r| &r.row.case);
        4 "patient" Text always "" "The patient of the case." |rows| strings(rows, |r| &r.row.patient);
        5 "organ" Text always "" "The organ." |rows| strings(rows, |r| r.organ());
        6 "tumor_dice" F64 maybe "" "Dice of the tumors; null if neither ground truth nor prediction has a tumor." |rows| numbers(rows, |r| r.row.measures.tumor_dice);
        7 "tumor_nsd" F64 maybe "" "Surface Dice of the tumors; null if neither ground truth nor prediction has a tumor." |rows| numbers(rows, |r| r.row.measures.tumor_nsd);
        8 "tolerance_mm" F64 always "mm" "The tolerance of the surface Dice." |rows| numbers(rows, |r| Some(r.row.measures.tolerance_mm));
        9 "organ_dice" F64 maybe "" "Dice of the organ with its tumors." |rows| numbers(rows, |r| r.row.measures.organ_dice);
        10 "truth_mm3" F64 always "mm3" "The tumor volume in the ground truth." |rows| numbers(rows, |r| Some(r.row.measures.truth_mm3));
        11 "predicted_mm3" F64 always "mm3" "The tumor volume in the prediction." |rows| numbers(rows, |r| Some(r.row.measures.predicted_mm3));
        12 "lesions" U64 always "" "The number of lesions of the ground truth." |rows| counts(rows, |r| r.row.measures.found.lesions.len() as u64);
        13 "found" U64 always "" "The number of lesions of the ground truth that were found." |rows| counts(rows, |r| r.row.measures.found.lesions.iter().filter(|lesion| lesion.is_found).count() as u64);
        14 "false_positives" U64 always "" "The number of predicted components over 30 mm3 that touch no lesion." |rows| counts(rows, |r| r.row.measures.found.false_positives_mm3.len() as u64);
        15 "false_positive_mm3" F64 always "mm3" "The total volume of false positives." |rows| numbers(rows, |r| Some(r.row.measures.found.false_positives_mm3.iter().fold(0.0, |sum, mm3| sum + mm3)));
    };
    encode_table("cases", "One row for every case, organ and network.", &columns, &named)
}

/// Encodes a row for every lesion of the ground truth and every network as a Parquet file; the columns are documented in the schema.
///
/// # Errors
/// Returns an error if the table cannot be encoded.
pub fn lesions_table(plan: &EvaluationPlan, rows: &[CaseRow]) -> Result<Vec<u8>> {
    type Row<'a> = (NamedCase<'a>, usize, &'a Lesion);
    let named = rows.iter().map(|row| NamedCase { plan, row });
    let each: Vec<Row<'_>> = named
        .flat_map(|named| {
            named.row.measures.found.lesions.iter().enumerate().map(move |(index, lesion)| (named, index, lesion))
        })
        .collect();
    let columns = filled! { Row<'_>:
        1 "arm" Text always "" "The name of the arm." |rows| strings(rows, |r| r.0.arm());
        2 "seed" U32 always "" "The index of the network in the arm." |rows| indices(rows, |r| r.0.row.seed);
        3 "case" Text always "" "The name of the case, as in its file names." |rows| strings(rows, |r| &r.0.row.case);
        4 "patient" Text always "" "The patient of the case." |rows| strings(rows, |r| &r.0.row.patient);
        5 "organ" Text always "" "The organ." |rows| strings(rows, |r| r.0.organ());
        6 "lesion" U32 always "" "The index of the lesion in the case." |rows| indices(rows, |r| r.1);
        7 "voxels" U64 always "voxel" "The number of voxels." |rows| counts(rows, |r| r.2.voxels);
        8 "volume_mm3" F64 always "mm3" "The volume of the lesion." |rows| numbers(rows, |r| Some(r.2.volume_mm3));
        9 "diameter_mm" F64 always "mm" "The diameter of a ball of the same volume." |rows| numbers(rows, |r| Some(r.2.diameter_mm));
        10 "diameter_bin" Text always "mm" "The bin of the diameter." |rows| strings(rows, |r| r.2.bin.name());
        11 "is_measurable" Flag always "" "Whether lesions of the bin can have a diameter of three voxels on the grid." |rows| flags(rows, |r| r.2.is_measurable);
        12 "center_r_mm" F64 always "mm" "The centre, towards the right." |rows| numbers(rows, |r| Some(r.2.center_mm[0]));
        13 "center_a_mm" F64 always "mm" "The centre, towards the front." |rows| numbers(rows, |r| Some(r.2.center_mm[1]));
        14 "center_s_mm" F64 always "mm" "The centre, towards the head." |rows| numbers(rows, |r| Some(r.2.center_mm[2]));
        15 "covered_fraction" F64 always "" "The share of the voxels that are predicted." |rows| numbers(rows, |r| Some(r.2.covered_fraction));
        16 "is_found" Flag always "" "Whether the covered fraction is at least 0.1." |rows| flags(rows, |r| r.2.is_found);
    };
    encode_table("lesions", "One row for every lesion of the ground truth and every network.", &columns, &each)
}
