//! The run manifest: all inputs of a run except the scans.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::id::GraphDigest;

/// The version of the run folder that this program writes and reads.
pub const FORMAT_VERSION: u32 = 6;

/// The digests of the stages and sinks that the scans of a source pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceGraph {
    /// Digest of everything that the candidates and their scores depend on.
    pub candidates: GraphDigest,
    /// Digest of `candidates`, the quality tests and the sinks.
    pub results: GraphDigest,
}

/// The manifest of a run, the content of `run.json` and, after each change of the graph, of `settings/SHA256.json`. Two runs with equal
/// manifests and equal ingest manifests have equal files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// Version of the run folder; [`FORMAT_VERSION`].
    pub format: u32,
    /// The graph file with all defaults; paths are replaced by keyed digests ([`super::without_paths`]).
    pub pipeline: Value,
    /// The digest of the pipeline.
    pub pipeline_digest: String,
    /// The pipeline's seed.
    pub seed: u64,
    /// Version of freetumor.
    pub code_version: String,
    /// Number of buckets of tar shards per epoch and split, for `patches`.
    pub shard_buckets: BTreeMap<String, u32>,
    /// The kernels of the networks: `portable`, `avx2`, `avx512` or a device; absent if the pipeline has no network. The network outputs of
    /// two kernels differ in the last bits.
    pub kernel_class: Option<String>,
    /// A hash of the secret of the patient keys; absent if no source needs a secret.
    pub patient_secret: Option<String>,
    /// Digests of the networks' weights, and versions of the rules, by stage.
    pub models: BTreeMap<String, String>,
    /// For each source, the digests of the stages and sinks that its scans pass.
    pub graphs: BTreeMap<String, SourceGraph>,
}

impl RunManifest {
    /// Checks that a run with this manifest may resume the run folder `folder`, which has the manifest `existing`: the graph and the
    /// version of freetumor may change, but not the name of the pipeline, the secret of the patient keys, the kernels of the networks and
    /// the format.
    ///
    /// # Errors
    /// Returns an error that names the differences.
    pub(super) fn check_resumable(&self, existing: &Self, folder: &str) -> Result<()> {
        let name = |manifest: &Self| json!({"pipeline": {"name": manifest.pipeline["pipeline"]["name"]}});
        // A pipeline without patients, or without networks, may get the first source or stage that needs them.
        let own = |value: &Option<String>, existing: &Option<String>| existing.as_ref().and(value.clone());
        let fixed = |manifest: &Self| Self {
            pipeline: name(manifest),
            pipeline_digest: String::new(),
            seed: 0,
            code_version: String::new(),
            kernel_class: own(&manifest.kernel_class, &existing.kernel_class),
            patient_secret: own(&manifest.patient_secret, &existing.patient_secret),
            models: BTreeMap::new(),
            graphs: BTreeMap::new(),
            ..manifest.clone()
        };
        let mut fixed_own = fixed(self);
        if self.kernel_class.is_none() {
            fixed_own.kernel_class.clone_from(&existing.kernel_class);
        }
        let mut differences = fixed_own.differences(&fixed(existing));
        if differences.is_empty() {
            return Ok(());
        }
        let more = differences.len().saturating_sub(3);
        differences.truncate(3);
        let mut message = format!("{folder} belongs to another run: {}", differences.join("; "));
        if more > 0 {
            message += &format!("; and {more} more");
        }
        Err(Error::new(message).with_kind(ErrorKind::OtherPipeline).with_hint(
            "these cannot change in a run folder: write to another folder with `--out`, or restore the settings",
        ))
    }

    /// Returns whether results of the manifest `existing` may differ from those of this one: expectations do not change results.
    pub fn may_change_results(&self, existing: &Self) -> bool {
        let without_expectations = |manifest: &Self| {
            let mut manifest = manifest.clone();
            if let Some(file) = manifest.pipeline.as_object_mut() {
                file.remove("expectations");
            }
            manifest
        };
        without_expectations(self) != without_expectations(existing)
    }

    /// Returns the differences from the manifest `existing` of a run folder, in terms of the graph file; empty if there are none.
    pub fn differences(&self, existing: &Self) -> Vec<String> {
        let (mut in_folder, mut in_run) = (BTreeMap::new(), BTreeMap::new());
        flatten(&serde_json::to_value(existing).unwrap_or_default(), &mut Vec::new(), &mut in_folder);
        flatten(&serde_json::to_value(self).unwrap_or_default(), &mut Vec::new(), &mut in_run);
        // A node that exists in only one manifest is one difference, independent of its number of settings.
        let node =
            |path: &[String]| (path.len() > 2 && path[0] == "pipeline").then(|| path[..3.min(path.len())].to_vec());
        let has = |of: &BTreeMap<Vec<String>, String>, node: &[String]| of.keys().any(|path| path.starts_with(node));
        let mut differences: Vec<String> = Vec::new();
        for path in in_folder.keys().chain(in_run.keys().filter(|path| !in_folder.contains_key(*path))) {
            // The digest and the inner seed only repeat other differences.
            let follows =
                *path == ["pipeline_digest"] || *path == ["pipeline", "pipeline", "seed"] || path[0] == "graphs";
            if in_folder.get(path) == in_run.get(path) || follows {
                continue;
            }
            let setting = describe_setting(path);
            let difference =
                match (in_folder.get(path), in_run.get(path), node(path).filter(|node| node[1] != "pipeline")) {
                    (Some(_), None, Some(node)) if !has(&in_run, &node) => {
                        format!("{} is only in the folder", describe_setting(&node))
                    }
                    (None, Some(_), Some(node)) if !has(&in_folder, &node) => {
                        format!("{} is only in this run", describe_setting(&node))
                    }
                    (in_folder, in_run, _) => {
                        let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
                        format!("{setting} is {} in the folder and {} in this run", show(in_folder), show(in_run))
                    }
                };
            if !differences.contains(&difference) {
                differences.push(difference);
            }
        }
        if differences.is_empty() && self.graphs != existing.graphs {
            differences.push("the version of a stage differs".to_owned());
        }
        if differences.is_empty() && self.pipeline_digest != existing.pipeline_digest {
            differences.push("the graph file differs".to_owned());
        }
        differences
    }
}

