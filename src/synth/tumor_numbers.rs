//! The number of tumors of a sample: a range, or as many as real patients have.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::random::Key;

/// Maximum number of tumors of a sample in a range.
const MAX_TUMORS: u32 = 100;

/// The number of tumors of each sample of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TumorsPerScan {
    /// As many in each organ as real patients with tumors of the organ have.
    Real(RealNumbers),
    /// Minimum and maximum number, spread over the organs: `[1, 3]`.
    Range([u32; 2]),
}

/// The name of the distributions of real tumors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RealNumbers {
    /// The number of real tumors of the organ.
    #[serde(rename = "as-real")]
    AsReal,
}

impl TumorsPerScan {
    /// Returns an error if a range is empty, zero or too large, otherwise `None`.
    pub(super) fn check(self) -> Option<ConfigError> {
        let Self::Range([low, high]) = self else { return None };
        (low == 0 || low > high || high > MAX_TUMORS).then(|| {
            let message =
                format!("expected \"as-real\", or [minimum, maximum] from 1 to {MAX_TUMORS}, got [{low}, {high}]");
            ConfigError::new("tumors_per_scan", message)
        })
    }
}

/// Real tumors of an organ per patient with such a tumor, as points of the cumulative distribution: each number with the share of
/// patients that have fewer tumors.
struct RealDistribution {
    organ: &'static str,
    points: &'static [(f64, f64)],
}

/// # Source
/// Connected components of public annotations, one case per patient: liver, 713 tumors in 98 cases of LiTS (annotations of ULS23);
/// kidney, 228 tumors in 210 cases of KiTS19; pancreas, 283 tumors in 281 cases of the Medical Segmentation Decathlon, task 7 (ULS23);
/// lung, 70 tumors in 63 cases of task 6 (ULS23). The points are the measured share of single tumors, quantiles and maximum; points
/// between the last quantile and the maximum are fitted to the measured means 7.28, 1.09, 1.01 and 1.11.
const REAL: [RealDistribution; 4] = [
    RealDistribution {
        organ: "liver",
        points: &[(0.286, 2.0), (0.5, 4.5), (0.75, 10.0), (0.95, 23.0), (0.99, 35.0), (1.0, 76.0)],
    },
    RealDistribution { organ: "kidney", points: &[(0.952, 2.0), (0.975, 3.0), (0.99, 4.0), (1.0, 9.0)] },
    RealDistribution { organ: "pancreas", points: &[(0.993, 2.0), (1.0, 2.0)] },
    RealDistribution { organ: "lung", points: &[(0.921, 2.0), (0.978, 3.0), (0.991, 4.0), (1.0, 4.0)] },
];

impl RealDistribution {
    fn of(organ: &str) -> Option<&'static Self> {
        REAL.iter().find(|distribution| distribution.organ == organ)
    }

    /// Returns the number at a share of patients, 0 to 1: 1 below the first point, then interpolated and rounded down.
    fn number_at(&self, share: f64) -> u32 {
        let above = self.points.iter().position(|(point, _)| *point > share).unwrap_or(self.points.len() - 1);
        let Some(below) = above.checked_sub(1) else { return 1 };
        let ((from, low), (to, high)) = (self.points[below], self.points[above]);
        (low + (high - low) * (share - from) / (to - from)) as u32
    }

    fn mean(&self) -> f64 {
        const STEPS: u32 = 1000;
        let shares = (0..STEPS).map(|step| (f64::from(step) + 0.5) / f64::from(STEPS));
        shares.map(|share| f64::from(self.number_at(share))).sum::<f64>() / f64::from(STEPS)
    }
}

/// Draws the number of tumors in each organ of a scan.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::synth::{TumorNumbers, TumorsPerScan};
/// let numbers = TumorNumbers::new(TumorsPerScan::Range([2, 3]), &Default::default());
/// let drawn = numbers.draw(Key::root(1), &["liver", "kidney"]);
/// assert!((2..=3).contains(&drawn.iter().sum::<u32>()));
/// // The order of the organs has no effect.
/// assert_eq!(numbers.draw(Key::root(1), &["kidney", "liver"]), [drawn[1], drawn[0]]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TumorNumbers {
    setting: TumorsPerScan,
    /// Organs that use the distribution of another organ.
    priors: BTreeMap<String, String>,
}

impl TumorNumbers {
    /// Creates the numbers of a setting; `priors` names the organ whose distribution an organ uses.
    pub fn new(setting: TumorsPerScan, priors: &BTreeMap<String, String>) -> Self {
        Self { setting, priors: priors.clone() }
    }

