//! Whether two arms differ.

use super::bootstrap::{Interval, Resamples, Series};

/// The difference of two arms' means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The first arm's mean minus the second's.
    pub difference: f64,
    /// Its interval.
    pub interval: Interval,
    /// How probable so large a difference would be without one, in either direction.
    pub p: f64,
}

/// Compares two arms, patient by patient, and seed by seed where they have as many.
///
/// The same resamples of patients and seeds are looked at in both. `p` is twice the share of resamples in which the
/// difference has the other sign, so that it agrees with the interval: below 0.05 where that leaves 0 out. Counting one
/// more than was seen keeps it from being 0. Resamples of a handful of patients look surer than they are: `p` is at least
/// 2^(1−n) for n patients, the least that n differences of one sign could show.
///
/// `None` where one of them has nothing that weighs.
///
/// # Source
/// Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 4.4; the count of one more: Phipson and
/// Smyth, *Statistical Applications in Genetics and Molecular Biology* 9, 39 (2010).
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::metrics::{Resamples, Series, Share, compare};
/// let series = |gain: f64| Series(vec![(0..30).map(|i| Share::of(Some(f64::from(i) + gain))).collect()]);
/// let resamples = Resamples::new(Key::root(3), 999, 30);
/// let gain = compare(&resamples, &series(0.5), &series(0.0)).unwrap();
/// assert!((gain.difference - 0.5).abs() < 1e-12 && gain.p == 0.002, "patients differ by far more, and do not matter");
/// ```
pub fn compare(resamples: &Resamples, one: &Series, other: &Series) -> Option<Comparison> {
    let difference = one.mean()? - other.mean()?;
    let pairs = resamples.means(one).into_iter().zip(resamples.means(other));
    let differences: Vec<f64> = pairs.map(|(one, other)| one - other).filter(|value| value.is_finite()).collect();
    let interval = Interval::of(&differences)?;
    let at_most = differences.iter().filter(|value| **value <= 0.0).count();
    let at_least = differences.iter().filter(|value| **value >= 0.0).count();
    let p = 2.0 * (at_most.min(at_least) + 1) as f64 / (differences.len() + 1) as f64;
    let least = libm::exp2(1.0 - one.patients_with(other) as f64);
    Some(Comparison { difference, interval, p: p.max(least).min(1.0) })
}

/// Holm's correction: p values of which, taken together, one falls below a level by chance no more often than that level
/// says.
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
    use super::super::bootstrap::Share;
    use super::*;
    use crate::random::Key;

    /// An arm of five seeds on forty patients.
    fn arm(key: Key, name: &str, mean: f64) -> Series {
        let mut patients = key.draws("patients");
        let base: Vec<f64> = (0..40).map(|_| patients.normal(0.6, 0.2)).collect();
        let mut draws = key.draws(name);
        let mut seed = || {
            let own = draws.normal(mean, 0.02);
            base.iter().map(|base| Share::of(Some(base + own + draws.normal(0.0, 0.05)))).collect()
        };
        Series((0..5).map(|_| seed()).collect())
    }

    #[test]
    fn equal_arms_differ_rarely_and_a_gain_is_seen() {
        let p = |world: u64, gain: f64| {
            let key = Key::root(world);
            compare(&Resamples::new(key, 300, 40), &arm(key, "one", gain), &arm(key, "other", 0.0)).unwrap().p
        };
        let (false_alarms, seen): (usize, usize) = (0..120)
            .map(|world| (usize::from(p(world, 0.0) < 0.05), usize::from(p(world, 0.08) < 0.05)))
            .fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        // Five seeds do not tell their spread well: more than one in twenty.
        assert!(false_alarms <= 16, "{false_alarms}");
        assert!(seen >= 110, "{seen}");
    }

    #[test]
    fn few_patients_are_never_sure() {
        let p = |patients: usize| {
            let series = |value: f64| Series(vec![vec![Share::of(Some(value)); patients]]);
            compare(&Resamples::new(Key::root(1), 500, patients), &series(1.0), &series(0.0)).unwrap().p
        };
        assert_eq!([p(1), p(2), p(5)], [1.0, 0.5, 0.0625]);
    }

    #[test]
    fn an_arm_without_cases_is_not_compared() {
        let resamples = Resamples::new(Key::root(1), 50, 3);
        let nothing = Series(vec![vec![Share::NONE; 3]]);
        let something = Series(vec![vec![Share::of(Some(1.0)); 3]]);
        assert_eq!(compare(&resamples, &nothing, &something), None);
    }
}
