//! The tables of a run: identifiers, rows, columns, schemas, and how they become Parquet.
//!
//! This room owns what a row holds and how it is stored. `samples` has a row for every attempt at a tumor and quality test that decided on it, `scans` one for every scan, `faults` one for
//! every fault, `quality` the changes of the number of attempts by group. A new column is a field in `rows` and one line in
//! `columns/`: schema, Parquet, reading and conditions follow from that line.

mod column;
mod columns;
mod condition;
mod file;
pub mod parquet;
mod rows;
pub mod schema;
mod split;

pub use crate::attempt::Outcome;
pub use crate::id::{CandidateDigest, MaskDigest, PatientKey, SampleId, ScanDigest, ScanId, StageDigest};
pub use column::Value;
pub use condition::{ColumnCondition, GroupBy, Relation};
pub use file::{DATA, FileEntry, Placement, epoch_name};
pub use rows::{FaultRecord, QualityGroup, QualityRecord, SampleRecord, SampleRow, ScanRecord, Split, Status};
pub use split::SplitGuard;
