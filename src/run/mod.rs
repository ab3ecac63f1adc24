//! The run folder: one folder for a run, one commit for everything in it.
//!
//! ```text
//! RUN/run.json                  what is run: RunManifest
//! RUN/ingest/000000000012.json  the scans of epoch 12: IngestManifest
//! RUN/epochs/000000000012.json  what epoch 12 added: Commit
//! RUN/data/                     the files that commits name: tables, patches, images, labels, shards
//! RUN/samples/ scans/ faults/ quality/   links to the parts of each table that count
//! RUN/private/                  the paths of scans and of the graph file; readable by the owner only
//! RUN/layouts/                  links for programs that list folders
//! RUN/staging/                  unfinished work
//! ```
//!
//! This room owns the format of the run folder, and promises that what a commit names is durable and complete.
//!
//! A [`RunFolder`] reads: it takes the highest commit without a gap before it, and replays what commits add and remove.
//! A [`RunWriter`] ingests scans and commits epochs, each once, in order. Between the two, results of scans are staged in a
//! [`spool`], and [`seal`] publishes those of an epoch.

mod commit;
mod ingest_manifest;
mod manifest;
mod private;
mod projection;
mod reader;
pub mod seal;
pub mod spool;
mod stream;
mod verify;
mod writer;

pub use commit::{Checkpoint, Commit, Counts};
pub use ingest_manifest::{IngestEntry, IngestManifest};
pub use manifest::{FORMAT_VERSION, RunManifest};
pub use private::{PrivatePipeline, without_paths};
pub use reader::{RunFolder, RunHead, Snapshot};
pub use verify::Verification;
pub use writer::RunWriter;

use crate::record::epoch_name;

/// Commits between two checkpoints, by which readers need not replay from the beginning.
pub const CHECKPOINT_EVERY: u64 = 100;

const MANIFEST: &str = "run.json";

fn commit_name(epoch: u64) -> String {
    format!("epochs/{}.json", epoch_name(epoch))
}

fn checkpoint_name(epoch: u64) -> String {
    format!("epochs/{}.checkpoint.json", epoch_name(epoch))
}

fn ingest_name(epoch: u64) -> String {
    format!("ingest/{}.json", epoch_name(epoch))
}
