//! How good a segmentation of tumors is, and whether another one is better.
//!
//! [`measure`] looks at one prediction beside its truth: overlap, surfaces, lesions. [`Metric`] says what of it is
//! averaged over cases, [`Resamples`] how sure the average is, [`compare`] whether two arms differ. [`summarise`] does all
//! of it for several arms, each trained with several seeds.

mod bootstrap;
mod case;
mod compare;
mod lesions;
mod metric;
mod overlap;
mod plot;
mod summary;
mod tables;

pub use bootstrap::{Interval, Resamples, Series, Share};
pub use case::{CaseMeasures, MeasuredOrgan, measure};
pub use compare::{Comparison, compare, holm};
pub use lesions::{
    DiameterBin, FALSE_POSITIVE_MM3, FEWEST_VOXELS_ACROSS, FOUND_FRACTION, Lesion, LesionMatch, match_lesions,
};
pub use metric::Metric;
pub use overlap::{dice, surface_dice, tolerance_mm};
pub use plot::plot;
pub use summary::{ArmSummary, CaseRow, Difference, EvaluationPlan, MetricSummary, Summary, series, summarise};
pub use tables::{cases_table, lesions_table};
