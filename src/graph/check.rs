//! Finding every problem of a graph file at once.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use toml::de::ValueDeserializer;

use super::build::{Build, Built};
use super::edge::Port;
use super::file::{GraphFile, Problems};
use super::pipeline::PipelineConfig;
use super::plan::{Node, NodeInput, Plan};
use super::purpose::Purpose;
use super::registry::Registry;
use super::spec::{NodeSpec, Spec, place_of};
use super::value::Value;
use super::wiring::Wiring;
use super::{Location, Problem, Severity, settings};
use crate::store::FileDigest;

/// What came of checking a graph file.
#[derive(Debug)]
pub struct Checked {
    /// Everything that is wrong or hardly meant, in the order of the file.
    pub problems: Vec<Problem>,
    /// The nodes, each after those it takes from; there as soon as every kind and every edge is right, even where
    /// settings are not.
    pub nodes: Option<Vec<Node>>,
    /// The built graph, where nothing is wrong.
    pub plan: Option<Plan>,
    /// Where each node stands, by its name.
    pub places: BTreeMap<String, Location>,
}

impl Checked {
    /// Whether anything keeps the pipeline from running.
    pub fn is_bad(&self) -> bool {
        self.plan.is_none() || self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Reads, wires and builds a graph, and reports every problem that it has.
///
/// Nothing is run and nothing is written: sources and stages are made, and what they check while they are made is
/// checked (that a folder is there, that an organ is known).
///
/// ```
/// use freetumor::graph::{GraphFile, Registry, check};
/// let file = GraphFile::new("a.toml", ".", "[pipeline]\nname = \"a\"\n[stages.test]\nkind = \"qualty-test\"\n");
/// let checked = check(&file, &Registry::standard());
/// assert!(checked.is_bad());
/// let kind = checked.problems.iter().find(|problem| problem.message == "unknown kind `qualty-test`").unwrap();
/// assert_eq!(kind.location.as_ref().unwrap().line, 4);
/// assert_eq!(kind.hint.as_deref(), Some("did you mean `quality-test`?"));
/// ```
pub fn check(file: &GraphFile, registry: &Registry) -> Checked {
    let mut problems = Problems::of(file);
    let Some(spec) = Spec::read(file, Purpose::Run, &mut problems) else {
        return Checked { problems: problems.sorted(), nodes: None, plan: None, places: BTreeMap::new() };
    };
    let places = spec.nodes.iter().map(|node| (node.name.clone(), file.locate(node.span.clone()))).collect();
    let (nodes, plan) = plan_nodes(file, &spec, registry, &mut problems);
    if let Some(plan) = plan.as_ref().filter(|plan| plan.syntheses.is_empty()) {
        let what = if plan.nodes.is_empty() { "it has no sources and no stages" } else { "it has no quality test" };
        problems
            .error_of_file(format!("`{}` would make no tumors: {what}", plan.name))
            .hint("see pipelines/quickstart.toml for a small graph".to_owned());
        return Checked { problems: problems.sorted(), nodes: None, plan: None, places };
    }
    Checked { problems: problems.sorted(), nodes, plan, places }
}

/// Wires and builds the nodes of a file.
pub(super) fn plan_nodes(
    file: &GraphFile,
    spec: &Spec<'_>,
    registry: &Registry,
    problems: &mut Problems<'_>,
) -> (Option<Vec<Node>>, Option<Plan>) {
    let pipeline = read_pipeline(&spec.pipeline, problems);
    let wiring = Wiring::of(&spec.nodes, registry, problems);
    if spec.train.is_none() {
        wiring.warn_of_unused(&spec.nodes, problems);
    }
    let nodes = wiring.sound.then(|| nodes_of(&spec.nodes, &wiring));
    let build = Build {
        specs: &spec.nodes,
        wiring: &wiring,
        registry,
        folder: file.folder(),
        seed: pipeline.as_ref().map_or(0, |pipeline| pipeline.seed),
    };
    let built = build.all(problems);
    let plan = match (pipeline, &nodes) {
        (Some(pipeline), Some(nodes)) if !problems.any_error() => Some(plan_of(file, pipeline, nodes, built)),
        _ => None,
    };
    (nodes, plan)
}

fn read_pipeline(table: &Value<'_>, problems: &mut Problems<'_>) -> Option<PipelineConfig> {
    let schema = schemars::schema_for!(PipelineConfig).to_value();
    let span = table.span();
    let parse = |table: Value<'_>| PipelineConfig::deserialize(ValueDeserializer::from(table));
    let reading = settings::read(table, "pipeline", &span, &schema, parse, problems);
    let pipeline = reading.value?;
    let place = |field: &str| place_of(table, field).unwrap_or(span.clone());
    settings::report(pipeline.complaints(), &reading.invalid, place, problems);
    Some(pipeline)
}

/// The nodes with their edges, renumbered in the order of the way.
fn nodes_of(specs: &[NodeSpec<'_>], wiring: &Wiring) -> Vec<Node> {
    let place = |at: usize| wiring.order.iter().position(|&other| other == at);
    let node = |&at: &usize| {
        let role = wiring.roles[at]?;
        let input = |input: &super::wiring::Input| {
            let edge = wiring.roles[input.from]?.gives(input.port)?;
            Some(NodeInput { from: place(input.from)?, port: input.port, edge })
        };
        let inputs = wiring.inputs[at].iter().filter_map(input).collect();
        let kind = specs[at].kind.as_ref()?.get_ref().clone();
        Some(Node { name: specs[at].name.clone(), kind, role, inputs })
    };
    wiring.order.iter().filter_map(node).collect()
}

fn plan_of(file: &GraphFile, pipeline: PipelineConfig, nodes: &[Node], built: Built) -> Plan {
    let resolved = resolve(&pipeline, nodes, &built);
    let digest = FileDigest::of(resolved.to_string().as_bytes()).sha256;
    let Built { sources, masks, syntheses, sinks, .. } = built;
    let PipelineConfig { name, seed, epoch_scans, split } = pipeline;
    let (folder, nodes) = (file.folder().to_owned(), nodes.to_vec());
    Plan { name, seed, epoch_scans, split, digest, resolved, folder, sources, masks, syntheses, sinks, nodes }
}

/// What the file means: every setting with its default filled in, kinds and inputs as they were written.
fn resolve(pipeline: &PipelineConfig, nodes: &[Node], built: &Built) -> Json {
    let mut sections: [(&str, Map<String, Json>); 3] =
        [("sources", Map::new()), ("stages", Map::new()), ("sinks", Map::new())];
    for node in nodes {
        let mut table = match built.settings.get(&node.name) {
            Some(Json::Object(table)) => table.clone(),
            _ => Map::new(),
        };
        table.insert("kind".into(), json!(node.kind));
        if !node.inputs.is_empty() {
            let suffix = |port| if port == Port::Rejected { ".rejected" } else { "" };
            // The order of inputs means nothing, so it must not change the digest.
            let mut inputs: Vec<String> =
                node.inputs.iter().map(|input| format!("{}{}", nodes[input.from].name, suffix(input.port))).collect();
            inputs.sort();
            table.insert("inputs".into(), json!(inputs));
        }
        if let Some((_, section)) = sections.iter_mut().find(|(section, _)| *section == node.role.section()) {
            section.insert(node.name.clone(), Json::Object(table));
        }
    }
    let mut root = Map::new();
    root.insert("pipeline".into(), json!(pipeline));
    root.extend(sections.into_iter().map(|(name, section)| (name.to_owned(), Json::Object(section))));
    let mut root = Json::Object(root);
    root.sort_all_objects();
    root
}
