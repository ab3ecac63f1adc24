//! Evaluation: how good predictions are, whether one arm is better than another, and whether synthetic tumors look real.
//!
//! The room owns everything that is measured after a training, and promises that what measures depends on nothing that is
//! measured: no synthesis, score, quality test or network is imported here; a network is a function that is passed in
//! ([`Predictions::Network`]).
//!
//! | file or folder | subject |
//! |---|---|
//! | [`case_files`] | folders of label maps and scans, by the names of cases |
//! | [`arms`](Arm) | what is compared: folders of predictions, or networks, one for each seed |
//! | [`measurement`](Evaluation) | every case under every network of every arm |
//! | [`metrics`] | Dice, surfaces, lesions, intervals over patients and seeds, comparisons of arms |
//! | [`results`](write_results) | tables, plots and the summary on disk |
//! | [`turing`] | whether a classifier can separate real from synthetic lesions |
//!
//! A case that cannot be measured is a [`CaseProblem`]; the other cases are measured all the same. Equal files, seed and number of
//! resamples give equal bytes.

mod arms;
pub mod case_files;
mod measurement;
pub mod metrics;
mod output;
mod problem;
mod results;
pub mod turing;

pub use arms::{Arm, Predictions, Segment};
pub use measurement::{Evaluation, Measurements};
pub use problem::CaseProblem;
pub use results::{EvaluationReport, write_results};
