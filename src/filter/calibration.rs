//! Calibrated acceptance: tumors are accepted at random so that accepted ones are distributed as real ones on their scores.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::features::CalibratedScore;
use super::reference::Reference;
use crate::error::ConfigError;

/// Accepts tumors at random, with probabilities by which accepted tumors are distributed as real ones on the given scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationConfig {
    /// The file of `freetumor calibrate` with the scores of real tumors.
    pub reference: PathBuf,
    /// The scores on which accepted tumors are distributed as real ones: `diameter_mm` and names of scores. Organs with fewer than eight
    /// real tumors use `diameter_mm` alone.
    #[serde(default = "default_scores")]
    pub scores: Vec<String>,
    /// The maximum of the density ratio at which a tumor is always accepted, above 0. A higher cap is more exact and accepts fewer tumors.
    #[serde(default = "default_cap")]
    #[schemars(range(min = 0))]
    pub cap: f64,
    /// The density ratio of real and synthetic tumors below which a tumor is rejected with the reason `unlike_real`.
    #[serde(default = "default_floor")]
    #[schemars(range(min = 0))]
    pub floor: f64,
}

fn default_scores() -> Vec<String> {
    ["diameter_mm", "delta_hu", "found_fraction"].map(String::from).to_vec()
}

fn default_cap() -> f64 {
    5.0
}

fn default_floor() -> f64 {
    0.02
}

/// The calibrated acceptance of a quality test.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The scores.
    pub scores: Vec<CalibratedScore>,
    /// The setting `cap`.
    pub cap: f64,
    /// The setting `floor`.
    pub floor: f64,
    /// The reference; `None` before it is written.
    pub reference: Option<Arc<Reference>>,
    /// The error of the file of the reference; `None` if the file is valid or does not exist.
    pub problem: Option<ConfigError>,
}

impl Calibration {
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns every invalid setting.
    pub(super) fn new(config: &CalibrationConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut scores = Vec::new();
        for (index, name) in config.scores.iter().enumerate() {
            let field = format!("calibrate.scores.{index}");
            match name.parse::<CalibratedScore>() {
                Err(error) => errors.push(ConfigError { field, ..error }),
                Ok(score) if scores.contains(&score) => {
                    errors.push(ConfigError::new(field, format!("duplicate score `{name}`")));
                }
                Ok(score) => scores.push(score),
            }
        }
        if !config.scores.iter().any(|name| name == CalibratedScore::Diameter.name()) {
            let message = "expected `diameter_mm` among the scores: it is the only one with few real tumors";
            errors.push(ConfigError::new("calibrate.scores", message));
        }
        for (field, value) in [("cap", config.cap), ("floor", config.floor)] {
            if !(value.is_finite() && value >= 0.0 && (field == "floor" || value > 0.0)) {
                let bound = if field == "cap" { "above 0" } else { "of at least 0" };
                errors.push(ConfigError::new(
                    format!("calibrate.{field}"),
                    format!("expected a number {bound}, got {value}"),
                ));
            }
        }
        if config.floor >= config.cap {
            let message = format!("expected a floor below the cap {}, got {}", config.cap, config.floor);
            errors.push(ConfigError::new("calibrate.floor", message));
        }
        let calibration = Self { scores, cap: config.cap, floor: config.floor, reference: None, problem: None };
        if errors.is_empty() { Ok(calibration) } else { Err(errors) }
    }

    /// Sets the reference.
    ///
    /// # Errors
    /// Returns an error if the reference was made for other settings.
    pub(super) fn set_reference(
        &mut self,
        reference: Arc<Reference>,
        conditions: &[Condition],
    ) -> Result<(), ConfigError> {
        let again = "run `freetumor calibrate` again, or restore the setting";
        if reference.scores != self.scores {
            let names =
                |scores: &[CalibratedScore]| scores.iter().map(|score| score.name()).collect::<Vec<_>>().join(", ");
            let message = format!(
                "the reference was made for the scores {}, got {}",
                names(&reference.scores),
                names(&self.scores)
            );
            return Err(ConfigError::new("calibrate.scores", message).with_hint(again));
        }
        for (field, made_for, own) in [("cap", reference.cap, self.cap), ("floor", reference.floor, self.floor)] {
            if made_for != own {
                let message = format!("the reference was made for the {field} {made_for}, got {own}");
                return Err(ConfigError::new(format!("calibrate.{field}"), message).with_hint(again));
            }
        }
        let own: Vec<String> = conditions.iter().map(Condition::to_string).collect();
        if reference.conditions != own {
            let message = format!("the reference was made for the conditions {:?}, got {own:?}", reference.conditions);
            return Err(ConfigError::new("accept", message).with_hint(again));
        }
        self.reference = Some(reference);
        Ok(())
    }
}
