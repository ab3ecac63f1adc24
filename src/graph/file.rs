//! The text of a graph file with the overrides of the command line, and locations in it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::problem::{Location, Problem, Severity};
use crate::error::{Error, Result};

/// The text of a graph file, its folder, and the settings that the command line overrides.
///
/// ```
/// use freetumor::graph::GraphFile;
/// let file = GraphFile::new("liver.toml", ".", "[pipeline]\nname = \"liver\"\n").with_set("pipeline.seed=7");
/// assert_eq!(file.name(), "liver.toml");
/// ```
#[derive(Clone, Debug)]
pub struct GraphFile {
    name: String,
    folder: PathBuf,
    /// The file's text, followed by the overrides of the command line, one per line, so that one offset names any location.
    text: String,
    /// End of the file's own text.
    file_end: usize,
}

impl GraphFile {
    /// Creates a graph file from its text: `name` is used in messages, relative paths are resolved against `folder`.
    pub fn new(name: impl Into<String>, folder: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { name: name.into(), folder: folder.into(), file_end: text.len(), text }
    }

    /// Reads a graph file.
    ///
    /// # Errors
    /// If the file cannot be read or is not UTF-8.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| {
            let missing = source.kind() == std::io::ErrorKind::NotFound;
            let error = Error::io("cannot read the graph file", path, source);
            if missing {
                error.with_hint("expected the path of a TOML file, such as pipelines/quickstart.toml")
            } else {
                error
            }
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self::new(path.display().to_string(), folder, text))
    }

    /// Overrides one setting, such as `stages.filter.attempts=3`. A value that is not TOML is read as a string.
    #[must_use]
    pub fn with_set(mut self, set: &str) -> Self {
        self.text.push('\n');
        // A line break would split the override in two.
        self.text.push_str(&set.replace(['\n', '\r'], " "));
        self
    }

    /// Overrides several settings; see [`GraphFile::with_set`].
    #[must_use]
    pub fn with_sets(self, sets: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        sets.into_iter().fold(self, |file, set| file.with_set(set.as_ref()))
    }

    /// Returns the file's name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder to which the file's paths are relative.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the pipeline's name, even if the file has other errors; `None` if the file is not valid TOML or has no name.
    ///
    /// ```
    /// use freetumor::graph::GraphFile;
    /// let file = GraphFile::new("liver.toml", ".", "[pipeline]\nname = \"liver\"\n");
    /// assert_eq!(file.pipeline_name().as_deref(), Some("liver"));
    /// assert_eq!(file.with_set("pipeline.name=other").pipeline_name().as_deref(), Some("other"));
    /// ```
    pub fn pipeline_name(&self) -> Option<String> {
        let set = self.overrides().filter_map(|(_, set)| set.trim_start().strip_prefix("pipeline.name")).last();
        if let Some(name) = set.and_then(|rest| rest.trim_start().strip_prefix('=')) {
            return Some(name.trim().trim_matches('"').to_owned());
        }
        let file: toml::Table = self.text().parse().ok()?;
        Some(file.get("pipeline")?.get("name")?.as_str()?.to_owned())
    }

    /// Returns the file's own text, without overrides.
    pub(super) fn text(&self) -> &str {
        &self.text[..self.file_end]
    }

    /// Iterates over the overrides of the command line, each with its offset in the whole text.
    pub(super) fn overrides(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut start = self.file_end + 1;
        let rest = self.text.get(start..).unwrap_or_default();
        rest.split('\n').filter(|_| self.file_end < self.text.len()).map(move |set| {
            let at = start;
            start += set.len() + 1;
            (at, set)
        })
    }

    /// Converts a byte range to file, line and column.
    pub(super) fn locate(&self, span: Range<usize>) -> Location {
        let start = (0..=span.start.min(self.text.len())).rev().find(|&at| self.text.is_char_boundary(at)).unwrap_or(0);
        // The end of the file is the end of its last line: there is no line to show after the last line break.
        let start = if start == self.file_end && start > 0 && self.text().ends_with('\n') { start - 1 } else { start };
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let text = self.text[line_start..line_end].trim_end_matches('\r').to_owned();
        let end = (start..=span.end.clamp(start, line_end)).rev().find(|&at| self.text.is_char_boundary(at));
        let length = self.text[start..end.unwrap_or(start)].chars().count();
        let column = self.text[line_start..start].chars().count() + 1;
        if line_start > self.file_end {
            return Location { file: "--set".to_owned(), line: 1, column, length, text };
        }
        let line = self.text[..line_start].matches('\n').count() + 1;
        Location { file: self.name.clone(), line, column, length, text }
    }
}

