//! Conditions on the columns of a table, as written for `freetumor export --where`, and grouping of rows by columns.
//!
//! The grammar is that of a quality test's conditions ([`crate::filter::Condition`]), extended to every column of strings or numbers
//! and to the operators `=` and `!=`:
//!
//! ```
//! use freetumor::record::ColumnCondition;
//! use freetumor::record::SampleRow;
//!
//! let condition: ColumnCondition<SampleRow> = "diameter_mm<1.5e1 mm".parse()?;
//! assert_eq!(condition.to_string(), "diameter_mm < 15");
//! let condition: ColumnCondition<SampleRow> = "organ = 'liver'".parse()?;
//! assert_eq!(condition.to_string(), "organ = liver");
//!
//! let error = "organs = liver".parse::<ColumnCondition<SampleRow>>().unwrap_err();
//! assert_eq!(error.hint.as_deref(), Some("did you mean `organ`?"));
//! # Ok::<(), freetumor::error::ConfigError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use super::column::{Access, ColumnType, Descriptor, Value};
use super::parquet::Row;
use crate::error::ConfigError;
use crate::filter::{ComparisonOperator, Condition, parse_threshold};
use crate::score::Score;
use crate::suggest::did_you_mean;

const FORM: &str = "write a column, an operator and a value: `organ = liver`, `diameter_mm < 20`";
const ONE: &str = "write each condition separately; all conditions have to hold";
const QUOTES: &str = "quote a string that contains spaces or operators: `reason = 'cnr > 1'`";

/// A relation between a value of a column and the operand of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// A bound on a number.
    Bound(ComparisonOperator),
}

impl Relation {
    /// Returns the operator sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Bound(comparison) => comparison.sign(),
        }
    }

    fn at_start_of(text: &str) -> Option<Self> {
        if text.starts_with('=') {
            return Some(Self::Equal);
        }
        if text.starts_with("!=") {
            return Some(Self::NotEqual);
        }
        ComparisonOperator::at_start_of(text).map(Self::Bound)
    }
}

/// A condition on one column of rows of type `R`. Parsing the displayed text returns an equal condition.
pub struct ColumnCondition<R> {
    descriptor: Descriptor<R>,
    relation: Relation,
    operand: Value,
}

impl<R: Row> ColumnCondition<R> {
    /// Returns the name of the column.
    pub fn column(&self) -> &'static str {
        self.descriptor.column.name
    }

    /// Returns the operand if it is a string; `None` for a number.
    pub fn text(&self) -> Option<&str> {
        match &self.operand {
            Value::Text(text) => Some(text),
            Value::Number(_) => None,
        }
    }

    /// Returns whether a row has a value in the column that meets the condition. A row without a value meets no condition, not even `!=`.
    pub fn holds(&self, row: &R) -> bool {
        match (self.descriptor.value(row), &self.operand) {
            (Some(Value::Text(value)), Value::Text(operand)) => match self.relation {
                Relation::Equal => value == *operand,
                Relation::NotEqual => value != *operand,
                Relation::Bound(_) => false,
            },
            (Some(Value::Number(value)), &Value::Number(operand)) => match self.relation {
                Relation::Equal => value == operand,
                Relation::NotEqual => value != operand,
                Relation::Bound(comparison) => comparison.holds(value, operand),
            },
            _ => false,
        }
    }
}

impl<R: Row> FromStr for ColumnCondition<R> {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let invalid = |message: String| ConfigError::new("", message).with_hint(FORM);
        let Some(at) = text.find(['<', '>', '=', '!']) else {
            let signs = "`=`, `!=`, `<`, `<=`, `>`, `>=`";
            return Err(invalid(format!("expected one of {signs} in the condition, got `{text}`")));
        };
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let Some(relation) = Relation::at_start_of(rest) else {
            return Err(invalid(format!("expected an operator in the condition, got `{text}`")));
        };
        let operand_text = &rest[relation.sign().len()..];
        if relation == Relation::Equal && operand_text.starts_with(['=', '<', '>', '!']) {
            let sign: String = rest.chars().take_while(|c| "=<>!".contains(*c)).collect();
            return Err(invalid(format!("expected an operator in the condition, got `{sign}`")));
        }
        let is_quoted = operand_text.trim_start().starts_with(['"', '\'']);
        if !is_quoted
            && operand_text.to_ascii_lowercase().split_ascii_whitespace().any(|word| matches!(word, "and" | "or"))
        {
            return Err(ConfigError::new("", format!("expected one condition, got `{text}`")).with_hint(ONE));
        }
        let descriptor = column::<R>(name)?;
        let column = descriptor.column;
        if column.kind != ColumnType::Text {
            let operand = match (relation, Score::from_name(column.name)) {
                // `Condition` also rejects bounds that no score can meet.
                (Relation::Bound(_), Some(_)) => text.parse::<Condition>()?.threshold,
                _ => parse_threshold([column.name, column.unit], relation.sign(), operand_text, FORM)?,
            };
            return Ok(Self { descriptor, relation, operand: Value::Number(operand) });
        }
        if let Relation::Bound(comparison) = relation {
            let (sign, name) = (comparison.sign(), column.name);
            let message = format!("{name} is a string column: expected `=` or `!=`, got `{sign}`");
            return Err(ConfigError::new("", message));
        }
        if !is_quoted && operand_text.trim().contains(|c: char| c.is_whitespace() || "<>=!".contains(c)) {
            let message = format!(
                "expected an unquoted string without spaces after `{}`, got `{}`",
                relation.sign(),
                operand_text.trim()
            );
            return Err(ConfigError::new("", message).with_hint(QUOTES));
        }
        let operand = parse_string(operand_text.trim()).map_err(invalid)?;
        // Rejects a value that no row of the column can have: an unknown name or a malformed digest.
        if let Access::Text(_, set) = &descriptor.access {
            set(&mut R::empty(), operand.clone())
                .map_err(|error| ConfigError::new("", format!("{}: {}", column.name, error)))?;
        }
        Ok(Self { descriptor, relation, operand: Value::Text(operand) })
    }
}

