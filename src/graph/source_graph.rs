//! Digests of the part of a graph that the scans of a source pass: a changed graph affects the scans of those sources whose digests differ.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::plan::Plan;
use super::{Port, Role};
use crate::id::{FieldHasher, GraphDigest};
use crate::run::SourceGraph;

/// Settings that select the scans of a source; the results of a scan do not depend on them.
const SELECTIONS: [&str; 10] =
    ["root", "include", "exclude", "list", "path", "count", "split", "max_members", "max_ratio", "settle"];

/// Settings of any stage that do not affect its results. The digests of files count, not their paths.
const WITHOUT_EFFECT: [&str; 8] =
    ["time_limit_s", "memory_limit_mib", "scratch_limit_mib", "scratch", "weights", "folds", "steering", "reference"];

impl Plan {
    /// Returns, for each source by name, the digests of the stages and sinks that its scans pass.
    pub fn source_graphs(&self) -> BTreeMap<String, SourceGraph> {
        let sources = (0..self.nodes.len()).filter(|&index| self.nodes[index].role == Role::Source);
        sources.map(|source| (self.nodes[source].name.clone(), self.source_graph(source))).collect()
    }

    fn source_graph(&self, source: usize) -> SourceGraph {
        let mut reached = BTreeSet::from([source]);
        // Nodes are in topological order.
        for (index, node) in self.nodes.iter().enumerate() {
            if node.inputs.iter().any(|input| reached.contains(&input.from)) {
                reached.insert(index);
            }
        }
        let (decisions, candidates): (Vec<usize>, Vec<usize>) =
            reached.iter().partition(|&&index| matches!(self.nodes[index].role, Role::Filter | Role::Sink));
        let pipeline = &self.resolved["pipeline"];
        let hash = FieldHasher::new("graph")
            .add_field(self.seed.to_le_bytes())
            .add_field(pipeline["split"].to_string())
            .add_field(&self.nodes[source].name);
        let candidates = self.add_nodes(hash, &candidates, &reached);
        let results = self.add_nodes(candidates.clone(), &decisions, &reached);
        SourceGraph {
            candidates: GraphDigest::from_hash(&candidates.finish()),
            results: GraphDigest::from_hash(&results.finish()),
        }
    }

    /// Adds the settings of nodes to a hash, sorted by name, so that the order of the file has no effect.
    fn add_nodes(&self, hash: FieldHasher, nodes: &[usize], reached: &BTreeSet<usize>) -> FieldHasher {
        let mut nodes: Vec<usize> = nodes.to_vec();
        nodes.sort_by_key(|&index| &self.nodes[index].name);
        nodes.into_iter().fold(hash, |hash, index| {
            let node = &self.nodes[index];
            let inputs: BTreeSet<(&str, bool)> = node
                .inputs
                .iter()
                .filter(|input| reached.contains(&input.from))
                .map(|input| (self.nodes[input.from].name.as_str(), input.port == Port::Rejected))
                .collect();
            let hash = hash.add_field("node").add_field(&node.name).add_field(self.effective_settings(index));
            let hash = inputs.into_iter().fold(hash, |hash, (name, is_rejected)| {
                hash.add_field("input").add_field(name).add_field([u8::from(is_rejected)])
            });
            let mask = self.masks.iter().find(|mask| mask.name == node.name);
            let hash = mask.map_or(hash.clone(), |mask| hash.add_field(mask.mask.algorithm_version().to_le_bytes()));
            match self.digest_of(&node.name) {
                Some(digest) => hash.add_field("digest").add_field(digest),
                None => hash,
            }
        })
    }

    /// Returns the settings of a node without those that do not affect the results of a scan.
    fn effective_settings(&self, index: usize) -> String {
        let node = &self.nodes[index];
        let mut settings = self.resolved[node.role.section()][&node.name].clone();
        if let Json::Object(table) = &mut settings {
            table.remove("inputs");
            if node.role == Role::Source {
                table.retain(|name, _| !SELECTIONS.contains(&name.as_str()));
            }
        }
        remove_without_effect(&mut settings);
        settings.to_string()
    }

