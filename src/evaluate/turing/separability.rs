//! The separability of real and synthetic lesions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::features::{Feature, LesionSample};
use super::folds::assign_folds;
use super::logistic::Logistic;
use crate::error::{Error, Result};
use crate::evaluate::metrics::Interval;
use crate::evaluate::output::{create_folder, to_json, write_file};
use crate::random::Key;

/// The number of folds of patients; each fold is held out once.
const FOLDS: usize = 5;
/// The number of times that the patients are assigned to folds.
const REPEATS: usize = 10;
/// The minimum number of patients with lesions of each kind.
const MIN_PATIENTS: usize = FOLDS;

/// An area under the curve with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Auc {
    /// The share of pairs of a real and a synthetic lesion in which the real one has the higher score; 0.5 is chance.
    pub auc: f64,
    /// The interval of 95% of resamples of patients.
    #[serde(flatten)]
    pub interval: Interval,
}

/// The difference of a feature between real and synthetic lesions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FeatureDifference {
    /// The name of the feature.
    pub feature: &'static str,
    /// The mean of the real lesions.
    pub real: f64,
    /// The mean of the synthetic lesions.
    pub synthetic: f64,
    /// The difference in standard deviations (Cohen's d).
    pub effect: f64,
}

/// The result of the Turing test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Separability {
    /// The number of real lesions.
    pub real: usize,
    /// The number of synthetic lesions.
    pub synthetic: usize,
    /// The number of patients.
    pub patients: usize,
    /// The AUC with all features.
    pub all: Auc,
    /// The AUC with features of appearance only.
    #[serde(rename = "looks")]
    pub appearance: Auc,
    /// The AUC with features of size and shape only.
    pub shape: Auc,
    /// The features that differ most, the largest difference first.
    #[serde(rename = "telling")]
    pub differences: Vec<FeatureDifference>,
}

/// Classifies lesions of held-out patients as real or synthetic.
///
/// Patients are assigned to five folds at random, ten times. A pair of a real and a synthetic lesion counts if both were held out
/// together: only scores of the same classifier are compared, because the intercepts of classifiers differ. The interval is over
/// resampled patients; classifiers are not trained again.
///
/// # Errors
/// Returns an error if fewer than five patients have real lesions, or fewer than five have synthetic lesions.
///
/// # Source
/// Lopez-Paz and Oquab, *Revisiting Classifier Two-Sample Tests*, ICLR 2017.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::turing::{Feature, LesionSample, separability};
/// let mut random = Key::root(1).stream("lesions");
/// let lesions: Vec<LesionSample> = (0..60).map(|i| {
///     let is_real = i % 2 == 0;
///     let mut values: Vec<f64> = Feature::ALL.iter().map(|_| random.normal(0.0, 1.0)).collect();
///     values[0] += if is_real { 3.0 } else { 0.0 };
///     LesionSample { patient: format!("{}", i / 2), is_real, values }
/// }).collect();
/// let result = separability(&lesions, 200, Key::root(2))?;
/// assert!(result.appearance.auc > 0.8 && result.shape.auc < 0.75);
/// assert_eq!(result.differences[0].feature, "contrast_hu");
/// # Ok::<(), freetumor::error::Error>(())
/// ```
pub fn separability(lesions: &[LesionSample], resamples: usize, key: Key) -> Result<Separability> {
    let of_kind = |real: bool| lesions.iter().filter(move |lesion| lesion.is_real == real);
    let names: BTreeMap<&str, usize> = {
        let unique: BTreeSet<&str> = lesions.iter().map(|lesion| lesion.patient.as_str()).collect();
        unique.into_iter().enumerate().map(|(at, name)| (name, at)).collect()
    };
    for (kind, real) in [("real", true), ("synthetic", false)] {
        let patients: BTreeSet<&str> = of_kind(real).map(|lesion| lesion.patient.as_str()).collect();
        if patients.len() < MIN_PATIENTS {
            let (got, lesions) = (patients.len(), of_kind(real).count());
            return Err(Error::new(format!(
                "expected {kind} lesions of at least {MIN_PATIENTS} patients, got {lesions} of {got}"
            ))
            .with_hint("check the folders and the tumor id; lesions of fewer than 8 voxels are ignored"));
        }
    }
    let auc = |uses: fn(&Feature) -> bool| pairs(lesions, &names, uses, key).auc(resamples, key);
    Ok(Separability {
        real: of_kind(true).count(),
        synthetic: of_kind(false).count(),
        patients: names.len(),
        all: auc(|_| true),
        appearance: auc(|feature| !feature.is_shape),
        shape: auc(|feature| feature.is_shape),
        differences: differences(lesions),
    })
}

impl Separability {
    /// Serializes the result as indented JSON with a trailing newline.
    ///
    /// # Errors
    /// Returns an error if the result cannot be serialized, which does not occur for names and numbers.
    pub fn to_json(&self) -> Result<String> {
        to_json("result", self)
    }

    /// Writes `turing.json` into a folder, and replaces an earlier file.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        create_folder(folder)?;
        write_file(&folder.join("turing.json"), self.to_json()?.as_bytes())
    }
}

/// The counts of pairs of a real and a synthetic lesion, by patient.
struct Pairs {
    patients: usize,
    /// Correctly ordered pairs, ties by half; rows are patients of real lesions.
    correct: Vec<f64>,
    all: Vec<f64>,
}

