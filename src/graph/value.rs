//! Values of a file with their spans, and lists of names in messages.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

/// A byte range of the text.
pub(super) type Span = Range<usize>;

/// A value with its span.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Formats names as `` `a`, `b` or `c` ``.
pub(super) fn one_of<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
