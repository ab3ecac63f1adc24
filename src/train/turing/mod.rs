//! The measurable Turing test: can a classifier tell real tumors from synthetic ones, in patients it has not seen?
//!
//! Each lesion is described by two dozen numbers of the patch around it ([`describe`]), and a logistic regression is
//! trained on some patients and asked about the others ([`judge`]). With tens of patients that is as much as can be
//! learned: it finds what a network would need thousands of lesions for, and says what it was. An area under the curve
//! (AUC) of 0.5 means that it cannot tell.

mod features;
mod folds;
mod logistic;
mod verdict;

pub use features::{Feature, Specimen, describe};
pub use verdict::{Auc, Judged, Telling, judge};
