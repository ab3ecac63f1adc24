//! Finds every problem of a graph file at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use toml::de::ValueDeserializer;

use super::build::{BuiltStages, GraphBuilder};
use super::edge::Port;
use super::file::{GraphFile, Problems};
use super::pipeline::PipelineConfig;
use super::plan::{Node, NodeInput, Plan, ScanStages, digested_text};
use super::purpose::Purpose;
use super::registry::{Registry, resolve_path};
use super::spec::{NodeSpec, Spec, span_of};
use super::value::Value;
use super::wiring::Wiring;
use super::{Location, Problem, Severity, expectations, settings};
use crate::error::ConfigError;
use crate::ingest::HeldOutPaths;
use crate::record::ExpectationConfig;
use crate::store::FileDigest;

/// The result of checking a graph file.
#[derive(Debug)]
pub struct CheckedGraph {
    /// All errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
    /// The nodes, each after its inputs; present if every kind and every edge is valid, even if settings are not.
    pub nodes: Option<Vec<Node>>,
    /// The built graph; present if there is no error.
    pub plan: Option<Plan>,
    /// The sources and masks that were built, even if other nodes have errors.
    pub scans: ScanStages,
    /// The location of each node in the file, by its name.
    pub locations: BTreeMap<String, Location>,
}

impl CheckedGraph {
    /// Returns whether any problem prevents the pipeline from running.
    pub fn has_errors(&self) -> bool {
        self.plan.is_none() || self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Reads, wires and builds a graph, and reports all its problems.
///
/// Nothing is run and nothing is written. Sources and stages are built, so their constructors check their settings (that a folder
/// exists, that an organ is known).
///
/// ```
/// use freetumor::graph::{GraphFile, Registry, check};
/// let file = GraphFile::new("a.toml", ".", "[pipeline]\nname = \"a\"\n[stages.test]\nkind = \"qualty-test\"\n");
/// let checked = check(&file, &Registry::standard());
/// assert!(checked.has_errors());
/// let kind = checked.problems.iter().find(|problem| problem.message == "unknown kind `qualty-test`").unwrap();
/// assert_eq!(kind.location.as_ref().unwrap().line, 4);
/// assert_eq!(kind.hint.as_deref(), Some("did you mean `quality-test`?"));
/// ```
pub fn check(file: &GraphFile, registry: &Registry) -> CheckedGraph {
    check_for(Purpose::Run, file, registry)
}

/// Checks a graph file as [`check`] does, for the calibration of its quality tests: their references need not exist.
pub fn check_for_calibration(file: &GraphFile, registry: &Registry) -> CheckedGraph {
    check_for(Purpose::Calibrate, file, registry)
}

fn check_for(purpose: Purpose, file: &GraphFile, registry: &Registry) -> CheckedGraph {
    let mut problems = Problems::new(file);
    let Some(spec) = Spec::read(file, purpose, &mut problems) else {
        let (scans, locations) = (ScanStages::default(), BTreeMap::new());
        return CheckedGraph { problems: problems.sorted(), nodes: None, plan: None, scans, locations };
    };
    let locations = spec.nodes.iter().map(|node| (node.name.clone(), file.locate(node.span.clone()))).collect();
    let (nodes, plan, scans) = plan_nodes(purpose, file, &spec, registry, &mut problems);
    if let Some(plan) = plan.as_ref().filter(|plan| plan.syntheses.is_empty()) {
        let reason = if plan.nodes.is_empty() {
            "the graph has no sources and no stages"
        } else {
            "the graph has no quality test"
        };
        problems
            .error_without_location(format!("`{}` would make no tumors: {reason}", plan.name))
            .hint("see pipelines/quickstart.toml for a small graph".to_owned());
        return CheckedGraph { problems: problems.sorted(), nodes: None, plan: None, scans, locations };
    }
    CheckedGraph { problems: problems.sorted(), nodes, plan, scans, locations }
}

/// Wires and builds the nodes of a file. The sources and masks are returned even if other nodes have errors.
pub(super) fn plan_nodes(
    purpose: Purpose,
    file: &GraphFile,
    spec: &Spec<'_>,
    registry: &Registry,
    problems: &mut Problems<'_>,
) -> (Option<Vec<Node>>, Option<Plan>, ScanStages) {
    let pipeline = read_pipeline(&spec.pipeline, problems);
    let never_train = pipeline.as_ref().map(|pipeline| never_train(purpose, file, spec, pipeline, problems));
    let expectations = expectations::read(&spec.expectations, problems);
    let wiring = Wiring::new(&spec.nodes, registry, problems);
    if spec.train.is_none() {
        wiring.warn_about_unused(&spec.nodes, problems);
    }
    let nodes = wiring.is_valid.then(|| nodes_of(&spec.nodes, &wiring));
    let builder = GraphBuilder {
        purpose,
        specs: &spec.nodes,
        wiring: &wiring,
        registry,
        folder: file.folder(),
        seed: pipeline.as_ref().map_or(0, |pipeline| pipeline.seed),
    };
    let mut built = builder.build(problems);
    let scans = std::mem::take(&mut built.scans);
    let plan = match (pipeline, &nodes) {
        (Some(pipeline), Some(nodes)) if !problems.any_error() => {
            let never_train = HeldOutPaths::new(never_train.unwrap_or_default(), registry.decoder());
            Some(plan_of(file, pipeline, never_train, expectations, nodes, built))
        }
        _ => None,
    };
    (nodes, plan, scans)
}

fn read_pipeline(table: &Value<'_>, problems: &mut Problems<'_>) -> Option<PipelineConfig> {
    let schema = schemars::schema_for!(PipelineConfig).to_value();
    let span = table.span();
    let parse = |table: Value<'_>| PipelineConfig::deserialize(ValueDeserializer::from(table));
    let parsed = settings::read(table, "pipeline", &span, &schema, parse, problems);
    let pipeline = parsed.value?;
    let span_of = |field: &str| span_of(table, field).unwrap_or(span.clone());
    settings::report(pipeline.errors(), &parsed.invalid, span_of, problems);
    Some(pipeline)
}

/// Resolves the paths of held-out scans, and reports those that do not exist.
fn never_train(
    purpose: Purpose,
    file: &GraphFile,
    spec: &Spec<'_>,
    pipeline: &PipelineConfig,
    problems: &mut Problems<'_>,
) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (index, written) in pipeline.never_train.iter().enumerate() {
        let field = format!("never_train.{index}");
        let resolved = resolve_path(file.folder(), &field, written).and_then(|path| match path.exists() {
            // A calibration trains nothing.
            false if purpose != Purpose::Calibrate => {
                let message = format!("expected a file or folder of held-out scans, got none: {}", path.display());
                let hint = "a relative path starts at the folder of the graph file; copies of scans that cannot be read are not recognized";
                Err(ConfigError::new(&field, message).with_hint(hint))
            }
            _ => Ok(path),
        });
        match resolved {
            Ok(path) => paths.push(path),
            Err(ConfigError { message, hint, .. }) => {
                let span = span_of(&spec.pipeline, &field).unwrap_or_else(|| spec.pipeline.span());
                problems.error(span, message).hint(hint);
            }
        }
    }
    paths
}

/// Returns the nodes with their edges, renumbered in topological order.
fn nodes_of(specs: &[NodeSpec<'_>], wiring: &Wiring) -> Vec<Node> {
    let index = |at: usize| wiring.order.iter().position(|&other| other == at);
    let node = |&at: &usize| {
        let role = wiring.roles[at]?;
        let input = |input: &super::wiring::Input| {
            let edge = wiring.roles[input.from]?.output_edge(input.port)?;
            Some(NodeInput { from: index(input.from)?, port: input.port, edge })
        };
        let inputs = wiring.inputs[at].iter().filter_map(input).collect();
        let kind = specs[at].kind.as_ref()?.get_ref().clone();
        Some(Node { name: specs[at].name.clone(), kind, role, inputs })
    };
    wiring.order.iter().filter_map(node).collect()
}

fn plan_of(
    file: &GraphFile,
    pipeline: PipelineConfig,
    never_train: HeldOutPaths,
    expectations: Vec<ExpectationConfig>,
    nodes: &[Node],
    built: BuiltStages,
) -> Plan {
    let resolved = resolve(&pipeline, &expectations, nodes, &built);
    let digest = FileDigest::of(digested_text(&resolved).as_bytes()).sha256;
    let BuiltStages { sources, masks, syntheses, sinks, .. } = built;
    let epoch_bytes = pipeline.epoch_size().unwrap_or(u64::MAX);
    let PipelineConfig { name, seed, epoch_scans, epoch_bytes: _, split, max_missing, never_train: _ } = pipeline;
    let (folder, nodes) = (file.folder().to_owned(), nodes.to_vec());
    Plan {
        name,
        seed,
        epoch_scans,
        split,
        epoch_bytes,
        max_missing,
        never_train,
        expectations,
        digest,
        resolved,
        folder,
        sources,
        masks,
        syntheses,
        sinks,
        nodes,
    }
}

/// Resolves the file to JSON: every setting with its default filled in, kinds and inputs as written.
fn resolve(pipeline: &PipelineConfig, expectations: &[ExpectationConfig], nodes: &[Node], built: &BuiltStages) -> Json {
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
            // The order of inputs has no effect, so it must not change the digest.
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
    if !expectations.is_empty() {
        root.insert("expectations".into(), json!(expectations));
    }
    root.extend(sections.into_iter().map(|(name, section)| (name.to_owned(), Json::Object(section))));
    let mut root = Json::Object(root);
    root.sort_all_objects();
    root
}