fn pairs(lesions: &[LesionSample], names: &BTreeMap<&str, usize>, uses: fn(&Feature) -> bool, key: Key) -> Pairs {
    let used: Vec<usize> = (0..Feature::ALL.len()).filter(|k| uses(&Feature::ALL[*k])).collect();
    let rows: Vec<Vec<f64>> = lesions.iter().map(|lesion| used.iter().map(|k| lesion.values[*k]).collect()).collect();
    let patients = names.len();
    let mut pairs = Pairs { patients, correct: vec![0.0; patients * patients], all: vec![0.0; patients * patients] };
    for repeat in 0..REPEATS {
        let folds = assign_folds(lesions, FOLDS, key.number("deal", repeat as u64));
        for fold in 0..FOLDS {
            let train: Vec<usize> = (0..rows.len()).filter(|i| folds[*i] != fold).collect();
            let borrowed: Vec<&[f64]> = train.iter().map(|i| rows[*i].as_slice()).collect();
            let classes: Vec<bool> = train.iter().map(|i| lesions[*i].is_real).collect();
            let classifier = Logistic::fit(&borrowed, &classes);
            let held_out: Vec<(usize, bool, f64)> = (0..rows.len())
                .filter(|i| folds[*i] == fold)
                .map(|i| (names[lesions[i].patient.as_str()], lesions[i].is_real, classifier.score(&rows[i])))
                .collect();
            for (real, _, real_score) in held_out.iter().filter(|lesion| lesion.1) {
                for (synthetic, _, synthetic_score) in held_out.iter().filter(|lesion| !lesion.1) {
                    let at = real * patients + synthetic;
                    pairs.all[at] += 1.0;
                    pairs.correct[at] += match real_score.total_cmp(synthetic_score) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    };
                }
            }
        }
    }
    pairs
}

impl Pairs {
    fn weighted_auc(&self, counts: &[f64]) -> f64 {
        let (mut correct, mut all) = (0.0, 0.0);
        for (row, real) in counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            let line = row * self.patients..(row + 1) * self.patients;
            for ((synthetic, pairs), good) in counts.iter().zip(&self.all[line.clone()]).zip(&self.correct[line]) {
                all += real * synthetic * pairs;
                correct += real * synthetic * good;
            }
        }
        correct / all
    }

    fn auc(&self, resamples: usize, key: Key) -> Auc {
        let auc = self.weighted_auc(&vec![1.0; self.patients]);
        let resampled = |resample: usize| {
            let mut random = key.number("resample", resample as u64).stream("patients");
            let mut counts = vec![0.0; self.patients];
            (0..self.patients).for_each(|_| counts[random.index(self.patients)] += 1.0);
            self.weighted_auc(&counts)
        };
        let values: Vec<f64> = (0..resamples).map(resampled).collect();
        Auc { auc, interval: Interval::of(&values).unwrap_or(Interval { low: auc, high: auc }) }
    }
}

/// Returns the five features in which real and synthetic lesions differ most.
fn differences(lesions: &[LesionSample]) -> Vec<FeatureDifference> {
    let mut all: Vec<FeatureDifference> = Feature::ALL
        .iter()
        .enumerate()
        .map(|(k, feature)| {
            let of_kind = |real: bool| {
                let values: Vec<f64> =
                    lesions.iter().filter(|lesion| lesion.is_real == real).map(|lesion| lesion.values[k]).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
            };
            let ((real, real_variance), (synthetic, synthetic_variance)) = (of_kind(true), of_kind(false));
            let effect = (real - synthetic) / (0.5 * (real_variance + synthetic_variance)).sqrt().max(1e-9);
            FeatureDifference { feature: feature.name, real, synthetic, effect }
        })
        .collect();
    all.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    all.truncate(5);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns lesions that differ by patient, and by kind if `gap` is not 0.
    fn lesions(world: u64, gap: f64) -> Vec<LesionSample> {
        let mut random = Key::root(world).stream("specimens");
        let mut all = Vec::new();
        for patient in 0..30 {
            let base: Vec<f64> = Feature::ALL.iter().map(|_| random.normal(0.0, 1.0)).collect();
            for _ in 0..3 {
                let mut values: Vec<f64> = base.iter().map(|value| value + random.normal(0.0, 0.5)).collect();
                let is_real = patient % 2 == 0;
                values[3] += if is_real { gap } else { 0.0 };
                all.push(LesionSample { patient: format!("{patient}"), is_real, values });
            }
        }
        all
    }

    #[test]
    fn separability_is_chance_for_lesions_of_one_distribution() {
        let worlds = 12;
        let aucs: Vec<Auc> =
            (0..worlds).map(|world| separability(&lesions(world, 0.0), 200, Key::root(world)).unwrap().all).collect();
        let mean = aucs.iter().map(|auc| auc.auc).sum::<f64>() / worlds as f64;
        let covered = aucs.iter().filter(|auc| auc.interval.low <= 0.5 && 0.5 <= auc.interval.high).count();
        assert!((mean - 0.5).abs() < 0.1 && covered >= 9, "{mean} {covered}");
    }

    #[test]
    fn separability_detects_and_names_difference() {
        let result = separability(&lesions(5, 4.0), 200, Key::root(1)).unwrap();
        assert!(result.all.auc > 0.9 && result.appearance.interval.low > 0.8, "{result:?}");
        assert_eq!((result.differences[0].feature, result.real, result.patients), ("skewness_inside", 45, 30));
    }

    #[test]
    fn separability_fails_on_too_few_patients() {
        let few: Vec<LesionSample> = lesions(1, 0.0)
            .into_iter()
            .filter(|lesion| !lesion.is_real || lesion.patient.len() == 1 && lesion.patient.as_str() < "6")
            .collect();
        let error = separability(&few, 10, Key::root(1)).unwrap_err();
        assert_eq!(error.to_string(), "expected real lesions of at least 5 patients, got 9 of 3");
    }
}
