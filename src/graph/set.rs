//! Settings of the command line, put into the tables of a file as if they stood there.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::file::Problems;
use super::purpose::Purpose;
use super::value::{Value, one_of};
use crate::suggest::did_you_mean;

/// Puts `stages.filter.attempts=3` into the tables.
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
        Ok(value) => moved(value, start + shift),
        Err(_) => Spanned::new(start + shift..start + shift + text.len(), DeValue::String(DeString::Borrowed(text))),
    };
    // Sections and nodes must be there; a setting of a node may be one that the file leaves to its default.
    let fixed = if purpose.has_settings(path[0]) { 1 } else { 2 };
    if path.len() <= fixed || path.iter().any(|part| part.is_empty()) {
        problems
            .error(start..start + sign, format!("`{}` names no setting", set[..sign].trim()))
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
    // The old key goes first: an entry keeps the key, and with it the place, that it was made with.
    table.remove(last);
    table.insert(Spanned::new(start..start + sign, DeString::Borrowed(last)), value);
}

/// The same value at a place further on.
fn moved(value: Value<'_>, by: usize) -> Value<'_> {
    let span = value.span().start + by..value.span().end + by;
    let value = match value.into_inner() {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|value| moved(value, by)).collect()),
        DeValue::Table(table) => {
            let moved = table.into_iter().map(|(key, value)| {
                let span = key.span().start + by..key.span().end + by;
                (Spanned::new(span, key.into_inner()), moved(value, by))
            });
            DeValue::Table(moved.collect())
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
    fn what_is_set_replaces_what_is_written() {
        let text = "[stages.filter]\nkind = \"quality-test\"\nattempts = 10\n";
        let file = GraphFile::new("a.toml", ".", text).with_sets([
            "stages.filter.attempts = 3",
            "stages.filter.accept=[\"dice > 0.5\", \"cnr < 2\"]",
            "stages.filter.deep.er=plain words",
        ]);
        let mut problems = Problems::of(&file);
        let spec = Spec::read(&file, Purpose::Run, &mut problems).unwrap();
        let settings = spec.nodes[0].settings.get_ref().as_table().unwrap();
        assert_eq!(settings["attempts"].get_ref().as_integer().unwrap().as_str(), "3");
        let place = spec.nodes[0].place_of("accept.1");
        assert_eq!(place.len(), "\"cnr < 2\"".len());
        let problem = problems.error(place, "there").clone();
        let location = problem.location.unwrap();
        assert_eq!((location.file.as_str(), &location.text[location.column - 1..]), ("--set", "\"cnr < 2\"]"));
        assert_eq!(settings["deep"].get_ref().as_table().unwrap()["er"].get_ref().as_str(), Some("plain words"));
    }

    #[test]
    fn what_is_set_must_have_a_place() {
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
        let mut problems = Problems::of(&file);
        Spec::read(&file, Purpose::Run, &mut problems).unwrap();
        let problems = problems.sorted();
        let messages: Vec<_> = problems.iter().map(|it| it.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "there is no `filtre` in `stages`",
                "there is no `stage`",
                "expected KEY=VALUE, got `attempts`",
                "`stages.filter` names no setting",
                "`` names no setting",
                "`stages.filter.attempts` is not a table",
                "expected KEY=VALUE, got ``",
            ]
        );
        assert_eq!(problems[0].hint.as_deref(), Some("did you mean `filter`?"));
        assert_eq!(problems[1].hint.as_deref(), Some("did you mean `stages`?"));
    }
}