    /// Returns the digest of a synthesis, score stage or quality test, which covers weights, references and versions of kinds; `None` for
    /// other nodes.
    fn digest_of(&self, name: &str) -> Option<[u8; 32]> {
        self.syntheses.iter().find_map(|synthesis| {
            let attempts = &synthesis.attempts;
            if attempts.name == name {
                return Some(*synthesis.digests.results.as_bytes());
            }
            let scorers = attempts.scorers.iter().zip(&synthesis.score_digests);
            let scorer = scorers.filter(|(scorer, _)| scorer.name == name).map(|(_, digest)| digest);
            let branches = attempts.branches.iter().zip(&synthesis.branches);
            let branch = branches.filter(|(branch, _)| branch.name == name).map(|(_, node)| &node.test_digest);
            scorer.chain(branch).next().map(|digest| *digest.as_bytes())
        })
    }
}

/// Removes settings without effect from a table and its tables.
fn remove_without_effect(settings: &mut Json) {
    match settings {
        Json::Object(table) => {
            table.retain(|name, value| !WITHOUT_EFFECT.contains(&name.as_str()) || value.is_object());
            table.values_mut().for_each(remove_without_effect);
        }
        Json::Array(items) => items.iter_mut().for_each(remove_without_effect),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{GraphFile, Registry, check};

    const GRAPH: &str = r#"
        [pipeline]
        name = "g"
        [sources.bodies]
        kind = "phantom"
        count = 2
        [sources.chests]
        kind = "phantom"
        body = "chest"
        [stages.organs]
        kind = "labels"
        inputs = ["bodies", "chests"]
        organs = ["liver"]
        [stages.lungs]
        kind = "labels"
        inputs = ["chests"]
        organs = ["lung"]
        merged_ids = { lung = [7, 8] }
        [stages.tumors]
        kind = "rules"
        inputs = ["organs"]
        [stages.nodules]
        kind = "rules"
        inputs = ["lungs"]
        [stages.values]
        kind = "intensity"
        inputs = ["tumors"]
        [stages.lung_values]
        kind = "intensity"
        inputs = ["nodules"]
        [stages.test]
        kind = "quality-test"
        inputs = ["values"]
        accept = ["invisible_fraction < 0.5"]
        [stages.lung_test]
        kind = "quality-test"
        inputs = ["lung_values"]
        accept = ["invisible_fraction < 0.5"]
        [sinks.out]
        kind = "patches"
        inputs = ["test", "lung_test"]
    "#;

    fn graphs(sets: &[&str]) -> BTreeMap<String, SourceGraph> {
        let file = GraphFile::new("g.toml", ".", GRAPH).with_sets(sets);
        {
            let checked = check(&file, &Registry::standard());
            checked.plan.unwrap_or_else(|| panic!("{:?}", checked.problems)).source_graphs()
        }
    }

    #[test]
    fn change_of_stage_affects_only_sources_before_it() {
        let before = graphs(&[]);
        let after = graphs(&["stages.nodules.variants=3"]);
        assert_eq!(before["bodies"], after["bodies"]);
        assert_ne!(before["chests"].candidates, after["chests"].candidates);
    }

    #[test]
    fn change_of_quality_test_keeps_digest_of_candidates() {
        let before = graphs(&[]);
        let after = graphs(&["stages.test.accept=[\"invisible_fraction < 0.4\"]"]);
        assert_eq!(before["bodies"].candidates, after["bodies"].candidates);
        assert_ne!(before["bodies"].results, after["bodies"].results);
    }

    #[test]
    fn selection_of_scans_and_size_of_epochs_have_no_effect() {
        assert_eq!(graphs(&[]), graphs(&["sources.bodies.count=9", "pipeline.epoch_scans=3"]));
        assert_ne!(graphs(&[]), graphs(&["pipeline.seed=9"]));
    }
}
