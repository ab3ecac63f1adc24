//! The training data: preprocessed scans, crops, batches.
//!
//! ```text
//!  scan + organs ──▶ Case ──▶ Crop ──▶ augmented ──▶ mixed ──▶ Batch ──▶ Loader ──▶ training loop
//!                  [case]    [crop]    [augment]   [cutmix]  [batch]   [loader]
//! ```
//!
//! Every random stream is keyed by the seed of the training run, the step and the index in the batch. A batch is a function of its
//! step only: it does not depend on the thread that makes it, on interruptions of the training run, or on how far ahead it is made.

mod augment;
mod batch;
mod case;
mod cases;
mod crop;
mod cutmix;
mod draw;
mod loader;
mod random_case;
mod runs;

pub use augment::{AugmentConfig, Symmetry};
pub use batch::{Batch, Crop, CropOrigin};
pub(super) use batch::{append, array_of, volumes_on};
pub use case::{Case, VoxelIndex};
pub use cases::{CaseEntry, Cases, Survey};
pub(super) use crop::crop_around;
pub use crop::{CropCentre, CropConfig};
pub use cutmix::{CutMixConfig, cut_mix};
pub use draw::{TumorSampler, TumorSampling};
pub use loader::{Loader, Sampler};
pub(super) use random_case::{MAX_DRAWS, random_case};
pub use runs::RunSamples;
