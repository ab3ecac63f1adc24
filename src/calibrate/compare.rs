//! The distance of the distributions of candidates and accepted candidates from that of real tumors.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::fit::{FitOptions, fit};
use super::tumor::{CalibrationTumor, acceptance as acceptance_of};
use crate::filter::{CalibratedScore, Features};
use crate::statistics::{Penalty, auc, fit_logistic, weighted_distance};

/// The maximum number of folds of patients of the classifier.
const FOLDS: usize = 5;

/// The distances of all candidates and of accepted candidates from real tumors.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DistanceComparison {
    /// The distance of each score.
    pub scores: Vec<ScoreDistance>,
    /// The area under the curve of a classifier of real tumors and candidates of held-out patients; 0.5 if they are not separable. `None`
    /// with tumors of fewer than two patients.
    pub auc_candidates: Option<f64>,
    /// The area under the curve for candidates that are accepted by a density ratio estimated from other patients. `None` if a half of the
    /// patients has too few real tumors.
    pub auc_accepted: Option<f64>,
}

/// The Kolmogorov-Smirnov distance of the distribution of a score in candidates from that in real tumors, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreDistance {
    /// The name of the score.
    pub score: &'static str,
    /// The distance of the candidates.
    pub candidates: Option<f64>,
    /// The distance of accepted candidates.
    pub accepted: Option<f64>,
}

/// Compares real tumors with candidates, and with candidates weighted by their acceptance probability.
///
/// # Shapes
/// One probability for each candidate.
///
/// # Source
/// Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017.
pub fn compare(
    scores: &[CalibratedScore],
    real: &[CalibrationTumor],
    candidates: &[CalibrationTumor],
    acceptance: &[f64],
    options: FitOptions,
) -> DistanceComparison {
    let even = vec![1.0; candidates.len()];
    let distance = |score: &CalibratedScore| {
        let value = |tumor: &CalibrationTumor| score.value(tumor.diameter_mm, &tumor.scores);
        let real: Vec<f64> = real.iter().filter(|tumor| tumor.meets_conditions).filter_map(value).collect();
        let with_value = |weights: &[f64]| -> (Vec<f64>, Vec<f64>) {
            candidates.iter().zip(weights).filter_map(|(tumor, weight)| Some((value(tumor)?, *weight))).unzip()
        };
        let of = |weights: &[f64]| {
            let (values, weights) = with_value(weights);
            weighted_distance(&real, &values, &weights)
        };
        ScoreDistance { score: score.name(), candidates: of(&even), accepted: of(acceptance) }
    };
    DistanceComparison {
        scores: scores.iter().map(distance).collect(),
        auc_candidates: classifier_auc(scores, real, candidates, &even),
        auc_accepted: auc_of_accepted(scores, real, candidates, options),
    }
}

/// Returns the area under the curve of a classifier of real tumors and accepted candidates. The patients are halved: the ratio is estimated
/// from one half and decides on the candidates of the other half, in which the classifier is fitted and applied; the mean of both ways.
/// With the same tumors in both, the area would be below 0.5. `None` if a half has too few real tumors.
fn auc_of_accepted(
    scores: &[CalibratedScore],
    real: &[CalibrationTumor],
    candidates: &[CalibrationTumor],
    options: FitOptions,
) -> Option<f64> {
    let halves = |tumors: &[CalibrationTumor]| -> [Vec<CalibrationTumor>; 2] {
        let patients: BTreeSet<&str> = tumors.iter().map(|tumor| tumor.patient.as_str()).collect();
        let index: BTreeMap<&str, usize> =
            patients.into_iter().enumerate().map(|(index, patient)| (patient, index % 2)).collect();
        [0, 1].map(|half| tumors.iter().filter(|tumor| index[tumor.patient.as_str()] == half).cloned().collect())
    };
    let (real, candidates) = (halves(real), halves(candidates));
    let options = FitOptions { max_factor: None, ..options };
    let area = |half: usize| {
        let reference = fit(scores, &real[1 - half], &candidates[1 - half], options).ok()?;
        let weights: Vec<f64> =
            candidates[half].iter().map(|tumor| acceptance_of(&reference, tumor, options.floor, false)).collect();
        classifier_auc(scores, &real[half], &candidates[half], &weights)
    };
    Some(0.5 * (area(0)? + area(1)?))
}

