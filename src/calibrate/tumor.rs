//! Real and synthetic tumors with their scores.

use crate::filter::{CalibratedScore, OrganReference};
use crate::score::Scores;

/// A callback for messages about the progress of a calibration.
pub type OnProgress<'a> = &'a mut dyn FnMut(&str);

/// A real or synthetic tumor with its scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrationTumor {
    /// The patient, for the folds of the comparison.
    pub patient: String,
    /// The equivalent diameter.
    pub diameter_mm: f64,
    /// The scores.
    pub scores: Scores,
    /// Whether the tumor meets the conditions of the quality test.
    pub meets_conditions: bool,
    /// The sampled diameter of a candidate.
    pub sampled_mm: f64,
    /// The sampled contrast of a candidate; `None` if a network makes it.
    pub sampled_hu: Option<f64>,
}

impl CalibrationTumor {
    /// Returns the value of each score; `None` if one is missing.
    pub fn values(&self, scores: &[CalibratedScore]) -> Option<Vec<f64>> {
        scores.iter().map(|score| score.value(self.diameter_mm, &self.scores)).collect()
    }
}

/// Returns the density ratio of a tumor; `None` if it fails a condition, lacks a score, or is below the floor.
pub(super) fn ratio(reference: &OrganReference, tumor: &CalibrationTumor, floor: f64) -> Option<f64> {
    let likeness = reference.likeness(tumor.diameter_mm, &tumor.scores).filter(|_| tumor.meets_conditions);
    likeness.filter(|ratio| *ratio >= floor)
}

/// Returns the acceptance probability of a candidate, with or without steering.
pub(super) fn acceptance(reference: &OrganReference, tumor: &CalibrationTumor, floor: f64, steered: bool) -> f64 {
    let steering_factor = reference.steering.as_ref().filter(|_| steered);
    let steering_factor = steering_factor.map(|steering| steering.factor(tumor.sampled_mm, tumor.sampled_hu));
    ratio(reference, tumor, floor).map_or(0.0, |ratio| reference.acceptance(ratio, steering_factor))
}

/// Returns a quantile of values, by the nearest rank.
pub(super) fn quantile(mut values: Vec<f64>, probability: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (probability * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::INFINITY)
}
