//! Values of a file with their places, and lists of names in messages.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

/// A place in the text.
pub(super) type Span = Range<usize>;

/// A value with its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// `` `a`, `b` or `c` ``.
pub(super) fn one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
