//! Builds stages from their settings, and checks organs, scores and windows, which are known only after building.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value as Json;

use super::calibration;
use super::consistency;
use super::digest::{StageDigests, stage_digests, test_digest};
use super::edge::Role;
use super::file::Problems;
use super::known_nodes::KnownNodes;
use super::plan::{BranchNode, Feed, MaskNode, ScanStages, SinkNode, SourceNode, SynthesisNode};
use super::purpose::Purpose;
use super::registry::{BuildContext, BuiltNode, Registry, Synthesis};
use super::settings;
use super::spec::NodeSpec;
use super::wiring::Wiring;
use crate::attempt::{AttemptLoop, Branch, ScoreNode};

/// Builds the nodes of a wired graph.
pub(super) struct GraphBuilder<'a, 't> {
    pub(super) purpose: Purpose,
    pub(super) specs: &'a [NodeSpec<'t>],
    pub(super) wiring: &'a Wiring,
    pub(super) registry: &'a Registry,
    pub(super) folder: &'a Path,
    pub(super) seed: u64,
}

/// The built stages; complete only if no error was found.
#[derive(Default)]
pub(super) struct BuiltStages {
    /// Settings with defaults filled in, by node.
    pub(super) settings: BTreeMap<String, Json>,
    pub(super) sources: Vec<SourceNode>,
    pub(super) masks: Vec<MaskNode>,
    pub(super) syntheses: Vec<SynthesisNode>,
    pub(super) sinks: Vec<SinkNode>,
    /// The sources and masks that were built, even if other nodes have errors.
    pub(super) scans: ScanStages,
}

impl GraphBuilder<'_, '_> {
    /// Builds every node whose role is known, and reports all errors.
    pub(super) fn build(&self, problems: &mut Problems<'_>) -> BuiltStages {
        let mut ancestors = vec![BTreeSet::new(); self.specs.len()];
        for &at in &self.wiring.order {
            let mut all: BTreeSet<usize> =
                self.wiring.inputs[at].iter().flat_map(|input| ancestors[input.from].iter().copied()).collect();
            all.insert(at);
            ancestors[at] = all;
        }
        let nodes = self.specs.iter().map(|_| None).collect();
        let digests = BTreeMap::new();
        let mut known = KnownNodes { specs: self.specs, wiring: self.wiring, nodes, digests, ancestors };
        let mut built = BuiltStages::default();
        // Stages after a cycle have no order, but their settings are checked too.
        let rest = (0..self.specs.len()).filter(|at| !self.wiring.order.contains(at));
        for at in self.wiring.order.iter().copied().chain(rest) {
            if let Some((json, node)) = self.build_node(at, &known, problems) {
                if let Some(digests) = node.as_ref().and_then(|node| digests_of(&self.specs[at], &json, node)) {
                    known.digests.insert(at, digests);
                }
                built.settings.insert(self.specs[at].name.clone(), json);
                known.nodes[at] = node;
            }
        }
        consistency::check_organs(&known, problems);
        consistency::check_scores(&known, problems);
        consistency::check_input_specs(&known, problems);
        consistency::check_salts(&known, problems);
        consistency::check_samples(&known, problems);
        consistency::check_contrast_bounds(&known, problems);
        consistency::check_ignored_labels(&known, problems);
        if self.purpose != Purpose::Calibrate {
            calibration::references(&known, problems);
            calibration::steering(&known, problems);
        }
        built.scans = scan_stages(&known);
        if !problems.any_error() {
            assemble(&known, &mut built);
        }
        built
    }

    /// Reads and builds one node.
    fn build_node(
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
        let parsed = settings::read(&spec.settings, &spec.path(), &spec.span, &schema, read, problems);
        let settings = parsed.value?;
        let json = settings.json.clone();
        let (organs, complete) = known.organs_before(at);
        let (folder, is_calibration) = (self.folder.to_owned(), self.purpose == Purpose::Calibrate);
        let context = BuildContext { name: spec.name.clone(), folder, seed: self.seed, organs, is_calibration };
        match settings.build(&context) {
            Ok(node) => Some((with_digest(json, &node), parsed.invalid.is_empty().then_some(node))),
            Err(mut errors) => {
                if !complete && kind.role != Role::Source && kind.role != Role::Mask {
                    // The masks were not built: errors about organs are not errors of this stage.
                    let of_organs = |field: &str| field.is_empty() || field.split('.').any(|part| part == "organs");
                    errors.retain(|error| !of_organs(&error.field));
                }
                settings::report(errors, &parsed.invalid, |field| spec.span_of(field), problems);
                Some((json, None))
            }
        }
    }
}

/// Returns the digests of a synthesis or score stage with these settings.
fn digests_of(spec: &NodeSpec<'_>, json: &Json, node: &BuiltNode) -> Option<StageDigests> {
    let kind = spec.kind.as_ref()?.get_ref();
    match node {
        BuiltNode::Synthesis(synthesis) => {
            Some(stage_digests(kind, &synthesis.model, json, synthesis.synthesize.inference()))
        }
        BuiltNode::Score(scoring) => {
            Some(stage_digests(kind, &scoring.stage.version(), json, scoring.stage.inference()))
        }
        BuiltNode::Source(_) | BuiltNode::Mask(_) | BuiltNode::Filter(_) | BuiltNode::Sink(_) => None,
    }
}

