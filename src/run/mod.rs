//! The run folder: the results of a run, published by one commit for each epoch.
//!
//! ```text
//! RUN/run.json                  the inputs of the run: RunManifest
//! RUN/settings/SHA256.json       the inputs after a change of the graph: RunManifest
//! RUN/ingest/000000000012.json  the scans of epoch 12: IngestManifest
//! RUN/epochs/000000000012.json  the files of epoch 12: Commit
//! RUN/epochs/000000000012.base.json   the earliest state that can be read, after a purge: Base
//! RUN/tags/NAME.json            the name of a state: Tag
//! RUN/data/                     the files that commits name: tables, patches, images, labels, shards
//! RUN/samples/ scans/ faults/ quality/   links to the current parts of each table
//! RUN/private/                  the paths of scans and of the graph file; readable only by the owner
//! RUN/layouts/                  layout folders of the sinks for other programs
//! RUN/requests/                 requests to the process that writes the folder
//! RUN/staging/                  unfinished work
//! ```
//!
//! This module owns the format of the run folder and guarantees that the files of a commit are durable and complete.
//!
//! A [`RunFolder`] reads the commits in order, up to the first missing one. The state of the run is the replay of all
//! commits up to the last commit.
//!
//! A [`RunWriter`] ingests scans and commits epochs, each once and in order. In between, results of scans are staged in a [`spool`],
//! and [`seal`] publishes the results of an epoch.

mod base;
mod commit;
mod diff;
mod expectations;
mod ingest_manifest;
mod ingested;
mod manifest;
mod private;
mod projection;
mod purge;
mod quality;
mod reader;
mod remove;
pub mod requests;
mod retest;
pub mod seal;
pub mod spool;
mod stream;
mod tag;
mod verify;
mod withdrawn;
mod writer;

pub use base::Base;
pub use commit::{Checkpoint, Commit, Counts, QualityCounts};
pub use diff::{SampleCounts, SampleDiff, diff_samples};
pub use ingest_manifest::{EpochChanges, IngestEntry, IngestManifest, graph_after};
pub use ingested::IngestedScans;
pub use manifest::{FORMAT_VERSION, RunManifest, SourceGraph};
pub use private::{PrivatePipeline, without_paths};
pub use reader::{RunFolder, RunHead, Snapshot};
pub use remove::{Removal, ScansByEpoch, remove_scans, rows_of_scans};
pub use retest::{CommittedFiles, Retest, ScanRows, retest_scans, visit_scans};
pub use tag::{Revision, Tag, TagName};
pub use verify::Verification;
pub use withdrawn::Tombstones;
pub use writer::RunWriter;

use crate::record::epoch_name;

/// Number of commits between two checkpoints; readers replay commits from the last checkpoint.
pub const CHECKPOINT_INTERVAL: u64 = 100;

const MANIFEST: &str = "run.json";

/// The folder of the run manifests after changes of the graph.
const SETTINGS: &str = "settings";

fn commit_name(epoch: u64) -> String {
    format!("epochs/{}.json", epoch_name(epoch))
}

fn settings_name(sha256: &str) -> String {
    format!("{SETTINGS}/{sha256}.json")
}

fn checkpoint_name(epoch: u64) -> String {
    format!("epochs/{}.checkpoint.json", epoch_name(epoch))
}

fn ingest_name(epoch: u64) -> String {
    format!("ingest/{}.json", epoch_name(epoch))
}
