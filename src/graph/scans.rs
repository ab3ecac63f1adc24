//! The part of a pipeline that reads scans: what it takes to make volumes of patches.

use std::path::Path;

use serde_json::Value as Json;

use super::check::plan_nodes;
use super::edge::Role;
use super::file::{GraphFile, Problems};
use super::plan::{MaskNode, SourceNode};
use super::problem::{Problem, Severity};
use super::purpose::Purpose;
use super::registry::Registry;
use super::spec::Spec;
use super::wiring::Wiring;
use crate::error::{Error, Result};

/// The sources and masks of a pipeline, without the stages and sinks behind them: whose weights and programs need not be there.
#[derive(Clone, Debug)]
pub struct ScanStages {
    /// Where scans come from.
    pub sources: Vec<SourceNode>,
    /// How organs are found; [`MaskNode::sources`] are indices into [`ScanStages::sources`].
    pub masks: Vec<MaskNode>,
}

impl ScanStages {
    /// Builds the sources and masks of a graph file.
    ///
    /// # Errors
    /// Every problem that keeps them from being built.
    pub fn build(file: &GraphFile, registry: &Registry) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::of(file);
        let mut plan = None;
        if let Some(mut spec) = Spec::read(file, Purpose::Run, &mut problems) {
            // A kind may have several roles: the wiring of the whole graph tells them apart. Its problems are not those of the scans.
            let roles = Wiring::of(&spec.nodes, registry, &mut Problems::of(file)).roles;
            let mut roles = roles.into_iter();
            spec.nodes.retain(|_| matches!(roles.next().flatten(), Some(Role::Source | Role::Mask)));
            plan = plan_nodes(file, &spec, registry, &mut problems).1;
        }
        let is_error = |problem: &Problem| problem.severity == Severity::Error;
        match plan {
            Some(plan) => Ok(Self { sources: plan.sources, masks: plan.masks }),
            None => Err(problems.sorted().into_iter().filter(is_error).collect()),
        }
    }
}

impl GraphFile {
    /// The graph file that a run folder records: `resolved` is what [`Plan::resolved`](super::Plan::resolved) was, and relative paths
    /// in it begin at `folder`.
    ///
    /// # Errors
    /// Where it holds a value that TOML does not have.
    pub fn from_resolved(name: &str, folder: &Path, resolved: &Json) -> Result<Self> {
        let mut resolved = resolved.clone();
        if let Some(Json::Object(stages)) = resolved.get_mut("stages") {
            // Added when the pipeline was built: a digest, no setting.
            stages.values_mut().filter_map(Json::as_object_mut).for_each(|stage| drop(stage.remove("weights_sha256")));
        }
        remove_nulls(&mut resolved);
        let no_graph = |cause: toml::ser::Error| {
            Error::new(format!("{name} has a pipeline that is no graph: {cause}")).with_source(cause)
        };
        // A table of TOML is written with its values before its tables, as TOML needs it.
        let text = toml::Table::try_from(&resolved).and_then(|table| toml::to_string(&table)).map_err(no_graph)?;
        Ok(Self::new(name, folder, text))
    }
}

/// A setting that is absent is null in JSON and not there in TOML.
fn remove_nulls(value: &mut Json) {
    match value {
        Json::Object(table) => {
            table.retain(|_, value| !value.is_null());
            table.values_mut().for_each(remove_nulls);
        }
        Json::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::check;

    const GRAPH: &str = r#"
        [pipeline]
        name = "test"
        [sources.phantoms]
        kind = "phantom"
        count = 2
        shape = [64, 64, 48]
        spacing_mm = [5, 5, 6]
        [stages.organs]
        kind = "labels"
        inputs = ["phantoms"]
        organs = ["liver", "kidney"]
        [stages.lungs]
        kind = "lung"
        inputs = ["phantoms"]
        merged_ids = [7, 8]
        [stages.tumors]
        kind = "rules"
        inputs = ["organs", "lungs"]
        [stages.contrast]
        kind = "intensity"
        inputs = ["tumors"]
        [stages.test]
        kind = "quality-test"
        inputs = ["contrast"]
        accept = ["delta_hu < -10"]
        [sinks.set]
        kind = "webdataset"
        inputs = ["test"]
    "#;

    #[test]
    fn resolved_pipeline_gives_back_the_plan() {
        let registry = Registry::standard();
        let plan = check(&GraphFile::new("a.toml", ".", GRAPH), &registry).plan.unwrap();
        let file = GraphFile::from_resolved("run.json", Path::new("."), &plan.resolved).unwrap();
        let again = check(&file, &registry);
        assert_eq!(again.plan.expect("a plan").resolved, plan.resolved, "{:?}", again.problems);
    }

    #[test]
    fn scan_stages_need_nothing_that_is_behind_them() {
        let registry = Registry::standard();
        let text = GRAPH.replace("kind = \"rules\"", "kind = \"of-another-program\"");
        let stages = ScanStages::build(&GraphFile::new("a.toml", ".", text), &registry).unwrap();
        assert_eq!(stages.sources.len(), 1);
        let masks: Vec<_> = stages.masks.iter().map(|mask| (mask.name.as_str(), mask.sources.clone())).collect();
        assert_eq!(masks, [("organs", vec![0]), ("lungs", vec![0])]);
    }

    #[test]
    fn broken_source_is_reported() {
        let text = GRAPH.replace("kind = \"phantom\"", "kind = \"folder\"\nroot = \"nowhere\"\ninclude = [\"*\"]");
        let text =
            text.replace("count = 2\n", "").replace("shape = [64, 64, 48]", "").replace("spacing_mm = [5, 5, 6]", "");
        let problems = ScanStages::build(&GraphFile::new("a.toml", ".", text), &Registry::standard()).unwrap_err();
        assert!(problems[0].message.contains("nowhere"), "{problems:?}");
    }
}
