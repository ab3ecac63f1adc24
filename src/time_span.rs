//! Lengths of time in settings, such as `2 min`.
//!
//! This module owns the text form of a length of time in graph files and arguments: a whole number with a unit. Lengths of time that are
//! measured are of the type [`Duration`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// Units of time with their seconds, the largest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];

/// A length of time of whole seconds, in text a number with a unit: `s`, `min`, `h` or `d`.
///
/// ```
/// use std::time::Duration;
/// use freetumor::time_span::TimeSpan;
/// let span: TimeSpan = "2 min".parse()?;
/// assert_eq!(Duration::from(span), Duration::from_secs(120));
/// assert_eq!(span.to_string(), "2 min");
/// assert!("2".parse::<TimeSpan>().is_err());
/// # Ok::<(), freetumor::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(u64);

impl TimeSpan {
    /// Creates a length of time from seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Self {
        Self::from_secs(span.0)
    }
}

impl FromStr for TimeSpan {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.trim().find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.trim().len());
        let (number, unit) = text.trim().split_at(digits);
        let seconds = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, seconds)| *seconds);
        let span = number.parse::<u64>().ok().zip(seconds).and_then(|(number, seconds)| number.checked_mul(seconds));
        span.map(Self).ok_or_else(|| {
            Error::new(format!("expected a length of time, got {text:?}"))
                .with_hint("for example \"30 s\", \"2 min\", \"1 h\" or \"7 d\"")
        })
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| self.0 > 0 && self.0.is_multiple_of(*seconds));
        let (name, seconds) = unit.copied().unwrap_or(("s", 1));
        write!(f, "{} {name}", self.0 / seconds)
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for TimeSpan {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(s|min|h|d)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_in_the_largest_unit() {
        for (text, seconds, again) in [
            ("0 s", 0, "0 s"),
            ("90s", 90, "90 s"),
            ("120 s", 120, "2 min"),
            ("24 h", 86_400, "1 d"),
            (" 3 min ", 180, "3 min"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (seconds, again), "{text}");
            assert_eq!(span.to_string().parse::<TimeSpan>().unwrap(), span);
        }
    }

    #[test]
    fn other_text_is_an_error_with_examples() {
        for text in ["", "2", "min", "2 minutes", "-1 s", "1.5 h", "99999999999999999999 s", "999999999999999999 d"] {
            let error = text.parse::<TimeSpan>().unwrap_err();
            assert!(error.hint().unwrap().contains("2 min"), "{text}");
        }
    }
}
