//! Metrics of tumor segmentations, and their comparison between arms.
//!
//! [`measure`] compares one prediction with its ground truth: overlap, surfaces, lesions. [`Metric`] defines the means over cases,
//! [`Resamples`] their intervals, and [`compare`] tests the difference of two arms. [`summarize`] combines them for several arms, each
//! trained with several seeds.

mod bootstrap;
mod case;
mod compare;
mod lesions;
mod metric;
mod overlap;
mod plot;
mod summary;
mod tables;

pub use bootstrap::{Interval, Resamples, Series, WeightedSum};
pub use case::{CaseMeasures, MeasuredOrgan, measure};
pub use compare::{ArmComparison, compare, holm};
pub use lesions::{
    DiameterBin, FALSE_POSITIVE_MM3, FOUND_FRACTION, Lesion, LesionMatch, MIN_VOXELS_ACROSS, match_lesions,
};
pub use metric::Metric;
pub use overlap::{dice, surface_dice, tolerance_mm};
pub use plot::plot;
pub use summary::{ArmSummary, CaseRow, Difference, EvaluationPlan, MetricSummary, Summary, series, summarize};
pub use tables::{cases_table, lesions_table};
