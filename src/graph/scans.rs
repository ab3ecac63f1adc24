//! The sources and masks of a pipeline, which reconstruct volumes from patches.

use std::path::Path;

use serde_json::Value as Json;

use super::check::plan_nodes;
use super::edge::Role;
use super::file::{GraphFile, Problems};
use super::plan::ScanStages;
use super::problem::{Problem, Severity};
use super::purpose::Purpose;
use super::registry::Registry;
use super::spec::Spec;
use super::split::SplitShares;
use super::wiring::Wiring;
use crate::error::{Error, Result};

impl ScanStages {
    /// Builds the sources and masks of a graph file.
    ///
    /// # Errors
    /// Returns every problem that prevents building them.
    pub fn build(file: &GraphFile, registry: &Registry) -> Result<Self, Vec<Problem>> {
        Self::build_with_split(file, registry).map(|(stages, _)| stages)
    }

    /// Builds the sources and masks of a graph file; returns the stages with the shares of the split.
    ///
    /// # Errors
    /// Returns every problem that prevents building them.
    pub fn build_with_split(file: &GraphFile, registry: &Registry) -> Result<(Self, SplitShares), Vec<Problem>> {
        let mut problems = Problems::new(file);
        let mut plan = None;
        if let Some(mut spec) = Spec::read(file, Purpose::Run, &mut problems) {
            // A kind may have several roles: the wiring of the whole graph decides. Problems of other stages are ignored here.
            let roles = Wiring::new(&spec.nodes, registry, &mut Problems::new(file)).roles;
            let mut roles = roles.into_iter();
            spec.nodes.retain(|_| matches!(roles.next().flatten(), Some(Role::Source | Role::Mask)));
            plan = plan_nodes(Purpose::Calibrate, file, &spec, registry, &mut problems).1;
        }
        let is_error = |problem: &Problem| problem.severity == Severity::Error;
        match plan {
            Some(plan) => Ok((Self { sources: plan.sources, masks: plan.masks }, plan.split)),
            None => Err(problems.sorted().into_iter().filter(is_error).collect()),
        }
    }
}

impl GraphFile {
    /// Recreates the graph file of a run folder: `resolved` is its [`Plan::resolved`](super::Plan::resolved), and relative paths are
    /// resolved against `folder`.
    ///
    /// # Errors
    /// If `resolved` contains a value that TOML does not support.
    pub fn from_resolved(name: &str, folder: &Path, resolved: &Json) -> Result<Self> {
        let mut resolved = resolved.clone();
        if let Some(Json::Object(stages)) = resolved.get_mut("stages") {
            // Digests that building adds, not settings.
            for stage in stages.values_mut().filter_map(Json::as_object_mut) {
                stage.remove("weights_sha256");
                stage.remove("steering_sha256");
            }
        }
        remove_nulls(&mut resolved);
        let invalid = |cause: toml::ser::Error| {
            Error::new(format!("{name} contains an invalid pipeline: {cause}")).with_source(cause)
        };
        // `toml::Table` writes values before tables, as TOML requires.
        let text = toml::Table::try_from(&resolved).and_then(|table| toml::to_string(&table)).map_err(invalid)?;
        Ok(Self::new(name, folder, text))
    }
}

/// Removes nulls: an absent setting is null in JSON and has no key in TOML.
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
    fn from_resolved_restores_plan() {
        let registry = Registry::standard();
        let plan = check(&GraphFile::new("a.toml", ".", GRAPH), &registry).plan.unwrap();
        let file = GraphFile::from_resolved("run.json", Path::new("."), &plan.resolved).unwrap();
        let again = check(&file, &registry);
        assert_eq!(again.plan.expect("a plan").resolved, plan.resolved, "{:?}", again.problems);
    }

    #[test]
    fn scan_stages_ignore_later_stages() {
        let registry = Registry::standard();
        let text = GRAPH.replace("kind = \"rules\"", "kind = \"of-another-program\"");
        let stages = ScanStages::build(&GraphFile::new("a.toml", ".", text), &registry).unwrap();
        assert_eq!(stages.sources.len(), 1);
        let masks: Vec<_> = stages.masks.iter().map(|mask| (mask.name.as_str(), mask.sources.clone())).collect();
        assert_eq!(masks, [("organs", vec![0]), ("lungs", vec![0])]);
    }

    #[test]
    fn build_reports_missing_source_folder() {
        let text =
            GRAPH.replace("kind = \"phantom\"", "kind = \"folder\"\nroot = \"no-such-folder\"\ninclude = [\"*\"]");
        let text =
            text.replace("count = 2\n", "").replace("shape = [64, 64, 48]", "").replace("spacing_mm = [5, 5, 6]", "");
        let problems = ScanStages::build(&GraphFile::new("a.toml", ".", text), &Registry::standard()).unwrap_err();
        assert!(problems[0].message.contains("no-such-folder"), "{problems:?}");
    }
}