/// Returns the name of a leaf of the manifest in terms of the graph file.
fn describe_setting(path: &[String]) -> String {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let setting = |parts: &[&str]| {
        parts.iter().filter(|part| part.parse::<usize>().is_err()).copied().collect::<Vec<_>>().join(".")
    };
    match parts[..] {
        ["seed"] => "the seed".into(),
        ["format"] => "the format of the run folder".into(),
        ["code_version"] => "the version of freetumor".into(),
        ["kernel_class"] => "the kernel class".into(),
        ["patient_secret"] => "the secret for patient keys ($FREETUMOR_PATIENT_KEY or its file)".into(),
        ["models", stage] => format!("the model of `{stage}`"),
        ["pipeline", "expectations", _] => "an expectation".into(),
        ["pipeline", "expectations", ref rest @ ..] => format!("`{}` of the expectations", setting(rest)),
        ["pipeline", "pipeline", ref rest @ ..] => format!("`{}` of the pipeline", setting(rest)),
        ["pipeline", section @ ("sources" | "stages" | "sinks"), name] => {
            format!("the {} `{name}`", section.trim_end_matches('s'))
        }
        ["pipeline", section @ ("sources" | "stages" | "sinks"), name, ref rest @ ..] => {
            format!("`{}` of the {} `{name}`", setting(rest), section.trim_end_matches('s'))
        }
        _ => format!("`{}`", parts.join(" ")),
    }
}

/// Collects all leaves of a value with their paths.
fn flatten(value: &Value, path: &mut Vec<String>, leaves: &mut BTreeMap<Vec<String>, String>) {
    let mut into = |name: String, value: &Value| {
        path.push(name);
        flatten(value, path, leaves);
        path.pop();
    };
    match value {
        Value::Object(map) if !map.is_empty() => map.iter().for_each(|(key, value)| into(key.clone(), value)),
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, value)| into(index.to_string(), value));
        }
        leaf => {
            leaves.insert(path.clone(), leaf.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(pipeline: Value) -> RunManifest {
        RunManifest {
            format: FORMAT_VERSION,
            pipeline_digest: pipeline.to_string(),
            pipeline,
            seed: 1,
            code_version: "0.1.0".into(),
            shard_buckets: BTreeMap::new(),
            kernel_class: None,
            patient_secret: None,
            models: BTreeMap::new(),
            graphs: BTreeMap::new(),
        }
    }

    #[test]
    fn differences_are_named_by_setting() {
        let own = manifest(json!({"stages": {"test": {"conditions": ["found_fraction > 0.7"]}}}));
        assert!(own.differences(&own).is_empty());
        let other = manifest(json!({"stages": {"test": {"conditions": ["found_fraction > 0.8"], "attempts": 3}}}));
        assert_eq!(
            other.differences(&own),
            [
                "`conditions` of the stage `test` is \"found_fraction > 0.7\" in the folder and \"found_fraction > 0.8\" in this run",
                "`attempts` of the stage `test` is not set in the folder and 3 in this run"
            ]
        );
        other.check_resumable(&own, "RUN").unwrap();
        assert!(other.may_change_results(&own));
        let mut expected = own.clone();
        expected.pipeline["expectations"] = json!([{ "name": "many", "rows": { "min": 3.0 } }]);
        assert!(!expected.may_change_results(&own));
        assert_eq!(expected.differences(&own), ["an expectation is only in this run"]);
        let mut lower = expected.clone();
        lower.pipeline["expectations"][0]["rows"]["min"] = json!(2);
        assert_eq!(
            lower.differences(&expected),
            ["`rows.min` of the expectations is 3.0 in the folder and 2 in this run"]
        );
        let mut seeded = own.clone();
        seeded.seed = 2;
        assert_eq!(seeded.differences(&own), ["the seed is 1 in the folder and 2 in this run"]);
        let more = manifest(
            json!({"stages": {"test": {"conditions": ["found_fraction > 0.7"]}, "lungs": {"kind": "lung", "inputs": ["a"]}}}),
        );
        assert_eq!(more.differences(&own), ["the stage `lungs` is only in this run"]);
    }

    #[test]
    fn name_secret_and_kernels_cannot_change() {
        let own = RunManifest {
            kernel_class: Some("avx2".into()),
            patient_secret: Some("a".into()),
            ..manifest(json!({"pipeline": {"name": "liver"}}))
        };
        let error = |changed: RunManifest| changed.check_resumable(&own, "RUN").unwrap_err().to_string();
        let named = RunManifest { pipeline: json!({"pipeline": {"name": "lung"}}), ..own.clone() };
        assert_eq!(
            error(named),
            "RUN belongs to another run: `name` of the pipeline is \"liver\" in the folder and \"lung\" in this run"
        );
        assert!(error(RunManifest { kernel_class: Some("avx512".into()), ..own.clone() }).contains("the kernel class"));
        assert!(error(RunManifest { patient_secret: None, ..own.clone() }).contains("the secret for patient keys"));
        RunManifest { kernel_class: None, ..own.clone() }.check_resumable(&own, "RUN").unwrap();
        let without = RunManifest { kernel_class: None, patient_secret: None, ..own.clone() };
        own.check_resumable(&without, "RUN").unwrap();
    }
}
