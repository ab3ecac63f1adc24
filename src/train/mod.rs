//! Training: the three stages of the method, and the code that they share.
//!
//! | stage | trains | on | losses |
//! |---|---|---|---|
//! | [`segmentation`] on real tumors | a segmentor S | labeled scans | Dice and cross-entropy |
//! | [`synthesis`] | a generator G and a discriminator D, S frozen | labeled and unlabeled scans | see [`losses`] |
//! | [`segmentation`] | the final segmentor | real and synthetic tumors | Dice and cross-entropy |
//!
//! This module owns a training run from its checked file to its weights. [`check()`] reports every problem of the file and returns a
//! [`TrainingTask`]; [`TrainingScans`] chooses the scans, and [`LeakageGuard`] refuses patients and scans that are in both training
//! and validation. A sampler makes the batch of a step on other threads ([`data`]), a learner takes one step with that batch, and [`run`]
//! is the loop of all stages: schedule, tables, pictures, checkpoints. A training run that is resumed from a [`checkpoint`] has the same
//! bits as an uninterrupted one.
//!
//! In the labels of a crop of one organ, 1 is the organ, 2 is a real tumor and 3 is a synthetic tumor: see [`REAL`] and [`SYNTHETIC`].

mod check;
pub mod checkpoint;
pub mod config;
mod curves;
pub mod data;
mod folds;
mod held_out;
pub mod history;
pub mod initial;
mod inputs;
mod leakage;
pub mod losses;
mod mask_lists;
mod output;
pub mod run;
mod scans;
pub mod schedule;
pub mod segmentation;
mod stage;
pub mod synthesis;
mod task;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trained_network;
mod training;
pub mod used_samples;

pub use check::{CheckedTask, check, stage_of};
pub use curves::curves;
pub use folds::Fold;
pub use inputs::TrainingConfig;
pub use leakage::LeakageGuard;
pub use scans::{ScanCounts, TrainingCases, TrainingScans};
pub use stage::TrainingStage;
pub use task::TrainingTask;
pub use trained_network::TrainedNetwork;
pub use training::{TrainingObserver, TrainingOptions, TrainingOutcome};

/// The label of the healthy organ in a crop of one organ.
pub const ORGAN: u8 = 1;
/// The label of a real tumor in a crop of one organ.
pub const REAL: u8 = 2;
/// The label of a synthetic tumor in a crop of one organ.
pub const SYNTHETIC: u8 = 3;
