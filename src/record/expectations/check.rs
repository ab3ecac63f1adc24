//! The check of an expectation: validation of its settings, and measures of the rows of its table.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use super::config::{Bound, Bounds, Conditions, ExpectationConfig, ExpectationTable, ShareConfig};
use crate::error::ConfigError;
use crate::filter::parse_threshold;
use crate::record::column::{ColumnType, Descriptor, Value};
use crate::record::condition::{ColumnCondition, column};
use crate::record::parquet::Row;
use crate::record::{FaultRecord, SampleRow, ScanRecord};
use crate::score::Score;

/// The hint for an invalid bound.
const BOUNDS: &str = "write `min`, `max` or both: `rows = { min = 100 }`";

/// The measured property of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Rows,
    Share,
    Mean,
    Minimum,
    Maximum,
    Distinct,
    NullShare,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Share => "share",
            Self::Mean => "mean",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::Distinct => "distinct",
            Self::NullShare => "null_share",
        }
    }

    fn needs_numbers(self) -> bool {
        matches!(self, Self::Mean | Self::Minimum | Self::Maximum)
    }

    fn is_share(self) -> bool {
        matches!(self, Self::Share | Self::NullShare)
    }
}

/// A measure with its bounds.
#[derive(Clone, Copy, Debug)]
struct BoundedMeasure {
    measure: Measure,
    min: Option<f64>,
    max: Option<f64>,
}

/// The check of one expectation: rows are added one by one.
///
/// ```
/// use freetumor::record::{ExpectationCheck, ExpectationConfig, FaultRecord};
/// let config: ExpectationConfig = toml::from_str("name = \"no corrupt scans\"\ntable = \"faults\"\nwhere = \"kind = corrupt\"\nrows = { max = 0 }")?;
/// let check = ExpectationCheck::<FaultRecord>::new(&config).map_err(|errors| errors[0].message.clone())?;
/// let results = check.results();
/// assert!(results[0].is_met);
/// assert_eq!(results[0].to_string(), "no corrupt scans: expected at most 0 rows of `faults`, got 0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ExpectationCheck<R> {
    name: String,
    conditions: Vec<ColumnCondition<R>>,
    /// The conditions of the counted rows of a share, and their text.
    share: Option<(Vec<ColumnCondition<R>>, String)>,
    column: Option<Descriptor<R>>,
    measures: Vec<BoundedMeasure>,
    tally: Tally,
}

/// The measures of the rows so far.
#[derive(Default)]
struct Tally {
    rows: u64,
    counted: u64,
    /// Rows with a value in the column.
    values: u64,
    sum: f64,
    range: Option<[f64; 2]>,
    /// Hashes of the distinct values.
    distinct: HashSet<u64>,
}

/// The result of one measure of an expectation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExpectationResult {
    /// Name of the expectation.
    pub name: String,
    /// Name of the table.
    pub table: &'static str,
    /// The measure: `rows`, `share`, `mean`, `minimum`, `maximum`, `distinct` or `null_share`.
    pub measure: &'static str,
    /// The column of the measure, or the conditions of a share; empty for `rows`.
    pub subject: String,
    /// The unit of value and bounds; empty for numbers and shares.
    pub unit: &'static str,
    /// The measured value; absent without rows or values to measure.
    pub value: Option<f64>,
    /// Smallest expected value.
    pub min: Option<f64>,
    /// Largest expected value.
    pub max: Option<f64>,
    /// The number of measured rows.
    pub rows: u64,
    /// Whether the value is within the bounds.
    pub is_met: bool,
}

/// Returns all errors of the settings of an expectation.
pub fn check_config(config: &ExpectationConfig) -> Vec<ConfigError> {
    match config.table {
        ExpectationTable::Samples => ExpectationCheck::<SampleRow>::new(config).err(),
        ExpectationTable::Scans => ExpectationCheck::<ScanRecord>::new(config).err(),
        ExpectationTable::Faults => ExpectationCheck::<FaultRecord>::new(config).err(),
    }
    .unwrap_or_default()
}

