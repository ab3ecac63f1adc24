//! Warnings about data sets whose share of accepted attempts in a run is outside of the range expected from earlier runs (the band).
//!
//! The band is the earlier share ± 4 standard errors of the difference of two shares, and at least ± 0.1.

use std::collections::BTreeMap;

use crate::record::QualityGroup;

/// Smallest number of earlier attempts from which a band is computed.
const MIN_EARLIER: u64 = 50;

/// Smallest number of attempts of a run that are compared with the band.
const MIN_NEW: u64 = 20;

/// Half the width of the band in standard errors.
const STANDARD_ERRORS: f64 = 4.0;

/// Smallest half width of the band.
const MIN_HALF_WIDTH: f64 = 0.1;

/// Numbers of attempts.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    accepted: u64,
    all: u64,
}

impl Attempts {
    fn share(self) -> f64 {
        self.accepted as f64 / self.all.max(1) as f64
    }
}

/// Data set, organ and quality test.
type Key<'a> = (&'a str, &'a str, &'a str);

/// Returns a warning for each data set, organ and quality test whose share of accepted attempts since `before` is outside of the band.
/// `before` and `after` are numbers of attempts by group.
pub(super) fn band_warnings(before: &BTreeMap<QualityGroup, i64>, after: &BTreeMap<QualityGroup, i64>) -> Vec<String> {
    let (before, after) = (attempts_by_key(before), attempts_by_key(after));
    let warning = |(key, after): (&Key<'_>, &Attempts)| {
        let earlier = before.get(key).copied().unwrap_or_default();
        // Removed scans can make the numbers smaller.
        let new = Attempts {
            accepted: after.accepted.saturating_sub(earlier.accepted),
            all: after.all.saturating_sub(earlier.all),
        };
        if earlier.all < MIN_EARLIER || new.all < MIN_NEW || new.accepted > new.all {
            return None;
        }
        let share = earlier.share();
        let variance = share * (1.0 - share) * (1.0 / earlier.all as f64 + 1.0 / new.all as f64);
        let half_width = f64::max(STANDARD_ERRORS * variance.sqrt(), MIN_HALF_WIDTH);
        let (dataset, organ, branch) = key;
        ((new.share() - share).abs() > half_width).then(|| {
            let (lowest, highest) = (f64::max(share - half_width, 0.0), f64::min(share + half_width, 1.0));
            format!(
                "the test `{branch}` accepted a share of {:.2} of {} attempts in the {organ} of the data set `{dataset}` in this run, \
                 expected {lowest:.2} to {highest:.2} from {} earlier attempts: inspect the new scans and masks of the data set",
                new.share(),
                new.all,
                earlier.all
            )
        })
    };
    after.iter().filter_map(warning).collect()
}

fn attempts_by_key(quality: &BTreeMap<QualityGroup, i64>) -> BTreeMap<Key<'_>, Attempts> {
    let mut by_key: BTreeMap<Key<'_>, Attempts> = BTreeMap::new();
    for (group, &count) in quality {
        let count = u64::try_from(count).unwrap_or_default();
        let attempts = by_key.entry((&group.dataset, &group.organ, &group.branch)).or_default();
        attempts.all += count;
        attempts.accepted += if group.reason.is_none() { count } else { 0 };
    }
    by_key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(accepted: i64, rejected: i64) -> BTreeMap<QualityGroup, i64> {
        let group = |reason: Option<&str>| QualityGroup {
            dataset: "clinic".into(),
            organ: "liver".into(),
            branch: "test".into(),
            size_class: String::new(),
            reason: reason.map(str::to_owned),
        };
        [(group(None), accepted), (group(Some("delta_hu < -10")), rejected)].into()
    }

    #[test]
    fn share_outside_of_the_band_is_a_warning() {
        let before = quality(50, 50);
        let warnings = band_warnings(&before, &quality(52, 98));
        assert_eq!(
            warnings,
            [
                "the test `test` accepted a share of 0.04 of 50 attempts in the liver of the data set `clinic` in this run, expected 0.15 to 0.85 \
              from 100 earlier attempts: inspect the new scans and masks of the data set"
            ]
        );
        assert!(band_warnings(&before, &quality(70, 80)).is_empty(), "inside");
    }

    #[test]
    fn few_attempts_and_removed_scans_are_no_warning() {
        assert!(band_warnings(&quality(50, 50), &quality(50, 69)).is_empty(), "19 attempts");
        assert!(band_warnings(&quality(30, 19), &quality(30, 119)).is_empty(), "49 earlier attempts");
        assert!(band_warnings(&quality(50, 50), &quality(80, 20)).is_empty(), "removed scans");
    }
}
