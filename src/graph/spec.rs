//! From text to tables: the sections of a graph file, every key and value with its place.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{GraphFile, Problems};
use super::purpose::Purpose;
use super::set;
use super::value::{Span, Value, one_of};
use crate::suggest::did_you_mean;

/// Slips of syntax that are shown of a file.
const MOST_SLIPS: usize = 5;

/// The sections in which nodes stand.
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

/// A graph file, taken apart.
pub(super) struct Spec<'t> {
    /// The settings of the whole pipeline; an empty table where the file has none.
    pub(super) pipeline: Value<'t>,
    /// Sources, stages and sinks in the order of the file.
    pub(super) nodes: Vec<NodeSpec<'t>>,
    /// What is trained, where the file is read for training; an empty table where it does not say.
    pub(super) train: Option<Value<'t>>,
}

/// A node as it is written.
pub(super) struct NodeSpec<'t> {
    pub(super) section: Section,
    pub(super) name: String,
    /// Where its name stands in the header.
    pub(super) span: Span,
    /// Its kind; absent where that was a problem.
    pub(super) kind: Option<Spanned<String>>,
    /// The names that it takes from.
    pub(super) inputs: Vec<Spanned<String>>,
    /// Where the list of inputs stands; the header where there is none.
    pub(super) inputs_span: Span,
    /// Whether kind or inputs were there in a form that was reported.
    pub(super) is_spoiled: bool,
    /// Everything else.
    pub(super) settings: Value<'t>,
}

impl NodeSpec<'_> {
    /// The node's path in the file, `stages.filter`.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section.name(), self.name)
    }

    /// The place of a setting by its dotted path: of its value, or of the nearest table around it.
    pub(super) fn place_of(&self, field: &str) -> Span {
        place_of(&self.settings, field).unwrap_or_else(|| self.span.clone())
    }
}

/// The place of a setting by its dotted path, in which numbers are indices into lists; the nearest table around it that
/// is there, and `None` where that is the outermost.
pub(super) fn place_of(settings: &Value<'_>, field: &str) -> Option<Span> {
    let mut value = settings;
    let mut place = None;
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get(part),
            DeValue::Array(array) => part.parse::<usize>().ok().and_then(|index| array.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        value = next;
        place = Some(value.span());
    }
    place
}

