//! From settings to stages, and what can only be checked once they are built: organs, scores, windows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value as Json;

use super::consistency;
use super::digest::{StageDigests, stage_digests, test_digest};
use super::edge::Role;
use super::file::Problems;
use super::known_nodes::KnownNodes;
use super::plan::{BranchNode, Feed, MaskNode, SinkNode, SourceNode, SynthesisNode};
use super::registry::{BuildContext, BuiltNode, Registry};
use super::settings;
use super::spec::NodeSpec;
use super::wiring::Wiring;
use crate::attempt::{AttemptLoop, Branch, ScoreNode};

/// What building needs to know.
pub(super) struct Build<'a, 't> {
    pub(super) specs: &'a [NodeSpec<'t>],
    pub(super) wiring: &'a Wiring,
    pub(super) registry: &'a Registry,
    pub(super) folder: &'a Path,
    pub(super) seed: u64,
}

/// The built stages; whole only where no error was found.
#[derive(Default)]
pub(super) struct Built {
    /// Settings with defaults filled in, by node.
    pub(super) settings: BTreeMap<String, Json>,
    pub(super) sources: Vec<SourceNode>,
    pub(super) masks: Vec<MaskNode>,
    pub(super) syntheses: Vec<SynthesisNode>,
    pub(super) sinks: Vec<SinkNode>,
}

impl Build<'_, '_> {
    /// Builds every node whose role is clear, and reports everything that is wrong.
    pub(super) fn all(&self, problems: &mut Problems<'_>) -> Built {
        let mut before = vec![BTreeSet::new(); self.specs.len()];
        for &at in &self.wiring.order {
            let mut all: BTreeSet<usize> =
                self.wiring.inputs[at].iter().flat_map(|input| before[input.from].iter().copied()).collect();
            all.insert(at);
            before[at] = all;
        }
        let parts = self.specs.iter().map(|_| None).collect();
        let digests = BTreeMap::new();
        let mut known = KnownNodes { specs: self.specs, wiring: self.wiring, parts, digests, before };
        let mut built = Built::default();
        // Stages behind a cycle have no order, but their settings are read all the same.
        let rest = (0..self.specs.len()).filter(|at| !self.wiring.order.contains(at));
        for at in self.wiring.order.iter().copied().chain(rest) {
            if let Some((json, part)) = self.one(at, &known, problems) {
                if let Some(digests) = part.as_ref().and_then(|part| digests_of(&self.specs[at], &json, part)) {
                    known.digests.insert(at, digests);
                }
                built.settings.insert(self.specs[at].name.clone(), json);
                known.parts[at] = part;
            }
        }
        consistency::organs(&known, problems);
        consistency::scores(&known, problems);
        consistency::frames(&known, problems);
        consistency::salts(&known, problems);
        if !problems.any_error() {
            assemble(&known, &mut built);
        }
        built
    }

    /// Reads and builds one node.
    fn one(
        &self,
        at: usize,
        known: &KnownNodes<'_, '_>,
        problems: &mut Problems<'_>,
    ) -> Option<(Json, Option<BuiltNode>)> {
        let spec = &self.specs[at];
        let name = spec.kind.as_ref()?.get_ref();
        let kind = match self.wiring.roles[at] {
            Some(role) => self.registry.kind(role, name)?,
            None => {
                let mut same = self.registry.kinds().iter().filter(|kind| kind.name == *name);
                same.next().filter(|kind| same.next().is_none() && kind.role.section() == spec.section.name())?
            }
        };
        let schema = kind.own_schema();
        let read = |table: super::value::Value<'_>| kind.read(table);
        let reading = settings::read(&spec.settings, &spec.path(), &spec.span, &schema, read, problems);
        let settings = reading.value?;
        let json = settings.json.clone();
        let (organs, complete) = known.organs_before(at);
        let place = BuildContext { name: spec.name.clone(), folder: self.folder.to_owned(), seed: self.seed, organs };
        match settings.build(&place) {
            Ok(part) => Some((with_digest(json, &part), reading.invalid.is_empty().then_some(part))),
            Err(mut complaints) => {
                if !complete && kind.role != Role::Source && kind.role != Role::Mask {
                    // The masks were not built: what is said about organs here says nothing about this stage.
                    let of_organs = |field: &str| field.is_empty() || field.split('.').any(|part| part == "organs");
                    complaints.retain(|it| !of_organs(&it.field));
                }
                settings::report(complaints, &reading.invalid, |field| spec.place_of(field), problems);
                Some((json, None))
            }
        }
    }
}

/// The digests of a synthesis or score stage with these settings.
fn digests_of(spec: &NodeSpec<'_>, json: &Json, part: &BuiltNode) -> Option<StageDigests> {
    let kind = spec.kind.as_ref()?.get_ref();
    match part {
        BuiltNode::Synthesis(synthesis) => {
            Some(stage_digests(kind, &synthesis.model, json, synthesis.synthesize.viewer()))
        }
        BuiltNode::Score(scoring) => Some(stage_digests(kind, &scoring.stage.version(), json, scoring.stage.viewer())),
        BuiltNode::Source(_) | BuiltNode::Mask(_) | BuiltNode::Filter(_) | BuiltNode::Sink(_) => None,
    }
}

