//! Applies the `--set` overrides of the command line to the tables of a file.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::file::Problems;
use super::purpose::Purpose;
use super::value::{Value, one_of};
use crate::suggest::did_you_mean;

/// Applies an override such as `stages.filter.attempts=3`.
pub(super) fn apply<'t>(
    root: &mut DeTable<'t>,
    purpose: Purpose,
    start: usize,
    set: &'t str,
    problems: &mut Problems<'_>,
) {
    let whole = start..start + set.len();
    let Some(sign) = set.find('=') else {
        problems
            .error(whole, format!("expected KEY=VALUE, got `{set}`"))
            .hint("--set stages.filter.attempts=3".to_owned());
        return;
    };
    let path: Vec<&str> = set[..sign].trim().split('.').map(str::trim).collect();
    let (text, shift) = (set[sign + 1..].trim(), set.len() - set[sign + 1..].trim_start().len());
    let value = match DeValue::parse(text) {
        Ok(value) => shift_spans(value, start + shift),
        Err(_) => Spanned::new(start + shift..start + shift + text.len(), DeValue::String(DeString::Borrowed(text))),
    };
    // Sections and nodes must exist; a setting may be absent from the file.
    let fixed = if purpose.has_settings(path[0]) { 1 } else { 2 };
    if path.len() <= fixed || path.iter().any(|part| part.is_empty()) {
        problems
            .error(start..start + sign, format!("`{}` is not a setting", set[..sign].trim()))
            .label("expected `pipeline.KEY`, `sources.NAME.KEY`, `stages.NAME.KEY` or `sinks.NAME.KEY`");
        return;
    }
    let mut table = root;
    for (depth, &part) in path[..path.len() - 1].iter().enumerate() {
        if table.get(part).is_none() {
            if depth < fixed {
                let known: Vec<String> = table.keys().map(|key| key.get_ref().to_string()).collect();
                let inside = if depth == 0 { String::new() } else { format!(" in `{}`", path[..depth].join(".")) };
                problems
                    .error(start..start + sign, format!("there is no `{part}`{inside}"))
                    .label(format!("expected {}", one_of(known.iter().map(String::as_str))))
                    .hint(did_you_mean(part, known.iter().map(String::as_str)));
                return;
            }
            let key = Spanned::new(start..start + sign, DeString::Borrowed(part));
            table.insert(key, Spanned::new(whole.clone(), DeValue::Table(DeTable::new())));
        }
        match table.get_mut(part).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => table = inner,
            _ => {
                problems.error(start..start + sign, format!("`{}` is not a table", path[..=depth].join(".")));
                return;
            }
        }
    }
    let last = path[path.len() - 1];
    // Remove the old key first: an occupied entry would keep its key and thus its span.
    table.remove(last);
    table.insert(Spanned::new(start..start + sign, DeString::Borrowed(last)), value);
}

/// Shifts all spans of a value.
fn shift_spans(value: Value<'_>, by: usize) -> Value<'_> {
    let span = value.span().start + by..value.span().end + by;
    let value = match value.into_inner() {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|value| shift_spans(value, by)).collect()),
        DeValue::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| {
                let span = key.span().start + by..key.span().end + by;
                (Spanned::new(span, key.into_inner()), shift_spans(value, by))
            });
            DeValue::Table(entries.collect())
        }
        other => other,
    };
    Spanned::new(span, value)
}

#[cfg(test)]
mod tests {
    use super::super::GraphFile;
    use super::super::spec::Spec;
    use super::*;

    #[test]
    fn override_replaces_value_of_file() {
        let text = "[stages.filter]\nkind = \"quality-test\"\nattempts = 10\n";
        let file = GraphFile::new("a.toml", ".", text).with_sets([
            "stages.filter.attempts = 3",
            "stages.filter.accept=[\"dice > 0.5\", \"cnr < 2\"]",
            "stages.filter.outer.inner=plain text",
        ]);
        let mut problems = Problems::new(&file);
        let spec = Spec::read(&file, Purpose::Run, &mut problems).unwrap();
        let settings = spec.nodes[0].settings.get_ref().as_table().unwrap();
        assert_eq!(settings["attempts"].get_ref().as_integer().unwrap().as_str(), "3");
        let span = spec.nodes[0].span_of("accept.1");
        assert_eq!(span.len(), "\"cnr < 2\"".len());
        let problem = problems.error(span, "message").clone();
        let location = problem.location.unwrap();
        assert_eq!((location.file.as_str(), &location.text[location.column - 1..]), ("--set", "\"cnr < 2\"]"));
        assert_eq!(settings["outer"].get_ref().as_table().unwrap()["inner"].get_ref().as_str(), Some("plain text"));
    }

    #[test]
    fn override_of_unknown_setting_is_reported() {
        let text = "[stages.filter]\nkind = \"quality-test\"\nattempts = 10\n";
        let sets = [
            "stages.filtre.attempts=3",
            "stage.filter.attempts=3",
            "attempts",
            "stages.filter=3",
            "=",
            "stages.filter.attempts.more=1",
            "",
        ];
        let file = GraphFile::new("a.toml", ".", text).with_sets(sets);
        let mut problems = Problems::new(&file);
        Spec::read(&file, Purpose::Run, &mut problems).unwrap();
        let problems = problems.sorted();
        let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "there is no `filtre` in `stages`",
                "there is no `stage`",
                "expected KEY=VALUE, got `attempts`",
                "`stages.filter` is not a setting",
                "`` is not a setting",
                "`stages.filter.attempts` is not a table",
                "expected KEY=VALUE, got ``",
            ]
        );
        assert_eq!(problems[0].hint.as_deref(), Some("did you mean `filter`?"));
        assert_eq!(problems[1].hint.as_deref(), Some("did you mean `stages`?"));
    }
}