impl<R: Row> ExpectationCheck<R> {
    /// Creates the check of an expectation on the table of `R`.
    ///
    /// # Errors
    /// Returns all errors of the settings: unknown columns, columns of another type, other units, and bounds that no value meets.
    pub fn new(config: &ExpectationConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if config.name.trim().is_empty() {
            errors.push(ConfigError::new("name", "expected a name, got an empty one"));
        }
        let conditions = config.conditions.as_ref().map(|texts| conditions(texts, "", &mut errors));
        let share =
            config.share.as_ref().map(|share| (conditions_of_share(share, &mut errors), share.conditions.to_string()));
        let descriptor = config.column.as_deref().and_then(|name| {
            column::<R>(name).map_err(|error| errors.push(ConfigError { field: "column".to_owned(), ..error })).ok()
        });
        let share_bounds = config.share.as_ref().map(|share| Bounds { min: share.min.clone(), max: share.max.clone() });
        let all = [
            (Measure::Rows, config.rows.as_ref()),
            (Measure::Share, share_bounds.as_ref()),
            (Measure::Mean, config.mean.as_ref()),
            (Measure::Minimum, config.minimum.as_ref()),
            (Measure::Maximum, config.maximum.as_ref()),
            (Measure::Distinct, config.distinct.as_ref()),
            (Measure::NullShare, config.null_share.as_ref()),
        ];
        let mut measures = Vec::new();
        for (measure, bounds) in all.into_iter().filter_map(|(measure, bounds)| Some((measure, bounds?))) {
            if !matches!(measure, Measure::Rows | Measure::Share) {
                if config.column.is_none() {
                    let message = format!("expected `column`, which `{}` measures", measure.name());
                    errors.push(ConfigError::new(measure.name(), message).with_hint("column = \"delta_hu\""));
                    continue;
                }
                let Some(descriptor) = &descriptor else { continue };
                if let Some(message) = unsuitable(measure, descriptor) {
                    errors.push(ConfigError::new("column", message));
                    continue;
                }
            }
            let of_column = descriptor.as_ref().filter(|_| measure.needs_numbers());
            let (name, unit) = of_column.map_or((measure.name(), ""), |d| (d.column.name, d.column.unit));
            match bounded(measure, bounds, [name, unit]) {
                Ok(bounded) => measures.push(bounded),
                Err(error) => errors.push(error),
            }
        }
        let is_of_column = |bounded: &BoundedMeasure| !matches!(bounded.measure, Measure::Rows | Measure::Share);
        let measured = "for a column mean, minimum, maximum, distinct and null_share";
        if errors.is_empty() && config.column.is_some() && !measures.iter().any(is_of_column) {
            let hint = format!("the measures are {measured}");
            errors.push(ConfigError::new("column", "expected a measure of the column, got none").with_hint(hint));
        } else if errors.is_empty() && measures.is_empty() {
            let hint = format!("the measures are rows, share, and {measured}");
            errors.push(ConfigError::new("", "expected at least one measure, got none").with_hint(hint));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            name: config.name.clone(),
            conditions: conditions.unwrap_or_default(),
            share,
            column: descriptor,
            measures,
            tally: Tally::default(),
        })
    }

    /// Measures a row, if the row meets the conditions.
    pub fn add(&mut self, row: &R) {
        let meets = |conditions: &[ColumnCondition<R>]| conditions.iter().all(|condition| condition.holds(row));
        if !meets(&self.conditions) {
            return;
        }
        let tally = &mut self.tally;
        tally.rows += 1;
        tally.counted += u64::from(self.share.as_ref().is_some_and(|(conditions, _)| meets(conditions)));
        let Some(value) = self.column.as_ref().and_then(|descriptor| descriptor.value(row)) else { return };
        tally.values += 1;
        let mut hash = DefaultHasher::new();
        match value {
            Value::Text(text) => text.hash(&mut hash),
            Value::Number(number) => {
                number.to_bits().hash(&mut hash);
                tally.sum += number;
                let [low, high] = tally.range.unwrap_or([number; 2]);
                tally.range = Some([low.min(number), high.max(number)]);
            }
        }
        if self.measures.iter().any(|bounded| bounded.measure == Measure::Distinct) {
            tally.distinct.insert(hash.finish());
        }
    }

    /// Returns the result of each measure.
    pub fn results(&self) -> Vec<ExpectationResult> {
        let Tally { rows, counted, values, sum, range, distinct } = &self.tally;
        let share = |part: u64| (*rows > 0).then(|| part as f64 / *rows as f64);
        let column = self.column.as_ref().map(|descriptor| descriptor.column);
        let result = |&BoundedMeasure { measure, min, max }: &BoundedMeasure| {
            let value = match measure {
                Measure::Rows => Some(*rows as f64),
                Measure::Share => share(*counted),
                Measure::Mean => (*values > 0).then(|| sum / *values as f64),
                Measure::Minimum => range.map(|[low, _]| low),
                Measure::Maximum => range.map(|[_, high]| high),
                Measure::Distinct => Some(distinct.len() as f64),
                Measure::NullShare => share(rows - values),
            };
            let subject = match (measure, &self.share) {
                (Measure::Rows, _) => String::new(),
                (Measure::Share, share) => share.as_ref().map(|(_, text)| text.clone()).unwrap_or_default(),
                _ => column.map_or("", |column| column.name).to_owned(),
            };
            ExpectationResult {
                name: self.name.clone(),
                table: R::TABLE.name(),
                measure: measure.name(),
                subject,
                unit: column.filter(|_| measure.needs_numbers()).map_or("", |column| column.unit),
                value,
                min,
                max,
                rows: *rows,
                is_met: value
                    .is_some_and(|value| min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max)),
            }
        };
        self.measures.iter().map(result).collect()
    }
}