/// Collects problems while a file is checked.
pub(super) struct Problems<'f> {
    file: &'f GraphFile,
    found: Vec<(usize, Problem)>,
}

impl<'f> Problems<'f> {
    pub(super) fn new(file: &'f GraphFile) -> Self {
        Self { file, found: Vec::new() }
    }

    /// Adds an error and returns it, so that label and hint can be set.
    pub(super) fn error(&mut self, span: Range<usize>, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Error, Some(span), message.into())
    }

    /// Adds a warning.
    pub(super) fn warning(&mut self, span: Range<usize>, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Warning, Some(span), message.into())
    }

    /// Adds an error without a location.
    pub(super) fn error_without_location(&mut self, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Error, None, message.into())
    }

    fn add(&mut self, severity: Severity, span: Option<Range<usize>>, message: String) -> &mut Problem {
        let at = span.as_ref().map_or(usize::MAX, |span| span.start);
        let location = span.map(|span| self.file.locate(span));
        self.found.push((at, Problem { severity, message, location, label: String::new(), hint: None }));
        let last = self.found.len() - 1;
        &mut self.found[last].1
    }

    /// Returns whether any problem prevents the pipeline from running.
    pub(super) fn any_error(&self) -> bool {
        self.found.iter().any(|(_, problem)| problem.severity == Severity::Error)
    }

    /// Returns the number of problems so far.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// Returns all problems in the order of the file.
    pub(super) fn sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|(at, _)| *at);
        self.found.into_iter().map(|(_, problem)| problem).collect()
    }
}

impl Problem {
    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }

    pub(super) fn hint(&mut self, hint: impl Into<Option<String>>) -> &mut Self {
        self.hint = hint.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locate_counts_characters_from_one() {
        let file = GraphFile::new("a.toml", ".", "# größe\r\nname = \"ä\" # ö\n").with_set("x=1").with_set("y=2");
        let at = file.text.find('"').unwrap();
        let location = file.locate(at..at + 4);
        assert_eq!((location.line, location.column, location.length), (2, 8, 3));
        assert_eq!(location.text, "name = \"ä\" # ö");
        assert_eq!(file.locate(0..100).text, "# größe");
        let end = file.locate(file.file_end..file.file_end);
        assert_eq!((end.line, end.text.as_str()), (2, "name = \"ä\" # ö"));
        let sets: Vec<_> = file.overrides().collect();
        assert_eq!(sets.iter().map(|(_, set)| *set).collect::<Vec<_>>(), ["x=1", "y=2"]);
        let location = file.locate(sets[1].0..sets[1].0 + 1);
        assert_eq!((location.file.as_str(), location.column, location.text.as_str()), ("--set", 1, "y=2"));
    }

    #[test]
    fn locate_accepts_every_range() {
        for text in ["", "\n", "ä", "a\nß\n"] {
            let file = GraphFile::new("a.toml", ".", text).with_set("ü=1");
            for start in 0..12 {
                for end in start..12 {
                    file.locate(start..end);
                }
            }
            assert_eq!(file.overrides().count(), 1);
            assert_eq!(GraphFile::new("a", ".", text).overrides().count(), 0);
        }
    }
}
