//! From names to edges: which node takes from which, in what role, and what travels.

use std::collections::BTreeSet;

use toml::Spanned;

use super::edge::{Edge, Port, Role};
use super::file::Problems;
use super::registry::{Kind, Registry};
use super::spec::{NodeSpec, Section};
use super::value::one_of;
use crate::suggest::{did_you_mean, nearest};

/// An input whose node was found.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// Index of the node that gives.
    pub(super) from: usize,
    pub(super) port: Port,
    /// Where it stands in the node's own list.
    pub(super) at: usize,
}

/// The edges of a graph.
pub(super) struct Wiring {
    /// Inputs of each node that were found.
    pub(super) inputs: Vec<Vec<Input>>,
    /// Role of each node, where it is clear.
    pub(super) roles: Vec<Option<Role>>,
    /// Nodes that take part, each after those it takes from; those on cycles and behind them are left out.
    pub(super) order: Vec<usize>,
    /// Whether every input was found, every role is clear and every edge fits.
    pub(super) sound: bool,
}

impl Wiring {
    /// Finds the edges and reports everything that is wrong with them.
    pub(super) fn of(nodes: &[NodeSpec<'_>], registry: &Registry, problems: &mut Problems<'_>) -> Self {
        let mut wiring = Self {
            inputs: vec![Vec::new(); nodes.len()],
            roles: vec![None; nodes.len()],
            order: Vec::new(),
            sound: true,
        };
        wiring.connect(nodes, problems);
        wiring.sort(nodes, problems);
        wiring.sound &= !nodes.iter().any(|node| node.is_spoiled);
        for at in wiring.order.clone() {
            wiring.settle(at, nodes, registry, problems);
        }
        // Whatever stands on a cycle has a kind all the same.
        for at in (0..nodes.len()).filter(|at| !wiring.order.contains(at)) {
            let kind = nodes[at].kind.as_ref();
            if kind.is_some_and(|kind| !registry.kinds().iter().any(|known| known.name == *kind.get_ref())) {
                unknown_kind(&nodes[at], &[], registry, problems);
            }
        }
        wiring
    }

    /// Finds the node of each input.
    fn connect(&mut self, nodes: &[NodeSpec<'_>], problems: &mut Problems<'_>) {
        for (index, node) in nodes.iter().enumerate() {
            for (at, written) in node.inputs.iter().enumerate() {
                let name = written.get_ref().as_str();
                let (bare, port) = name.split_once('.').map_or((name, None), |(bare, port)| (bare, Some(port)));
                let found = nodes.iter().position(|other| other.name == bare);
                match (found, port) {
                    (Some(from), _) if nodes[from].section == Section::Sinks => {
                        problems
                            .error(written.span(), format!("`{}` takes from the sink `{bare}`", node.name))
                            .label("a sink gives nothing");
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
                            .error(written.span(), format!("`{}` takes from `{name}` twice", node.name))
                            .label("everything from there would come in twice");
                    }
                    (None, _) => {
                        let others = nodes.iter().filter(|it| it.section != Section::Sinks && it.name != node.name);
                        let names: Vec<&str> = others.map(|other| other.name.as_str()).collect();
                        let meant = nearest(bare, names.iter().copied());
                        problems
                            .error(written.span(), format!("there is no node named `{bare}`"))
                            .label(format!("expected {}", one_of(names.iter().copied())))
                            .hint(meant.map(|meant| format!("did you mean `{}`?", name.replacen(bare, meant, 1))));
                    }
                }
                self.sound = false;
            }
        }
    }

    /// Puts every node behind those it takes from, and reports cycles.
    fn sort(&mut self, nodes: &[NodeSpec<'_>], problems: &mut Problems<'_>) {
        let mut placed = vec![false; nodes.len()];
        while let Some(next) =
            (0..nodes.len()).find(|&at| !placed[at] && self.inputs[at].iter().all(|input| placed[input.from]))
        {
            placed[next] = true;
            self.order.push(next);
        }
        let mut told = placed.clone();
        for start in 0..nodes.len() {
            // Walking against the edges from any node that was not placed must come round to where it has been.
            let mut path = vec![start];
            while !told[path[path.len() - 1]] {
                let here = path[path.len() - 1];
                let Some(input) = self.inputs[here].iter().find(|input| !placed[input.from]) else { break };
                if let Some(first) = path.iter().position(|&at| at == input.from) {
                    let cycle = &path[first..];
                    let from = cycle.iter().position(|at| at == cycle.iter().min().unwrap_or(at)).unwrap_or(0);
                    let round = cycle.iter().cycle().skip(from).take(cycle.len() + 1);
                    let mut names: Vec<&str> = round.map(|&at| nodes[at].name.as_str()).collect();
                    names.reverse();
                    let node = &nodes[cycle[from]];
                    problems
                        .error(node.inputs_span.clone(), format!("a cycle: {}", names.join(" → ")))
                        .label("scans walk one way")
                        .hint("attempts are repeated inside the quality test: set its `attempts`".to_owned());
                    self.sound = false;
                    break;
                }
                path.push(input.from);
            }
            for at in path {
                told[at] = true;
            }
        }
    }

    /// Finds the role of a node from its kind and what comes in, and checks that they fit.
    fn settle(&mut self, at: usize, nodes: &[NodeSpec<'_>], registry: &Registry, problems: &mut Problems<'_>) {
        let node = &nodes[at];
        let coming: Vec<(&Input, Option<Edge>)> = self.inputs[at]
            .iter()
            .map(|input| (input, self.roles[input.from].and_then(|role| role.gives(input.port))))
            .collect();
        let edges: Vec<Edge> = coming.iter().filter_map(|(_, edge)| *edge).collect();
        let possible: Vec<&Kind> = match &node.kind {
            None => Vec::new(),
            Some(kind) => of_section(node.section, registry).filter(|known| known.name == *kind.get_ref()).collect(),
        };
        let fits = |kind: &&&Kind| edges.iter().all(|edge| kind.role.takes().contains(edge));
        let role = match possible.iter().filter(fits).collect::<Vec<_>>().as_slice() {
            [only] => Some(only.role),
            // Nothing known comes in, and the kind could be several things; or nothing fits and one thing was meant.
            _ => (possible.len() == 1).then(|| possible[0].role),
        };
        let mut sound = role.is_some();
        if node.kind.is_none() {
            sound = false;
            if !node.is_spoiled {
                let kinds = fitting(node.section, &edges, registry);
                problems
                    .error(node.span.clone(), format!("`{}` has no kind", node.path()))
                    .label(format!("expected `kind = …`: {}", one_of(kinds.iter().copied())));
            }
        } else if possible.is_empty() {
            unknown_kind(node, &edges, registry, problems);
        } else if let Some(role) = role {
            for (input, edge) in &coming {
                let written = &node.inputs[input.at];
                match edge {
                    Some(edge) if !role.takes().contains(edge) => {
                        sound = false;
                        mismatch(node, written, role, *edge, registry, problems);
                    }
                    None if self.roles[input.from].is_some() => {
                        sound = false;
                        let name = &nodes[input.from].name;
                        problems
                            .error(written.span(), format!("`{name}` has no output `rejected`"))
                            .label("only a quality test turns anything down");
                    }
                    _ => {}
                }
            }
        } else if !edges.is_empty() {
            let roles: Vec<&str> = possible.iter().map(|kind| kind.role.name()).collect();
            problems
                .error(node.inputs_span.clone(), format!("`{}` cannot take what comes in here", possible[0].name))
                .label(format!("it may be {}, but gets {}", one_of(roles.iter().copied()), list(&edges)));
        }
        if node.section != Section::Sources && node.inputs.is_empty() && !node.is_spoiled {
            sound = false;
            let takes = role.map_or_else(|| "something".to_owned(), |role| list(role.takes()));
            let givers = nodes.iter().enumerate().filter(|(from, _)| {
                let given = self.roles[*from].and_then(|from| from.gives(Port::Main));
                given.is_some_and(|given| role.is_some_and(|role| role.takes().contains(&given)))
            });
            let givers: Vec<String> = givers.map(|(_, giver)| format!("inputs = [\"{}\"]", giver.name)).collect();
            problems
                .error(
                    node.inputs_span.clone(),
                    format!("`{}` has no inputs: nothing would ever reach it", node.path()),
                )
                .label(format!("expected a list of nodes that give {takes}"))
                .hint(givers.last().map(|giver| format!("write {giver}")));
        }
        self.roles[at] = role;
        self.sound &= sound;
    }

    /// Warns of what nothing takes, where all edges are sound.
    pub(super) fn warn_of_unused(&self, nodes: &[NodeSpec<'_>], problems: &mut Problems<'_>) {
        for (at, node) in nodes.iter().enumerate().filter(|_| self.sound) {
            let used = self.inputs.iter().flatten().any(|input| input.from == at);
            let given = self.roles[at].filter(|role| *role != Role::Filter).and_then(|role| role.gives(Port::Main));
            if let (false, Some(edge)) = (used, given) {
                problems
                    .warning(node.span.clone(), format!("nothing takes what `{}` gives", node.path()))
                    .label(format!("gives {edge}; it will not be run"));
            }
        }
    }
}

/// The kinds that may stand in a section.
fn of_section(section: Section, registry: &Registry) -> impl Iterator<Item = &Kind> {
    registry.kinds().iter().filter(move |kind| kind.role.section() == section.name())
}

/// Names of kinds that may stand in a section and take all of `edges`; of the whole section where there are none.
fn fitting<'r>(section: Section, edges: &[Edge], registry: &'r Registry) -> Vec<&'r str> {
    let all = || of_section(section, registry);
    let takes_all = |kind: &&Kind| !edges.is_empty() && edges.iter().all(|edge| kind.role.takes().contains(edge));
    let mut names: Vec<&str> = all().filter(takes_all).map(|kind| kind.name.as_str()).collect();
    if names.is_empty() {
        names = all().map(|kind| kind.name.as_str()).collect();
    }
    // One name may stand for kinds of several roles.
    let mut told = BTreeSet::new();
    names.retain(|name| told.insert(*name));
    names
}

fn unknown_kind(node: &NodeSpec<'_>, edges: &[Edge], registry: &Registry, problems: &mut Problems<'_>) {
    let Some(kind) = &node.kind else { return };
    let names = fitting(node.section, edges, registry);
    let elsewhere = registry.kinds().iter().find(|known| known.name == *kind.get_ref());
    let hint = match elsewhere {
        Some(known) => {
            Some(format!("`{}` is a {}: it stands in [{}.NAME]", known.name, known.role.name(), known.role.section()))
        }
        None => did_you_mean(kind.get_ref(), names.iter().copied()).or_else(|| {
            did_you_mean(kind.get_ref(), of_section(node.section, registry).map(|known| known.name.as_str()))
        }),
    };
    let what = match (node.section, edges.is_empty()) {
        (Section::Stages, false) => format!("a stage that takes {}: ", list(edges)),
        _ => String::new(),
    };
    problems
        .error(kind.span(), format!("unknown kind `{}`", kind.get_ref()))
        .label(format!("expected {what}{}", one_of(names.iter().copied())))
        .hint(hint);
}

fn mismatch(
    node: &NodeSpec<'_>,
    written: &Spanned<String>,
    role: Role,
    edge: Edge,
    registry: &Registry,
    problems: &mut Problems<'_>,
) {
    let giver = written.get_ref();
    // One step that makes what is wanted of what is there.
    let between = Role::ALL.into_iter().find(|step| {
        step.takes().contains(&edge) && step.gives(Port::Main).is_some_and(|given| role.takes().contains(&given))
    });
    let hint = between.map(|step| {
        let kinds: Vec<&str> =
            registry.kinds().iter().filter(|kind| kind.role == step).map(|kind| kind.name.as_str()).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", one_of(kinds)) };
        format!("put a {} between them{kinds}", step.name())
    });
    problems
        .error(written.span(), format!("`{}` cannot take from `{giver}`", node.name))
        .label(format!("gives {edge}, but a {} takes {}", role.name(), list(role.takes())))
        .hint(hint);
}

fn list(edges: &[Edge]) -> String {
    let mut names: Vec<&str> = edges.iter().map(|edge| edge.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" or ")
}