/// Parses a string with or without quotes: `"…"` with JSON escapes, `'…'` verbatim.
fn parse_string(text: &str) -> Result<String, String> {
    let unclosed = || format!("expected a string with a closing quote, got `{text}`");
    match text.chars().next() {
        None => Err("expected a string after the operator, got nothing".to_owned()),
        Some('"') => serde_json::from_str(text).map_err(|_| unclosed()),
        Some('\'') => {
            let inner = text[1..].strip_suffix('\'').filter(|inner| !inner.contains('\''));
            inner.map(str::to_owned).ok_or_else(unclosed)
        }
        Some(_) => Ok(text.to_owned()),
    }
}

impl<R> fmt::Display for ColumnCondition<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.descriptor.column.name, self.relation.sign())?;
        let is_plain = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        match &self.operand {
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) if is_plain(text) => f.write_str(text),
            Value::Text(text) => f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?),
        }
    }
}

impl<R> fmt::Debug for ColumnCondition<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColumnCondition({self})")
    }
}

impl<R> PartialEq for ColumnCondition<R> {
    fn eq(&self, other: &Self) -> bool {
        let name = |condition: &Self| condition.descriptor.column.name;
        name(self) == name(other) && self.relation == other.relation && self.operand == other.operand
    }
}

/// The columns that define groups of rows, such as `organ,size_class`.
pub struct GroupBy<R>(Vec<Descriptor<R>>);

impl<R: Row> GroupBy<R> {
    /// Returns the names of the columns.
    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|descriptor| descriptor.column.name)
    }

    /// Returns the group of a row: its value in each column as a string.
    pub fn group(&self, row: &R) -> Vec<Option<String>> {
        let text = |value| match value {
            Value::Text(text) => text,
            Value::Number(number) => number.to_string(),
        };
        self.0.iter().map(|descriptor| descriptor.value(row).map(text)).collect()
    }
}

impl<R> Default for GroupBy<R> {
    /// Returns a grouping with all rows in one group.
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R: Row> FromStr for GroupBy<R> {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text.split(',').map(|name| column(name.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl<R> fmt::Display for GroupBy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|descriptor| descriptor.column.name).collect();
        f.write_str(&names.join(","))
    }
}

impl<R> fmt::Debug for GroupBy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupBy({self})")
    }
}

