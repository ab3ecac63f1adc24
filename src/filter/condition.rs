//! Conditions on scores and their grammar.

use std::fmt;
use std::str::FromStr;

use crate::error::ConfigError;
use crate::score::{Score, Scores};
use crate::suggest::did_you_mean;

/// A bound on one score, such as `delta_hu < -10`.
///
/// Parsing is the inverse of display: `condition.to_string().parse()` is the same condition.
///
/// ```
/// use freetumor::filter::Condition;
/// let condition: Condition = "new_false_positive_mm3<5e2 mm3".parse().unwrap();
/// assert_eq!(condition.to_string(), "new_false_positive_mm3 < 500");
///
/// let error = "new_false_positive_mm3 < 0.5 ml".parse::<Condition>().unwrap_err();
/// assert_eq!(error.message, "new_false_positive_mm3 is in mm3, got `ml`");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// The score.
    pub score: Score,
    /// The comparison.
    pub comparison: ComparisonOperator,
    /// The threshold in the score's unit.
    pub threshold: f64,
}

/// A comparison of a score with a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOperator {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl ComparisonOperator {
    const ALL: [Self; 4] = [Self::LessOrEqual, Self::GreaterOrEqual, Self::Less, Self::Greater];

    /// Returns the operator, such as `<=`.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// Returns whether the comparison holds for values below the threshold.
    pub fn is_upper_bound(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual)
    }

    /// Returns whether the comparison of `value` with `threshold` is true; false for NaN.
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Less => value < threshold,
            Self::LessOrEqual => value <= threshold,
            Self::Greater => value > threshold,
            Self::GreaterOrEqual => value >= threshold,
        }
    }

    /// Returns the comparison whose operator is a prefix of `text`, or `None` if no operator is.
    pub(crate) fn at_start_of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|comparison| text.starts_with(comparison.sign()))
    }
}

impl Condition {
    /// Returns whether the score is present and within the bound.
    pub fn holds(&self, scores: &Scores) -> bool {
        scores.get(self.score).is_some_and(|value| self.comparison.holds(value, self.threshold))
    }

    /// Returns whether no value of the score meets both conditions.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let (upper, lower) = match (self.comparison.is_upper_bound(), other.comparison.is_upper_bound()) {
            (true, false) => (self, other),
            (false, true) => (other, self),
            _ => return false,
        };
        let meet = upper.comparison == ComparisonOperator::LessOrEqual
            && lower.comparison == ComparisonOperator::GreaterOrEqual;
        self.score == other.score
            && (upper.threshold < lower.threshold || (upper.threshold == lower.threshold && !meet))
    }

    /// Returns whether no possible value of the score meets the bound.
    fn is_impossible(&self) -> bool {
        let [low, high] = self.score.range();
        let extreme = if self.comparison.is_upper_bound() { low } else { high };
        !self.comparison.holds(extreme, self.threshold)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.score.name(), self.comparison.sign(), self.threshold)
    }
}

impl FromStr for Condition {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let error = |message: String| ConfigError::new("", message);
        let form = "write a score, an operator and a number: `delta_hu < -10`";
        let Some(at) = text.find(['<', '>']) else {
            let message = format!("expected one of `<`, `<=`, `>`, `>=` in the condition, got `{text}`");
            return Err(error(message).with_hint(form));
        };
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let Some(comparison) = ComparisonOperator::at_start_of(rest) else {
            return Err(error(format!("expected an operator in the condition, got `{text}`")).with_hint(form));
        };
        let Some(score) = Score::from_name(name) else {
            let names = || Score::ALL.iter().map(|score| score.name());
            let hint = if name.parse::<f64>().is_ok() {
                form.to_owned()
            } else {
                let all = || format!("the scores are {}", names().collect::<Vec<_>>().join(", "));
                did_you_mean(name, names()).unwrap_or_else(all)
            };
            return Err(error(format!("expected the name of a score, got `{name}`")).with_hint(hint));
        };
        let sign = comparison.sign();
        let threshold = parse_threshold([name, score.unit()], sign, &rest[sign.len()..], form)?;
        let condition = Self { score, comparison, threshold };
        if condition.is_impossible() {
            let [low, high] = score.range();
            let message = format!("`{condition}` never holds: {name} is between {low} and {high}");
            let as_share = Self { threshold: threshold / 100.0, ..condition };
            let hint = (high == 1.0 && threshold > 1.0 && !as_share.is_impossible())
                .then(|| format!("write a fraction, not a percentage: `{as_share}`"));
            return Err(ConfigError { hint, ..error(message) });
        }
        Ok(condition)
    }
}