impl<'t> Spec<'t> {
    /// Takes a file apart. Gives nothing where it is not TOML; everything else is a problem that leaves the rest
    /// readable.
    pub(super) fn read(file: &'t GraphFile, purpose: Purpose, problems: &mut Problems<'_>) -> Option<Self> {
        let (root, errors) = DeTable::parse_recoverable(file.text());
        if !errors.is_empty() {
            let end = file.text().len();
            let is_json = file.text().trim_start().starts_with('{');
            // One slip can throw a reader off for lines: what comes after some of them is hardly meant.
            for (index, error) in errors.iter().take(MOST_SLIPS).enumerate() {
                let message = format!("not TOML: {}", error.message().replace('\n', ", "));
                let problem = problems.error(error.span().unwrap_or(end..end), message);
                if is_json && index == 0 {
                    problem.hint("this is JSON; a graph file is TOML, with a section for each table".to_owned());
                }
            }
            if let Some(more) = errors.len().checked_sub(MOST_SLIPS).filter(|more| *more > 0) {
                problems.error_of_file(format!("not TOML: {more} more places, perhaps because of those above"));
            }
            return None;
        }
        let mut root = root.into_inner();
        for (start, set) in file.sets() {
            set::apply(&mut root, purpose, start, set, problems);
        }
        let empty = || Spanned::new(0..0, DeValue::Table(DeTable::new()));
        let train = (purpose == Purpose::Train).then(empty);
        let mut spec = Self { pipeline: empty(), nodes: Vec::new(), train };
        for (key, value) in root {
            let section = Section::ALL.into_iter().find(|section| section.name() == key.get_ref());
            match (section, value.get_ref()) {
                (_, DeValue::Table(_)) if key.get_ref() == "pipeline" => spec.pipeline = value,
                (_, DeValue::Table(_)) if purpose.has_settings(key.get_ref()) => spec.train = Some(value),
                (Some(section), DeValue::Table(_)) => spec.read_section(section, value, problems),
                _ if section.is_some() || purpose.has_settings(key.get_ref()) => {
                    let message = format!("`{}` is {}", key.get_ref(), a_type(value.get_ref()));
                    problems.error(value.span(), message).label("expected a table");
                }
                _ => {
                    let known = purpose.sections();
                    let hint = match key.get_ref().as_ref() {
                        "train" => Some("a file for training: `freetumor train` takes it".to_owned()),
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

    /// Whether the file has a section `[train]`: where it has none, an empty table without a place stands for it.
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
            let kind = written.and_then(|kind| text(kind, "the kind", problems));
            let mut node = NodeSpec {
                section,
                name,
                inputs: Vec::new(),
                inputs_span: span.clone(),
                is_spoiled: has_kind && kind.is_none(),
                span,
                kind,
                settings: Spanned::new(header, DeValue::Table(DeTable::new())),
            };
            if let Some((key, inputs)) = settings.remove_entry("inputs") {
                if section == Section::Sources {
                    problems
                        .error(key.span(), format!("the source `{}` has inputs", node.name))
                        .label("scans come from outside: a source takes nothing");
                } else {
                    node.inputs_span = inputs.span();
                    let before = problems.count();
                    node.inputs = names(inputs, problems);
                    node.is_spoiled |= problems.count() > before;
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

/// A list of names; a single name counts as a list of one, once that was said.
fn names(value: Value<'_>, problems: &mut Problems<'_>) -> Vec<Spanned<String>> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Array(array) => array.into_iter().filter_map(|name| text(name, "an input", problems)).collect(),
        DeValue::String(name) => {
            problems
                .error(span.clone(), "the inputs are a text")
                .label("expected a list of names")
                .hint(format!("write [\"{name}\"]"));
            vec![Spanned::new(span, name.into_owned())]
        }
        other => {
            problems.error(span, format!("the inputs are {}", a_type(&other))).label("expected a list of names");
            Vec::new()
        }
    }
}

fn text(value: Value<'_>, what: &str, problems: &mut Problems<'_>) -> Option<Spanned<String>> {
    let span = value.span();
    match value.into_inner() {
        DeValue::String(text) => Some(Spanned::new(span, text.into_owned())),
        other => {
            problems.error(span, format!("{what} is {}", a_type(&other))).label("expected a name in quotes");
            None
        }
    }
}

/// The type of a value, in words.
pub(super) fn a_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
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
        let mut problems = Problems::of(&file);
        let spec = Spec::read(&file, Purpose::Run, &mut problems);
        let nodes = spec.into_iter().flat_map(|spec| spec.nodes);
        let nodes = nodes
            .map(|node| (node.path(), format!("{:?} {:?}", node.kind.map(Spanned::into_inner), node.inputs.len())));
        (nodes.collect(), problems.sorted())
    }

    #[test]
    fn nodes_stand_in_the_order_of_the_file() {
        let (nodes, problems) = read(
            "[sinks.z]\nkind = \"nnunet\"\ninputs = [\"a\", \"b\"]\n[stages.b]\nkind = \"x\"\n[sources.a]\nkind = \"folder\"\n",
            &[],
        );
        assert_eq!(problems, []);
        let paths: Vec<_> = nodes.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(paths, ["sinks.z", "stages.b", "sources.a"]);
        assert_eq!(nodes[0].1, "Some(\"nnunet\") 2");
    }

    #[test]
    fn every_mistake_of_form_is_found_at_once() {
        let (nodes, problems) = read(
            "pipelin = 1\n[stages]\nodd = 3\n[stages.a]\nkind = 7\ninputs = \"b\"\n[sources.a]\nkind = \"folder\"\ninputs = []\n\
             [sinks.\"a b\"]\nkind = \"x\"\ninputs = [1, \"a\"]\n",
            &[],
        );
        assert_eq!(nodes.len(), 3);
        let messages: Vec<_> = problems.iter().map(|it| it.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "unknown section `pipelin`",
                "`stages.odd` is not a table",
                "the kind is a number",
                "the inputs are a text",
                "two nodes are named `a`",
                "the source `a` has inputs",
                "`a b` cannot be a name",
                "an input is a number",
            ]
        );
    }

    #[test]
    fn broken_toml_is_located() {
        let (nodes, problems) = read("a = \nb = 1\nc = \"open\n", &[]);
        assert!(nodes.is_empty());
        let lines: Vec<_> = problems.iter().map(|it| it.location.as_ref().unwrap().line).collect();
        assert_eq!(lines, [1, 3]);
    }
}
