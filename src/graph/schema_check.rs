//! Checks TOML values against a JSON Schema, so that all errors are found at once, each with line and column.
//!
//! The check supports the parts of JSON Schema that schemars writes for settings: types, required and unknown keys, lists of a fixed
//! length, the range of an integer's format, names of variants, alternatives that differ by type. Everything else is left to serde,
//! which reads the values afterwards; so are `minimum` and `maximum`, for which constructors have better messages.

use serde_json::Value as Json;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::file::Problems;
use super::value::{Span, Value, one_of};
use crate::suggest::did_you_mean;

/// The result of checking a table.
pub(super) struct Outcome {
    /// Dotted paths of the settings that were reported and removed; a list is named as a whole.
    pub(super) invalid: Vec<String>,
    /// Whether all required settings remain.
    pub(super) is_complete: bool,
}

/// Reports everything in `table` that contradicts `schema`, and removes it. `owner` names the table in messages
/// (`stages.filter`); errors about a missing setting point at `span`.
pub(super) fn check(
    table: &mut Value<'_>,
    schema: &Json,
    owner: &str,
    span: &Span,
    problems: &mut Problems<'_>,
) -> Outcome {
    let mut check = Check { root: schema, owner, problems, invalid: Vec::new() };
    let is_complete = match table.get_mut() {
        DeValue::Table(table) => check.table(table, schema, "", span),
        _ => true,
    };
    Outcome { invalid: check.invalid, is_complete }
}

struct Check<'s, 'p, 'f> {
    /// The whole schema, to which references are relative.
    root: &'s Json,
    owner: &'s str,
    problems: &'p mut Problems<'f>,
    invalid: Vec<String>,
}

impl<'s> Check<'s, '_, '_> {
    /// Checks a value and returns whether it is valid. `span` is the span of the value, or of the nearest enclosing table if the value has
    /// none.
    fn value(&mut self, value: &mut Value<'_>, schema: &'s Json, path: &str, span: &Span) -> bool {
        let Some(forms) = self.forms(schema) else { return true };
        let matching: Vec<&Json> = forms.iter().copied().filter(|form| admits(form, value.get_ref())).collect();
        if let DeValue::String(name) = value.get_ref()
            && let Some(names) = variants(&matching)
            && !names.is_empty()
        {
            let is_known = names.contains(&name.as_ref());
            if !is_known {
                self.problems
                    .error(span.clone(), format!("`{}` cannot be `{name}`", self.full(path)))
                    .label(format!("expected {}", one_of(names.iter().copied())))
                    .hint(did_you_mean(name, names.iter().copied()));
            }
            return is_known;
        }
        match (matching.as_slice(), value.get_mut()) {
            ([], value) => self.mismatch(value, &expected(&forms), path, span),
            ([form], DeValue::Integer(number)) => self.integer(number, form, path, span),
            ([form], DeValue::Array(array)) => self.array(array, form, path, span),
            ([form], DeValue::Table(table)) => self.table(table, form, path, span),
            // Serde distinguishes alternatives of the same type.
            _ => true,
        }
    }

    fn integer(&mut self, number: &DeInteger<'_>, form: &Json, path: &str, span: &Span) -> bool {
        // `number` and unknown formats have no range.
        let Some((low, high)) = form.get("format").and_then(Json::as_str).and_then(range) else { return true };
        let value = i128::from_str_radix(number.as_str(), number.radix());
        if value.as_ref().is_ok_and(|value| (low..=high).contains(value)) {
            return true;
        }
        let is_below_zero = low == 0 && value.is_ok_and(|value| value < 0);
        let expected =
            if is_below_zero { type_name(form).to_owned() } else { format!("a whole number from {low} to {high}") };
        self.mismatch(&DeValue::Integer(number.clone()), &expected, path, span)
    }

    fn array(&mut self, array: &mut DeArray<'_>, form: &'s Json, path: &str, span: &Span) -> bool {
        let length = |name: &str| form.get(name).and_then(Json::as_u64);
        let fixed = length("minItems").filter(|least| length("maxItems") == Some(*least));
        if let Some(expected) = fixed.filter(|expected| *expected != array.len() as u64) {
            self.problems
                .error(span.clone(), format!("`{}` is of length {}", self.full(path), array.len()))
                .label(format!("expected a list of length {expected}"));
            return false;
        }
        let first = form.get("prefixItems").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let mut kept = DeArray::new();
        let length = array.len();
        for (index, mut item) in std::mem::replace(array, DeArray::new()).into_iter().enumerate() {
            let span = span_or(&item, span);
            let schema = first.get(index).or_else(|| form.get("items"));
            if schema.is_none_or(|schema| self.value(&mut item, schema, &join(path, &index.to_string()), &span)) {
                kept.push(item);
            }
        }
        *array = kept;
        if array.len() == length {
            return !is_range(form, path) || self.ascending(array, path, span);
        }
        // The rest of the list can be read, but its indices have shifted: later errors would point to the wrong entries.
        self.invalid.push(whole(path).to_owned());
        fixed.is_none()
    }