fn conditions_of_share<R: Row>(share: &ShareConfig, errors: &mut Vec<ConfigError>) -> Vec<ColumnCondition<R>> {
    if share.conditions.texts().is_empty() {
        let hint = "share = { where = \"verdict = accepted\", min = 0.3 }";
        errors.push(ConfigError::new("share.where", "expected at least one condition, got none").with_hint(hint));
    }
    conditions(&share.conditions, "share.", errors)
}

/// Parses conditions; `table` is the path of their table in the settings.
fn conditions<R: Row>(texts: &Conditions, table: &str, errors: &mut Vec<ConfigError>) -> Vec<ColumnCondition<R>> {
    let parse = |(index, text): (usize, &String)| {
        let error = |error| ConfigError { field: texts.field(table, index), ..error };
        text.parse::<ColumnCondition<R>>().map_err(|invalid| errors.push(error(invalid))).ok()
    };
    texts.texts().iter().enumerate().filter_map(parse).collect()
}

/// Returns the error of a column that a measure cannot measure.
fn unsuitable<R>(measure: Measure, descriptor: &Descriptor<R>) -> Option<String> {
    let (name, measure_name) = (descriptor.column.name, measure.name());
    if measure.needs_numbers() && descriptor.column.kind == ColumnType::Text {
        return Some(format!("expected a column of numbers for `{measure_name}`, `{name}` is a string column"));
    }
    (measure == Measure::NullShare && !descriptor.column.nullable)
        .then(|| format!("expected a column whose values may be absent, every row has a value in `{name}`"))
}

