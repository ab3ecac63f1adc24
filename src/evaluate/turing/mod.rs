//! The Turing test: a classifier of real and synthetic tumors, evaluated on patients that it was not trained on.
//!
//! Each lesion is described by 23 features of the region around it ([`describe`], [`read_lesions`]). A logistic regression is trained on
//! some patients and applied to the others ([`separability`]). Tens of patients are too few to train a network, but enough for this
//! classifier, which also reports the features that differ. An area under the curve (AUC) of 0.5 means that the classifier cannot separate
//! real from synthetic tumors.

mod data_set;
mod features;
mod folds;
mod logistic;
mod separability;

pub use data_set::{DataSetLesions, read_lesions};
pub use features::{Feature, LesionSample, describe};
pub use separability::{Auc, FeatureDifference, Separability, separability};
