//! The tables `[[expectations]]` of a graph file.

use serde::Deserialize;
use toml::de::ValueDeserializer;

use super::file::Problems;
use super::settings;
use super::spec::span_of;
use super::value::Value;
use crate::record::{ExpectationConfig, check_config};

/// Reads the expectations of a file, and reports all their errors.
pub(super) fn read(tables: &[Value<'_>], problems: &mut Problems<'_>) -> Vec<ExpectationConfig> {
    let schema = schemars::schema_for!(ExpectationConfig).to_value();
    let mut read: Vec<ExpectationConfig> = Vec::new();
    for table in tables {
        let span = table.span();
        let parse = |table: Value<'_>| ExpectationConfig::deserialize(ValueDeserializer::from(table));
        let parsed = settings::read(table, "expectations", &span, &schema, parse, problems);
        let Some(config) = parsed.value else { continue };
        let span_of = |field: &str| span_of(table, field).unwrap_or(span.clone());
        settings::report(check_config(&config), &parsed.invalid, span_of, problems);
        if read.iter().any(|earlier| earlier.name == config.name) {
            problems
                .error(span_of("name"), format!("two expectations are named `{}`", config.name))
                .label("expected another name: the summary names expectations");
        }
        read.push(config);
    }
    read
}
