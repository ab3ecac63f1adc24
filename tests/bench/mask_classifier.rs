//! A cross-fitted classifier of real and made masks.

use std::collections::BTreeSet;

use freetumor::random::Key;
use freetumor::statistics::{Penalty, auc, fit_logistic};

use crate::mask_features::COUNT;

/// The number of folds of patients; each fold is held out once.
const FOLDS: usize = 5;
/// The number of times that the patients are assigned to folds.
const REPEATS: u64 = 10;
/// The maximum difference of the diameters of a pair, as a logarithm.
const MAX_LOG_RATIO: f64 = 0.15;
/// The number of resamples of the pairs for the interval.
const RESAMPLES: usize = 500;

/// A real tumor and the made tumor of the nearest diameter.
pub struct Pair {
    /// The patient of the real tumor.
    pub case: String,
    pub real: [f64; COUNT],
    pub made: [f64; COUNT],
}

/// Assigns to each real tumor, the largest first, the made tumor of the nearest diameter. Real tumors without one are left out. The
/// first feature is the diameter.
pub fn pairs_of_equal_diameter(real: &[(String, [f64; COUNT])], made: &[[f64; COUNT]]) -> Vec<Pair> {
    let mut free: Vec<&[f64; COUNT]> = made.iter().collect();
    let mut order: Vec<&(String, [f64; COUNT])> = real.iter().collect();
    order.sort_by(|a, b| b.1[0].total_cmp(&a.1[0]));
    let mut pairs = Vec::new();
    for (case, real) in order {
        let ratio = |made: &[f64; COUNT]| (made[0] / real[0]).ln().abs();
        let nearest = (0..free.len()).min_by(|&a, &b| ratio(free[a]).total_cmp(&ratio(free[b])));
        if let Some(nearest) = nearest.filter(|&nearest| ratio(free[nearest]) < MAX_LOG_RATIO) {
            pairs.push(Pair { case: case.clone(), real: *real, made: *free.remove(nearest) });
        }
    }
    pairs
}

/// Returns the area under the curve of a logistic regression on pairs that it was not fitted on, and an interval of 90% by resampling of
/// the pairs. Tumors of one patient, and the made tumors of their pairs, are in the same fold.
pub fn cross_fitted_auc(pairs: &[Pair]) -> Option<(f64, [f64; 2])> {
    let cases: BTreeSet<&str> = pairs.iter().map(|pair| pair.case.as_str()).collect();
    let cases: Vec<&str> = cases.into_iter().collect();
    let (mut real, mut made) = (vec![0.0; pairs.len()], vec![0.0; pairs.len()]);
    let mut sum = 0.0;
    let mut samples = Vec::new();
    for repeat in 0..REPEATS {
        let mut random = Key::root(repeat).stream("folds");
        let mut order: Vec<usize> = (0..cases.len()).collect();
        (1..order.len()).rev().for_each(|last| order.swap(last, random.index(last + 1)));
        let fold_of = |case: &str| cases.binary_search(&case).map_or(0, |case| order[case] % FOLDS);
        for fold in 0..FOLDS {
            let rest: Vec<&Pair> = pairs.iter().filter(|pair| fold_of(&pair.case) != fold).collect();
            let classifier = Classifier::fit(&rest);
            for (index, pair) in pairs.iter().enumerate().filter(|(_, pair)| fold_of(&pair.case) == fold) {
                (real[index], made[index]) = (classifier.score(&pair.real), classifier.score(&pair.made));
            }
        }
        let even = vec![1.0; pairs.len()];
        sum += auc(&real, &made, &even)?;
        for _ in 0..RESAMPLES / REPEATS as usize {
            let drawn: Vec<usize> = pairs.iter().map(|_| random.index(pairs.len())).collect();
            let of = |scores: &[f64]| drawn.iter().map(|&index| scores[index]).collect::<Vec<f64>>();
            samples.push(auc(&of(&real), &of(&made), &even)?);
        }
    }
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[(share * (samples.len() - 1) as f64) as usize];
    Some((sum / REPEATS as f64, [at(0.05), at(0.95)]))
}

/// A logistic regression on standardized features.
struct Classifier {
    mean: [f64; COUNT],
    deviation: [f64; COUNT],
    weights: Vec<f64>,
}

impl Classifier {
    fn fit(pairs: &[&Pair]) -> Self {
        let rows: Vec<[f64; COUNT]> = pairs.iter().flat_map(|pair| [pair.real, pair.made]).collect();
        let count = rows.len() as f64;
        let mean: [f64; COUNT] = std::array::from_fn(|k| rows.iter().map(|row| row[k]).sum::<f64>() / count);
        let deviation: [f64; COUNT] = std::array::from_fn(|k| {
            let squares = rows.iter().map(|row| (row[k] - mean[k]).powi(2)).sum::<f64>();
            (squares / count).sqrt().max(1e-9)
        });
        let unfitted = Self { mean, deviation, weights: Vec::new() };
        let inputs: Vec<Vec<f64>> = rows.iter().map(|row| unfitted.standardized(row)).collect();
        let classes: Vec<bool> = pairs.iter().flat_map(|_| [true, false]).collect();
        let weights = fit_logistic(&inputs, &classes, &vec![1.0; rows.len()], Penalty::default());
        Self { weights, ..unfitted }
    }

    fn standardized(&self, row: &[f64; COUNT]) -> Vec<f64> {
        (0..COUNT).map(|k| (row[k] - self.mean[k]) / self.deviation[k]).collect()
    }

    /// Returns the logarithm of the odds that a mask is real, without the intercept.
    fn score(&self, row: &[f64; COUNT]) -> f64 {
        self.standardized(row).iter().zip(&self.weights).map(|(value, weight)| value * weight).sum()
    }
}
