//! The settings of an expectation in a graph file.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An expectation on a table, checked after each run and before each tag.
///
/// ```toml
/// [[expectations]]
/// name = "liver tumors are accepted"
/// table = "samples"
/// where = ["organ = liver", "kind = synthetic"]
/// rows = { min = 100 }
/// share = { where = "verdict = accepted", min = 0.3 }
/// column = "delta_hu"
/// mean = { min = -60, max = "-10 HU" }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectationConfig {
    /// Name of the expectation in the summary; different for each expectation.
    pub name: String,
    /// The table.
    pub table: ExpectationTable,
    /// Conditions on the columns of the table, as in `freetumor export --where`; only rows that meet all of them are measured. By default,
    /// all rows are measured.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
    /// Bounds on the number of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Bounds>,
    /// Bounds on the share of the rows that meet more conditions, from 0 to 1. Without rows, the expectation fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<ShareConfig>,
    /// The column of the measures `mean`, `minimum`, `maximum`, `distinct` and `null_share`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Bounds on the mean of a column of numbers, in the unit of the column. Without values, the expectation fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Bounds>,
    /// Bounds on the smallest value of a column of numbers, in the unit of the column. Without values, the expectation fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Bounds>,
    /// Bounds on the largest value of a column of numbers, in the unit of the column. Without values, the expectation fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Bounds>,
    /// Bounds on the number of distinct values of a column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<Bounds>,
    /// Bounds on the share of the rows without a value in a column, from 0 to 1. Without rows, the expectation fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_share: Option<Bounds>,
}

/// The tables on which expectations are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExpectationTable {
    /// Attempts and negatives.
    Samples,
    /// Scans.
    Scans,
    /// Faults.
    Faults,
}

/// A share of rows with its bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareConfig {
    /// The conditions that are met by the counted rows.
    #[serde(rename = "where")]
    pub conditions: Conditions,
    /// Smallest share, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Bound>,
    /// Largest share, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Bound>,
}

/// One condition or several conditions, all of which have to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Conditions {
    /// One condition.
    One(String),
    /// Several conditions.
    Many(Vec<String>),
}

impl Conditions {
    /// Returns all conditions.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::One(condition) => std::slice::from_ref(condition),
            Self::Many(conditions) => conditions,
        }
    }

    /// Returns the name of the setting of a condition, for messages.
    pub(super) fn field(&self, table: &str, index: usize) -> String {
        match self {
            Self::One(_) => format!("{table}where"),
            Self::Many(_) => format!("{table}where.{index}"),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.texts().iter().map(|text| format!("`{text}`")).collect();
        f.write_str(&texts.join(" and "))
    }
}

/// Bounds on a measure; at least one of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Smallest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Bound>,
    /// Largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Bound>,
}

/// A bound: a number in the unit of the measure, or a number and its unit as a string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Bound {
    /// A number in the unit of the measure.
    Number(f64),
    /// A number with its unit, such as `-10 HU`.
    Text(String),
}
