//! Runs a plan: every scan once, within a budget of bytes, committed epoch by epoch.
//!
//! This room owns the order of work: which scans are in memory, on which thread, and when an epoch is committed. timely schedules and
//! the pool computes. What travels the dataflow are small records and shared handles; volumes are read, masked and
//! given tumors by jobs on the [`pool`], and are admitted by a [`Budget`] of bytes before they are read. Work on epoch N may
//! begin when epoch N − 2 is durable, so that sealing one and working on the next overlap and nothing piles up.
//!
//! What is done to a scan are plain methods of [`StageRunner`]; what is done to an epoch are [`deduplicate`] and [`Ledger::commit`]. A loop
//! over them makes the same rows and bytes as the dataflow does with any number of workers, and a test holds the two together:
//!
//! ```text
//! for epoch in schedule {
//!     ledger.open_epoch(epoch);                     // the ingest manifest is durable before its work starts
//!     for scan in epoch { peek, read, mask, synthesize…, finish }
//!     deduplicate(known, outcomes);                 // one of several equal scans is worked on
//!     ledger.commit(epoch, outcomes, counts);       // tables, patches, shards, layouts: one commit for everything
//! }
//! ```
//!
//! A run that ends early, however it ends, leaves whole commits and a staging folder; the next run into the same folder verifies
//! them, uses them, and resumes.

mod abort;
mod admit;
mod budget;
mod build;
mod deduplicate;
mod drive;
mod gather;
mod ledger;
mod offload;
mod organ;
pub mod pool;
mod progress;
mod quality;
mod report;
mod run;
mod schedule;
mod split_three;
pub mod telemetry;
mod work;

pub use abort::Abort;
pub use budget::{Budget, Lease};
pub use deduplicate::{KnownScans, deduplicate};
pub use ledger::Ledger;
pub use organ::Failure;
pub use progress::{Progress, Snapshot};
pub use quality::QualityChange;
pub use report::{QualityCount, RunReport, StepSum};
pub use run::{RunOptions, run};
pub use schedule::{EpochWork, Schedule, Version};
pub use work::{DigestedScan, StageReport, StageRunner};

/// The logical time of the dataflow: the number of a commit.
pub type Epoch = u64;
