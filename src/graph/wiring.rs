//! Resolves the names of inputs to edges, and finds the role of each node.

use std::collections::BTreeSet;

use toml::Spanned;

use super::edge::{Edge, Port, Role};
use super::file::Problems;
use super::registry::{Kind, Registry};
use super::spec::{NodeSpec, Section};
use super::value::one_of;
use crate::suggest::{did_you_mean, nearest};

/// A resolved input.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// Index of the producing node.
    pub(super) from: usize,
    pub(super) port: Port,
    /// Index in the node's list of inputs.
    pub(super) at: usize,
}

/// The edges of a graph.
pub(super) struct Wiring {
    /// Resolved inputs of each node.
    pub(super) inputs: Vec<Vec<Input>>,
    /// Role of each node, if known.
    pub(super) roles: Vec<Option<Role>>,
    /// Nodes in topological order, without those on cycles and after them.
    pub(super) order: Vec<usize>,
    /// Whether every input is resolved, every role is known and every edge has a matching type.
    pub(super) is_valid: bool,
}

impl Wiring {
    /// Resolves the edges and reports all their errors.
    pub(super) fn new(nodes: &[NodeSpec<'_>], registry: &Registry, problems: &mut Problems<'_>) -> Self {
        let mut wiring = Self {
            inputs: vec![Vec::new(); nodes.len()],
            roles: vec![None; nodes.len()],
            order: Vec::new(),
            is_valid: true,
        };
        wiring.connect(nodes, problems);
        wiring.sort(nodes, problems);
        wiring.is_valid &= !nodes.iter().any(|node| node.is_invalid);
        for at in wiring.order.clone() {
            wiring.resolve_role(at, nodes, registry, problems);
        }
        // Nodes on a cycle have no role, but their kind is checked.
        for at in (0..nodes.len()).filter(|at| !wiring.order.contains(at)) {
            let kind = nodes[at].kind.as_ref();
            if kind.is_some_and(|kind| !registry.kinds().iter().any(|known| known.name == *kind.get_ref())) {
                unknown_kind(&nodes[at], &[], registry, problems);
            }
        }
        wiring
    }

    /// Resolves the node of each input.
    fn connect(&mut self, nodes: &[NodeSpec<'_>], problems: &mut Problems<'_>) {
        for (index, node) in nodes.iter().enumerate() {
            for (at, written) in node.inputs.iter().enumerate() {
                let name = written.get_ref().as_str();
                let (bare, port) = name.split_once('.').map_or((name, None), |(bare, port)| (bare, Some(port)));
                let found = nodes.iter().position(|other| other.name == bare);
                match (found, port) {
                    (Some(from), _) if nodes[from].section == Section::Sinks => {
                        problems
                            .error(written.span(), format!("`{}` cannot have the sink `{bare}` as input", node.name))
                            .label("expected a source, mask, synthesis, score or quality test: a sink has no output");
                    }
                    (Some(_), Some(port)) if port != "rejected" => {
                        problems
                            .error(written.span(), format!("`{bare}` has no output `{port}`"))
                            .label(format!("expected `{bare}` or `{bare}.rejected`"))
                            .hint(did_you_mean(name, [format!("{bare}.rejected").as_str()]));
                    }
                    (Some(from), port) => {
                        let port = if port.is_some() { Port::Rejected } else { Port::Main };
                        if !self.inputs[index].iter().any(|input| (input.from, input.port) == (from, port)) {
                            self.inputs[index].push(Input { from, port, at });
                            continue;
                        }
                        problems
                            .error(written.span(), format!("`{}` has the input `{name}` twice", node.name))
                            .label("duplicate input");
                    }
                    (None, _) => {
                        let others =
                            nodes.iter().filter(|other| other.section != Section::Sinks && other.name != node.name);
                        let names: Vec<&str> = others.map(|other| other.name.as_str()).collect();
                        let nearest = nearest(bare, names.iter().copied());
                        problems
                            .error(written.span(), format!("there is no node named `{bare}`"))
                            .label(format!("expected {}", one_of(names.iter().copied())))
                            .hint(
                                nearest.map(|nearest| format!("did you mean `{}`?", name.replacen(bare, nearest, 1))),
                            );
                    }
                }
                self.is_valid = false;
            }
        }
    }

    /// Sorts the nodes topologically, and reports cycles.
    fn sort(&mut self, nodes: &[NodeSpec<'_>], problems: &mut Problems<'_>) {
        let mut placed = vec![false; nodes.len()];
        while let Some(next) =
            (0..nodes.len()).find(|&at| !placed[at] && self.inputs[at].iter().all(|input| placed[input.from]))
        {
            placed[next] = true;
            self.order.push(next);
        }
        let mut visited = placed.clone();
        for start in 0..nodes.len() {
            // A walk against the edges from an unplaced node must return to a node that it has visited.
            let mut path = vec![start];
            while !visited[path[path.len() - 1]] {
                let current = path[path.len() - 1];
                let Some(input) = self.inputs[current].iter().find(|input| !placed[input.from]) else { break };
                if let Some(first) = path.iter().position(|&at| at == input.from) {
                    let cycle = &path[first..];
                    let from = cycle.iter().position(|at| at == cycle.iter().min().unwrap_or(at)).unwrap_or(0);
                    let closed = cycle.iter().cycle().skip(from).take(cycle.len() + 1);
                    let mut names: Vec<&str> = closed.map(|&at| nodes[at].name.as_str()).collect();
                    names.reverse();
                    let node = &nodes[cycle[from]];
                    problems
                        .error(node.inputs_span.clone(), format!("a cycle: {}", names.join(" → ")))
                        .label("expected a graph without cycles")
                        .hint("to repeat attempts, set `attempts` of the quality test".to_owned());
                    self.is_valid = false;
                    break;
                }
                path.push(input.from);
            }
            for at in path {
                visited[at] = true;
            }
        }
    }

    /// Finds the role of a node from its kind and the edges of its inputs, and checks that they match.
    fn resolve_role(&mut self, at: usize, nodes: &[NodeSpec<'_>], registry: &Registry, problems: &mut Problems<'_>) {
        let node = &nodes[at];
        let incoming: Vec<(&Input, Option<Edge>)> = self.inputs[at]
            .iter()
            .map(|input| (input, self.roles[input.from].and_then(|role| role.output_edge(input.port))))
            .collect();
        let edges: Vec<Edge> = incoming.iter().filter_map(|(_, edge)| *edge).collect();
        let possible: Vec<&Kind> = match &node.kind {
            None => Vec::new(),
            Some(kind) => of_section(node.section, registry).filter(|known| known.name == *kind.get_ref()).collect(),
        };
        let matches = |kind: &&&Kind| edges.iter().all(|edge| kind.role.input_edges().contains(edge));
        let role = match possible.iter().filter(matches).collect::<Vec<_>>().as_slice() {
            [only] => Some(only.role),
            // The inputs do not select one role: use the role of the kind if it has only one.
            _ => (possible.len() == 1).then(|| possible[0].role),
        };
        let mut is_valid = role.is_some();
        if node.kind.is_none() {
            is_valid = false;
            if !node.is_invalid {
                let kinds = matching_kinds(node.section, &edges, registry);
                problems
                    .error(node.span.clone(), format!("`{}` has no kind", node.path()))
                    .label(format!("expected `kind = …`: {}", one_of(kinds.iter().copied())));
            }
        } else if possible.is_empty() {
            unknown_kind(node, &edges, registry, problems);
        } else if let Some(role) = role {
            for (input, edge) in &incoming {
                let written = &node.inputs[input.at];
                match edge {
                    Some(edge) if !role.input_edges().contains(edge) => {
                        is_valid = false;
                        let hint = self.mismatch_hint(node, role, *edge, nodes, registry);
                        mismatch(node, written, role, *edge, hint, problems);
                    }
                    None if self.roles[input.from].is_some() => {
                        is_valid = false;
                        let name = &nodes[input.from].name;
                        problems
                            .error(written.span(), format!("`{name}` has no output `rejected`"))
                            .label("only a quality test has this output");
                    }
                    _ => {}
                }
            }
        } else if !edges.is_empty() {
            let roles: Vec<&str> = possible.iter().map(|kind| kind.role.name()).collect();
            problems
                .error(node.inputs_span.clone(), format!("`{}` has no role with these inputs", possible[0].name))
                .label(format!("expected inputs of {}, got {}", one_of(roles.iter().copied()), list(&edges)));
        }
        if node.section != Section::Sources && node.inputs.is_empty() && !node.is_invalid {
            is_valid = false;
            let takes = role.map_or_else(|| "its input".to_owned(), |role| list(role.input_edges()));
            let producers = nodes.iter().enumerate().filter(|(from, _)| {
                let edge = self.roles[*from].and_then(|from| from.output_edge(Port::Main));
                edge.is_some_and(|edge| role.is_some_and(|role| role.input_edges().contains(&edge)))
            });
            let producers: Vec<String> =
                producers.map(|(_, producer)| format!("inputs = [\"{}\"]", producer.name)).collect();
            problems
                .error(node.inputs_span.clone(), format!("`{}` has no inputs", node.path()))
                .label(format!("expected a list of nodes that produce {takes}"))
                .hint(producers.last().map(|inputs| format!("write {inputs}")));
        }
        self.roles[at] = role;
        self.is_valid &= is_valid;
    }

    /// Returns the fix of an input that produces another edge than `role` takes: the stages that are missing in between, or the nodes that
    /// produce the edge.
    fn mismatch_hint(
        &self,
        node: &NodeSpec<'_>,
        role: Role,
        edge: Edge,
        nodes: &[NodeSpec<'_>],
        registry: &Registry,
    ) -> Option<String> {
        if let Some(missing) = roles_between(edge, role) {
            let kinds = |role: &Role| {
                let kinds: Vec<&str> =
                    registry.kinds().iter().filter(|kind| kind.role == *role).map(|kind| kind.name.as_str()).collect();
                let output = role.output_edge(Port::Main).map_or("", Edge::description);
                let kinds = if kinds.is_empty() { String::new() } else { format!(" of kind {}", one_of(kinds)) };
                format!("a {} stage{kinds}, which produces {output}", role.name())
            };
            let stages = missing.iter().map(kinds).collect::<Vec<_>>().join(", then ");
            return Some(format!("insert {stages}, and name it in the inputs of `{}`", node.name));
        }
        let produces = |at: &usize| {
            let output = self.roles[*at].and_then(|role| role.output_edge(Port::Main));
            nodes[*at].name != node.name && output.is_some_and(|output| role.input_edges().contains(&output))
        };
        let names: Vec<String> =
            (0..nodes.len()).filter(produces).map(|at| format!("inputs = [\"{}\"]", nodes[at].name)).collect();
        names.last().map(|inputs| format!("write {inputs}"))
    }

    /// Returns whether an input that was reported may mean this node: a misspelt name that is close to its name, or missing inputs of a
    /// node that may take its output.
    fn may_be_meant(&self, at: usize, edge: Edge, nodes: &[NodeSpec<'_>]) -> bool {
        let takes = |other: usize| self.roles[other].is_none_or(|role| role.input_edges().contains(&edge));
        nodes.iter().enumerate().filter(|(other, node)| *other != at && node.section != Section::Sources).any(
            |(other, node)| {
                let names = node.inputs.iter().map(|written| written.get_ref().split('.').next().unwrap_or_default());
                let mut unknown = names.filter(|name| !nodes.iter().any(|known| known.name == *name));
                let is_close = unknown.any(|name| nearest(name, [nodes[at].name.as_str()]).is_some());
                is_close || (node.is_invalid || node.inputs.is_empty()) && takes(other)
            },
        )
    }

    /// Warns about unused outputs, except those that an input with an error may mean.
    pub(super) fn warn_about_unused(&self, nodes: &[NodeSpec<'_>], problems: &mut Problems<'_>) {
        for (at, node) in nodes.iter().enumerate() {
            let used = self.inputs.iter().flatten().any(|input| input.from == at);
            let output =
                self.roles[at].filter(|role| *role != Role::Filter).and_then(|role| role.output_edge(Port::Main));
            if let (false, Some(edge)) = (used, output)
                && !self.may_be_meant(at, edge, nodes)
            {
                problems
                    .warning(node.span.clone(), format!("the output of `{}` is unused", node.path()))
                    .label(format!("this node produces {edge}, which no other node uses; it will not run"));
            }
        }
    }
}

/// Iterates over the kinds of a section.
fn of_section(section: Section, registry: &Registry) -> impl Iterator<Item = &Kind> {
    registry.kinds().iter().filter(move |kind| kind.role.section() == section.name())
}

/// Returns the names of the kinds of a section that take all of `edges`; all kinds of the section if there are none.
fn matching_kinds<'r>(section: Section, edges: &[Edge], registry: &'r Registry) -> Vec<&'r str> {
    let all = || of_section(section, registry);
    let takes_all = |kind: &&Kind| !edges.is_empty() && edges.iter().all(|edge| kind.role.input_edges().contains(edge));
    let mut names: Vec<&str> = all().filter(takes_all).map(|kind| kind.name.as_str()).collect();
    if names.is_empty() {
        names = all().map(|kind| kind.name.as_str()).collect();
    }
    // A name may have several roles.
    let mut unique = BTreeSet::new();
    names.retain(|name| unique.insert(*name));
    names
}

fn unknown_kind(node: &NodeSpec<'_>, edges: &[Edge], registry: &Registry, problems: &mut Problems<'_>) {
    let Some(kind) = &node.kind else { return };
    let names = matching_kinds(node.section, edges, registry);
    let elsewhere = registry.kinds().iter().find(|known| known.name == *kind.get_ref());
    let hint = match elsewhere {
        Some(known) => Some(format!(
            "`{}` is a {}: move the node to [{}.NAME]",
            known.name,
            known.role.name(),
            known.role.section()
        )),
        None => did_you_mean(kind.get_ref(), names.iter().copied()).or_else(|| {
            did_you_mean(kind.get_ref(), of_section(node.section, registry).map(|known| known.name.as_str()))
        }),
    };
    let role = match (node.section, edges.is_empty()) {
        (Section::Stages, false) => format!("a stage that takes {}: ", list(edges)),
        _ => String::new(),
    };
    problems
        .error(kind.span(), format!("unknown kind `{}`", kind.get_ref()))
        .label(format!("expected {role}{}", one_of(names.iter().copied())))
        .hint(hint);
}

/// Returns the roles of the stages, in their order, that convert an edge to an input of `role`; `None` if there are none.
fn roles_between(edge: Edge, role: Role) -> Option<Vec<Role>> {
    let stages = [Role::Mask, Role::Synthesis, Role::Score, Role::Filter];
    let mut missing = Vec::new();
    let mut edge = edge;
    while !role.input_edges().contains(&edge) {
        // A score stage also takes the edge that it produces.
        let converts = |step: &Role| step.input_edges().contains(&edge) && step.output_edge(Port::Main) != Some(edge);
        let step = stages.into_iter().find(converts)?;
        missing.push(step);
        edge = step.output_edge(Port::Main)?;
    }
    Some(missing)
}

fn mismatch(
    node: &NodeSpec<'_>,
    written: &Spanned<String>,
    role: Role,
    edge: Edge,
    hint: Option<String>,
    problems: &mut Problems<'_>,
) {
    let producer = written.get_ref();
    let takes: Vec<&str> = role.input_edges().iter().map(|edge| edge.description()).collect();
    let (takes, is_a) = (takes.join(" or "), edge.producer().name());
    problems
        .error(written.span(), format!("`{}` cannot have `{producer}` as input", node.name))
        .label(format!("a {} takes {takes}, a {is_a} produces {}", role.name(), edge.description()))
        .hint(hint);
}

fn list(edges: &[Edge]) -> String {
    let mut names: Vec<&str> = edges.iter().map(|edge| edge.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" or ")
}
