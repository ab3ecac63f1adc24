//! Execution of a plan: every scan once, within a memory budget, committed by epoch.
//!
//! This module owns the schedule: which scans are in memory, on which thread, and when an epoch is committed. timely schedules and the
//! [`pool`] computes. Only small records and shared handles flow through the dataflow; jobs on the pool read volumes, compute masks and
//! synthesize tumors. A [`Budget`] of bytes admits scans before they are read. Epoch N starts when epoch N − 2 is durable, so that
//! sealing overlaps with the next epoch and results do not accumulate.
//!
//! A scan is processed by plain methods of [`StageRunner`], an epoch by [`deduplicate`] and [`Ledger::commit`]. A loop over these functions
//! produces the same rows and bytes as the dataflow with any number of workers, and a test compares the two:
//!
//! ```text
//! for epoch in schedule {
//!     ledger.open_epoch(epoch);                     // the ingest manifest is durable before its work starts
//!     for scan in epoch { peek, read, mask, synthesize…, finish }
//!     deduplicate(known, outcomes);                 // of equal scans only one keeps its samples
//!     ledger.commit(epoch, outcomes, counts);       // tables, patches, shards, layouts: one commit for everything
//! }
//! ```
//!
//! An interrupted run leaves complete commits and a staging folder; the next run into the same folder verifies and reuses them and
//! resumes.

mod abort;
mod acceptance_band;
mod admit;
mod backoff;
mod budget;
mod build;
mod changes;
mod committed_scans;
mod compose;
mod deduplicate;
mod drive;
mod finished;
mod folder_report;
mod follow;
mod gather;
mod held_out;
mod interruption;
mod ledger;
mod offload;
mod options;
mod organ;
pub mod pool;
mod preview;
mod process;
mod progress;
mod quality;
mod report;
mod requests;
mod retest;
mod run;
mod run_manifest;
mod schedule;
mod selections;
mod series_index;
mod session;
mod settling;
mod shared_contents;
mod split_three;
mod stage_runner;
pub mod telemetry;
mod vacuum;
mod watch;
mod withdrawal;

pub use abort::Abort;
pub use budget::{Budget, Lease};
pub use changes::{CommittedScan, Listing, RunScans, ScanChanges};
pub use deduplicate::{KnownScans, deduplicate};
pub use finished::{changes_since, finished};
pub use follow::{FollowOptions, follow};
pub use ledger::Ledger;
pub use options::RunOptions;
pub use organ::Failure;
pub use preview::{RunPreview, ScanTotals, preview};
pub use process::known_scans;
pub use progress::{Progress, ProgressSnapshot};
pub use quality::QualityChange;
pub use report::{QualityCount, RunReport, StepSum};
pub use run::{retry, run};
pub use schedule::{EpochWork, Schedule};
pub use series_index::{PartOfScan, SeriesIndex};
pub use shared_contents::SharedContent;
pub use stage_runner::{DigestedScan, StageReport, StageRunner};
pub use vacuum::vacuum;
pub use withdrawal::{Receipt, Withdrawal, WithdrawalRequest, withdraw};

/// The logical time of the dataflow: the number of a commit.
pub type Epoch = u64;
