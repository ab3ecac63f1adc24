//! The comparison of two arms.

use super::bootstrap::{Interval, Resamples, Series};

/// The difference of the means of two arms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmComparison {
    /// The mean of the first arm minus that of the second.
    pub difference: f64,
    /// The interval of the difference.
    pub interval: Interval,
    /// The two-sided p value of the hypothesis of no difference.
    pub p: f64,
}

/// Compares two arms, paired by patient, and paired by seed if both have the same number of seeds.
///
/// Both arms use the same resamples of patients and seeds. `p` is twice the share of resamples in which the difference has the other sign,
/// so that `p` agrees with the interval: `p` is below 0.05 if the interval excludes 0. One is added to the count of these resamples, so
/// that `p` is never 0. Resamples of few patients underestimate `p`: `p` is at least 2^(1−n) for n patients, the minimum for n differences
/// of one sign.
///
/// Returns `None` if the weight of an arm is 0.
///
/// # Source
/// Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 4.4; the added count of one: Phipson and
/// Smyth, *Statistical Applications in Genetics and Molecular Biology* 9, 39 (2010).
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::metrics::{Resamples, Series, WeightedSum, compare};
/// let series = |gain: f64| Series(vec![(0..30).map(|i| WeightedSum::of(Some(f64::from(i) + gain))).collect()]);
/// let resamples = Resamples::new(Key::root(3), 999, 30);
/// let gain = compare(&resamples, &series(0.5), &series(0.0)).unwrap();
/// assert!((gain.difference - 0.5).abs() < 1e-12 && gain.p == 0.002, "the variance between patients cancels");
/// ```
pub fn compare(resamples: &Resamples, first: &Series, second: &Series) -> Option<ArmComparison> {
    let difference = first.mean()? - second.mean()?;
    let pairs = resamples.means(first).into_iter().zip(resamples.means(second));
    let differences: Vec<f64> = pairs.map(|(first, second)| first - second).filter(|value| value.is_finite()).collect();
    let interval = Interval::of(&differences)?;
    let at_most = differences.iter().filter(|value| **value <= 0.0).count();
    let at_least = differences.iter().filter(|value| **value >= 0.0).count();
    let p = 2.0 * (at_most.min(at_least) + 1) as f64 / (differences.len() + 1) as f64;
    let min_p = libm::exp2(1.0 - first.patients_with(second) as f64);
    Some(ArmComparison { difference, interval, p: p.max(min_p).min(1.0) })
}

/// Applies Holm's correction of p values, which bounds the probability of one or more false positives at a level by that level.
///
/// # Source
/// Holm, *Scandinavian Journal of Statistics* 6, 65 (1979).
///
/// ```
/// use freetumor::evaluate::metrics::holm;
/// assert_eq!(holm(&[0.03, 0.01, 0.5]), [0.06, 0.03, 0.5]);
/// assert_eq!(holm(&[0.04, 0.03]), [0.06, 0.06]);
/// ```
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut corrected, mut highest) = (vec![1.0; p.len()], 0.0f64);
    for (rank, index) in order.into_iter().enumerate() {
        highest = highest.max((p.len() - rank) as f64 * p[index]).min(1.0);
        corrected[index] = highest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap::WeightedSum;
    use super::*;
    use crate::random::Key;

    /// Returns an arm of five seeds on forty patients.
    fn arm(key: Key, name: &str, mean: f64) -> Series {
        let mut patients = key.stream("patients");
        let base: Vec<f64> = (0..40).map(|_| patients.normal(0.6, 0.2)).collect();
        let mut random = key.stream(name);
        let mut seed = || {
            let seed = random.normal(mean, 0.02);
            base.iter().map(|base| WeightedSum::of(Some(base + seed + random.normal(0.0, 0.05)))).collect()
        };
        Series((0..5).map(|_| seed()).collect())
    }

    #[test]
    fn compare_detects_gain_and_rarely_false_difference() {
        let p = |world: u64, gain: f64| {
            let key = Key::root(world);
            compare(&Resamples::new(key, 300, 40), &arm(key, "one", gain), &arm(key, "other", 0.0)).unwrap().p
        };
        let (false_alarms, detected): (usize, usize) = (0..120)
            .map(|world| (usize::from(p(world, 0.0) < 0.05), usize::from(p(world, 0.08) < 0.05)))
            .fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        // The variance between five seeds is estimated poorly, so that the rate exceeds one in twenty.
        assert!(false_alarms <= 16, "{false_alarms}");
        assert!(detected >= 110, "{detected}");
    }

    #[test]
    fn p_value_of_few_patients_has_lower_bound() {
        let p = |patients: usize| {
            let series = |value: f64| Series(vec![vec![WeightedSum::of(Some(value)); patients]]);
            compare(&Resamples::new(Key::root(1), 500, patients), &series(1.0), &series(0.0)).unwrap().p
        };
        assert_eq!([p(1), p(2), p(5)], [1.0, 0.5, 0.0625]);
    }

    #[test]
    fn compare_returns_none_for_arm_without_cases() {
        let resamples = Resamples::new(Key::root(1), 50, 3);
        let empty = Series(vec![vec![WeightedSum::ZERO; 3]]);
        let full = Series(vec![vec![WeightedSum::of(Some(1.0)); 3]]);
        assert_eq!(compare(&resamples, &empty, &full), None);
    }
}