    /// Draws the number of tumors in each of `organs`, in their order. The result depends on `key` and the set of organs alone. Without
    /// organs there are no tumors.
    pub fn draw(&self, key: Key, organs: &[&str]) -> Vec<u32> {
        let mut numbers = vec![0; organs.len()];
        match self.setting {
            TumorsPerScan::Real(RealNumbers::AsReal) => {
                for (number, organ) in numbers.iter_mut().zip(organs) {
                    let share = key.with("organ", organ).stream("tumors per scan").uniform(0.0, 1.0);
                    *number = self.real(organ).map_or(1, |distribution| distribution.number_at(share));
                }
            }
            TumorsPerScan::Range(_) if organs.is_empty() => {}
            TumorsPerScan::Range([low, high]) => {
                let mut random = key.stream("tumors per scan");
                let total = low + random.index((high - low + 1) as usize) as u32;
                let mut by_name: Vec<usize> = (0..organs.len()).collect();
                by_name.sort_by_key(|&index| organs[index]);
                for _ in 0..total {
                    numbers[by_name[random.index(by_name.len())]] += 1;
                }
            }
        }
        numbers
    }

    /// Returns the mean number of tumors in scans with these organs.
    pub fn mean(&self, organs: &[&str]) -> f64 {
        match self.setting {
            TumorsPerScan::Real(RealNumbers::AsReal) => {
                organs.iter().map(|organ| self.real(organ).map_or(1.0, RealDistribution::mean)).sum()
            }
            TumorsPerScan::Range(_) if organs.is_empty() => 0.0,
            TumorsPerScan::Range([low, high]) => f64::from(low + high) / 2.0,
        }
    }

    fn real(&self, organ: &str) -> Option<&'static RealDistribution> {
        RealDistribution::of(self.priors.get(organ).map_or(organ, String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::prior::PRIORS;

    #[test]
    fn every_organ_with_a_prior_has_a_distribution_with_the_real_mean() {
        let means = [("liver", 7.28), ("kidney", 1.09), ("pancreas", 1.01), ("lung", 1.11)];
        for prior in &PRIORS {
            let distribution = RealDistribution::of(prior.organ).unwrap();
            let (_, real) = means.iter().find(|(organ, _)| *organ == prior.organ).unwrap();
            let mean = distribution.mean();
            assert!((mean / real - 1.0).abs() < 0.05, "{}: {mean} instead of {real}", prior.organ);
            assert_eq!(distribution.number_at(0.0), 1);
            assert!((0..1000).all(|step| distribution.number_at(f64::from(step) / 1000.0) >= 1));
        }
    }

    #[test]
    fn drawn_numbers_have_the_quantiles_of_real_tumors() {
        let numbers = TumorNumbers::new(
            TumorsPerScan::Real(RealNumbers::AsReal),
            &BTreeMap::from([("spleen".to_owned(), "liver".to_owned())]),
        );
        for organ in ["liver", "spleen"] {
            let mut drawn: Vec<u32> =
                (0..4000).map(|seed| numbers.draw(Key::root(seed), &["pancreas", organ])[1]).collect();
            drawn.sort_unstable();
            let [quarter, half, three] = [1000, 2000, 3000].map(|index| drawn[index]);
            assert!(quarter == 1 && (4..=5).contains(&half) && (9..=11).contains(&three), "{quarter} {half} {three}");
        }
    }

    #[test]
    fn range_is_covered_and_spread_over_organs() {
        let numbers = TumorNumbers::new(TumorsPerScan::Range([1, 3]), &BTreeMap::new());
        let (mut totals, mut in_organs) = ([0; 4], [0; 2]);
        for seed in 0..3000 {
            let drawn = numbers.draw(Key::root(seed), &["liver", "kidney"]);
            totals[drawn.iter().sum::<u32>() as usize] += 1;
            (0..2).for_each(|organ| in_organs[organ] += drawn[organ]);
        }
        assert!(totals[0] == 0 && totals[1..].iter().all(|count| (900..1100).contains(count)), "{totals:?}");
        assert!(in_organs.iter().all(|count| (2800..3200).contains(count)), "{in_organs:?}");
        assert!(numbers.draw(Key::root(1), &[]).is_empty());
    }

    #[test]
    fn setting_is_a_name_or_a_range() {
        let parse = |text: &str| {
            toml::from_str::<BTreeMap<String, TumorsPerScan>>(&format!("tumors_per_scan = {text}"))
                .map(|table| table["tumors_per_scan"])
        };
        assert_eq!(parse("\"as-real\"").unwrap(), TumorsPerScan::Real(RealNumbers::AsReal));
        assert_eq!(parse("[1, 3]").unwrap(), TumorsPerScan::Range([1, 3]));
        assert!(parse("\"real\"").is_err() && parse("3").is_err());
        for range in [[0, 2], [3, 2], [1, 101]] {
            let error = TumorsPerScan::Range(range).check().unwrap();
            assert!(error.message.contains(&format!("got [{}, {}]", range[0], range[1])), "{}", error.message);
        }
        assert_eq!(TumorsPerScan::Range([1, 100]).check(), None);
    }
}
