//! Intervals by resampling patients and seeds.
//!
//! Patients and seeds are crossed: each trained network is evaluated on every patient. Therefore one resample samples patients with
//! replacement and, independently, seeds with replacement, and evaluates the sampled networks on the sampled patients. Sampling new seeds
//! for each patient would average out the variance between seeds and underestimate the uncertainty of a difference. All arms share the same
//! resamples, so that their differences are paired.
//!
//! A resample of n seeds underestimates the variance of the mean by a factor of (n − 1) / n; the weights of seeds are spread around 1 to
//! correct for that factor (Rao and Wu's rescaling). With one seed there is no variance between seeds: the interval is for that network.

use serde::Serialize;

use crate::random::Key;

/// The share of resamples inside an interval.
const LEVEL: f64 = 0.95;

/// A weighted sum: the contribution of one or several cases to a mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightedSum {
    /// The numerator.
    pub sum: f64,
    /// The denominator.
    pub weight: f64,
}

impl WeightedSum {
    /// The contribution of a case for which the metric is undefined.
    pub const ZERO: Self = Self { sum: 0.0, weight: 0.0 };

    /// Returns the contribution of one number with weight 1, or zero without a number.
    pub fn of(value: Option<f64>) -> Self {
        value.map_or(Self::ZERO, |sum| Self { sum, weight: 1.0 })
    }

    /// Returns the mean; `None` if the weight is 0.
    pub fn mean(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// Returns the sum of two contributions.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, weight: self.weight + other.weight }
    }
}

/// The values of one measure of one arm.
///
/// # Shapes
/// `[seed][patient]`: the contribution of all cases of a patient with the network of a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Series(pub Vec<Vec<WeightedSum>>);

impl Series {
    /// Returns the mean over all seeds and patients, or `None` without any value.
    pub fn mean(&self) -> Option<f64> {
        self.0.iter().flatten().fold(WeightedSum::ZERO, |total, cell| total.plus(*cell)).mean()
    }

    /// Returns the number of patients with a positive weight in both series.
    pub(super) fn patients_with(&self, other: &Self) -> usize {
        let patients = self.0.first().map_or(0, Vec::len);
        let has_weight = |series: &Self, patient: usize| series.0.iter().any(|cells| cells[patient].weight > 0.0);
        (0..patients).filter(|patient| has_weight(self, *patient) && has_weight(other, *patient)).count()
    }
}

/// An interval that contains 95% of resamples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// Returns the central 95% of resampled values, with linear interpolation; `None` if there are no finite values.
    ///
    /// ```
    /// use freetumor::evaluate::metrics::Interval;
    /// let values: Vec<f64> = (0..=1000).rev().map(f64::from).collect();
    /// let interval = Interval::of(&values).unwrap();
    /// assert!((interval.low - 25.0).abs() < 1e-9 && (interval.high - 975.0).abs() < 1e-9);
    /// ```
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let position = share * last as f64;
            let below = position.floor() as usize;
            let above = (below + 1).min(last);
            sorted[below] + (position - position.floor()) * (sorted[above] - sorted[below])
        };
        Some(Self { low: at(0.5 - 0.5 * LEVEL), high: at(0.5 + 0.5 * LEVEL) })
    }

    /// Clamps the interval to two bounds: rescaled resamples of few seeds may exceed the range of a metric.
    #[must_use]
    pub fn clamp(self, [min, max]: [f64; 2]) -> Self {
        Self { low: self.low.clamp(min, max), high: self.high.clamp(min, max) }
    }
}

/// Resamples of patients and seeds.
///
/// # Source
/// The percentile bootstrap (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13) with both
/// factors of a crossed design resampled (Owen, *Annals of Applied Statistics* 1, 386, 2007), with few seeds rescaled (Rao and Wu,
/// *Journal of the American Statistical Association* 83, 231, 1988).
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::metrics::{Resamples, Series, WeightedSum};
/// let resamples = Resamples::new(Key::root(1), 1000, 40);
/// let patient = |i: i32| WeightedSum::of(Some(f64::from(i % 2)));
/// let halves = Series(vec![(0..40).map(patient).collect()]);
/// let interval = resamples.interval(&halves).unwrap();
/// assert!((0.3..0.42).contains(&interval.low) && (0.58..0.7).contains(&interval.high));
/// ```
#[derive(Clone, Debug)]
pub struct Resamples {
    key: Key,
    /// `[resample][patient]`: how often each patient was sampled.
    patient_counts: Vec<Vec<f64>>,
}

impl Resamples {
    /// Creates `count` resamples of `patients` patients.
    pub fn new(key: Key, count: usize, patients: usize) -> Self {
        let counts = |resample: usize| sample_counts(key.number("resample", resample as u64), patients);
        Self { key, patient_counts: (0..count).map(counts).collect() }
    }

