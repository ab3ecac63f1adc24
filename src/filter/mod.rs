//! The quality test: conditions on scores, all of which must hold, and calibrated acceptance.
//!
//! This module owns the grammar of conditions ([`Condition`]), the density ratio of real and synthetic tumors ([`Reference`]) and the
//! decision on a candidate ([`QualityTest::decide`]). A decision is a function of scores, conditions, reference and one random number
//! that is keyed by the candidate's id, so that stored scores can be tested again with other conditions. A condition on an absent score
//! does not hold. Conditions that never hold or contradict each other are reported before a run starts.
//!
//! ```
//! use freetumor::filter::{QualityTest, QualityTestConfig, Rejection, TestedCandidate, Verdict};
//! use freetumor::score::{Score, Scores};
//!
//! let accept = ["delta_hu < -10 HU", "invisible_fraction < 0.3"].map(String::from).to_vec();
//! let test = QualityTest::new(QualityTestConfig { accept, ..QualityTestConfig::default() }).unwrap();
//! assert_eq!(test.attempts(), 10);
//!
//! let mut scores = Scores::default();
//! scores.set(Score::DeltaHu, -35.0);
//! scores.set(Score::InvisibleFraction, 0.5);
//! let candidate = TestedCandidate { organ: "liver", diameter_mm: 20.0, steering_factor: None, scores: &scores, draw: 0.5 };
//! let Verdict::Rejected { reason } = test.decide(&candidate).verdict else { panic!("half of the tumor is invisible") };
//! assert_eq!(reason.to_string(), "invisible_fraction < 0.3");
//! ```

mod calibration;
mod condition;
mod features;
mod reference;

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use calibration::{Calibration, CalibrationConfig};
pub(crate) use condition::parse_threshold;
pub use condition::{ComparisonOperator, Condition};
pub use features::{CalibratedScore, Features, Scale, ScaledScore};
pub use reference::{OrganReference, Reference, ScorerWeights};

use crate::error::ConfigError;
use crate::score::Scores;

/// The maximum of the setting `attempts`.
pub const MAX_ATTEMPTS: u32 = 1_000;
/// The default of the setting `attempts`.
const DEFAULT_ATTEMPTS: u32 = 10;

/// Selects the candidates that are good enough for training. Each rejected candidate is followed by another attempt, up to a limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QualityTestConfig {
    /// The maximum number of attempts at one tumor (1 to 1000). Default: 10. With `calibrate` every tumor has one attempt, because a
    /// second one would prefer scans in which few tumors are accepted; set `variants` of the synthesis to the number of proposals.
    #[serde(skip_serializing_if = "is_default_attempts")]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Option<u32>,
    /// Conditions on scores, all of which must hold: `"delta_hu < -10"`, `"found_fraction > 0.7"`. The operators are
    /// `<`, `<=`, `>` and `>=`; the score's unit may follow the number (`"new_false_positive_mm3 < 500 mm3"`). With an empty list,
    /// every candidate passes.
    pub accept: Vec<String>,
    /// The scores of a candidate that are computed.
    #[serde(skip_serializing_if = "ScoreSelection::is_all")]
    pub scores: ScoreSelection,
    /// Accepts candidates that meet every condition at random, so that accepted ones are distributed as real tumors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrate: Option<CalibrationConfig>,
}

/// Returns whether a setting equals its default, so that files of equal meaning have equal digests.
fn is_default_attempts(attempts: &Option<u32>) -> bool {
    attempts.is_none_or(|attempts| attempts == DEFAULT_ATTEMPTS)
}

/// The scores of a candidate that are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreSelection {
    /// All scores of every candidate, for tables.
    #[default]
    All,
    /// Stages score in the order of their cost, and conditions are checked as soon as their scores are known: the scores after the first
    /// condition that does not hold are not computed.
    UntilRejected,
}

impl ScoreSelection {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// The conditions that a candidate must meet, the calibrated acceptance, and the maximum number of attempts.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityTest {
    conditions: Vec<Condition>,
    attempts: u32,
    selection: ScoreSelection,
    calibration: Option<Calibration>,
}

/// The input of a quality test: a candidate with its scores.
#[derive(Clone, Copy, Debug)]
pub struct TestedCandidate<'a> {
    /// The organ's name.
    pub organ: &'a str,
    /// The equivalent diameter of the tumor.
    pub diameter_mm: f64,
    /// The factor by which a steered synthesis sampled tumors like this one more often; `None` without steering.
    pub steering_factor: Option<f64>,
    /// The scores.
    pub scores: &'a Scores,
    /// A number in 0..1 that is keyed by the candidate's id.
    pub draw: f64,
}