/// Parses and checks the bounds of a measure; `name` and `unit` are those of the measured value.
fn bounded(measure: Measure, bounds: &Bounds, [name, unit]: [&str; 2]) -> Result<BoundedMeasure, ConfigError> {
    let field = measure.name();
    let parse = |key: &str, bound: &Option<Bound>| {
        let field = format!("{field}.{key}");
        match bound {
            None => Ok(None),
            Some(Bound::Number(number)) if number.is_finite() => Ok(Some(*number)),
            Some(Bound::Number(number)) => {
                Err(ConfigError::new(field, format!("expected a finite number, got {number}")))
            }
            Some(Bound::Text(text)) => parse_threshold([name, unit], key, text, BOUNDS)
                .map(Some)
                .map_err(|error| ConfigError { field, ..error }),
        }
    };
    let (min, max) = (parse("min", &bounds.min)?, parse("max", &bounds.max)?);
    let invalid = |message: String| Err(ConfigError::new(field, message));
    if min.is_none() && max.is_none() {
        return Err(ConfigError::new(field, "expected a bound, got none").with_hint(BOUNDS));
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return invalid(format!("expected a `min` that is not above `max`, got {min} and {max}"));
    }
    let [low, high] = match measure {
        Measure::Rows | Measure::Distinct => [0.0, f64::INFINITY],
        measure if measure.is_share() => [0.0, 1.0],
        _ => Score::from_name(name).map_or([f64::NEG_INFINITY, f64::INFINITY], Score::range),
    };
    if min.is_some_and(|min| min > high) || max.is_some_and(|max| max < low) {
        let bound = min.filter(|min| *min > high).or(max).unwrap_or_default();
        let error = ConfigError::new(field, format!("no value meets {bound}: `{name}` is between {low} and {high}"));
        let is_percentage = high == 1.0 && (1.0..=100.0).contains(&bound);
        return Err(match is_percentage {
            true => error.with_hint(format!("write a fraction, not a percentage: {}", bound / 100.0)),
            false => error,
        });
    }
    Ok(BoundedMeasure { measure, min, max })
}

impl fmt::Display for ExpectationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, table, measure, subject, unit, value, min, max, rows, .. } = self;
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let bounds = match (min, max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (None, max) => format!("at most {}", max.unwrap_or_default()),
        };
        let got = value.map_or("no value".to_owned(), |value| format!("{}{unit}", rounded(value)));
        if *measure == "rows" {
            return write!(f, "{name}: expected {bounds} rows of `{table}`, got {got}");
        }
        let subject = match *measure {
            "share" => format!("a share of {subject} of"),
            "null_share" => format!("a share of rows without `{subject}` of"),
            "distinct" => format!("a number of distinct values of `{subject}` of"),
            measure => format!("a {measure} of `{subject}` of"),
        };
        let noun = if *rows == 1 { "row" } else { "rows" };
        write!(f, "{name}: expected {subject} {bounds}{unit}, got {got} in {rows} {noun} of `{table}`")
    }
}