    /// Returns the mean of each resample; NaN if the weight of a resample is 0.
    ///
    /// # Panics
    /// Panics if the number of patients of the series differs from that of the resamples.
    pub fn means(&self, series: &Series) -> Vec<f64> {
        let seeds = series.0.len();
        let sums: Vec<[Vec<f64>; 2]> = series.0.iter().map(|cells| split(cells)).collect();
        let each = self.patient_counts.iter().enumerate().map(|(resample, patients)| {
            let key = self.key.number("resample", resample as u64).number("of seeds", seeds as u64);
            let dot = |values: &[f64]| -> f64 {
                assert_eq!(values.len(), patients.len(), "the series and the resamples have the same patients");
                values.iter().zip(patients).map(|(value, count)| value * count).sum()
            };
            let counts = rescale(sample_counts(key, seeds)).into_iter().zip(&sums);
            let total = counts.fold(WeightedSum::ZERO, |total, (count, [sum, weight])| {
                total.plus(WeightedSum { sum: count * dot(sum), weight: count * dot(weight) })
            });
            total.mean().unwrap_or(f64::NAN)
        });
        each.collect()
    }

    /// Returns the interval of the mean of a series; `None` if its weight is 0.
    pub fn interval(&self, series: &Series) -> Option<Interval> {
        Interval::of(&self.means(series))
    }
}

fn split(cells: &[WeightedSum]) -> [Vec<f64>; 2] {
    [cells.iter().map(|cell| cell.sum).collect(), cells.iter().map(|cell| cell.weight).collect()]
}

/// Spreads counts around 1, so that the standard deviation of a resampled mean equals the standard error of the mean.
///
/// Some counts become negative; the result is still correct if all seeds are measured on the same patients.
fn rescale(mut counts: Vec<f64>) -> Vec<f64> {
    if counts.len() > 1 {
        let scale = libm::sqrt(counts.len() as f64 / (counts.len() - 1) as f64);
        counts.iter_mut().for_each(|count| *count = 1.0 + scale * (*count - 1.0));
    }
    counts
}

/// Returns the number of times that each of `count` items is sampled in `count` samples with replacement.
fn sample_counts(key: Key, count: usize) -> Vec<f64> {
    let mut random = key.stream("with replacement");
    let mut counts = vec![0.0; count];
    for _ in 0..count {
        counts[random.index(count)] += 1.0;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns normal numbers with an effect of patients and an effect of seeds.
    fn crossed(key: Key, seeds: usize, patients: usize, seed_deviation: f64, patient_deviation: f64) -> Series {
        let mut random = key.stream("world");
        let patient: Vec<f64> = (0..patients).map(|_| random.normal(0.0, patient_deviation)).collect();
        let mut network = || {
            let seed = random.normal(0.0, seed_deviation);
            patient.iter().map(|patient| WeightedSum::of(Some(patient + seed + random.normal(0.0, 0.1)))).collect()
        };
        Series((0..seeds).map(|_| network()).collect())
    }

    #[test]
    fn interval_covers_true_mean_at_nominal_rate() {
        for (seed_deviation, patient_deviation) in [(0.0, 1.0), (1.0, 0.3)] {
            let covered = (0..200)
                .filter(|&world| {
                    let key = Key::root(world);
                    let series = crossed(key, 12, 30, seed_deviation, patient_deviation);
                    let interval = Resamples::new(key, 400, 30).interval(&series).unwrap();
                    interval.low <= 0.0 && 0.0 <= interval.high
                })
                .count();
            assert!((174..=199).contains(&covered), "{covered} of 200 for seeds {seed_deviation}");
        }
    }

    #[test]
    fn resampled_means_of_few_seeds_have_deviation_of_standard_error() {
        for count in [2usize, 3, 5, 40] {
            let values: Vec<f64> = (0..count).map(|index| (index * index) as f64).collect();
            let mean = values.iter().sum::<f64>() / count as f64;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let standard_error = (squares / ((count - 1) * count) as f64).sqrt();
            let series = Series(values.iter().map(|value| vec![WeightedSum::of(Some(*value))]).collect());
            let means = Resamples::new(Key::root(7), 20_000, 1).means(&series);
            let square = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / means.len() as f64;
            assert!((square.sqrt() / standard_error - 1.0).abs() < 0.02, "{count} {}", square.sqrt());
        }
    }

    #[test]
    fn resamples_depend_on_key() {
        let series = crossed(Key::root(5), 3, 20, 1.0, 1.0);
        let means = |seed| Resamples::new(Key::root(seed), 50, 20).means(&series);
        assert_eq!(means(1), means(1));
        assert_ne!(means(1), means(2));
    }

    #[test]
    fn series_without_weight_has_no_interval() {
        let series = Series(vec![vec![WeightedSum::ZERO; 4]]);
        assert_eq!(Resamples::new(Key::root(1), 20, 4).interval(&series), None);
        assert_eq!(series.mean(), None);
    }
}