/// The decision on a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Accepted or rejected.
    pub verdict: Verdict,
    /// The density ratio of real and synthetic tumors at the candidate's scores; `None` without calibration or a required score.
    pub likeness: Option<f64>,
    /// The acceptance probability of the candidate; `None` without calibration.
    pub acceptance: Option<f64>,
}

/// The verdict of the quality test on a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Accepted.
    Accepted,
    /// Rejected.
    Rejected {
        /// The first reason, in the order of the graph file.
        reason: Rejection,
    },
}

/// The reason for a rejection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rejection {
    /// A condition does not hold.
    Condition(Condition),
    /// The density ratio of real and synthetic tumors is below the floor, or a score of the calibration is missing.
    UnlikeReal,
    /// The random number of the candidate is not below its acceptance probability.
    NotDrawn,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Condition(condition) => condition.fmt(f),
            Self::UnlikeReal => f.write_str("unlike_real"),
            Self::NotDrawn => f.write_str("not_drawn"),
        }
    }
}

impl QualityTest {
    /// Checks the settings and parses the conditions. With `calibrate`, add the reference by [`QualityTest::with_reference`].
    ///
    /// # Errors
    /// Returns an error for each condition that cannot be parsed, never holds, is a duplicate or contradicts another one, for attempts
    /// outside `1..=MAX_ATTEMPTS` or above 1 with `calibrate`, and for invalid settings of `calibrate`.
    pub fn new(config: QualityTestConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let default = if config.calibrate.is_some() { 1 } else { DEFAULT_ATTEMPTS };
        let attempts = config.attempts.unwrap_or(default);
        if !(1..=MAX_ATTEMPTS).contains(&attempts) {
            let message = format!("expected 1 to {MAX_ATTEMPTS} attempts, got {attempts}");
            errors.push(ConfigError::new("attempts", message));
        } else if config.calibrate.is_some() && attempts != 1 {
            let error = ConfigError::new("attempts", format!("expected 1 attempt with `calibrate`, got {attempts}"));
            errors.push(
                error.with_hint("remove `attempts`, and set `variants` of the synthesis to the number of proposals"),
            );
        }
        let mut conditions: Vec<Condition> = Vec::new();
        for (index, text) in config.accept.iter().enumerate() {
            let field = format!("accept.{index}");
            match text.parse::<Condition>() {
                Err(error) => errors.push(ConfigError { field, ..error }),
                Ok(condition) => {
                    if let Some(earlier) = conditions.iter().find(|earlier| earlier.excludes(&condition)) {
                        let message = format!("`{condition}` contradicts `{earlier}`");
                        errors.push(
                            ConfigError::new(field, message)
                                .with_hint("remove one of the conditions: no candidate can meet both"),
                        );
                    } else if conditions.contains(&condition) {
                        errors.push(ConfigError::new(field, format!("duplicate condition `{condition}`")));
                    }
                    conditions.push(condition);
                }
            }
        }
        let calibration = config.calibrate.as_ref().map(Calibration::new).transpose().unwrap_or_else(|more| {
            errors.extend(more);
            None
        });
        let test = Self { conditions, attempts, selection: config.scores, calibration };
        if errors.is_empty() { Ok(test) } else { Err(errors) }
    }

    /// Adds the reference of the calibration.
    ///
    /// # Errors
    /// Returns an error if the reference was made for other settings.
    pub fn with_reference(mut self, reference: Arc<Reference>) -> Result<Self, ConfigError> {
        if let Some(calibration) = &mut self.calibration {
            calibration.set_reference(reference, &self.conditions)?;
        }
        Ok(self)
    }

    /// Records why the file of the reference cannot be used; the calibration may be repeated nevertheless.
    #[must_use]
    pub fn with_reference_problem(mut self, problem: ConfigError) -> Self {
        if let Some(calibration) = &mut self.calibration {
            calibration.problem = Some(problem);
        }
        self
    }

    /// Returns the conditions in the order of the graph file.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Returns the calibrated acceptance, or `None` if the test is not calibrated.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Returns the selection of scores that are computed.
    pub fn selection(&self) -> ScoreSelection {
        self.selection
    }

    /// Returns the maximum number of attempts at one tumor.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the first condition that does not hold, or `None` if all conditions hold. The condition of a score that is missing or NaN
    /// does not hold.
    pub fn failing(&self, scores: &Scores) -> Option<Condition> {
        self.conditions.iter().find(|condition| !condition.holds(scores)).copied()
    }

