//! The tables of a run: identifiers, rows, columns, schemas and their Parquet encoding.
//!
//! This module owns the fields of each row and their storage. `samples` has one row for each attempt at a tumor and quality test that
//! decided on the attempt, and for each negative, `scans` one for each scan, `faults` one for each fault, and `quality` the changes of the
//! number of attempts by group. A new column is a field in `rows` and one line in `columns/`: schema, Parquet encoding, decoding and
//! conditions are derived from that line.

mod column;
mod columns;
mod condition;
mod expectations;
mod file;
pub mod parquet;
mod rows;
pub mod schema;
mod split;

pub use crate::attempt::Outcome;
pub use crate::id::{CandidateDigest, MaskDigest, PatientKey, SampleId, ScanDigest, ScanId, StageDigest};
pub use column::Value;
pub use condition::{ColumnCondition, GroupBy, Relation};
pub use expectations::{
    Bound, Bounds, Conditions, ExpectationCheck, ExpectationConfig, ExpectationResult, ExpectationTable, ShareConfig,
    check_config,
};
pub use file::{DATA, FileEntry, Placement, epoch_name, epoch_of_name};
pub use rows::{
    FaultRecord, QualityGroup, QualityRecord, SampleKind, SampleRecord, SampleRow, ScanRecord, Split, Status,
};
pub use split::SplitGuard;
