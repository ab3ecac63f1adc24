//! Problems of a graph file, and how they are displayed.

use std::fmt;

use serde::Serialize;

/// Whether a problem prevents the pipeline from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// The pipeline can run, but probably not as intended.
    Warning,
}

/// The location of a problem in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// The file, as named on the command line; `--set` for an overridden setting.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column of the first character, from 1.
    pub column: usize,
    /// Number of underlined characters on this line.
    pub length: usize,
    /// The whole line.
    pub text: String,
}

/// An error or warning about a graph file.
///
/// The text has the form of compiler messages:
///
/// ```text
/// error: unknown kind `qualty-test`
///   --> pipelines/liver.toml:24:8
///    |
/// 24 | kind = "qualty-test"
///    |        ^^^^^^^^^^^^^ expected a stage that takes Scored: `intensity` or `quality-test`
///    = hint: did you mean `quality-test`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the problem prevents the pipeline from running.
    pub severity: Severity,
    /// The message.
    pub message: String,
    /// The location; absent if the problem has none in the file.
    pub location: Option<Location>,
    /// The expectation at that location; may be empty.
    pub label: String,
    /// A suggested fix.
    pub hint: Option<String>,
}

impl Problem {
    /// Creates a problem at a location of the file, if the location is known.
    pub(super) fn at(severity: Severity, message: String, location: Option<Location>, label: &str) -> Self {
        Self { severity, message, location, label: label.to_owned(), hint: None }
    }

    /// Creates a problem without a location in the file.
    pub fn without_location(severity: Severity, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { severity, message: message.into(), location: None, label: String::new(), hint }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        let mut margin = 1;
        if let Some(Location { file, line, column, length, text }) = &self.location {
            let number = line.to_string();
            margin = number.len();
            writeln!(f, "{:margin$}--> {file}:{line}:{column}", "")?;
            writeln!(f, "{:margin$} |", "")?;
            // The width of a tab depends on the terminal: one space keeps the caret aligned.
            writeln!(f, "{number} | {}", text.replace('\t', " ").trim_end())?;
            let underline = format!("{}{} {}", " ".repeat(column - 1), "^".repeat((*length).max(1)), self.label);
            writeln!(f, "{:margin$} | {}", "", underline.trim_end())?;
        } else if !self.label.is_empty() {
            writeln!(f, "{:margin$} = {}", "", self.label)?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "{:margin$} = hint: {hint}", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_aligns_caret_with_location() {
        let location =
            Location { file: "a.toml".into(), line: 24, column: 9, length: 5, text: "\tkind = \"mask\"".into() };
        let problem = Problem {
            severity: Severity::Error,
            message: "unknown kind `mask`".into(),
            location: Some(location),
            label: "expected a mask".into(),
            hint: Some("did you mean `lung`?".into()),
        };
        insta::assert_snapshot!(problem, @r#"
        error: unknown kind `mask`
          --> a.toml:24:9
           |
        24 |  kind = "mask"
           |         ^^^^^ expected a mask
           = hint: did you mean `lung`?
        "#);
    }
}
