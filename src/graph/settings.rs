//! Reading settings so that one mistake does not hide the next.
//!
//! serde stops at the first thing that it cannot read. Here that thing is reported where it stands, taken out, and the
//! rest is read again, until all of it was seen.

use serde_json::Value as Json;
use toml::de::{DeArray, DeTable, DeValue, Error};

use super::file::Problems;
use super::value::{Span, Value, one_of};
use crate::error::ConfigError;
use crate::suggest::did_you_mean;

/// What came of reading a table of settings.
pub(super) struct Reading<T> {
    /// What was read, perhaps without the settings in `spoiled`; absent where too much is missing.
    pub(super) value: Option<T>,
    /// Dotted paths of the settings that were taken out.
    pub(super) spoiled: Vec<String>,
}

/// Reads a table, reporting everything that is wrong with it. `owner` names it in messages (`stages.filter`), `schema` is
/// the JSON Schema of what is expected, `span` the place to point at where something is missing.
pub(super) fn read<T>(
    table: &Value<'_>,
    owner: &str,
    span: &Span,
    schema: &Json,
    read: impl Fn(Value<'_>) -> Result<T, Error>,
    problems: &mut Problems<'_>,
) -> Reading<T> {
    let mut rest = table.clone();
    let mut spoiled: Vec<String> = Vec::new();
    // Every round takes an entry out, so this ends.
    loop {
        let error = match read(rest.clone()) {
            Ok(value) => return Reading { value: Some(value), spoiled },
            Err(error) => error,
        };
        let path = error.span().and_then(|span| path_to(&rest, &span)).unwrap_or_default();
        let missing = quoted_after(error.message(), "missing field ");
        if let (Some(field), true) = (missing, path.is_empty()) {
            for field in missing_fields(&rest, schema, field) {
                if !spoiled.iter().any(|path| path.split('.').next() == Some(field.as_str())) {
                    let about = about(schema, &field).map(|about| format!(": {about}")).unwrap_or_default();
                    problems
                        .error(span.clone(), format!("`{owner}` has no `{field}`"))
                        .label(format!("expected `{field} = …`{about}"));
                }
            }
            return Reading { value: None, spoiled };
        }
        // What was taken out of a table or list may be missed there: that is an echo, not a problem of its own.
        let gone = whole(&path);
        let echo = if missing.is_some() {
            spoiled.iter().any(|it| it.starts_with(&format!("{path}.")))
        } else {
            spoiled.contains(&path)
        };
        if !echo {
            let place = error.span().filter(|place| !place.is_empty() && !path.is_empty()).unwrap_or(span.clone());
            explain(error.message(), &gone, owner, schema, place, problems);
        }
        let mut parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
        let Some(last) = parts.pop() else { return Reading { value: None, spoiled } };
        if !take_out(&mut rest, &parts, last) {
            return Reading { value: None, spoiled };
        }
        spoiled.push(gone);
    }
}

/// The path without indices at its end: entries of a list move up when one is taken out, so a list is named as a whole.
fn whole(path: &str) -> String {
    let mut path = path;
    while let Some((list, index)) = path.rsplit_once('.')
        && index.parse::<usize>().is_ok()
    {
        path = list;
    }
    path.to_owned()
}

/// Reports what a constructor complains about, unless it is about settings that were reported already.
pub(super) fn report(
    complaints: Vec<ConfigError>,
    spoiled: &[String],
    place_of: impl Fn(&str) -> Span,
    problems: &mut Problems<'_>,
) {
    for ConfigError { field, message, hint } in complaints {
        let inside =
            |outer: &str, inner: &str| outer.is_empty() || inner == outer || inner.starts_with(&format!("{outer}."));
        let covers = |path: &String| inside(path, &field) || inside(&field, path);
        if !spoiled.iter().any(covers) {
            problems.error(place_of(&field), message).hint(hint);
        }
    }
}

/// The dotted path of the entry that an error points at.
fn path_to(value: &Value<'_>, span: &Span) -> Option<String> {
    let entries: Vec<(String, Span, &Value<'_>)> = match value.get_ref() {
        DeValue::Table(table) => table.iter().map(|(key, it)| (key.get_ref().to_string(), key.span(), it)).collect(),
        DeValue::Array(array) => array.iter().enumerate().map(|(i, it)| (i.to_string(), it.span(), it)).collect(),
        _ => return None,
    };
    // Tables with a header of their own lie outside their parent's place, so every branch is looked into.
    for (name, _, inner) in &entries {
        if let Some(rest) = path_to(inner, span) {
            return Some(format!("{name}.{rest}"));
        }
    }
    let meant = |(_, key, value): &&(String, Span, &Value<'_>)| key == span || value.span() == *span;
    let around = |(_, _, value): &&(String, Span, &Value<'_>)| {
        value.span().start <= span.start && span.end <= value.span().end && !span.is_empty()
    };
    entries.iter().find(meant).or_else(|| entries.iter().find(around)).map(|(name, ..)| name.clone())
}

fn take_out(value: &mut Value<'_>, parents: &[&str], last: &str) -> bool {
    match (value.get_mut(), parents.split_first()) {
        (DeValue::Table(table), None) => table.remove(last).is_some(),
        (DeValue::Table(table), Some((first, rest))) => {
            table.get_mut(*first).is_some_and(|inner| take_out(inner, rest, last))
        }
        (DeValue::Array(array), parents) => {
            let index = parents.map_or(last, |(first, _)| first).parse::<usize>();
            let Ok(index) = index else { return false };
            match parents {
                Some((_, rest)) => array.get_mut(index).is_some_and(|inner| take_out(inner, rest, last)),
                None if index < array.len() => {
                    let kept =
                        std::mem::replace(array, DeArray::new()).into_iter().enumerate().filter(|(at, _)| *at != index);
                    *array = kept.map(|(_, value)| value).collect();
                    true
                }
                None => false,
            }
        }
        _ => false,
    }
}

/// All required settings that are not there; at least the one that was missed.
fn missing_fields(table: &Value<'_>, schema: &Json, missed: &str) -> Vec<String> {
    let empty = DeTable::new();
    let table = table.get_ref().as_table().unwrap_or(&empty);
    let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    let mut fields: Vec<String> = required.filter(|name| table.get(*name).is_none()).map(str::to_owned).collect();
    if !fields.iter().any(|field| field == missed) {
        fields.push(missed.to_owned());
    }
    fields
}

/// The first sentence of a setting's description.
fn about(schema: &Json, field: &str) -> Option<String> {
    let text = schema.pointer(&format!("/properties/{field}/description"))?.as_str()?;
    let sentence = text.split(". ").next()?.trim_end_matches('.');
    let mut letters = sentence.chars();
    let first = letters.next()?;
    Some(first.to_lowercase().chain(letters).collect())
}

/// The table inside a stage's settings to which a misplaced setting belongs.
fn deeper(schema: &Json, key: &str) -> Option<String> {
    let properties = schema.get("properties")?.as_object()?;
    let resolved = |property: &'_ Json| {
        let one = property.pointer("/allOf/0").unwrap_or(property);
        let pointer = one.get("$ref").and_then(Json::as_str).and_then(|place| place.strip_prefix('#'));
        pointer.and_then(|place| schema.pointer(place)).unwrap_or(one).pointer(&format!("/properties/{key}")).is_some()
    };
    let (table, _) = properties.iter().find(|(_, property)| resolved(property))?;
    Some(format!("it belongs one table deeper: {table} = {{ {key} = … }}"))
}

/// Says in the reader's words what serde says in its own.
fn explain(message: &str, path: &str, owner: &str, schema: &Json, place: Span, problems: &mut Problems<'_>) {
    let full = if path.is_empty() { owner.to_owned() } else { format!("{owner}.{path}") };
    if let Some(key) = quoted_after(message, "unknown field ") {
        let expected: Vec<&str> = message.split("expected").nth(1).map(quoted).unwrap_or_default();
        let inside = full.strip_suffix(&format!(".{key}")).unwrap_or(&full);
        let label = if expected.is_empty() {
            "expected no settings".to_owned()
        } else {
            format!("expected {}", one_of(expected.iter().copied()))
        };
        problems
            .error(place, format!("unknown key `{key}` in `{inside}`"))
            .label(label)
            .hint(did_you_mean(key, expected.iter().copied()).or_else(|| deeper(schema, key)));
    } else if let Some(word) = quoted_after(message, "unknown variant ") {
        let expected: Vec<&str> = message.split("expected").nth(1).map(quoted).unwrap_or_default();
        problems
            .error(place, format!("`{full}` cannot be `{word}`"))
            .label(format!("expected {}", one_of(expected.iter().copied())))
            .hint(did_you_mean(word, expected.iter().copied()));
    } else if let Some(field) = quoted_after(message, "missing field ") {
        problems.error(place, format!("`{full}` has no `{field}`")).label(format!("expected `{field} = …`"));
    } else if message.starts_with("data did not match any variant") {
        let label =
            about(schema, path).map_or_else(|| "expected another form".to_owned(), |about| format!("expected {about}"));
        problems.error(place, format!("`{full}` has none of the forms that it may have")).label(label);
    } else if let Some((got, expected)) = mismatch(message) {
        problems.error(place, format!("`{full}` is {got}")).label(format!("expected {expected}"));
    } else {
        problems.error(place, format!("`{full}`: {message}"));
    }
}

/// Splits ``invalid type: string "ten", expected u32`` into what came and what was expected, in words.
fn mismatch(message: &str) -> Option<(String, String)> {
    let rest = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .find_map(|start| message.strip_prefix(start))?;
    let (got, expected) = rest.rsplit_once(", expected ")?;
    let got = match got.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer", number)) => number.trim_matches('`').to_owned(),
        Some(("floating", point)) => point.trim_start_matches("point ").trim_matches('`').to_owned(),
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        _ if message.starts_with("invalid length") => format!("of length {got}"),
        _ => match got {
            "sequence" => "a list".to_owned(),
            "map" => "a table".to_owned(),
            other => other.to_owned(),
        },
    };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    Some((got, expected.to_owned()))
}