/// Settings with the digest of the weights that they name: other weights under the same name are another pipeline.
fn with_digest(mut json: Json, part: &BuiltNode) -> Json {
    let viewer = match part {
        BuiltNode::Mask(mask) => mask.inference(),
        BuiltNode::Synthesis(synthesis) => synthesis.synthesize.viewer(),
        BuiltNode::Score(scoring) => scoring.stage.viewer(),
        BuiltNode::Source(_) | BuiltNode::Filter(_) | BuiltNode::Sink(_) => None,
    };
    if let (Some(viewer), Json::Object(settings)) = (viewer, &mut json) {
        settings.insert("weights_sha256".into(), viewer.digest().into());
    }
    json
}

/// Puts the built stages in their places.
fn assemble(known: &KnownNodes<'_, '_>, built: &mut Built) {
    let names = |at: usize| {
        let spec = &known.specs[at];
        (spec.name.clone(), spec.kind.as_ref().map(|kind| kind.get_ref().clone()).unwrap_or_default())
    };
    let sources: Vec<usize> = known.of(Role::Source).collect();
    let masks: Vec<usize> = known.of(Role::Mask).collect();
    let sinks: Vec<usize> = known.of(Role::Sink).collect();
    let indices = |of: &[usize], wanted: &BTreeSet<usize>| -> Vec<usize> {
        (0..of.len()).filter(|&index| wanted.contains(&of[index])).collect()
    };
    for &at in &sources {
        if let Some(BuiltNode::Source(source)) = &known.parts[at] {
            let (name, kind) = names(at);
            built.sources.push(SourceNode { name, kind, source: source.clone() });
        }
    }
    for &at in &masks {
        if let Some(BuiltNode::Mask(mask)) = &known.parts[at] {
            let (name, kind) = names(at);
            built.masks.push(MaskNode {
                name,
                kind,
                mask: mask.clone(),
                sources: indices(&sources, &known.before[at]),
            });
        }
    }
    for &at in &sinks {
        if let Some(BuiltNode::Sink(output)) = &known.parts[at] {
            let (name, kind) = names(at);
            built.sinks.push(SinkNode { name, kind, output: output.clone(), organs: known.organs_before(at).0 });
        }
    }
    for synthesis in known.of(Role::Synthesis) {
        let filters: Vec<usize> =
            known.of(Role::Filter).filter(|&filter| known.before[filter].contains(&synthesis)).collect();
        if let (false, Some(BuiltNode::Synthesis(part)), Some(&digests)) =
            (filters.is_empty(), &known.parts[synthesis], known.digests.get(&synthesis))
        {
            let masks = indices(&masks, &known.before[synthesis]);
            built.syntheses.push(synthesis_node(known, synthesis, &filters, &sinks, part, digests, masks));
        }
    }
}

/// A synthesis with the score stages and quality tests behind it.
fn synthesis_node(
    known: &KnownNodes<'_, '_>,
    synthesis: usize,
    filters: &[usize],
    sinks: &[usize],
    part: &super::registry::Synthesis,
    digests: StageDigests,
    masks: Vec<usize>,
) -> SynthesisNode {
    let name = |at: usize| known.specs[at].name.clone();
    // In the order of the graph, which every quality test's own stages follow.
    let all: BTreeSet<usize> = filters.iter().flat_map(|&filter| known.scores_between(synthesis, filter)).collect();
    let order: Vec<usize> = known.wiring.order.iter().copied().filter(|at| all.contains(at)).collect();
    let (mut scorers, mut score_digests) = (Vec::new(), Vec::new());
    for &at in &order {
        if let (Some(BuiltNode::Score(scoring)), Some(digests)) = (&known.parts[at], known.digests.get(&at)) {
            scorers.push(ScoreNode { name: name(at), stage: scoring.stage.clone() });
            score_digests.push(digests.results);
        }
    }
    let (mut branches, mut nodes) = (Vec::new(), Vec::new());
    for &filter in filters {
        let Some(BuiltNode::Filter(test)) = &known.parts[filter] else { continue };
        let own = known.scores_between(synthesis, filter);
        let scorers = (0..order.len()).filter(|&index| own.contains(&order[index])).collect();
        branches.push(Branch { name: name(filter), scorers, test: test.clone() });
        let mut feeds: Vec<Feed> = Vec::new();
        for (sink, &at) in sinks.iter().enumerate() {
            let inputs = known.wiring.inputs[at].iter().filter(|input| input.from == filter);
            feeds.extend(inputs.map(|input| Feed { sink, port: input.port }));
        }
        feeds.sort();
        nodes.push(BranchNode { test_digest: test_digest(test), feeds });
    }
    SynthesisNode {
        attempts: AttemptLoop { name: name(synthesis), synthesize: part.synthesize.clone(), scorers, branches },
        masks,
        digests,
        model: part.model.clone(),
        organs: part.organs.clone(),
        variants: part.variants,
        score_digests,
        branches: nodes,
    }
}
