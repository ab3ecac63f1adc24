//! What networks are trained on: scans made ready, crops of them, batches.
//!
//! ```text
//!  scan + organs ──▶ Case ──▶ Patch ──▶ augmented ──▶ mixed ──▶ Batch ──▶ Loader ──▶ training loop
//!                  [case]    [crop]     [augment]   [cutmix]  [batch]   [loader]
//! ```
//!
//! Every draw is keyed by the run's seed, the step and the place in the batch: a batch is a function of its step, so it is
//! the same whatever thread makes it, whether training was interrupted before it, and however far ahead it was made.

mod augment;
mod batch;
mod case;
mod cases;
mod crop;
mod cutmix;
mod draw;
mod loader;
mod runs;

pub use augment::{AugmentConfig, Symmetry};
pub use batch::{Batch, CropOrigin, Patch};
pub(super) use batch::{append, array_of, volumes_on};
pub use case::{Case, VoxelIndex};
pub use cases::{CaseEntry, Cases, Survey};
pub(super) use crop::around;
pub use crop::{CropCentre, CropConfig};
pub use cutmix::{CutMixConfig, cut_mix};
pub(super) use draw::{MOST_DRAWS, draw_case};
pub use loader::{Loader, Sampler};
pub use runs::RunSamples;
