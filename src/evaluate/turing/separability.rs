//! How well real and synthetic lesions can be told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::features::{Feature, LesionSample};
use super::folds::deal;
use super::logistic::Logistic;
use crate::error::{Error, Result};
use crate::evaluate::metrics::Interval;
use crate::evaluate::output::{create_folder, to_json, write_file};
use crate::random::Key;

/// Folds of patients; each is held out once.
const FOLDS: usize = 5;
/// How often the patients are assigned to folds.
const REPEATS: usize = 10;
/// Fewer patients with lesions of a kind cannot be trained on and held out.
const FEWEST_PATIENTS: usize = FOLDS;

/// An area under the curve with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Auc {
    /// The share of pairs of a real and a synthetic lesion in which the real one has the higher score; 0.5 is chance.
    pub auc: f64,
    /// The bounds of 95% of resamples of patients.
    #[serde(flatten)]
    pub interval: Interval,
}

/// A feature in which both kinds differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FeatureDifference {
    /// The feature's name.
    pub feature: &'static str,
    /// Mean of the real lesions.
    pub real: f64,
    /// Mean of the synthetic lesions.
    pub synthetic: f64,
    /// Their difference in deviations (Cohen's d).
    pub effect: f64,
}

/// How well real and synthetic lesions can be separated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Separability {
    /// Real lesions.
    pub real: usize,
    /// Synthetic lesions.
    pub synthetic: usize,
    /// Patients.
    pub patients: usize,
    /// By all features.
    pub all: Auc,
    /// By looks alone, whatever size and shape.
    pub looks: Auc,
    /// By size and shape alone.
    pub shape: Auc,
    /// The features that differ most, the largest difference first.
    #[serde(rename = "telling")]
    pub differences: Vec<FeatureDifference>,
}

/// Classifies lesions of held-out patients as real or synthetic.
///
/// Patients are assigned to five folds at random, ten times. A pair of a real and a synthetic lesion counts where both were
/// held out together: scores of one classifier are compared, never those of different ones, whose offsets differ. The
/// interval is that of resampled patients; classifiers are not trained again for it.
///
/// # Errors
/// Returns an error if fewer than five patients have real, or have synthetic lesions.
///
/// # Source
/// Lopez-Paz and Oquab, *Revisiting Classifier Two-Sample Tests*, ICLR 2017.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::turing::{Feature, LesionSample, separability};
/// let mut draws = Key::root(1).draws("lesions");
/// let specimens: Vec<LesionSample> = (0..60).map(|i| {
///     let is_real = i % 2 == 0;
///     let mut values: Vec<f64> = Feature::ALL.iter().map(|_| draws.normal(0.0, 1.0)).collect();
///     values[0] += if is_real { 3.0 } else { 0.0 };
///     LesionSample { patient: format!("{}", i / 2), is_real, values }
/// }).collect();
/// let result = separability(&specimens, 200, Key::root(2))?;
/// assert!(result.looks.auc > 0.8 && result.shape.auc < 0.75);
/// assert_eq!(result.differences[0].feature, "contrast_hu");
/// # Ok::<(), freetumor::error::Error>(())
/// ```
pub fn separability(specimens: &[LesionSample], resamples: usize, key: Key) -> Result<Separability> {
    let of_kind = |real: bool| specimens.iter().filter(move |specimen| specimen.is_real == real);
    let names: BTreeMap<&str, usize> = {
        let unique: BTreeSet<&str> = specimens.iter().map(|it| it.patient.as_str()).collect();
        unique.into_iter().enumerate().map(|(at, name)| (name, at)).collect()
    };
    for (kind, real) in [("real", true), ("synthetic", false)] {
        let patients: BTreeSet<&str> = of_kind(real).map(|it| it.patient.as_str()).collect();
        if patients.len() < FEWEST_PATIENTS {
            let (got, lesions) = (patients.len(), of_kind(real).count());
            return Err(Error::new(format!(
                "expected {kind} lesions of at least {FEWEST_PATIENTS} patients, got {lesions} of {got}"
            ))
            .with_hint("lesions of fewer than 8 voxels are not looked at; check folders and tumor id"));
        }
    }
    let auc = |uses: fn(&Feature) -> bool| pairs(specimens, &names, uses, key).auc(resamples, key);
    Ok(Separability {
        real: of_kind(true).count(),
        synthetic: of_kind(false).count(),
        patients: names.len(),
        all: auc(|_| true),
        looks: auc(|feature| !feature.is_shape),
        shape: auc(|feature| feature.is_shape),
        differences: differences(specimens),
    })
}

impl Separability {
    /// The result as indented JSON, with a line end.
    ///
    /// # Errors
    /// None in practice: numbers and names are always JSON.
    pub fn to_json(&self) -> Result<String> {
        to_json("verdict", self)
    }

    /// Writes `turing.json` into a folder, in place of an earlier one.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        create_folder(folder)?;
        write_file(&folder.join("turing.json"), self.to_json()?.as_bytes())
    }
}

/// Pairs of a real and a synthetic lesion by their patients.
struct Pairs {
    patients: usize,
    /// Pairs ordered rightly, ties by half; the real lesion's patient is the row.
    right: Vec<f64>,
    all: Vec<f64>,
}

