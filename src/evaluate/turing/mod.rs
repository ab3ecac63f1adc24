//! A measurable Turing test: can a classifier separate real from synthetic tumors in patients that it was not trained on?
//!
//! Each lesion is described by two dozen numbers of the region around it ([`describe`], [`read_specimens`]), and a logistic
//! regression is trained on some patients and applied to the others ([`separability`]). With tens of patients that is as much
//! as can be learned: it finds what a network would need thousands of lesions for, and reports which feature it was. An area
//! under the curve (AUC) of 0.5 means that it cannot separate them.

mod data_set;
mod features;
mod folds;
mod logistic;
mod separability;

pub use data_set::{DataSetSpecimens, read_specimens};
pub use features::{Feature, LesionSample, describe};
pub use separability::{Auc, FeatureDifference, Separability, separability};
