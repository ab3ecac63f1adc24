//! Display of a file's names and shapes in messages.

use std::fmt;

/// A shape or strides, written `[2, 3]`.
pub(super) struct DisplayShape<'s>(pub &'s [u64]);

impl fmt::Display for DisplayShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Returns a name from a file in quotes, without control characters and no longer than a line.
pub(super) fn quoted(name: &str) -> String {
    let mut text: String = name.chars().take(120).flat_map(char::escape_debug).collect();
    if name.chars().nth(120).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}

/// Returns a list of some of `count` names.
pub(super) fn list(names: &[&str], count: usize) -> String {
    let mut text = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    if count > names.len() {
        text += &format!(" and {} more", count - names.len());
    }
    text
}
