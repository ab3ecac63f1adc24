//! Reads settings and reports all errors at once.
//!
//! A table is first checked against the JSON Schema of its settings: every invalid setting is reported with its location and removed.
//! The rest is deserialized once.

use serde_json::Value as Json;
use toml::de::Error;

use super::file::Problems;
use super::schema_check;
use super::value::{Span, Value};
use crate::error::ConfigError;

/// The result of reading a table of settings.
pub(super) struct ParsedSettings<T> {
    /// The settings, without those in `invalid`; absent if a required setting is missing or invalid.
    pub(super) value: Option<T>,
    /// Dotted paths of the settings that were reported and removed.
    pub(super) invalid: Vec<String>,
}

/// Reads a table and reports all its errors. `owner` names the table in messages (`stages.filter`), `schema` is the JSON Schema of the
/// settings; errors about a missing setting point at `span`.
pub(super) fn read<T>(
    table: &Value<'_>,
    owner: &str,
    span: &Span,
    schema: &Json,
    read: impl FnOnce(Value<'_>) -> Result<T, Error>,
    problems: &mut Problems<'_>,
) -> ParsedSettings<T> {
    let mut rest = table.clone();
    let schema_check::Outcome { invalid, is_complete } = schema_check::check(&mut rest, schema, owner, span, problems);
    if !is_complete {
        return ParsedSettings { value: None, invalid };
    }
    let value = match read(rest) {
        Ok(value) => Some(value),
        Err(error) => {
            // If a setting was removed, this error may be a consequence.
            if invalid.is_empty() {
                let span = error.span().filter(|span| !span.is_empty()).unwrap_or(span.clone());
                problems.error(span, format!("`{owner}`: {}", error.message()));
            }
            None
        }
    };
    ParsedSettings { value, invalid }
}

/// Reports the errors of a constructor, except those about settings that were already reported.
pub(super) fn report(
    errors: Vec<ConfigError>,
    invalid: &[String],
    span_of: impl Fn(&str) -> Span,
    problems: &mut Problems<'_>,
) {
    for ConfigError { field, message, hint } in errors {
        let inside =
            |outer: &str, inner: &str| outer.is_empty() || inner == outer || inner.starts_with(&format!("{outer}."));
        let covers = |path: &String| inside(path, &field) || inside(&field, path);
        if !invalid.iter().any(covers) {
            problems.error(span_of(&field), message).hint(hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;

    use schemars::JsonSchema;
    use serde::Deserialize;
    use toml::de::{DeTable, DeValue, ValueDeserializer};

    use super::*;
    use crate::graph::{GraphFile, Problem};

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only deserialization is tested")]
    struct Config {
        /// The folder. More text.
        root: String,
        /// Number of scans.
        count: u32,
        #[serde(default)]
        shape: Option<[u32; 3]>,
        #[serde(default)]
        body: Body,
        #[serde(default)]
        organs: BTreeMap<String, Organ>,
        #[serde(default)]
        list: Vec<u8>,
        #[serde(default)]
        rules: Rules,
        #[serde(default)]
        names: Option<Names>,
        #[serde(default)]
        share: f64,
        #[serde(default)]
        every: Option<NonZeroU32>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[allow(dead_code, reason = "only deserialization is tested")]
    enum Names {
        List(Vec<String>),
        ByOrgan(BTreeMap<String, Organ>),
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only deserialization is tested")]
    struct Rules {
        variants: u32,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Body {
        #[default]
        Abdomen,
        Chest,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only deserialization is tested")]
    struct Organ {
        ids: Vec<u16>,
    }

    fn problems_of(text: &str) -> (Vec<Problem>, Vec<String>, bool) {
        let file = GraphFile::new("a.toml", ".", text);
        let root = DeTable::parse(text).unwrap();
        let table = toml::Spanned::new(0..3, DeValue::Table(root.into_inner()));
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let mut problems = Problems::new(&file);
        let parse = |table: Value<'_>| Config::deserialize(ValueDeserializer::from(table));
        let parsed = read(&table, "stages.a", &(0..1), &schema, parse, &mut problems);
        (problems.sorted(), parsed.invalid, parsed.value.is_some())
    }

    fn lines(problems: &[Problem]) -> Vec<String> {
        let line = |problem: &Problem| {
            let location = problem.location.as_ref();
            let location =
                location.map(|location| format!("{}:{}", location.line, location.column)).unwrap_or_default();
            let parts = [problem.message.as_str(), &problem.label, problem.hint.as_deref().unwrap_or_default()];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            format!("{location} {}", parts.join(" | "))
        };
        problems.iter().map(line).collect()
    }

    #[test]
    fn read_reports_location_of_every_invalid_setting() {
        let text = "root = 7\ncuont = 3\ncount = -1\nshape = [1, 2]\nbody = \"chets\"\nlist = [1, \"two\", 3, 400]\n\
                    share = [\"half\"]\nrules = { variants = 1.5, more = true }\nnames = true\nevery = 4294967296\n\
                    [organs.liver]\nids = [5]\nid = 5\n[organs.kidney]\n";
        let (problems, _, read) = problems_of(text);
        assert!(!read);
        insta::assert_snapshot!(lines(&problems).join("\n"), @r#"
        1:8 `stages.a.root` is 7 | expected a quoted string
        2:1 unknown key `cuont` in `stages.a` | expected `body`, `count`, `every`, `list`, `names`, `organs`, `root`, `rules`, `shape` or `share` | did you mean `count`?
        3:9 `stages.a.count` is -1 | expected a whole number, 0 or more
        4:9 `stages.a.shape` is of length 2 | expected a list of length 3
        5:8 `stages.a.body` cannot be `chets` | expected `abdomen` or `chest` | did you mean `chest`?
        6:12 `stages.a.list` is the string "two" | expected a whole number, 0 or more
        6:22 `stages.a.list` is 400 | expected a whole number from 0 to 255
        7:9 `stages.a.share` is a list | expected a number
        8:22 `stages.a.rules.variants` is 1.5 | expected a whole number, 0 or more
        8:27 unknown key `more` in `stages.a.rules` | expected `variants`
        9:9 `stages.a.names` is true | expected a list or a table
        10:9 `stages.a.every` is 4294967296 | expected a whole number from 0 to 4294967295
        13:1 unknown key `id` in `stages.a.organs.liver` | expected `ids` | did you mean `ids`?
        14:1 `stages.a.organs.kidney` has no `ids` | expected `ids = …`
        "#);
    }

    #[test]
    fn read_distinguishes_alternatives_by_type() {
        let rest = "root = \"a\"\ncount = 1\n";
        assert!(problems_of(&format!("{rest}names = [\"a\"]\n")).2);
        assert!(problems_of(&format!("{rest}names = {{ liver = {{ ids = [5] }} }}\n")).2);
        let (problems, invalid, read) = problems_of(&format!("{rest}names.liver = {{ ids = [5, -5] }}\nbody = 3\n"));
        assert!(read && invalid == ["names.liver.ids", "body"]);
        insta::assert_snapshot!(lines(&problems).join("\n"), @r#"
        3:27 `stages.a.names.liver.ids` is -5 | expected a whole number, 0 or more
        4:8 `stages.a.body` is 3 | expected `abdomen` or `chest`
        "#);
    }

    #[test]
    fn read_reports_errors_of_serde() {
        let (problems, invalid, read) = problems_of("root = \"a\"\ncount = 1\nevery = 0\n");
        assert!(!read && invalid.is_empty());
        insta::assert_snapshot!(lines(&problems).join("\n"), @r#"
        3:9 `stages.a`: invalid value: integer `0`, expected a nonzero u32
        "#);
    }

    #[test]
    fn misplaced_setting_has_hint_with_its_table() {
        let (problems, ..) = problems_of("root = \"a\"\ncount = 1\nvariants = 3\nids = 3\n");
        let hints: Vec<_> = problems.iter().map(|problem| problem.hint.as_deref()).collect();
        assert_eq!(hints, [Some("move `variants` into the table `rules`: rules = { variants = … }"), None]);
    }

    #[test]
    fn read_reports_every_missing_setting() {
        let (problems, ..) = problems_of("list = []\n");
        insta::assert_snapshot!(lines(&problems).join("\n"), @r#"
        1:1 `stages.a` has no `root` | expected `root = …`: the folder
        1:1 `stages.a` has no `count` | expected `count = …`: number of scans
        "#);
    }

    #[test]
    fn report_skips_settings_that_were_already_reported() {
        let (problems, invalid, read) = problems_of("root = \"a\"\ncount = 3\nbody = 3\nlist = 1\n");
        assert!(read);
        assert_eq!(invalid, ["body", "list"]);
        assert_eq!(problems.len(), 2);
        let file = GraphFile::new("a.toml", ".", "");
        let mut others = Problems::new(&file);
        let errors = ["list.0", "body", "root"].map(|field| ConfigError::new(field, field));
        report(errors.into(), &invalid, |_| 0..0, &mut others);
        assert_eq!(others.sorted().iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(), ["root"]);
    }
}