fn quoted_after<'m>(message: &'m str, start: &str) -> Option<&'m str> {
    message.strip_prefix(start)?.strip_prefix('`')?.split('`').next()
}

fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::Deserialize;
    use toml::de::ValueDeserializer;

    use super::*;
    use crate::graph::{GraphFile, Problem};

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "what matters is how they are read")]
    struct Config {
        /// Where it lies. And more.
        root: String,
        /// How many.
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
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "what matters is how they are read")]
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
    #[allow(dead_code, reason = "what matters is how they are read")]
    struct Organ {
        ids: Vec<u16>,
    }

    fn problems_of(text: &str) -> (Vec<Problem>, Vec<String>, bool) {
        let file = GraphFile::new("a.toml", ".", text);
        let root = DeTable::parse(text).unwrap();
        let table = toml::Spanned::new(0..3, DeValue::Table(root.into_inner()));
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let mut problems = Problems::of(&file);
        let parse = |table: Value<'_>| Config::deserialize(ValueDeserializer::from(table));
        let reading = read(&table, "stages.a", &(0..1), &schema, parse, &mut problems);
        (problems.sorted(), reading.spoiled, reading.value.is_some())
    }

    fn lines(problems: &[Problem]) -> Vec<String> {
        let line = |it: &Problem| {
            let place =
                it.location.as_ref().map(|place| format!("{}:{}", place.line, place.column)).unwrap_or_default();
            let parts = [it.message.as_str(), &it.label, it.hint.as_deref().unwrap_or_default()];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            format!("{place} {}", parts.join(" | "))
        };
        problems.iter().map(line).collect()
    }

    #[test]
    fn every_setting_is_judged_by_itself() {
        let text = "root = 7\ncuont = 3\ncount = -1\nshape = [1, 2]\nbody = \"chets\"\nlist = [1, \"two\", 3, 400]\n\
                    [organs.liver]\nids = [5]\nid = 5\n[organs.kidney]\n";
        let (problems, _, read) = problems_of(text);
        assert!(!read);
        insta::assert_snapshot!(lines(&problems).join("\n"), @r#"
        1:8 `stages.a.root` is 7 | expected a text in quotes
        2:1 unknown key `cuont` in `stages.a` | expected `root`, `count`, `shape`, `body`, `organs`, `list` or `rules` | did you mean `count`?
        3:9 `stages.a.count` is -1 | expected a whole number, 0 or more
        4:9 `stages.a.shape` is of length 2 | expected an array of length 3
        5:8 `stages.a.body` cannot be `chets` | expected `abdomen` or `chest` | did you mean `chest`?
        6:12 `stages.a.list` is the text "two" | expected a whole number, 0 or more
        6:22 `stages.a.list` is 400 | expected a whole number, 0 or more
        9:1 unknown key `id` in `stages.a.organs.liver` | expected `ids` | did you mean `ids`?
        10:1 `stages.a.organs.kidney` has no `ids` | expected `ids = …`
        "#);
    }

    #[test]
    fn a_setting_of_a_table_inside_is_sent_there() {
        let (problems, ..) = problems_of("root = \"a\"\ncount = 1\nvariants = 3\nids = 3\n");
        let hints: Vec<_> = problems.iter().map(|problem| problem.hint.as_deref()).collect();
        assert_eq!(hints, [Some("it belongs one table deeper: rules = { variants = … }"), None]);
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let (problems, ..) = problems_of("list = []\n");
        insta::assert_snapshot!(lines(&problems).join("\n"), @r#"
        1:1 `stages.a` has no `root` | expected `root = …`: where it lies
        1:1 `stages.a` has no `count` | expected `count = …`: how many
        "#);
    }

    #[test]
    fn a_spoiled_setting_leaves_its_default_and_no_echo() {
        let (problems, spoiled, read) = problems_of("root = \"a\"\ncount = 3\nbody = 3\nlist = 1\n");
        assert!(read);
        assert_eq!(spoiled, ["body", "list"]);
        assert_eq!(problems.len(), 2);
        let file = GraphFile::new("a.toml", ".", "");
        let mut echoes = Problems::of(&file);
        let complaints = ["list.0", "body", "root"].map(|field| ConfigError::new(field, field));
        report(complaints.into(), &spoiled, |_| 0..0, &mut echoes);
        assert_eq!(echoes.sorted().iter().map(|it| it.message.as_str()).collect::<Vec<_>>(), ["root"]);
    }
}