/// Finds the column of strings or numbers of that name.
pub(super) fn column<R: Row>(name: &str) -> Result<Descriptor<R>, ConfigError> {
    let has_value = |descriptor: &Descriptor<R>| {
        !matches!(descriptor.column.kind, ColumnType::Organs | ColumnType::Stages | ColumnType::Flag)
    };
    let mut descriptors = R::descriptors();
    let table = R::TABLE.name();
    let Some(at) = descriptors.iter().position(|descriptor| descriptor.column.name == name) else {
        let names = || descriptors.iter().filter(|d| has_value(d)).map(|d| d.column.name);
        let hint = if name.is_empty() || name.parse::<f64>().is_ok() {
            FORM.to_owned()
        } else {
            let all = || format!("the columns are {}", names().collect::<Vec<_>>().join(", "));
            did_you_mean(name, names()).unwrap_or_else(all)
        };
        return Err(ConfigError::new("", format!("expected a column of `{table}`, got `{name}`")).with_hint(hint));
    };
    if !has_value(&descriptors[at]) {
        let message = format!("expected a column of strings or numbers, `{name}` of `{table}` is a list");
        return Err(ConfigError::new("", message));
    }
    Ok(descriptors.swap_remove(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::SampleRow;

    type SampleCondition = ColumnCondition<SampleRow>;

    fn row() -> SampleRow {
        let mut row = SampleRow::empty();
        row.record.organ = "liver".into();
        row.record.epoch = 3;
        row.record.scores.set(Score::DeltaHu, -20.0);
        row
    }

    fn parse_error(text: &str) -> (String, String) {
        let error = text.parse::<SampleCondition>().expect_err(text);
        (error.message, error.hint.unwrap_or_default())
    }

    #[test]
    fn condition_holds_for_strings_and_numbers_but_not_for_absent_values() {
        for (text, expected) in [
            ("organ = liver", true),
            ("organ=\"liver\"", true),
            ("organ = ' liver'", false),
            ("reason = 'cnr > 1 and more'", false),
            ("organ != liver", false),
            ("organ != kidney", true),
            ("verdict = accepted", true),
            ("epoch = 3", true),
            ("epoch != 3", false),
            ("epoch >= 3", true),
            ("delta_hu < -10 HU", true),
            ("delta_hu > -10", false),
            ("cnr != 1", false),
            ("reason != no_site", false),
            ("size_class = small", false),
        ] {
            assert_eq!(text.parse::<SampleCondition>().unwrap().holds(&row()), expected, "{text}");
        }
    }

    #[test]
    fn parse_error_names_expected_and_actual_text() {
        assert_eq!(
            parse_error("organ liver").0,
            "expected one of `=`, `!=`, `<`, `<=`, `>`, `>=` in the condition, got `organ liver`"
        );
        assert_eq!(parse_error("organs = liver").1, "did you mean `organ`?");
        assert!(parse_error("colour = blue").1.starts_with("the columns are sample_id, kind"));
        assert_eq!(parse_error("organ < liver").0, "organ is a string column: expected `=` or `!=`, got `<`");
        assert_eq!(parse_error("organ == liver").0, "expected an operator in the condition, got `==`");
        assert_eq!(parse_error("organ ! liver").1, FORM);
        assert_eq!(parse_error("organ = \"liver").0, "expected a string with a closing quote, got `\"liver`");
        assert_eq!(parse_error("organ =").0, "expected a string after the operator, got nothing");
        assert_eq!(
            parse_error("organ = liver AND cnr > 1"),
            ("expected one condition, got `organ = liver AND cnr > 1`".into(), ONE.into())
        );
        assert_eq!(parse_error("cnr > 1 and organ = liver").1, ONE);
        assert_eq!(parse_error("reason = cnr > 1").1, QUOTES);
        assert_eq!(parse_error("verdict = acepted").0, "verdict: expected accepted or rejected, got \"acepted\"");
        assert_eq!(parse_error("split = all").0, "split: expected a split (train, validation, test), got \"all\"");
        assert_eq!(
            parse_error("scan_id = zz").0,
            "scan_id: expected a scan id of 16 lower-case hexadecimal digits, got \"zz\""
        );
        assert_eq!(parse_error("epoch = late").0, "expected a number after `=`, got `late`");
        assert_eq!(parse_error("diameter_mm < 2 cm").0, "diameter_mm is in mm, got `cm`");
        assert_eq!(
            parse_error("score_stages = a").0,
            "expected a column of strings or numbers, `score_stages` of `samples` is a list"
        );
        assert_eq!(parse_error("found_fraction > 70").1, "write a fraction, not a percentage: `found_fraction > 0.7`");
        assert_eq!(parse_error("7 < epoch").1, FORM);
    }

    #[test]
    fn group_lists_values_in_order_of_columns() {
        let groups: GroupBy<SampleRow> = "epoch, organ,size_class".parse().unwrap();
        assert_eq!(groups.group(&row()), [Some("3".into()), Some("liver".into()), None]);
        assert_eq!(groups.to_string(), "epoch,organ,size_class");
        assert_eq!(GroupBy::default().group(&row()), Vec::<Option<String>>::new());
        assert_eq!("size".parse::<GroupBy<SampleRow>>().unwrap_err().hint.unwrap(), "did you mean `size_class`?");
    }

    proptest! {
        #[test]
        fn string_condition_round_trips_through_display(operand in "\\PC{0,12}", equal in any::<bool>()) {
            let relation = if equal { Relation::Equal } else { Relation::NotEqual };
            let condition =
                SampleCondition { descriptor: column("organ").unwrap(), relation, operand: Value::Text(operand) };
            prop_assert_eq!(condition.to_string().parse::<SampleCondition>().unwrap(), condition);
        }

        #[test]
        fn number_condition_round_trips_through_display(
            name in prop::sample::select(&["epoch", "seed", "variant", "diameter_mm", "site_right_mm", "patch_length_bytes"]),
            sign in prop::sample::select(&["=", "!=", "<", "<=", ">", ">="]),
            number in prop_oneof![prop::num::f64::NORMAL | prop::num::f64::ZERO, -1e6..1e6f64],
        ) {
            let condition = format!("{name}{sign} {number:e}").parse::<SampleCondition>().unwrap();
            prop_assert_eq!(&condition.operand, &Value::Number(number + 0.0));
            prop_assert_eq!(condition.to_string().parse::<SampleCondition>().unwrap(), condition);
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "\\PC*", tail in "(organ|cnr|epoch) ?[<>=!]{1,2}['\" ]?\\PC{0,8}") {
            let _ = text.parse::<SampleCondition>();
            let _ = tail.parse::<SampleCondition>();
            let _ = text.parse::<GroupBy<SampleRow>>();
        }
    }
}
