//! Arguments with placeholders: `["segment.sh", "{image}", "--to={output}"]`.

use std::ffi::{OsStr, OsString};

use crate::error::ConfigError;
use crate::suggest::did_you_mean;

/// What a placeholder stands for, by its name.
pub(super) type Values<'a> = [(&'a str, &'a OsStr)];

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name(String),
}

impl Template {
    /// Reads an argument; `{{` and `}}` stand for braces. `known` are the placeholders that have a meaning here.
    pub fn new(written: &str, known: &[&str]) -> Result<Self, ConfigError> {
        let wrong = |message: String, hint: String| ConfigError::new("argv", message).with_hint(hint);
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
                let message = format!("a `{brace}` without its other half in `{written}`");
                return Err(wrong(message, format!("write {brace}{brace} for a brace that is meant as it is")));
            };
            if !known.contains(&name) {
                let all = known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
                let hint = did_you_mean(name, known.iter().copied()).unwrap_or(format!("known here are {all}"));
                return Err(wrong(format!("unknown placeholder `{{{name}}}`"), hint));
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

    /// Whether the argument has one of these placeholders.
    pub fn names_any(&self, names: &[&str]) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Name(name) if names.contains(&name.as_str())))
    }

    /// The argument as the program gets it. What has no value stands for nothing.
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
    fn placeholders_are_filled_and_doubled_braces_are_braces() {
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
    fn mistakes_are_named() {
        let said = |written: &str| {
            let complaint = Template::new(written, &["image", "output"]).unwrap_err();
            (complaint.message, complaint.hint.unwrap())
        };
        assert_eq!(said("{imgae}"), ("unknown placeholder `{imgae}`".into(), "did you mean `image`?".into()));
        assert_eq!(said("{x}").1, "known here are {image}, {output}");
        assert_eq!(said("a{image").0, "a `{` without its other half in `a{image`");
        assert_eq!(said("a}b").1, "write }} for a brace that is meant as it is");
    }
}