/// Parses the number after the operator of a comparison, and the optional unit. `name` and `unit` are those of the compared value,
/// `form` is the hint if there is no number.
///
/// # Errors
/// Returns an error if the text is not a finite number, or has another unit.
pub(crate) fn parse_threshold([name, unit]: [&str; 2], sign: &str, text: &str, form: &str) -> Result<f64, ConfigError> {
    let mut parts = text.split_whitespace();
    let number = parts.next().unwrap_or_default();
    let Some((threshold, attached)) = split_number(number) else {
        let message = format!("expected a number after `{sign}`, got `{number}`");
        return Err(ConfigError::new("", message).with_hint(form));
    };
    let given = std::iter::once(attached).chain(parts).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    if !given.is_empty() && given != unit {
        let expected = if unit.is_empty() { "a pure number" } else { &format!("in {unit}") };
        return Err(ConfigError::new("", format!("{name} is {expected}, got `{given}`")));
    }
    // Adding zero turns -0 into 0, so that equal conditions have equal texts.
    Ok(threshold + 0.0)
}

/// Splits a finite number from a unit without a space between them, such as `-10HU`.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]).rev();
    let split = |at| Some((text[..at].parse::<f64>().ok().filter(|number| number.is_finite())?, &text[at..]));
    let (number, unit) = ends.filter(|at| *at > 0).find_map(split)?;
    // The rest of `1..2` or `3-4` is not a unit.
    (!unit.starts_with(|c: char| c.is_ascii_digit() || "+-.,".contains(c))).then_some((number, unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_error(text: &str) -> (String, String) {
        let error = text.parse::<Condition>().expect_err(text);
        (error.message, error.hint.unwrap_or_default())
    }

    #[test]
    fn bound_includes_threshold_only_with_equals_sign() {
        for (sign, holds) in [("<", false), ("<=", true), (">", false), (">=", true)] {
            let condition: Condition = format!("dice {sign} 0.5").parse().unwrap();
            let mut scores = Scores::default();
            scores.set(Score::Dice, 0.5);
            assert_eq!(condition.holds(&scores), holds, "{sign}");
        }
    }

    #[test]
    fn parse_errors_state_expected_and_actual_text() {
        let (message, hint) = parse_error("delta_hu");
        assert_eq!(message, "expected one of `<`, `<=`, `>`, `>=` in the condition, got `delta_hu`");
        assert_eq!(hint, "write a score, an operator and a number: `delta_hu < -10`");
        let (message, hint) = parse_error("delta-hu < -10");
        assert_eq!((&*message, &*hint), ("expected the name of a score, got `delta-hu`", "did you mean `delta_hu`?"));
        assert_eq!(parse_error("volume < 3").1.split(',').next(), Some("the scores are hu_inside"));
        assert_eq!(parse_error("0.7 < dice").1, "write a score, an operator and a number: `delta_hu < -10`");
        assert_eq!(parse_error("dice < high").0, "expected a number after `<`, got `high`");
        assert_eq!(parse_error("dice >").0, "expected a number after `>`, got ``");
        assert_eq!(parse_error("dice > nan").0, "expected a number after `>`, got `nan`");
        assert_eq!(parse_error("dice > 0.7 HU").0, "dice is a pure number, got `HU`");
        assert_eq!(parse_error("delta_hu < -10 mm").0, "delta_hu is in HU, got `mm`");
        let (message, hint) = parse_error("found_fraction > 70");
        assert_eq!(message, "`found_fraction > 70` never holds: found_fraction is between 0 and 1");
        assert_eq!(hint, "write a fraction, not a percentage: `found_fraction > 0.7`");
        assert_eq!(parse_error("new_false_positive_mm3 < 0").1, "");
    }

    #[test]
    fn unit_may_follow_number_without_space() {
        for text in ["delta_hu<-10HU", "delta_hu < -1e1HU", "delta_hu<-10 HU"] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), "delta_hu < -10", "{text}");
        }
        assert_eq!(parse_error("delta_hu<-10mm").0, "delta_hu is in HU, got `mm`");
        assert_eq!(parse_error("dice>70%").0, "dice is a pure number, got `%`");
        assert_eq!(parse_error("dice>0,7").0, "expected a number after `>`, got `0,7`");
        assert_eq!(parse_error("dice > 0.5.1").0, "expected a number after `>`, got `0.5.1`");
    }

    proptest! {
        #[test]
        fn parsing_displayed_condition_returns_same_condition(
            score in prop::sample::select(Score::ALL),
            comparison in prop::sample::select(&ComparisonOperator::ALL),
            threshold in prop_oneof![prop::num::f64::NORMAL | prop::num::f64::ZERO, -1.0..1.0f64],
        ) {
            let condition = Condition { score, comparison, threshold: threshold + 0.0 };
            prop_assume!(!condition.is_impossible());
            let text = condition.to_string();
            prop_assert_eq!(text.parse::<Condition>().unwrap(), condition);
            let formatted = format!("  {}{}{:e}  {} ", score.name(), comparison.sign(), threshold, score.unit());
            prop_assert_eq!(formatted.parse::<Condition>().unwrap(), condition);
        }

        #[test]
        fn parsing_any_text_does_not_panic(text in "\\PC*", tail in "(dice|cnr) ?[<>]=?.{0,8}") {
            let _ = text.parse::<Condition>();
            let _ = tail.parse::<Condition>();
        }
    }
}