fn pairs(specimens: &[LesionSample], names: &BTreeMap<&str, usize>, uses: fn(&Feature) -> bool, key: Key) -> Pairs {
    let used: Vec<usize> = (0..Feature::ALL.len()).filter(|k| uses(&Feature::ALL[*k])).collect();
    let rows: Vec<Vec<f64>> = specimens.iter().map(|it| used.iter().map(|k| it.values[*k]).collect()).collect();
    let patients = names.len();
    let mut pairs = Pairs { patients, right: vec![0.0; patients * patients], all: vec![0.0; patients * patients] };
    for repeat in 0..REPEATS {
        let folds = deal(specimens, FOLDS, key.number("deal", repeat as u64));
        for fold in 0..FOLDS {
            let train: Vec<usize> = (0..rows.len()).filter(|i| folds[*i] != fold).collect();
            let borrowed: Vec<&[f64]> = train.iter().map(|i| rows[*i].as_slice()).collect();
            let classes: Vec<bool> = train.iter().map(|i| specimens[*i].is_real).collect();
            let classifier = Logistic::fit(&borrowed, &classes);
            let held: Vec<(usize, bool, f64)> = (0..rows.len())
                .filter(|i| folds[*i] == fold)
                .map(|i| (names[specimens[i].patient.as_str()], specimens[i].is_real, classifier.score(&rows[i])))
                .collect();
            for (real, _, of_real) in held.iter().filter(|held| held.1) {
                for (synthetic, _, of_synthetic) in held.iter().filter(|held| !held.1) {
                    let at = real * patients + synthetic;
                    pairs.all[at] += 1.0;
                    pairs.right[at] += match of_real.total_cmp(of_synthetic) {
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
    fn weighted(&self, times: &[f64]) -> f64 {
        let (mut right, mut all) = (0.0, 0.0);
        for (row, own) in times.iter().enumerate().filter(|(_, own)| **own > 0.0) {
            let line = row * self.patients..(row + 1) * self.patients;
            for ((others, pair), good) in times.iter().zip(&self.all[line.clone()]).zip(&self.right[line]) {
                all += own * others * pair;
                right += own * others * good;
            }
        }
        right / all
    }

    fn auc(&self, resamples: usize, key: Key) -> Auc {
        let auc = self.weighted(&vec![1.0; self.patients]);
        let resampled = |resample: usize| {
            let mut draws = key.number("resample", resample as u64).draws("patients");
            let mut times = vec![0.0; self.patients];
            (0..self.patients).for_each(|_| times[draws.index(self.patients)] += 1.0);
            self.weighted(&times)
        };
        let values: Vec<f64> = (0..resamples).map(resampled).collect();
        Auc { auc, interval: Interval::of(&values).unwrap_or(Interval { low: auc, high: auc }) }
    }
}

/// The five features in which both kinds differ most.
fn differences(specimens: &[LesionSample]) -> Vec<FeatureDifference> {
    let mut all: Vec<FeatureDifference> = Feature::ALL
        .iter()
        .enumerate()
        .map(|(k, feature)| {
            let of_kind = |real: bool| {
                let values: Vec<f64> =
                    specimens.iter().filter(|it| it.is_real == real).map(|it| it.values[k]).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
            };
            let ((real, own), (synthetic, others)) = (of_kind(true), of_kind(false));
            let effect = (real - synthetic) / (0.5 * (own + others)).sqrt().max(1e-9);
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

    /// Lesions that differ by patient, and by kind where `gap` is not 0.
    fn specimens(world: u64, gap: f64) -> Vec<LesionSample> {
        let mut draws = Key::root(world).draws("specimens");
        let mut all = Vec::new();
        for patient in 0..30 {
            let own: Vec<f64> = Feature::ALL.iter().map(|_| draws.normal(0.0, 1.0)).collect();
            for _ in 0..3 {
                let mut values: Vec<f64> = own.iter().map(|own| own + draws.normal(0.0, 0.5)).collect();
                let is_real = patient % 2 == 0;
                values[3] += if is_real { gap } else { 0.0 };
                all.push(LesionSample { patient: format!("{patient}"), is_real, values });
            }
        }
        all
    }

    #[test]
    fn lesions_of_one_kind_are_not_told_apart_though_patients_differ() {
        let worlds = 12;
        let aucs: Vec<Auc> =
            (0..worlds).map(|world| separability(&specimens(world, 0.0), 200, Key::root(world)).unwrap().all).collect();
        let mean = aucs.iter().map(|auc| auc.auc).sum::<f64>() / worlds as f64;
        let held = aucs.iter().filter(|auc| auc.interval.low <= 0.5 && 0.5 <= auc.interval.high).count();
        assert!((mean - 0.5).abs() < 0.1 && held >= 9, "{mean} {held}");
    }

    #[test]
    fn a_difference_is_seen_and_named() {
        let result = separability(&specimens(5, 4.0), 200, Key::root(1)).unwrap();
        assert!(result.all.auc > 0.9 && result.looks.interval.low > 0.8, "{result:?}");
        assert_eq!((result.differences[0].feature, result.real, result.patients), ("skewness_inside", 45, 30));
    }

    #[test]
    fn too_few_patients_are_an_error() {
        let few: Vec<LesionSample> = specimens(1, 0.0)
            .into_iter()
            .filter(|it| !it.is_real || it.patient.len() == 1 && it.patient.as_str() < "6")
            .collect();
        let error = separability(&few, 10, Key::root(1)).unwrap_err();
        assert_eq!(error.to_string(), "expected real lesions of at least 5 patients, got 9 of 3");
    }
}
