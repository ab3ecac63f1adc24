//! The schedule of the learning rate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// The schedule of the learning rate: a linear warm-up, then a half cosine or a constant learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// The curve of the learning rate after the warm-up: `constant`, `cosine` or `reference`.
    pub course: RateCurve,
    /// Steps of the warm-up, over which the learning rate increases linearly to its maximum.
    pub warmup_steps: u64,
    /// The learning rate at the end of the cosine, as a share of the maximum.
    pub final_share: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { course: RateCurve::Cosine, warmup_steps: 0, final_share: 0.0 }
    }
}

/// The curve of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateCurve {
    /// A half cosine from the maximum to the final learning rate.
    #[default]
    Cosine,
    /// The maximum learning rate at every step.
    Constant,
    /// The published warm-up and cosine: the learning rate of the first step is 0, and the warm-up has at least two steps.
    Reference,
}

/// The learning rate of every step of a training run.
///
/// ```
/// use freetumor::train::schedule::{Schedule, ScheduleConfig};
/// let config = ScheduleConfig { warmup_steps: 2, ..ScheduleConfig::default() };
/// let schedule = Schedule::new(config, 0.1, 6);
/// assert_eq!([0, 1, 2, 4].map(|step| schedule.rate(step)), [0.05, 0.1, 0.1, 0.05]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    config: ScheduleConfig,
    max_rate: f64,
    steps: u64,
}

impl ScheduleConfig {
    /// Returns all errors in the settings, for a training run of `steps` steps.
    pub fn errors(&self, steps: u64) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.warmup_steps > steps {
            let message = format!("expected at most the {steps} steps of the training run, got {}", self.warmup_steps);
            errors.push(ConfigError::new("warmup_steps", message));
        }
        if self.course == RateCurve::Reference && self.warmup_steps < 2 {
            let message = format!("expected at least 2 steps for the published warm-up, got {}", self.warmup_steps);
            errors.push(
                ConfigError::new("warmup_steps", message).with_hint("use course = \"cosine\" for a shorter warm-up"),
            );
        }
        if !(0.0..=1.0).contains(&self.final_share) {
            let message = format!("expected a fraction from 0 to 1, got {}", self.final_share);
            errors.push(ConfigError::new("final_share", message));
        }
        errors
    }
}

impl Schedule {
    /// Creates the schedule of a training run of `steps` steps, with the learning rate `max_rate` after the warm-up.
    pub fn new(config: ScheduleConfig, max_rate: f64, steps: u64) -> Self {
        Self { config, max_rate, steps }
    }

    /// Returns the learning rate of a step; steps are counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let ScheduleConfig { course, warmup_steps, final_share } = self.config;
        if step < warmup_steps {
            return match course {
                RateCurve::Reference => self.max_rate * step as f64 / (warmup_steps - 1) as f64,
                RateCurve::Cosine | RateCurve::Constant => self.max_rate * (step + 1) as f64 / warmup_steps as f64,
            };
        }
        if course == RateCurve::Constant {
            return self.max_rate;
        }
        let rest = self.steps.saturating_sub(warmup_steps).max(1) as f64;
        let angle = (std::f64::consts::PI * (step - warmup_steps) as f64 / rest).min(std::f64::consts::PI);
        let final_rate = self.max_rate * final_share;
        final_rate + 0.5 * (self.max_rate - final_rate) * (1.0 + libm::cos(angle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_supports_short_warm_up() {
        for warmup_steps in 0..3 {
            let schedule = Schedule::new(ScheduleConfig { warmup_steps, ..ScheduleConfig::default() }, 1.0, 10);
            let rates: Vec<f64> = (0..10).map(|step| schedule.rate(step)).collect();
            assert!(rates.iter().all(|rate| *rate > 0.0 && *rate <= 1.0), "{rates:?}");
        }
        let only = Schedule::new(ScheduleConfig { warmup_steps: 1, ..ScheduleConfig::default() }, 1.0, 1);
        assert_eq!((only.rate(0), only.rate(5)), (1.0, 0.0));
    }

    #[test]
    fn errors_name_invalid_schedule_fields() {
        let config = ScheduleConfig { course: RateCurve::Reference, warmup_steps: 1, final_share: 2.0 };
        let fields: Vec<_> = config.errors(0).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["warmup_steps", "warmup_steps", "final_share"]);
    }
}
