//! Arguments with placeholders, such as `["segment.sh", "{image}", "--to={output}"]`.

use std::ffi::{OsStr, OsString};

use crate::error::ConfigError;
use crate::suggest::did_you_mean;

/// The values of placeholders by name.
pub(super) type Values<'a> = [(&'a str, &'a OsStr)];

/// An argument of a program, with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name(String),
}

impl Template {
    /// Parses an argument; `{{` and `}}` are literal braces. `known` are the valid placeholders.
    pub fn new(written: &str, known: &[&str]) -> Result<Self, ConfigError> {
        let invalid = |message: String, hint: String| ConfigError::new("argv", message).with_hint(hint);
        let (mut pieces, mut text) = (Vec::new(), String::new());
        let mut rest = written;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                text.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = rest.split_once('}').filter(|_| brace == "{") else {
                let message = format!("unmatched `{brace}` in `{written}`");
                return Err(invalid(message, format!("write {brace}{brace} for a literal brace")));
            };
            if !known.contains(&name) {
                let all = known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
                let hint = did_you_mean(name, known.iter().copied()).unwrap_or(format!("use one of {all}"));
                return Err(invalid(format!("unknown placeholder `{{{name}}}`"), hint));
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Name(name.to_owned()));
            rest = after;
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self(pieces))
    }

    /// Returns whether the argument contains one of these placeholders.
    pub fn has_any(&self, names: &[&str]) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Name(name) if names.contains(&name.as_str())))
    }

    /// Replaces the placeholders by their values; a placeholder without a value is removed.
    pub fn fill(&self, values: &Values<'_>) -> OsString {
        let mut filled = OsString::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push(text),
                Piece::Name(name) => {
                    values.iter().filter(|(known, _)| known == name).for_each(|(_, value)| filled.push(value));
                }
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_replaces_placeholders_and_doubled_braces() {
        let known = ["image", "output"];
        let filled = |written: &str| {
            let values = [("image", OsStr::new("/a b/i.nii")), ("output", OsStr::new("o"))];
            Template::new(written, &known).unwrap().fill(&values)
        };
        assert_eq!(filled("{image}"), "/a b/i.nii");
        assert_eq!(filled("--to={output}.{output}"), "--to=o.o");
        assert_eq!(filled("{{image}} $x"), "{image} $x");
        assert_eq!(filled(""), "");
    }

    #[test]
    fn new_rejects_unknown_placeholders_and_unmatched_braces() {
        let error = |written: &str| {
            let error = Template::new(written, &["image", "output"]).unwrap_err();
            (error.message, error.hint.unwrap())
        };
        assert_eq!(error("{imgae}"), ("unknown placeholder `{imgae}`".into(), "did you mean `image`?".into()));
        assert_eq!(error("{x}").1, "use one of {image}, {output}");
        assert_eq!(error("a{image").0, "unmatched `{` in `a{image`");
        assert_eq!(error("a}b").1, "write }} for a literal brace");
    }
}
