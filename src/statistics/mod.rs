//! Statistics: logistic regression, distances between samples of numbers, and areas under curves.
//!
//! This module owns the numbers by which real and synthetic tumors are compared: [`fit_logistic`] as the classifier, [`auc`] and
//! [`weighted_distance`] as measures of its result and of single scores, and [`effective_sample_size`] as the size of a weighted sample.
//! All functions are deterministic and independent of threads.

mod auc;
mod distance;
mod logistic;

pub use auc::auc;
pub use distance::{effective_sample_size, weighted_distance};
pub use logistic::{Penalty, fit_logistic};
