//! Intervals by resampling patients and seeds.
//!
//! Patients and seeds are crossed: each trained network sees every patient. So one resample draws patients with
//! replacement and, apart from that, seeds with replacement, and looks at the networks drawn on the patients drawn. To
//! draw new seeds for each patient would average their spread away, and call a difference between two lucky seeds
//! certain. All arms share the same draws, which is what makes their differences paired.
//!
//! What is drawn from n seeds has too little spread, by a factor of (n − 1) / n in the variance of its mean; their weights are
//! spread around 1 by as much more (Rao and Wu's rescaling). One seed alone has no spread at all: an interval is then for
//! that network.

use serde::Serialize;

use crate::random::Key;

/// The share of resamples within an interval.
const LEVEL: f64 = 0.95;

/// What one case adds to a mean: a sum and how much it weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The numerator.
    pub sum: f64,
    /// The denominator.
    pub weight: f64,
}

impl Share {
    /// Nothing: a measure that a case does not have.
    pub const NONE: Self = Self { sum: 0.0, weight: 0.0 };

    /// One number, if there is one.
    pub fn of(value: Option<f64>) -> Self {
        value.map_or(Self::NONE, |sum| Self { sum, weight: 1.0 })
    }

    /// The mean, where anything weighs.
    pub fn mean(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, weight: self.weight + other.weight }
    }
}

/// One measure of one arm.
///
/// # Shapes
/// `[seed][patient]`: what all cases of a patient add, under the network of a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Series(pub Vec<Vec<Share>>);

impl Series {
    /// The mean over everything.
    pub fn mean(&self) -> Option<f64> {
        self.0.iter().flatten().fold(Share::NONE, |all, share| all.and(*share)).mean()
    }

    /// Number of patients who weigh anything in both.
    pub(super) fn patients_with(&self, other: &Self) -> usize {
        let patients = self.0.first().map_or(0, Vec::len);
        let weighs = |series: &Self, patient: usize| series.0.iter().any(|cells| cells[patient].weight > 0.0);
        (0..patients).filter(|patient| weighs(self, *patient) && weighs(other, *patient)).count()
    }
}

/// A mean with the bounds that 95% of resamples lie in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// The middle 95% of resampled values, between neighbours linearly; `None` where there is none.
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
            let place = share * last as f64;
            let below = place.floor() as usize;
            let above = (below + 1).min(last);
            sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below])
        };
        Some(Self { low: at(0.5 - 0.5 * LEVEL), high: at(0.5 + 0.5 * LEVEL) })
    }

    /// As far as it lies between two values: resamples of few seeds may go beyond what is possible.
    #[must_use]
    pub fn within(self, [least, most]: [f64; 2]) -> Self {
        Self { low: self.low.clamp(least, most), high: self.high.clamp(least, most) }
    }
}

/// Draws of patients and seeds.
///
/// # Source
/// The percentile bootstrap (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13) with both
/// factors of a crossed design resampled (Owen, *Annals of Applied Statistics* 1, 386, 2007), with few seeds rescaled (Rao and Wu,
/// *Journal of the American Statistical Association* 83, 231, 1988).
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::metrics::{Resamples, Series, Share};
/// let resamples = Resamples::new(Key::root(1), 1000, 40);
/// let patient = |i: i32| Share::of(Some(f64::from(i % 2)));
/// let halves = Series(vec![(0..40).map(patient).collect()]);
/// let interval = resamples.interval(&halves).unwrap();
/// assert!((0.3..0.42).contains(&interval.low) && (0.58..0.7).contains(&interval.high));
/// ```
#[derive(Clone, Debug)]
pub struct Resamples {
    key: Key,
    /// How often each patient was drawn, a resample after the other.
    drawn: Vec<Vec<f64>>,
}

impl Resamples {
    /// So many resamples of `patients`.
    pub fn new(key: Key, count: usize, patients: usize) -> Self {
        let drawn = (0..count).map(|resample| drawn(key.number("resample", resample as u64), patients)).collect();
        Self { key, drawn }
    }

