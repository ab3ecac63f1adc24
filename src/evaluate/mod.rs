//! Evaluation: the quality of predictions, comparisons of arms, and the realism of synthetic tumors.
//!
//! This module owns all measurements after a training run. The module does not depend on the code that it measures, and imports no
//! synthesis, score, quality test or network; a network is a function argument ([`Predictions::Network`]).
//!
//! | file or folder | subject |
//! |---|---|
//! | [`case_files`] | folders of label maps and scans, by case name |
//! | [`data_set`] | images, labels and patients of a data set, a run folder or its layouts |
//! | [`label_names`](check_label_names) | the label names of a data set and the organs to measure |
//! | [`arms`](Arm) | the arms to compare: folders of predictions, or networks, one for each seed |
//! | [`measurement`](Evaluation) | the measurements of every case with every network of every arm |
//! | [`metrics`] | Dice, surfaces, lesions, intervals over patients and seeds, comparisons of arms |
//! | [`results`](write_results) | tables, plots and the summary on disk |
//! | [`turing`] | a classifier of real and synthetic lesions |
//!
//! A case that cannot be measured is reported as a [`CaseProblem`]; the other cases are still measured. Equal files, seeds and numbers of
//! resamples result in equal bytes.

mod arms;
pub mod case_files;
pub mod data_set;
mod label_names;
mod measurement;
pub mod metrics;
mod output;
mod problem;
mod results;
pub mod turing;

pub use arms::{Arm, Predictions, SegmentFn};
pub use label_names::check_label_names;
pub use measurement::{Evaluation, Measurements};
pub use problem::CaseProblem;
pub use results::{EvaluationReport, write_results};
