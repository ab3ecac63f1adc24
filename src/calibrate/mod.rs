//! The calibration of quality tests: real tumors and candidates are scored by the same stages, and the ratio of their densities is
//! estimated and frozen in a [`Reference`].
//!
//! This module owns the estimate ([`fit`]), its report ([`compare`]) and the steps of `freetumor calibrate` ([`calibrate`]). The decision
//! on candidates is in [`crate::filter`].
//!
//! Real tumors become candidates of a scan in which their voxels have the mean HU of the healthy organ around them, so that every stage
//! scores them as it scores synthetic ones. A stage with cross-fitted networks scores a real tumor by a network that was not trained on
//! its patient.

mod compare;
mod fit;
mod proposals;
mod real;
mod steer;
mod tumor;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

pub use compare::{DistanceComparison, ScoreDistance, compare};
pub use fit::{FitOptions, fit};
pub use tumor::{CalibrationTumor, OnProgress};

use crate::error::{Error, Result};
use crate::filter::{CalibratedScore, Calibration, OrganReference, QualityTest, Reference, ScorerWeights};
use crate::graph::{LabeledScans, Plan, SynthesisNode};

/// The quality test to calibrate, and the tumors to calibrate it with.
#[derive(Clone, Debug)]
pub struct CalibrationOptions {
    /// The scans with labeled tumors.
    pub labeled: LabeledScans,
    /// The quality test; `None` for the only one with `calibrate`.
    pub branch: Option<String>,
    /// The run folder whose candidates are used, with the epoch; `None` to make candidates.
    pub run: Option<(PathBuf, Option<u64>)>,
    /// The number of candidates to make in each organ.
    pub candidates: usize,
    /// The limit of the factors of steering; `None` without steering.
    pub max_factor: Option<f64>,
}

/// The result of a calibration.
#[derive(Clone, Debug)]
pub struct CalibrationOutcome {
    /// The reference.
    pub reference: Reference,
    /// The comparison of real tumors, candidates and accepted candidates of each organ.
    pub organs: BTreeMap<String, OrganComparison>,
    /// The real tumors and the candidates.
    pub tumors: Vec<ScoredTumor>,
    /// Score stages of the calibration whose networks may have been trained on the patients of real tumors, each with the number of these
    /// tumors.
    pub possibly_trained_on: BTreeMap<String, usize>,
    /// The number of scans that could not be read or scored.
    pub failed_scans: usize,
}

/// A real tumor or a candidate with its density ratio.
#[derive(Clone, Debug)]
pub struct ScoredTumor {
    /// The organ's name.
    pub organ: String,
    /// Whether the tumor is real.
    pub is_real: bool,
    /// The tumor with its scores.
    pub tumor: CalibrationTumor,
    /// The density ratio of real and synthetic tumors at the scores of the tumor; `None` if a score is missing.
    pub likeness: Option<f64>,
    /// The acceptance probability of a candidate; `None` for a real tumor.
    pub acceptance: Option<f64>,
}

/// The comparison of one organ.
#[derive(Clone, Debug, Serialize)]
pub struct OrganComparison {
    /// The number of real tumors that meet the conditions and have all scores, from which the density ratio is estimated.
    pub real_tumors: usize,
    /// The number of all real tumors.
    pub all_real_tumors: usize,
    /// The number of patients with real tumors.
    pub patients: usize,
    /// The number of candidates that meet the conditions of the quality test.
    pub candidates: usize,
    /// The share of all candidates that is accepted.
    pub accepted_share: f64,
    /// The share that is accepted with steering; `None` without steering.
    pub accepted_share_steered: Option<f64>,
    /// The effective sample size of the accepted candidates.
    pub effective_sample: f64,
    /// The distances of all candidates and of accepted candidates from real tumors.
    #[serde(flatten)]
    pub comparison: DistanceComparison,
}

/// Scores real tumors and candidates, and estimates the ratio of their densities in each organ.
///
/// # Errors
/// Returns an error if there is no such quality test, a source cannot be listed, the candidates cannot be read, or an organ
/// has too few real tumors or accepted candidates.
pub fn calibrate(plan: &Plan, options: &CalibrationOptions, on_progress: OnProgress<'_>) -> Result<CalibrationOutcome> {
    let (synthesis, branch, calibration) = calibrated_branch(plan, options.branch.as_deref())?;
    let test = &synthesis.attempts.branches[branch].test;
    let mut failed = BTreeSet::new();
    let (real, possibly_trained_on) =
        real::real_tumors(plan, &options.labeled, synthesis, branch, &mut failed, on_progress)?;
    let candidates = match &options.run {
        Some((folder, at)) => proposals::candidates_of_run(plan, synthesis, branch, folder, *at)?,
        None => proposals::made_candidates(plan, synthesis, branch, options.candidates, &mut failed, on_progress)?,
    };
    let mut references = BTreeMap::new();
    let mut organs = BTreeMap::new();
    let mut tumors = Vec::new();
    for organ in &synthesis.organs {
        let own =
            |tumors: &BTreeMap<String, Vec<CalibrationTumor>>| tumors.get(&organ.name).cloned().unwrap_or_default();
        let (real, candidates) = (own(&real), own(&candidates));
        let fit_options = FitOptions { cap: calibration.cap, floor: calibration.floor, max_factor: options.max_factor };
        let fitted =
            fit(&calibration.scores, &real, &candidates, fit_options).map_err(|error| named(&organ.name, &error))?;
        let comparison = organ_comparison(&fitted, &real, &candidates, calibration, fit_options);
        if comparison.effective_sample < fit::MIN_EFFECTIVE {
            let (got, expected) = (comparison.effective_sample, fit::MIN_EFFECTIVE);
            let message = format!(
                "expected an effective number of at least {expected} accepted candidates of the {}, got {got:.0} of {}",
                organ.name, comparison.candidates
            );
            return Err(Error::new(message).with_hint(
                "raise --candidates, or change the synthesis so that its tumors are more similar to the real ones",
            ));
        }
        let of_kind = [(true, real), (false, candidates)];
        tumors.extend(
            of_kind.into_iter().flat_map(|(is_real, all)| all.into_iter().map(move |tumor| (is_real, tumor))).map(
                |(is_real, tumor)| ScoredTumor {
                    organ: organ.name.clone(),
                    is_real,
                    likeness: fitted.likeness(tumor.diameter_mm, &tumor.scores),
                    acceptance: (!is_real).then(|| tumor::acceptance(&fitted, &tumor, calibration.floor, false)),
                    tumor,
                },
            ),
        );
        references.insert(organ.name.clone(), fitted);
        organs.insert(organ.name.clone(), comparison);
    }
    let (limits, digest) = ([calibration.cap, calibration.floor], synthesis.digests.unsteered.to_string());
    let mut reference = Reference::new(calibration.scores.clone(), limits, test.conditions(), digest);
    reference.scorers = scorers(synthesis, test, branch);
    reference.organs = references;
    Ok(CalibrationOutcome { reference, organs, tumors, possibly_trained_on, failed_scans: failed.len() })
}

