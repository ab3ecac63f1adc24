//! The estimate of the density ratio of real and synthetic tumors.

use super::steer;
use super::tumor::{CalibrationTumor, quantile};
use crate::error::{Error, Result};
use crate::filter::{CalibratedScore, Features, OrganReference};
use crate::statistics::{Penalty, fit_logistic};

/// The minimum number of real tumors.
const MIN_REAL: usize = 3;
/// The minimum number of real tumors for features of all scores; with fewer, only the features of the diameter are used.
const MIN_REAL_FOR_ALL: usize = 8;
/// The minimum effective sample size of the accepted candidates.
pub(super) const MIN_EFFECTIVE: f64 = 100.0;
/// The share of candidates that a maximum of the density ratio may clip.
const CLIPPED: f64 = 0.05;

/// Settings of the estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitOptions {
    /// The maximum of the density ratio at which a tumor is always accepted.
    pub cap: f64,
    /// The density ratio below which a tumor is rejected.
    pub floor: f64,
    /// The limit of the factors of steering; `None` without steering.
    pub max_factor: Option<f64>,
}

/// Estimates the density ratio of the real tumors and the candidates of one organ that meet the conditions.
///
/// The ratio is that of a ridge logistic regression of the [`Features`], in which both classes have the same total weight. With fewer than
/// eight real tumors, the features are those of the diameter alone.
///
/// # Errors
/// Returns an error if there are fewer than three real tumors with all scores, or no candidates.
///
/// # Source
/// Sugiyama, Suzuki and Kanamori, Density Ratio Estimation in Machine Learning, 2012, chapter 4: a probabilistic classifier of two samples
/// estimates the ratio of their densities. Azadi et al., Discriminator Rejection Sampling, 2019: candidates that are accepted with a
/// probability in proportion to that ratio have the density of the first sample.
///
/// ```
/// use freetumor::calibrate::{CalibrationTumor, FitOptions, fit};
/// use freetumor::filter::CalibratedScore;
/// let tumor = |mm: f64| CalibrationTumor {
///     diameter_mm: mm,
///     meets_conditions: true,
///     ..CalibrationTumor::default()
/// };
/// let real: Vec<_> = (20..40).map(|mm| tumor(f64::from(mm))).collect();
/// let made: Vec<_> = (5..40).map(|mm| tumor(f64::from(mm))).collect();
/// let options = FitOptions { cap: 5.0, floor: 0.02, max_factor: None };
/// let reference = fit(&[CalibratedScore::Diameter], &real, &made, options)?;
/// assert!(reference.ratio(&[30f64.ln()]) > 10.0 * reference.ratio(&[6f64.ln()]));
/// # Ok::<(), freetumor::error::Error>(())
/// ```
pub fn fit(
    scores: &[CalibratedScore],
    real: &[CalibrationTumor],
    candidates: &[CalibrationTumor],
    options: FitOptions,
) -> Result<OrganReference> {
    let complete = |tumors: &[CalibrationTumor]| -> Vec<Vec<f64>> {
        tumors.iter().filter(|tumor| tumor.meets_conditions).filter_map(|tumor| tumor.values(scores)).collect()
    };
    let (real_rows, candidate_rows) = (complete(real), complete(candidates));
    if real_rows.len() < MIN_REAL {
        let message = format!(
            "expected at least {MIN_REAL} real tumors with all scores, got {} of {}",
            real_rows.len(),
            real.len()
        );
        return Err(
            Error::new(message).with_hint("add scans with labeled tumors, or use conditions instead of `calibrate`")
        );
    }
    if candidate_rows.is_empty() {
        let message = format!("expected candidates that meet the conditions, got none of {}", candidates.len());
        return Err(Error::new(message).with_hint("loosen the conditions in `accept`"));
    }
    // The diameter is among the scores; the others need more real tumors.
    let used: Vec<usize> = (0..scores.len())
        .filter(|&k| real_rows.len() >= MIN_REAL_FOR_ALL || scores[k] == CalibratedScore::Diameter)
        .collect();
    let selected = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
        rows.iter().map(|row| used.iter().map(|&k| row[k]).collect()).collect()
    };
    let (real_rows, candidate_rows) = (selected(&real_rows), selected(&candidate_rows));
    let used_scores: Vec<CalibratedScore> = used.iter().map(|&k| scores[k]).collect();
    let features = Features::of_real(&used_scores, &real_rows);
    let rows: Vec<Vec<f64>> = real_rows.iter().chain(&candidate_rows).map(|values| features.of(values)).collect();
    let classes: Vec<bool> = (0..rows.len()).map(|index| index < real_rows.len()).collect();
    let mut weights = fit_logistic(&rows, &classes, &vec![1.0; rows.len()], Penalty::default());
    let intercept = weights.pop().unwrap_or_default();
    let mut reference = OrganReference {
        real_tumors: real_rows.len(),
        candidates: candidate_rows.len(),
        features,
        weights,
        intercept,
        maximum: options.cap,
        steering: None,
    };
    let ratios = candidate_rows.iter().map(|values| reference.ratio(values)).collect();
    reference.maximum = options.cap.min(quantile(ratios, 1.0 - CLIPPED));
    if let Some(max_factor) = options.max_factor {
        reference.steering = Some(steer::fit(&reference, candidates, options.floor, max_factor));
    }
    Ok(reference)
}

