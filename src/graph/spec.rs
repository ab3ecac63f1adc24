//! Parses the sections of a graph file; every key and value keeps its span.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{GraphFile, Problems};
use super::overrides;
use super::purpose::Purpose;
use super::value::{Span, Value, one_of};
use crate::suggest::did_you_mean;

/// Maximum number of syntax errors that are reported.
const MAX_SYNTAX_ERRORS: usize = 5;

/// The list of expectations on the tables of a run.
const EXPECTATIONS: &str = "expectations";

/// The sections that contain nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Sources,
    Stages,
    Sinks,
}

impl Section {
    const ALL: [Self; 3] = [Self::Sources, Self::Stages, Self::Sinks];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sources => "sources",
            Self::Stages => "stages",
            Self::Sinks => "sinks",
        }
    }
}

/// A parsed graph file.
pub(super) struct Spec<'t> {
    /// The settings of the whole pipeline; an empty table if the file has none.
    pub(super) pipeline: Value<'t>,
    /// Sources, stages and sinks in the order of the file.
    pub(super) nodes: Vec<NodeSpec<'t>>,
    /// The tables `[[expectations]]`, in the order of the file.
    pub(super) expectations: Vec<Value<'t>>,
    /// The section `[train]`, if the file is read for training; an empty table if the file has none.
    pub(super) train: Option<Value<'t>>,
}

/// A node as written in the file.
pub(super) struct NodeSpec<'t> {
    pub(super) section: Section,
    pub(super) name: String,
    /// Span of the name in the header.
    pub(super) span: Span,
    /// The kind; absent if no valid kind is stated.
    pub(super) kind: Option<Spanned<String>>,
    /// The names of the inputs.
    pub(super) inputs: Vec<Spanned<String>>,
    /// Span of the list of inputs; the header if there is none.
    pub(super) inputs_span: Span,
    /// Whether the kind or the inputs were invalid and reported.
    pub(super) is_invalid: bool,
    /// All other settings.
    pub(super) settings: Value<'t>,
}

impl NodeSpec<'_> {
    /// Returns the node's path in the file, such as `stages.filter`.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section.name(), self.name)
    }

    /// Returns the span of a setting by its dotted path: of its value, or of the nearest enclosing table.
    pub(super) fn span_of(&self, field: &str) -> Span {
        span_of(&self.settings, field).unwrap_or_else(|| self.span.clone())
    }
}

/// Returns the span of a setting by its dotted path, in which numbers are indices into lists. If the setting is absent, returns the
/// span of the nearest enclosing table, and `None` if that is the outermost.
pub(super) fn span_of(settings: &Value<'_>, field: &str) -> Option<Span> {
    let mut value = settings;
    let mut span = None;
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get(part),
            DeValue::Array(array) => part.parse::<usize>().ok().and_then(|index| array.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        value = next;
        span = Some(value.span());
    }
    span
}