    /// Returns the first condition on a known score that does not hold, or `None` if all of them hold.
    pub fn failing_known(&self, scores: &Scores) -> Option<Condition> {
        let known = self.conditions.iter().filter(|condition| scores.get(condition.score).is_some());
        known.copied().find(|condition| !condition.holds(scores))
    }

    /// Decides on a candidate: by the conditions, then by the calibrated acceptance. Without the reference of its calibration, a test
    /// accepts nothing.
    pub fn decide(&self, candidate: &TestedCandidate<'_>) -> Decision {
        let organ = self.calibration.as_ref().and_then(|calibration| {
            calibration.reference.as_ref().and_then(|reference| reference.organs.get(candidate.organ))
        });
        let likeness = organ.and_then(|organ| organ.likeness(candidate.diameter_mm, candidate.scores));
        let accepts = |likeness| organ.map(|organ| organ.acceptance(likeness, candidate.steering_factor));
        let floor = self.calibration.as_ref().map_or(0.0, |calibration| calibration.floor);
        let likely = likeness.filter(|likeness| *likeness >= floor);
        let acceptance = self.calibration.as_ref().map(|_| likely.and_then(accepts).unwrap_or(0.0));
        let reason = match (self.failing(candidate.scores), acceptance) {
            (Some(condition), _) => Some(Rejection::Condition(condition)),
            (None, Some(_)) if likely.is_none() => Some(Rejection::UnlikeReal),
            (None, Some(acceptance)) if candidate.draw >= acceptance => Some(Rejection::NotDrawn),
            (None, _) => None,
        };
        let verdict = reason.map_or(Verdict::Accepted, |reason| Verdict::Rejected { reason });
        Decision { verdict, likeness, acceptance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::Score;

    fn test(accept: &[&str]) -> Result<QualityTest, Vec<ConfigError>> {
        let accept = accept.iter().map(ToString::to_string).collect();
        QualityTest::new(QualityTestConfig { accept, ..Default::default() })
    }

    #[test]
    fn failing_returns_first_condition_in_file_order() {
        let test = test(&["delta_hu < -10", "cnr <= -1", "invisible_fraction < 0.3"]).unwrap();
        let mut scores = Scores::default();
        scores.set(Score::DeltaHu, -20.0);
        scores.set(Score::Cnr, -1.0);
        scores.set(Score::InvisibleFraction, 0.1);
        assert_eq!(test.failing(&scores), None);
        scores.set(Score::Cnr, -0.5);
        scores.set(Score::InvisibleFraction, 0.9);
        assert_eq!(test.failing(&scores), Some(test.conditions()[1]));
    }

    #[test]
    fn condition_on_missing_or_nan_score_does_not_hold() {
        for sign in ["<", "<=", ">", ">="] {
            let test = test(&[&format!("cnr {sign} 0")]).unwrap();
            let mut scores = Scores::default();
            assert_ne!(test.failing(&scores), None, "missing, {sign}");
            scores.set(Score::Cnr, f64::NAN);
            assert_ne!(test.failing(&scores), None, "NaN, {sign}");
        }
    }

    #[test]
    fn new_reports_all_errors_at_once() {
        let config = QualityTestConfig {
            attempts: Some(0),
            accept: ["dice > 0.5", "dise > 0.5", "dice <= 0.5", "dice > 0.5"].map(String::from).to_vec(),
            ..Default::default()
        };
        let fields: Vec<String> = QualityTest::new(config).unwrap_err().into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["attempts", "accept.1", "accept.2", "accept.3"]);
    }

    #[test]
    fn range_of_one_point_is_valid_but_empty_range_is_not() {
        assert!(test(&["cnr <= 1", "cnr >= 1"]).is_ok());
        assert!(test(&["cnr < 1", "cnr >= 1"]).is_err());
        assert!(test(&["cnr < 1", "dice > 0.9"]).is_ok());
    }

    /// Returns a calibrated test whose reference has the density ratio `diameter / 10 mm`, with ratios up to 4.
    fn calibrated(accept: &[&str]) -> QualityTest {
        let text = r#"{"format":1,"scores":["diameter_mm"],"cap":4.0,"floor":0.5,"conditions":CONDITIONS,"synthesis":"","scorers":[],"organs":{"liver":{
            "real_tumors":9,"candidates":90,"features":{"scores":[{"score":"diameter_mm","mean":2.302585092994046,"deviation":1.0}]},
            "weights":[1.0,0.0],"intercept":0.0,"maximum":4.0}}}"#;
        let calibrate = CalibrationConfig {
            reference: "reference.json".into(),
            scores: vec!["diameter_mm".into()],
            cap: 4.0,
            floor: 0.5,
        };
        let accept: Vec<String> = accept.iter().map(ToString::to_string).collect();
        let text = text.replace("CONDITIONS", &serde_json::to_string(&accept).unwrap());
        let config = QualityTestConfig { accept, calibrate: Some(calibrate), ..QualityTestConfig::default() };
        QualityTest::new(config).unwrap().with_reference(Arc::new(Reference::parse(&text).unwrap())).unwrap()
    }

    #[test]
    fn acceptance_probability_is_share_of_maximum_ratio() {
        let test = calibrated(&[]);
        assert_eq!(test.attempts(), 1);
        let decide = |organ, diameter_mm, draw| {
            test.decide(&TestedCandidate {
                organ,
                diameter_mm,
                steering_factor: None,
                scores: &Scores::default(),
                draw,
            })
        };
        let reason = |decision: Decision| match decision.verdict {
            Verdict::Accepted => "accepted".to_owned(),
            Verdict::Rejected { reason } => reason.to_string(),
        };
        // A ratio of 2 of at most 4 is accepted in half of the cases.
        let decision = decide("liver", 20.0, 0.499);
        assert!((decision.likeness.unwrap() - 2.0).abs() < 1e-9 && (decision.acceptance.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(reason(decision), "accepted");
        assert_eq!(reason(decide("liver", 20.0, 0.501)), "not_drawn");
        assert_eq!(reason(decide("liver", 80.0, 0.999)), "accepted");
        assert_eq!(reason(decide("liver", 4.0, 0.0)), "unlike_real");
        assert_eq!(reason(decide("kidney", 20.0, 0.0)), "unlike_real");
        assert_eq!(decide("kidney", 20.0, 0.0).likeness, None);
    }

    #[test]
    fn conditions_precede_calibration() {
        let test = calibrated(&["delta_hu < -10"]);
        let mut scores = Scores::default();
        scores.set(Score::DeltaHu, 5.0);
        let candidate =
            TestedCandidate { organ: "liver", diameter_mm: 60.0, steering_factor: None, scores: &scores, draw: 0.0 };
        let decision = test.decide(&candidate);
        let Verdict::Rejected { reason } = decision.verdict else { panic!("the condition does not hold") };
        assert_eq!(reason.to_string(), "delta_hu < -10");
        assert_eq!(decision.acceptance, Some(1.0), "the density ratio does not depend on conditions");
    }

    #[test]
    fn calibration_without_reference_accepts_nothing() {
        let calibrate = toml::from_str("reference = 'absent.json'").unwrap();
        let test = QualityTest::new(QualityTestConfig { calibrate: Some(calibrate), ..Default::default() }).unwrap();
        let scores = Scores::default();
        let candidate =
            TestedCandidate { organ: "liver", diameter_mm: 60.0, steering_factor: None, scores: &scores, draw: 0.0 };
        assert_eq!(test.decide(&candidate).verdict, Verdict::Rejected { reason: Rejection::UnlikeReal });
    }

    #[test]
    fn new_reports_all_errors_of_calibration() {
        let calibrate =
            toml::from_str("reference = 'r'\nscores = ['dise', 'dice', 'dice']\ncap = 0\nfloor = -1").unwrap();
        let config = QualityTestConfig { attempts: Some(2), calibrate: Some(calibrate), ..Default::default() };
        let fields: Vec<String> = QualityTest::new(config).unwrap_err().into_iter().map(|error| error.field).collect();
        let scores = ["calibrate.scores.0", "calibrate.scores.2", "calibrate.scores"];
        assert_eq!(fields[..4], ["attempts", scores[0], scores[1], scores[2]]);
        assert_eq!(fields[4..], ["calibrate.cap", "calibrate.floor"]);
    }

    #[test]
    fn reference_of_other_settings_is_refused() {
        let reference = calibrated(&[]).calibration().unwrap().reference.clone().unwrap();
        let (cap, floor) = ("scores = ['diameter_mm']\ncap = 3", "scores = ['diameter_mm']\ncap = 4\nfloor = 0.1");
        for other in ["scores = ['diameter_mm', 'cnr']", cap, floor] {
            let calibrate = toml::from_str(&format!("reference = 'r'\n{other}")).unwrap();
            let test =
                QualityTest::new(QualityTestConfig { calibrate: Some(calibrate), ..Default::default() }).unwrap();
            let error = test.with_reference(Arc::clone(&reference)).unwrap_err();
            assert!(error.message.starts_with("the reference was made for the"), "{}", error.message);
        }
    }
}