#[cfg(test)]
mod tests {
    use super::super::tumor::acceptance;
    use super::*;
    use crate::random::{Key, RandomStream};
    use crate::score::{Score, Scores};
    use crate::statistics::weighted_distance;

    const SCORES: [CalibratedScore; 3] = [
        CalibratedScore::Diameter,
        CalibratedScore::Score(Score::DeltaHu),
        CalibratedScore::Score(Score::FoundFraction),
    ];
    const OPTIONS: FitOptions = FitOptions { cap: 5.0, floor: 0.02, max_factor: None };

    fn tumor(diameter_mm: f64, delta_hu: f64, found: f64) -> CalibrationTumor {
        let mut scores = Scores::default();
        scores.set(Score::DeltaHu, delta_hu);
        scores.set(Score::FoundFraction, found.clamp(0.0, 1.0));
        let sampled = (diameter_mm, Some(delta_hu));
        CalibrationTumor {
            diameter_mm,
            scores,
            meets_conditions: true,
            sampled_mm: sampled.0,
            sampled_hu: sampled.1,
            ..CalibrationTumor::default()
        }
    }

    /// Returns a real tumor with a diameter of about 20 mm and a found fraction of about 0.3; 15% of the tumors are bright, the others
    /// dark.
    fn real(random: &mut RandomStream) -> CalibrationTumor {
        let contrast = if random.chance(0.15) { random.normal(30.0, 15.0) } else { random.normal(-40.0, 18.0) };
        tumor(random.normal(3.0, 0.4).exp(), contrast, random.normal(0.3, 0.2))
    }

    /// Returns a candidate: smaller than a real tumor, and bright or faint in half of the cases.
    fn made(random: &mut RandomStream) -> CalibrationTumor {
        tumor(random.normal(2.7, 0.55).exp(), random.normal(-10.0, 40.0), random.normal(0.4, 0.3))
    }

    fn distances(real: &[CalibrationTumor], made: &[CalibrationTumor], weights: &[f64]) -> Vec<f64> {
        let values = |tumors: &[CalibrationTumor], k: usize| -> Vec<f64> {
            tumors.iter().map(|tumor| tumor.values(&SCORES).unwrap()[k]).collect()
        };
        (0..3).map(|k| weighted_distance(&values(real, k), &values(made, k), weights).unwrap()).collect()
    }

    #[test]
    fn accepted_tumors_are_distributed_as_real_ones() {
        let mut random = Key::root(4).stream("tumors");
        let reals: Vec<_> = (0..300).map(|_| real(&mut random)).collect();
        let candidates: Vec<_> = (0..4000).map(|_| made(&mut random)).collect();
        let reference = fit(&SCORES, &reals, &candidates, OPTIONS).unwrap();
        // New tumors, which the reference was not fitted to.
        let reals: Vec<_> = (0..4000).map(|_| real(&mut random)).collect();
        let candidates: Vec<_> = (0..40_000).map(|_| made(&mut random)).collect();
        let before = distances(&reals, &candidates, &vec![1.0; candidates.len()]);
        let accepted: Vec<_> = candidates
            .into_iter()
            .filter(|candidate| random.uniform(0.0, 1.0) < acceptance(&reference, candidate, OPTIONS.floor, false))
            .collect();
        let after = distances(&reals, &accepted, &vec![1.0; accepted.len()]);
        assert!(accepted.len() > 4000, "{}", accepted.len());
        assert!(after.iter().all(|distance| *distance < 0.1), "{before:?} before, {after:?} after");
        assert!(before[0] > 0.2 && before[1] > 0.3, "{before:?}");
    }

