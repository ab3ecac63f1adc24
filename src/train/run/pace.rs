//! The estimate of the remaining time of a training run.

use std::ops::Range;
use std::time::Duration;

/// Estimates the remaining time of a training run from the time of its steps and validations so far.
///
/// Validations are few and long. An average over steps and validations together would be too short before each validation and
/// too long after each validation.
pub(super) struct Pace {
    every: u64,
    steps: Range<u64>,
    last: u64,
    validations: u64,
    validating: Duration,
}

impl Pace {
    /// Creates the estimate for the steps `steps`; a validation follows every `every` steps and step `last`.
    pub(super) fn new(every: u64, steps: Range<u64>, last: u64) -> Self {
        Self { every, steps, last, validations: 0, validating: Duration::ZERO }
    }

    /// Adds the time of a validation.
    pub(super) fn add_validation(&mut self, time: Duration) {
        self.validations += 1;
        self.validating += time;
    }

    /// Returns the remaining time after `done` steps, `elapsed` since the first of the steps. The time of validations is unknown, and
    /// not counted, before the first one.
    pub(super) fn remaining(&self, done: u64, elapsed: Duration) -> Duration {
        let steps = done.saturating_sub(self.steps.start).max(1);
        let per_step = elapsed.saturating_sub(self.validating).as_secs_f64() / steps as f64;
        let per_validation = self.validating.as_secs_f64() / self.validations.max(1) as f64;
        let end = self.steps.end;
        let ends_between = done < self.last && end == self.last && !self.last.is_multiple_of(self.every);
        let validations = end / self.every - done / self.every + u64::from(ends_between);
        let seconds = per_step * end.saturating_sub(done) as f64 + per_validation * validations as f64;
        Duration::from_secs_f64(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_counts_remaining_steps_and_validations_separately() {
        let mut pace = Pace::new(100, 50..250, 250);
        let remaining = |pace: &Pace, done, seconds| pace.remaining(done, Duration::from_secs(seconds)).as_secs();
        assert_eq!(remaining(&pace, 60, 10), 190, "one second per step, validations are unknown");
        pace.add_validation(Duration::from_secs(30));
        assert_eq!(remaining(&pace, 100, 80), 150 + 2 * 30, "after steps 200 and 250");
        assert_eq!(remaining(&pace, 200, 180 + 30 - 30), 50 + 30);
        pace.add_validation(Duration::from_secs(30));
        assert_eq!(remaining(&pace, 250, 260), 0);
        let limited = Pace { last: 1000, ..pace };
        assert_eq!(
            remaining(&limited, 249, 259),
            1,
            "no validation after the last of these steps, which is not the last step of the training run"
        );
    }
}