fn named(organ: &str, error: &Error) -> Error {
    let located = Error::new(format!("{organ}: {error}"));
    error.hint().map(str::to_owned).into_iter().fold(located, Error::with_hint)
}

/// Finds the quality test that is calibrated.
fn calibrated_branch<'a>(plan: &'a Plan, name: Option<&str>) -> Result<(&'a SynthesisNode, usize, &'a Calibration)> {
    let branches = plan.syntheses.iter().flat_map(|synthesis| {
        let branches = synthesis.attempts.branches.iter().enumerate();
        branches.filter_map(move |(index, branch)| {
            Some((branch.name.as_str(), (synthesis, index, branch.test.calibration()?)))
        })
    });
    let all: Vec<_> = branches.filter(|(own, _)| name.is_none_or(|name| name == *own)).collect();
    match all[..] {
        [(_, found)] => Ok(found),
        [] => {
            let of_name = name.map(|name| format!(" named {name}")).unwrap_or_default();
            Err(Error::new(format!("expected a quality test{of_name} with `calibrate`, got none"))
                .with_hint("set calibrate = { reference = \"reference.json\" } in a stage of kind `quality-test`"))
        }
        _ => {
            let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
            Err(Error::new(format!("expected one quality test with `calibrate`, got {}", names.join(", ")))
                .with_hint("select one with --test NAME"))
        }
    }
}

/// Returns the networks whose scores the calibration uses.
fn scorers(synthesis: &SynthesisNode, test: &QualityTest, branch: usize) -> Vec<ScorerWeights> {
    let scores: Vec<_> = test.calibration().map(|calibration| calibration.scores.clone()).unwrap_or_default();
    let is_used = |score: &crate::score::Score| scores.contains(&CalibratedScore::Score(*score));
    let nodes = synthesis.attempts.branches[branch].scorers.iter().map(|&index| &synthesis.attempts.scorers[index]);
    nodes
        .filter(|node| node.stage.scores().iter().any(is_used))
        .map(|node| ScorerWeights { stage: node.name.clone(), weights_sha256: node.stage.weights() })
        .filter(|scorer| !scorer.weights_sha256.is_empty())
        .collect()
}

/// Compares the real tumors with all candidates and with the accepted ones.
fn organ_comparison(
    reference: &OrganReference,
    real: &[CalibrationTumor],
    candidates: &[CalibrationTumor],
    calibration: &Calibration,
    options: FitOptions,
) -> OrganComparison {
    let accepted = |candidate: &CalibrationTumor| tumor::acceptance(reference, candidate, calibration.floor, false);
    let steered = |candidate: &CalibrationTumor| tumor::acceptance(reference, candidate, calibration.floor, true);
    let weights: Vec<f64> = candidates.iter().map(accepted).collect();
    let share = |weights: &[f64]| weights.iter().sum::<f64>() / weights.len().max(1) as f64;
    // With steering, a candidate of factor τ is τ times as frequent.
    let accepted_share_steered = reference.steering.as_ref().map(|steering| {
        let factors: Vec<f64> =
            candidates.iter().map(|tumor| steering.factor(tumor.sampled_mm, tumor.sampled_hu)).collect();
        let accepted = candidates.iter().zip(&factors).map(|(tumor, factor)| factor * steered(tumor)).sum::<f64>();
        accepted / factors.iter().sum::<f64>()
    });
    let patients: BTreeSet<&str> = real.iter().map(|tumor| tumor.patient.as_str()).collect();
    OrganComparison {
        real_tumors: reference.real_tumors,
        all_real_tumors: real.len(),
        patients: patients.len(),
        candidates: candidates.iter().filter(|candidate| candidate.meets_conditions).count(),
        accepted_share: share(&weights),
        accepted_share_steered,
        effective_sample: crate::statistics::effective_sample_size(&weights),
        comparison: compare(&calibration.scores, real, candidates, &weights, options),
    }
}