    #[test]
    fn scans_whose_acceptance_differs_tenfold_have_the_same_distribution() {
        let mut random = Key::root(5).stream("tumors");
        let reals: Vec<_> = (0..300).map(|_| real(&mut random)).collect();
        let candidates: Vec<_> = (0..4000).map(|_| made(&mut random)).collect();
        let reference = fit(&SCORES, &reals, &candidates, OPTIONS).unwrap();
        // In the second scan nine in ten candidates fail a condition.
        let mut accepted_of = |share_that_meets_conditions: f64| -> Vec<CalibrationTumor> {
            let mut accepted = Vec::new();
            for _ in 0..40_000 {
                let candidate = CalibrationTumor {
                    meets_conditions: random.chance(share_that_meets_conditions),
                    ..made(&mut random)
                };
                if random.uniform(0.0, 1.0) < acceptance(&reference, &candidate, OPTIONS.floor, false) {
                    accepted.push(candidate);
                }
            }
            accepted
        };
        let (often, rarely) = (accepted_of(1.0), accepted_of(0.1));
        let quotient = often.len() as f64 / rarely.len() as f64;
        assert!((8.5..11.5).contains(&quotient), "{} and {}", often.len(), rarely.len());
        let distance = distances(&often, &rarely, &vec![1.0; rarely.len()]);
        assert!(distance.iter().all(|distance| *distance < 0.06), "{distance:?}");
    }

    #[test]
    fn steering_keeps_distribution_of_accepted_tumors_at_lower_cost() {
        let mut random = Key::root(6).stream("tumors");
        let reals: Vec<_> = (0..300).map(|_| real(&mut random)).collect();
        let candidates: Vec<_> = (0..4000).map(|_| made(&mut random)).collect();
        let reference = fit(&SCORES, &reals, &candidates, FitOptions { max_factor: Some(4.0), ..OPTIONS }).unwrap();
        let steering = reference.steering.clone().unwrap();
        assert!(steering.factors.iter().all(|factor| (0.25..=4.0).contains(factor)));
        let mut sample = |steered: bool| {
            let (mut accepted, mut attempts) = (Vec::new(), 0);
            while accepted.len() < 6000 {
                let candidate = made(&mut random);
                let factor = steering.factor(candidate.sampled_mm, candidate.sampled_hu);
                if steered && random.uniform(0.0, steering.greatest()) >= factor {
                    continue;
                }
                attempts += 1;
                if random.uniform(0.0, 1.0) < acceptance(&reference, &candidate, OPTIONS.floor, steered) {
                    accepted.push(candidate);
                }
            }
            (accepted, attempts)
        };
        let ((plain, plain_attempts), (steered, steered_attempts)) = (sample(false), sample(true));
        let difference = distances(&plain, &steered, &vec![1.0; steered.len()]);
        assert!(difference.iter().all(|distance| *distance < 0.035), "{difference:?}");
        assert!(
            1.3 * f64::from(steered_attempts) < f64::from(plain_attempts),
            "{steered_attempts} of {plain_attempts}"
        );
    }

    #[test]
    fn fit_to_few_real_tumors_uses_diameter_only() {
        let mut random = Key::root(7).stream("tumors");
        let candidates: Vec<_> = (0..400).map(|_| made(&mut random)).collect();
        let mut fitted = |count: usize| {
            let reals: Vec<_> = (0..count).map(|_| real(&mut random)).collect();
            fit(&SCORES, &reals, &candidates, OPTIONS)
        };
        assert_eq!(fitted(7).unwrap().features.scores.len(), 1);
        assert_eq!(fitted(8).unwrap().features.scores.len(), 3);
        let error = fitted(2).unwrap_err();
        assert_eq!(error.to_string(), "expected at least 3 real tumors with all scores, got 2 of 2");
    }
}