/// Rounds a number to four digits after the decimal point.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Outcome;

    fn config(text: &str) -> ExpectationConfig {
        toml::from_str(&format!("name = \"n\"\ntable = \"samples\"\n{text}")).unwrap()
    }

    fn errors(text: &str) -> Vec<String> {
        let errors = check_config(&config(text)).into_iter();
        errors.map(|error| format!("{}: {} {}", error.field, error.message, error.hint.unwrap_or_default())).collect()
    }

    #[test]
    fn measures_of_rows_are_compared_with_bounds() {
        let text = "where = [\"organ = liver\"]\nrows = { min = 2, max = 2 }\nshare = { where = \"verdict = accepted\", min = 0.6 }\n\
            column = \"delta_hu\"\nmean = { min = \"-25 HU\", max = -20 }\nminimum = { min = -29 }\nmaximum = { max = -20 }\n\
            distinct = { min = 2 }\nnull_share = { max = 0.0 }";
        let mut check = ExpectationCheck::<SampleRow>::new(&config(text)).unwrap();
        for (organ, delta_hu, is_accepted) in
            [("liver", Some(-20.0), true), ("liver", Some(-30.0), false), ("kidney", None, true)]
        {
            let mut row = SampleRow::empty();
            row.record.organ = organ.to_owned();
            if let Some(delta_hu) = delta_hu {
                row.record.scores.set(Score::DeltaHu, delta_hu);
            }
            if !is_accepted {
                row.record.outcome = Outcome::Rejected { reason: "cnr < 1".to_owned() };
            }
            check.add(&row);
        }
        let results = check.results();
        let met: Vec<_> = results.iter().map(|result| (result.measure, result.value, result.is_met)).collect();
        assert_eq!(
            met,
            [
                ("rows", Some(2.0), true),
                ("share", Some(0.5), false),
                ("mean", Some(-25.0), true),
                ("minimum", Some(-30.0), false),
                ("maximum", Some(-20.0), true),
                ("distinct", Some(2.0), true),
                ("null_share", Some(0.0), true),
            ]
        );
        assert_eq!(
            results[1].to_string(),
            "n: expected a share of `verdict = accepted` of at least 0.6, got 0.5 in 2 rows of `samples`"
        );
        assert_eq!(
            results[2].to_string(),
            "n: expected a mean of `delta_hu` of -25 to -20 HU, got -25 HU in 2 rows of `samples`"
        );
    }

    #[test]
    fn measure_without_rows_is_not_met() {
        let text = "column = \"delta_hu\"\nmean = { max = 0 }\nshare = { where = \"organ = liver\", max = 1 }\nrows = { max = 0 }";
        let results = ExpectationCheck::<SampleRow>::new(&config(text)).unwrap().results();
        let met: Vec<_> = results.iter().map(|result| (result.measure, result.is_met)).collect();
        assert_eq!(met, [("rows", true), ("share", false), ("mean", false)]);
        assert!(results[2].to_string().ends_with("got no value in 0 rows of `samples`"));
    }

    #[test]
    fn errors_name_setting_and_expectation() {
        assert_eq!(errors("where = \"organs = liver\"\nrows = { min = 1 }").len(), 1);
        let all = [
            ("", ": expected at least one measure"),
            ("rows = {}", "rows: expected a bound, got none"),
            ("rows = { min = 3, max = 2 }", "rows: expected a `min` that is not above `max`, got 3 and 2"),
            ("rows = { max = -1 }", "rows: no value meets -1"),
            ("mean = { min = 1 }", "mean: expected `column`, which `mean` measures"),
            ("column = \"delta_hu\"\nrows = { min = 1 }", "column: expected a measure of the column, got none"),
            (
                "column = \"delta_h\"\nmean = { min = 1 }",
                "column: expected a column of `samples`, got `delta_h` did you mean `delta_hu`?",
            ),
            ("column = \"organ\"\nmean = { min = 1 }", "column: expected a column of numbers for `mean`"),
            (
                "column = \"scan_id\"\nnull_share = { max = 0.5 }",
                "column: expected a column whose values may be absent",
            ),
            ("column = \"delta_hu\"\nmean = { max = \"3 mm\" }", "mean.max: delta_hu is in HU, got `mm`"),
            (
                "column = \"found_fraction\"\nmean = { min = 70 }",
                "mean: no value meets 70: `found_fraction` is between 0 and 1 write a fraction, not a percentage: 0.7",
            ),
            (
                "share = { where = \"verdict = acepted\", min = 30 }",
                "share.where: verdict: expected accepted or rejected",
            ),
            ("share = { where = [], min = 0.3 }", "share.where: expected at least one condition"),
            ("where = [\"organ = liver\", \"cnr > x\"]\nrows = { min = 1 }", "where.1: expected a number"),
        ];
        for (text, expected) in all {
            let found = errors(text);
            assert!(found.iter().any(|error| error.starts_with(expected)), "{text}: {found:?}");
        }
    }

    #[test]
    fn config_round_trips_through_json() {
        let config = config(
            "where = \"organ = liver\"\nshare = { where = [\"verdict = accepted\"], min = 0.3 }\nrows = { min = 3 }",
        );
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(serde_json::from_value::<ExpectationConfig>(json).unwrap(), config);
    }
}