    /// Reports a range whose ends are in descending order.
    fn ascending(&mut self, range: &DeArray<'_>, path: &str, span: &Span) -> bool {
        let ends: Vec<f64> = range.iter().filter_map(|end| number(end.get_ref())).collect();
        let [low, high] = ends[..] else { return true };
        if low <= high {
            return true;
        }
        self.problems
            .error(span.clone(), format!("`{}` is [{low}, {high}]", self.full(path)))
            .label("expected two numbers in ascending order")
            .hint(format!("did you mean [{high}, {low}]?"));
        false
    }

    fn table(&mut self, table: &mut DeTable<'_>, form: &'s Json, path: &str, span: &Span) -> bool {
        let property = |name: &str| form.get("properties").and_then(|properties| properties.get(name));
        let required = form.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        let required: Vec<&str> = required.collect();
        for field in required.iter().copied().filter(|field| table.get(*field).is_none()) {
            let about = property(field).and_then(about).map(|about| format!(": {about}")).unwrap_or_default();
            self.problems
                .error(span.clone(), format!("`{}` has no `{field}`", self.full(path)))
                .label(format!("expected `{field} = …`{about}"));
        }
        let mut invalid = Vec::new();
        for (key, value) in table.iter_mut() {
            let name = key.get_ref().as_ref();
            let is_valid = match (property(name), form.get("additionalProperties")) {
                // Serde checks keys that match a pattern.
                (None, _) if form.get("patternProperties").is_some() => true,
                (None, Some(Json::Bool(false))) => {
                    self.unknown(name, form, path, key.span());
                    false
                }
                (Some(schema), _) | (None, Some(schema)) => {
                    let span = span_or(value, span);
                    self.value(value, schema, &join(path, name), &span)
                }
                (None, None) => true,
            };
            if !is_valid {
                invalid.push(name.to_owned());
            }
        }
        for name in invalid {
            table.remove(name.as_str());
            self.invalid.push(join(path, &name));
        }
        required.iter().all(|field| table.get(*field).is_some())
    }

    fn unknown(&mut self, key: &str, form: &'s Json, path: &str, span: Span) {
        let properties: Vec<(&str, &Json)> = form
            .get("properties")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v))
            .collect();
        let expected = || properties.iter().map(|(name, _)| *name);
        let label = match properties[..] {
            [] => "expected no settings".to_owned(),
            _ => format!("expected {}", one_of(expected())),
        };
        let has_key = |form: &&Json| form.get("properties").is_some_and(|properties| properties.get(key).is_some());
        let is_inside = |schema| self.forms(schema).is_some_and(|forms| forms.iter().any(has_key));
        let nested = || {
            let (table, _) = properties.iter().find(|(_, schema)| is_inside(schema))?;
            Some(format!("move `{key}` into the table `{table}`: {table} = {{ {key} = … }}"))
        };
        let hint = did_you_mean(key, expected()).or_else(nested);
        let message = format!("unknown key `{key}` in `{}`", self.full(path));
        self.problems.error(span, message).label(label).hint(hint);
    }

    fn mismatch(&mut self, value: &DeValue<'_>, expected: &str, path: &str, span: &Span) -> bool {
        self.problems
            .error(span.clone(), format!("`{}` is {}", self.full(path), display(value)))
            .label(format!("expected {expected}"));
        false
    }

    /// Returns the path of a setting in the file.
    fn full(&self, path: &str) -> String {
        join(self.owner, whole(path))
    }

    /// Returns the alternatives of a schema with references resolved; `None` if the schema uses unsupported keywords.
    fn forms(&self, schema: &'s Json) -> Option<Vec<&'s Json>> {
        if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            return self.forms(self.root.pointer(reference.strip_prefix('#')?)?);
        }
        match (schema.get("anyOf").or_else(|| schema.get("oneOf")), schema.get("allOf")) {
            (Some(Json::Array(alternatives)), None) => {
                let forms: Option<Vec<_>> = alternatives.iter().map(|alternative| self.forms(alternative)).collect();
                Some(forms?.concat())
            }
            (None, None) if schema.is_object() => Some(vec![schema]),
            _ => None,
        }
    }
}

/// Settings with pairs of numbers that are not ranges.
const PAIRS: [&str; 1] = ["betas"];