impl<'t> Spec<'t> {
    /// Parses a file. Returns `None` if the file is not TOML; after any other problem the rest is still read.
    pub(super) fn read(file: &'t GraphFile, purpose: Purpose, problems: &mut Problems<'_>) -> Option<Self> {
        let (root, errors) = DeTable::parse_recoverable(file.text());
        if !errors.is_empty() {
            let end = file.text().len();
            let is_json = file.text().trim_start().starts_with('{');
            // One syntax error can cause many more in the lines after it: report only the first ones.
            for (index, error) in errors.iter().take(MAX_SYNTAX_ERRORS).enumerate() {
                let message = format!("invalid TOML: {}", error.message().replace('\n', ", "));
                let problem = problems.error(error.span().unwrap_or(end..end), message);
                if is_json && index == 0 {
                    problem.hint("this is JSON; a graph file is TOML, with a section for each table".to_owned());
                }
            }
            if let Some(more) = errors.len().checked_sub(MAX_SYNTAX_ERRORS).filter(|more| *more > 0) {
                problems
                    .error_without_location(format!("invalid TOML: {more} more errors, perhaps caused by those above"));
            }
            return None;
        }
        let mut root = root.into_inner();
        for (start, set) in file.overrides() {
            overrides::apply(&mut root, purpose, start, set, problems);
        }
        let empty = || Spanned::new(0..0, DeValue::Table(DeTable::new()));
        let train = (purpose == Purpose::Train).then(empty);
        let mut spec = Self { pipeline: empty(), nodes: Vec::new(), expectations: Vec::new(), train };
        for (key, value) in root {
            let section = Section::ALL.into_iter().find(|section| section.name() == key.get_ref());
            match (section, value.get_ref()) {
                (_, DeValue::Table(_)) if key.get_ref() == "pipeline" => spec.pipeline = value,
                (_, DeValue::Table(_)) if purpose.has_settings(key.get_ref()) => spec.train = Some(value),
                (Some(section), DeValue::Table(_)) => spec.read_section(section, value, problems),
                _ if purpose.has_expectations() && key.get_ref() == EXPECTATIONS => {
                    spec.expectations = tables(value, problems);
                }
                _ if section.is_some() || purpose.has_settings(key.get_ref()) => {
                    let message = format!("`{}` is {}", key.get_ref(), type_name(value.get_ref()));
                    problems.error(value.span(), message).label("expected a table");
                }
                _ => {
                    let known = purpose.sections();
                    let hint = match key.get_ref().as_ref() {
                        "train" => Some("this is a training file: use `freetumor train`".to_owned()),
                        other => did_you_mean(other, known.iter().copied()),
                    };
                    problems
                        .error(key.span(), format!("unknown section `{}`", key.get_ref()))
                        .label(format!("expected {}", one_of(known.iter().copied())))
                        .hint(hint);
                }
            }
        }
        spec.nodes.sort_by_key(|node| node.span.start);
        spec.check_names(problems);
        Some(spec)
    }

    /// Returns whether the file has a section `[train]`; if not, `train` is an empty table without a span.
    pub(super) fn has_train(&self) -> bool {
        self.train.as_ref().is_some_and(|train| !train.span().is_empty())
    }

    fn read_section(&mut self, section: Section, value: Value<'t>, problems: &mut Problems<'_>) {
        let DeValue::Table(table) = value.into_inner() else { return };
        for (key, value) in table {
            let span = key.span();
            let name = key.into_inner().into_owned();
            let header = value.span();
            let DeValue::Table(mut settings) = value.into_inner() else {
                problems
                    .error(header, format!("`{}.{name}` is not a table", section.name()))
                    .label("expected a table with `kind`")
                    .hint(format!("write [{}.{name}]", section.name()));
                continue;
            };
            let written = settings.remove("kind");
            let has_kind = written.is_some();
            let kind = written.and_then(|kind| string(kind, "the kind", problems));
            let mut node = NodeSpec {
                section,
                name,
                inputs: Vec::new(),
                inputs_span: span.clone(),
                is_invalid: has_kind && kind.is_none(),
                span,
                kind,
                settings: Spanned::new(header, DeValue::Table(DeTable::new())),
            };
            if let Some((key, inputs)) = settings.remove_entry("inputs") {
                if section == Section::Sources {
                    problems
                        .error(key.span(), format!("the source `{}` must not have `inputs`", node.name))
                        .label("remove this setting: a source reads files, not other nodes");
                } else {
                    node.inputs_span = inputs.span();
                    let count = problems.count();
                    node.inputs = names(inputs, problems);
                    node.is_invalid |= problems.count() > count;
                }
            }
            node.settings = Spanned::new(node.settings.span(), DeValue::Table(settings));
            self.nodes.push(node);
        }
    }

    fn check_names(&self, problems: &mut Problems<'_>) {
        for (index, node) in self.nodes.iter().enumerate() {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if node.name.is_empty() || !node.name.chars().all(is_plain) {
                problems
                    .error(node.span.clone(), format!("`{}` cannot be a name", node.name))
                    .label("expected letters, digits, `_` and `-`");
            }
            if let Some(earlier) = self.nodes[..index].iter().find(|earlier| earlier.name == node.name) {
                problems
                    .error(node.span.clone(), format!("two nodes are named `{}`", node.name))
                    .label(format!("`{}` has that name already", earlier.path()));
            }
        }
    }
}