/// A tumor of the classifier.
struct Row<'a> {
    patient: &'a str,
    is_real: bool,
    values: Vec<f64>,
    weight: f64,
}

/// Returns the area under the curve of a logistic regression on patients that it was not fitted on, the mean over pairs of tumors that are
/// held out together.
fn classifier_auc(
    scores: &[CalibratedScore],
    real: &[CalibrationTumor],
    candidates: &[CalibrationTumor],
    weights: &[f64],
) -> Option<f64> {
    let row = |is_real: bool, tumor: &'_ CalibrationTumor, weight: f64| {
        tumor.values(scores).map(|values| (is_real, values, weight))
    };
    let real_rows = real
        .iter()
        .filter(|tumor| tumor.meets_conditions)
        .filter_map(|tumor| Some((tumor.patient.as_str(), row(true, tumor, 1.0)?)));
    let made_rows = candidates.iter().zip(weights).filter(|(_, weight)| **weight > 0.0);
    let made_rows = made_rows.filter_map(|(tumor, weight)| Some((tumor.patient.as_str(), row(false, tumor, *weight)?)));
    let rows: Vec<Row<'_>> = real_rows
        .chain(made_rows)
        .map(|(patient, (is_real, values, weight))| Row { patient, is_real, values, weight })
        .collect();
    let folds = folds_of(&rows)?;
    let (mut sum, mut pairs) = (0.0, 0.0);
    for fold in 0..FOLDS {
        let (held_out, rest): (Vec<&Row<'_>>, Vec<&Row<'_>>) = rows.iter().partition(|row| folds[row.patient] == fold);
        let real_rest: Vec<Vec<f64>> = rest.iter().filter(|row| row.is_real).map(|row| row.values.clone()).collect();
        if real_rest.is_empty() || real_rest.len() == rest.len() {
            continue;
        }
        let features = Features::of_real(scores, &real_rest);
        let inputs: Vec<Vec<f64>> = rest.iter().map(|row| features.of(&row.values)).collect();
        let classes: Vec<bool> = rest.iter().map(|row| row.is_real).collect();
        let importance: Vec<f64> = rest.iter().map(|row| row.weight).collect();
        let fitted = fit_logistic(&inputs, &classes, &importance, Penalty::default());
        let score = |row: &&&Row<'_>| -> f64 {
            features.of(&row.values).iter().zip(&fitted).map(|(value, weight)| value * weight).sum()
        };
        let positives: Vec<f64> = held_out.iter().filter(|row| row.is_real).map(|row| score(&row)).collect();
        let negatives: Vec<&&Row<'_>> = held_out.iter().filter(|row| !row.is_real).collect();
        let weights: Vec<f64> = negatives.iter().map(|row| row.weight).collect();
        let negatives: Vec<f64> = negatives.iter().map(score).collect();
        if let Some(own) = auc(&positives, &negatives, &weights) {
            let count = positives.len() as f64 * weights.iter().sum::<f64>();
            (sum, pairs) = (sum + own * count, pairs + count);
        }
    }
    (pairs > 0.0).then(|| sum / pairs)
}

/// Assigns patients to folds in turn: those with real tumors first, so that every fold has some. `None` with fewer than two patients with
/// real tumors.
fn folds_of<'a>(rows: &[Row<'a>]) -> Option<BTreeMap<&'a str, usize>> {
    let real: BTreeSet<&str> = rows.iter().filter(|row| row.is_real).map(|row| row.patient).collect();
    if real.len() < 2 {
        return None;
    }
    let others: BTreeSet<&str> = rows.iter().map(|row| row.patient).filter(|patient| !real.contains(patient)).collect();
    let count = FOLDS.min(real.len());
    let assigned = real.into_iter().enumerate().chain(others.into_iter().enumerate());
    Some(assigned.map(|(index, patient)| (patient, index % count)).collect())
}