/// Returns whether a form of a setting is a range: two numbers that need not be integers, which may be ids.
fn is_range(form: &Json, path: &str) -> bool {
    let has_length = |name: &str| form.get(name).and_then(Json::as_u64) == Some(2);
    let is_number = form.get("items").is_some_and(|items| types(items) == ["number"]);
    let name = path.rsplit('.').next().unwrap_or(path);
    has_length("minItems") && has_length("maxItems") && is_number && !PAIRS.contains(&name)
}

/// Returns a number of TOML.
fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) => {
            i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64)
        }
        DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
        _ => None,
    }
}

/// Returns whether the type of a value matches this form.
fn admits(form: &Json, value: &DeValue<'_>) -> bool {
    let names: &[&str] = match value {
        DeValue::String(_) => &["string"],
        DeValue::Integer(_) => &["integer", "number"],
        DeValue::Float(_) => &["number"],
        DeValue::Boolean(_) => &["boolean"],
        DeValue::Array(_) => &["array"],
        DeValue::Table(_) => &["object"],
        DeValue::Datetime(_) => &[],
    };
    let types = types(form);
    types.is_empty() || types.iter().any(|name| names.contains(name))
}

/// Returns the types of a form.
fn types(form: &Json) -> Vec<&str> {
    match form.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Returns the names of variants if all forms are such names.
fn variants<'s>(forms: &[&'s Json]) -> Option<Vec<&'s str>> {
    let names = forms.iter().map(|form| match (form.get("const"), form.get("enum")) {
        (Some(name), _) => Some(vec![name.as_str()?]),
        (None, Some(names)) => names.as_array()?.iter().map(Json::as_str).collect(),
        _ => None,
    });
    Some(names.collect::<Option<Vec<_>>>()?.concat())
}

/// Maximum number of fields that a message about a table names.
const MAX_FIELDS: usize = 4;

/// Describes the expected forms.
fn expected(forms: &[&Json]) -> String {
    let forms: Vec<&Json> = forms.iter().copied().filter(|form| types(form) != ["null"]).collect();
    if let Some(names) = variants(&forms) {
        return one_of(names);
    }
    if let [form] = forms[..]
        && let Some(fields) =
            form.get("properties").and_then(Json::as_object).filter(|fields| fields.len() <= MAX_FIELDS)
    {
        return format!("a table with {}", one_of(fields.keys().map(String::as_str)));
    }
    let mut names: Vec<&str> = forms.iter().map(|form| type_name(form)).collect();
    names.dedup();
    names.join(" or ")
}

/// Describes the type of a form.
fn type_name(form: &Json) -> &'static str {
    let is_unsigned = || form.get("format").and_then(Json::as_str).is_some_and(|format| format.starts_with("uint"));
    match types(form).into_iter().find(|name| *name != "null") {
        Some("string") => "a quoted string",
        Some("integer") if is_unsigned() => "a whole number, 0 or more",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some("array") => "a list",
        Some("object") => "a table",
        _ => "another value",
    }
}

/// Returns the range of an integer format.
fn range(format: &str) -> Option<(i128, i128)> {
    Some(match format {
        "uint8" => (0, u8::MAX.into()),
        "uint16" => (0, u16::MAX.into()),
        "uint32" => (0, u32::MAX.into()),
        "uint64" => (0, u64::MAX.into()),
        "uint" => (0, usize::MAX as i128),
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "int64" => (i64::MIN.into(), i64::MAX.into()),
        "int" => (isize::MIN as i128, isize::MAX as i128),
        _ => return None,
    })
}

/// Describes a value: scalars as written, others by their type.
fn display(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        other => super::spec::type_name(other).to_owned(),
    }
}

/// Returns the first sentence of a setting's description, on one line.
fn about(property: &Json) -> Option<String> {
    let text = property.get("description")?.as_str()?.replace('\n', " ");
    let sentence = text.split(". ").next()?.trim_end_matches('.');
    let mut letters = sentence.chars();
    let first = letters.next()?;
    Some(first.to_lowercase().chain(letters).collect())
}

/// Returns the span of a value, or of the enclosing table if it has none: a table that only dotted keys create.
fn span_or(value: &Value<'_>, enclosing: &Span) -> Span {
    if value.span().is_empty() { enclosing.clone() } else { value.span() }
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", only) | (only, "") => only.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

/// Removes trailing indices from a path: indices shift when an entry is removed, so messages name the whole list.
fn whole(path: &str) -> &str {
    match path.rsplit_once('.') {
        Some((list, index)) if index.parse::<usize>().is_ok() => whole(list),
        _ => path,
    }
}