    /// The mean in each resample; NaN where nothing of what was drawn weighs.
    ///
    /// # Panics
    /// Panics if the series has another number of patients.
    pub fn means(&self, series: &Series) -> Vec<f64> {
        let seeds = series.0.len();
        let sums: Vec<[Vec<f64>; 2]> = series.0.iter().map(|cells| split(cells)).collect();
        let each = self.drawn.iter().enumerate().map(|(resample, patients)| {
            let key = self.key.number("resample", resample as u64).number("of seeds", seeds as u64);
            let dot = |values: &[f64]| -> f64 {
                assert_eq!(values.len(), patients.len(), "resamples of other patients");
                values.iter().zip(patients).map(|(value, times)| value * times).sum()
            };
            let shares = rescaled(drawn(key, seeds)).into_iter().zip(&sums);
            let share = shares.fold(Share::NONE, |all, (times, [sum, weight])| {
                all.and(Share { sum: times * dot(sum), weight: times * dot(weight) })
            });
            share.mean().unwrap_or(f64::NAN)
        });
        each.collect()
    }

    /// The interval of a series' mean; `None` where nothing of it weighs.
    pub fn interval(&self, series: &Series) -> Option<Interval> {
        Interval::of(&self.means(series))
    }
}

fn split(cells: &[Share]) -> [Vec<f64>; 2] {
    [cells.iter().map(|share| share.sum).collect(), cells.iter().map(|share| share.weight).collect()]
}

/// Spreads how often each was drawn so far around 1 that a mean varies as much as its standard error says.
///
/// Some weigh less than nothing then; that is no harm as long as all are measured on the same patients.
fn rescaled(mut times: Vec<f64>) -> Vec<f64> {
    if times.len() > 1 {
        let scale = libm::sqrt(times.len() as f64 / (times.len() - 1) as f64);
        times.iter_mut().for_each(|times| *times = 1.0 + scale * (*times - 1.0));
    }
    times
}

/// How often each of `count` was drawn in as many draws.
fn drawn(key: Key, count: usize) -> Vec<f64> {
    let mut draws = key.draws("with replacement");
    let mut times = vec![0.0; count];
    for _ in 0..count {
        times[draws.index(count)] += 1.0;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal numbers with an effect of patients and one of seeds.
    fn crossed(key: Key, seeds: usize, patients: usize, of_seeds: f64, of_patients: f64) -> Series {
        let mut draws = key.draws("world");
        let patient: Vec<f64> = (0..patients).map(|_| draws.normal(0.0, of_patients)).collect();
        let mut network = || {
            let own = draws.normal(0.0, of_seeds);
            patient.iter().map(|patient| Share::of(Some(patient + own + draws.normal(0.0, 0.1)))).collect()
        };
        Series((0..seeds).map(|_| network()).collect())
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        for (of_seeds, of_patients) in [(0.0, 1.0), (1.0, 0.3)] {
            let held = (0..200)
                .filter(|&world| {
                    let key = Key::root(world);
                    let series = crossed(key, 12, 30, of_seeds, of_patients);
                    let interval = Resamples::new(key, 400, 30).interval(&series).unwrap();
                    interval.low <= 0.0 && 0.0 <= interval.high
                })
                .count();
            assert!((174..=199).contains(&held), "{held} of 200 for seeds {of_seeds}");
        }
    }

    #[test]
    fn few_seeds_spread_as_far_as_their_standard_error() {
        for count in [2usize, 3, 5, 40] {
            let values: Vec<f64> = (0..count).map(|index| (index * index) as f64).collect();
            let mean = values.iter().sum::<f64>() / count as f64;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let standard_error = (squares / ((count - 1) * count) as f64).sqrt();
            let series = Series(values.iter().map(|value| vec![Share::of(Some(*value))]).collect());
            let means = Resamples::new(Key::root(7), 20_000, 1).means(&series);
            let square = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / means.len() as f64;
            assert!((square.sqrt() / standard_error - 1.0).abs() < 0.02, "{count} {}", square.sqrt());
        }
    }

    #[test]
    fn resamples_are_decided_by_their_key() {
        let series = crossed(Key::root(5), 3, 20, 1.0, 1.0);
        let means = |seed| Resamples::new(Key::root(seed), 50, 20).means(&series);
        assert_eq!(means(1), means(1));
        assert_ne!(means(1), means(2));
    }

    #[test]
    fn what_weighs_nothing_has_no_interval() {
        let series = Series(vec![vec![Share::NONE; 4]]);
        assert_eq!(Resamples::new(Key::root(1), 20, 4).interval(&series), None);
        assert_eq!(series.mean(), None);
    }
}