/// Reads a list of tables; other values are reported.
fn tables<'t>(value: Value<'t>, problems: &mut Problems<'_>) -> Vec<Value<'t>> {
    let mut report = |value: &Value<'_>| {
        problems
            .error(value.span(), format!("`{EXPECTATIONS}` is {}", type_name(value.get_ref())))
            .label("expected a list of tables")
            .hint(format!("write [[{EXPECTATIONS}]] before the settings of each expectation"));
    };
    if !matches!(value.get_ref(), DeValue::Array(_)) {
        report(&value);
        return Vec::new();
    }
    let DeValue::Array(items) = value.into_inner() else { return Vec::new() };
    let (tables, others): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| matches!(item.get_ref(), DeValue::Table(_)));
    others.iter().for_each(report);
    tables
}

/// Reads a list of names. A single name is reported, then used as a list of one.
fn names(value: Value<'_>, problems: &mut Problems<'_>) -> Vec<Spanned<String>> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Array(array) => array.into_iter().filter_map(|name| string(name, "an input", problems)).collect(),
        DeValue::String(name) => {
            problems
                .error(span.clone(), "the inputs are a string")
                .label("expected a list of names")
                .hint(format!("write [\"{name}\"]"));
            vec![Spanned::new(span, name.into_owned())]
        }
        other => {
            problems.error(span, format!("the inputs are {}", type_name(&other))).label("expected a list of names");
            Vec::new()
        }
    }
}

fn string(value: Value<'_>, subject: &str, problems: &mut Problems<'_>) -> Option<Spanned<String>> {
    let span = value.span();
    match value.into_inner() {
        DeValue::String(text) => Some(Spanned::new(span, text.into_owned())),
        other => {
            problems.error(span, format!("{subject} is {}", type_name(&other))).label("expected a name in quotes");
            None
        }
    }
}

/// Describes the type of a value.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Problem;

    fn read(text: &str, sets: &[&str]) -> (Vec<(String, String)>, Vec<Problem>) {
        let file = GraphFile::new("a.toml", ".", text).with_sets(sets);
        let mut problems = Problems::new(&file);
        let spec = Spec::read(&file, Purpose::Run, &mut problems);
        let nodes = spec.into_iter().flat_map(|spec| spec.nodes);
        let nodes = nodes
            .map(|node| (node.path(), format!("{:?} {:?}", node.kind.map(Spanned::into_inner), node.inputs.len())));
        (nodes.collect(), problems.sorted())
    }

    #[test]
    fn nodes_keep_order_of_file() {
        let (nodes, problems) = read(
            "[sinks.z]\nkind = \"nnunet\"\ninputs = [\"a\", \"b\"]\n[stages.b]\nkind = \"x\"\n[sources.a]\nkind = \"folder\"\n",
            &[],
        );
        assert_eq!(problems, []);
        let paths: Vec<_> = nodes.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["sinks.z", "stages.b", "sources.a"]);
        assert_eq!(nodes[0].1, "Some(\"nnunet\") 2");
    }

    #[test]
    fn read_reports_every_structural_error() {
        let (nodes, problems) = read(
            "pipelin = 1\n[stages]\nodd = 3\n[stages.a]\nkind = 7\ninputs = \"b\"\n[sources.a]\nkind = \"folder\"\ninputs = []\n\
             [sinks.\"a b\"]\nkind = \"x\"\ninputs = [1, \"a\"]\n",
            &[],
        );
        assert_eq!(nodes.len(), 3);
        let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "unknown section `pipelin`",
                "`stages.odd` is not a table",
                "the kind is a number",
                "the inputs are a string",
                "two nodes are named `a`",
                "the source `a` must not have `inputs`",
                "`a b` cannot be a name",
                "an input is a number",
            ]
        );
    }

    #[test]
    fn syntax_errors_are_located() {
        let (nodes, problems) = read("a = \nb = 1\nc = \"open\n", &[]);
        assert!(nodes.is_empty());
        let lines: Vec<_> = problems.iter().map(|problem| problem.location.as_ref().unwrap().line).collect();
        assert_eq!(lines, [1, 3]);
    }
}
