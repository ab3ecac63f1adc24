//! How long the rest of a run will take.

use std::ops::Range;
use std::time::Duration;

/// The time that steps and validations took so far.
///
/// Validations are few and long: spread over the steps they would make the rest look shorter before each of them, and
/// longer behind it.
pub(super) struct Pace {
    every: u64,
    steps: Range<u64>,
    last: u64,
    validations: u64,
    validating: Duration,
}

impl Pace {
    /// The pace of a call that takes `steps`; a validation follows every so many of them, and the `last` of all.
    pub(super) fn new(every: u64, steps: Range<u64>, last: u64) -> Self {
        Self { every, steps, last, validations: 0, validating: Duration::ZERO }
    }

    /// Takes note of a validation.
    pub(super) fn validated(&mut self, time: Duration) {
        self.validations += 1;
        self.validating += time;
    }

    /// The time for what is left once `done` steps are taken, `elapsed` since the start of the call; validations are
    /// unknown, and not counted, before the first.
    pub(super) fn left(&self, done: u64, elapsed: Duration) -> Duration {
        let steps = done.saturating_sub(self.steps.start).max(1);
        let a_step = elapsed.saturating_sub(self.validating).as_secs_f64() / steps as f64;
        let a_validation = self.validating.as_secs_f64() / self.validations.max(1) as f64;
        let end = self.steps.end;
        let ends_between = done < self.last && end == self.last && !self.last.is_multiple_of(self.every);
        let validations = end / self.every - done / self.every + u64::from(ends_between);
        let left = a_step * end.saturating_sub(done) as f64 + a_validation * validations as f64;
        Duration::from_secs_f64(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_validations_that_are_left_are_counted_apart() {
        let mut pace = Pace::new(100, 50..250, 250);
        let left = |pace: &Pace, done, seconds| pace.left(done, Duration::from_secs(seconds)).as_secs();
        assert_eq!(left(&pace, 60, 10), 190, "one second a step, and nothing is known of validations");
        pace.validated(Duration::from_secs(30));
        assert_eq!(left(&pace, 100, 80), 150 + 2 * 30, "behind steps 200 and 250");
        assert_eq!(left(&pace, 200, 180 + 30 - 30), 50 + 30);
        pace.validated(Duration::from_secs(30));
        assert_eq!(left(&pace, 250, 260), 0);
        let limited = Pace { last: 1000, ..pace };
        assert_eq!(left(&limited, 249, 259), 1, "a call that ends before the last step does not validate there");
    }
}