/// Adds the digest of the weights to the settings that name them: other weights under the same name are another pipeline.
fn with_digest(mut json: Json, node: &BuiltNode) -> Json {
    let inference = match node {
        BuiltNode::Mask(mask) => mask.inference(),
        BuiltNode::Synthesis(synthesis) => synthesis.synthesize.inference(),
        BuiltNode::Score(scoring) => scoring.stage.inference(),
        BuiltNode::Source(_) | BuiltNode::Filter(_) | BuiltNode::Sink(_) => None,
    };
    if let (Some(inference), Json::Object(settings)) = (inference, &mut json) {
        settings.insert("weights_sha256".into(), inference.digest().into());
    }
    if let (BuiltNode::Synthesis(Synthesis { steering: Some(digest), .. }), Json::Object(settings)) = (node, &mut json)
    {
        settings.insert("steering_sha256".into(), digest.as_str().into());
    }
    json
}

/// Returns the name and the kind of a node.
fn names(known: &KnownNodes<'_, '_>, at: usize) -> (String, String) {
    let spec = &known.specs[at];
    (spec.name.clone(), spec.kind.as_ref().map(|kind| kind.get_ref().clone()).unwrap_or_default())
}

/// Returns the indices into `of` of the nodes that are in `required`.
fn indices(of: &[usize], required: &BTreeSet<usize>) -> Vec<usize> {
    (0..of.len()).filter(|&index| required.contains(&of[index])).collect()
}

/// Collects the built sources and masks, and links them by index.
fn scan_stages(known: &KnownNodes<'_, '_>) -> ScanStages {
    let mut stages = ScanStages::default();
    let mut sources: Vec<usize> = Vec::new();
    for at in known.with_role(Role::Source) {
        if let Some(BuiltNode::Source(source)) = &known.nodes[at] {
            let (name, kind) = names(known, at);
            stages.sources.push(SourceNode { name, kind, source: source.clone() });
            sources.push(at);
        }
    }
    for at in known.with_role(Role::Mask) {
        if let Some(BuiltNode::Mask(mask)) = &known.nodes[at] {
            let (name, kind) = names(known, at);
            let sources = indices(&sources, &known.ancestors[at]);
            stages.masks.push(MaskNode { name, kind, mask: mask.clone(), sources });
        }
    }
    stages
}

/// Collects the built stages and links them by index.
fn assemble(known: &KnownNodes<'_, '_>, built: &mut BuiltStages) {
    let masks: Vec<usize> = known.with_role(Role::Mask).collect();
    let sinks: Vec<usize> = known.with_role(Role::Sink).collect();
    built.sources.clone_from(&built.scans.sources);
    built.masks.clone_from(&built.scans.masks);
    for &at in &sinks {
        if let Some(BuiltNode::Sink(output)) = &known.nodes[at] {
            let (name, kind) = names(known, at);
            built.sinks.push(SinkNode { name, kind, output: output.clone(), organs: known.organs_before(at).0 });
        }
    }
    for synthesis in known.with_role(Role::Synthesis) {
        let filters: Vec<usize> =
            known.with_role(Role::Filter).filter(|&filter| known.ancestors[filter].contains(&synthesis)).collect();
        if let (false, Some(BuiltNode::Synthesis(stage)), Some(&digests)) =
            (filters.is_empty(), &known.nodes[synthesis], known.digests.get(&synthesis))
        {
            let masks = indices(&masks, &known.ancestors[synthesis]);
            built.syntheses.push(synthesis_node(known, synthesis, &filters, &sinks, stage, digests, masks));
        }
    }
}

/// Joins a synthesis with the score stages and quality tests after it.
fn synthesis_node(
    known: &KnownNodes<'_, '_>,
    synthesis: usize,
    filters: &[usize],
    sinks: &[usize],
    stage: &super::registry::Synthesis,
    digests: StageDigests,
    masks: Vec<usize>,
) -> SynthesisNode {
    let name = |at: usize| known.specs[at].name.clone();
    // In topological order, which the stages of every quality test follow.
    let all: BTreeSet<usize> = filters.iter().flat_map(|&filter| known.scores_between(synthesis, filter)).collect();
    let order: Vec<usize> = known.wiring.order.iter().copied().filter(|at| all.contains(at)).collect();
    let (mut scorers, mut score_digests) = (Vec::new(), Vec::new());
    for &at in &order {
        if let (Some(BuiltNode::Score(scoring)), Some(digests)) = (&known.nodes[at], known.digests.get(&at)) {
            let is_read = |other: &usize| match (&known.nodes[*other], scoring.stage.reads()) {
                (Some(BuiltNode::Score(other)), Some(reads)) => {
                    other.stage.scores().iter().any(|score| reads.contains(score))
                }
                _ => true,
            };
            let earlier = known.ancestors[at].iter().copied().filter(|&other| other != at).filter(is_read).collect();
            let after = indices(&order, &earlier);
            scorers.push(ScoreNode { name: name(at), stage: scoring.stage.clone(), after });
            score_digests.push(digests.results);
        }
    }
    let (mut branches, mut nodes) = (Vec::new(), Vec::new());
    for &filter in filters {
        let Some(BuiltNode::Filter(test)) = &known.nodes[filter] else { continue };
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
        attempts: AttemptLoop { name: name(synthesis), synthesize: stage.synthesize.clone(), scorers, branches },
        masks,
        digests,
        model: stage.model.clone(),
        organs: stage.organs.clone(),
        variants: stage.variants,
        numbers: stage.numbers.clone(),
        negatives: stage.negatives,
        score_digests,
        branches: nodes,
    }
}
