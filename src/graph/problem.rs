//! Problems of a graph file, and how a reader is shown them.

use std::fmt;

use serde::Serialize;

/// Whether a problem keeps the pipeline from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but is hardly meant.
    Warning,
}

/// Where a problem stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// The file, as the reader named it; `--set` for a setting of the command line.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column of the first character, from 1.
    pub column: usize,
    /// Characters that are meant, on this line.
    pub length: usize,
    /// The whole line.
    pub text: String,
}

/// One thing wrong with a graph file.
///
/// Its text is what a good compiler would print:
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
    /// Whether it keeps the pipeline from running.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Where; absent where it is not in the file at all.
    pub location: Option<Location>,
    /// What was expected there; may be empty.
    pub label: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem that has no place in the file.
    pub fn of_file(severity: Severity, message: impl Into<String>, hint: Option<String>) -> Self {
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
            // A tab has the width that the reader's terminal gives it: one space keeps the caret where it belongs.
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
    fn the_caret_stands_under_what_is_meant() {
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
