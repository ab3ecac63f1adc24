//! One folder for a run, one commit for everything in it.
//!
//! ```text
//! RUN/run.json                  what is run: RunManifest
//! RUN/intake/000000000012.json  what epoch 12 consists of: Intake
//! RUN/epochs/000000000012.json  what epoch 12 added: Commit
//! RUN/samples/ scans/ faults/   the files that commits name
//! RUN/private/                  where scans lie; readable by the owner only
//! RUN/layouts/                  second names for programs that list folders
//! RUN/staging/                  unfinished work
//! ```
//!
//! A [`RunFolder`] reads: it takes the highest commit without a gap before it, and replays what commits add and remove.
//! A [`RunWriter`] takes scans in and commits epochs, each once, in order.

mod commit;
mod intake;
mod manifest;
mod reader;
mod stream;
mod verify;
mod writer;

pub use commit::{Checkpoint, Commit, Counts};
pub use intake::{Intake, IntakeEntry};
pub use manifest::{FORMAT_VERSION, RunManifest};
pub use reader::{Head, RunFolder, Snapshot};
pub use verify::Verification;
pub use writer::RunWriter;

use crate::sink::epoch_name;

/// Commits between two checkpoints, by which readers need not replay from the beginning.
pub const CHECKPOINT_EVERY: u64 = 100;

const MANIFEST: &str = "run.json";

fn commit_name(epoch: u64) -> String {
    format!("epochs/{}.json", epoch_name(epoch))
}

fn checkpoint_name(epoch: u64) -> String {
    format!("epochs/{}.checkpoint.json", epoch_name(epoch))
}

fn intake_name(epoch: u64) -> String {
    format!("intake/{}.json", epoch_name(epoch))
}
