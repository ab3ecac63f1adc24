//! What is run: everything that decides what comes out, apart from the scans themselves.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::MANIFEST;
use crate::error::{Error, ErrorKind, Result};
use crate::simd::Class;

/// The version of the run folder that this program writes and reads.
pub const FORMAT_VERSION: u32 = 3;

/// `run.json`. Two runs with equal manifests and equal ingest manifests have equal files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// Version of the run folder; [`FORMAT_VERSION`].
    pub format: u32,
    /// The graph file with all defaults filled in; paths are keyed digests ([`super::without_paths`]).
    pub pipeline: Value,
    /// The digest.
    pub pipeline_digest: String,
    /// The pipeline's seed.
    pub seed: u64,
    /// Version of the program.
    pub code_version: String,
    /// Buckets of tar shards in each epoch and split: those of `patches`.
    pub shard_buckets: BTreeMap<String, u32>,
    /// The kernels that compute networks: `portable`, `avx2`, `avx512` or a device; absent where the pipeline has no network. They
    /// decide a network's last bits.
    pub kernel_class: Option<String>,
    /// Which secret patient keys are derived with, as a hash; absent where no source needs one.
    pub patient_secret: Option<String>,
    /// Digests of the networks' weights, and versions of the rules, by stage.
    pub models: BTreeMap<String, String>,
}

impl RunManifest {
    /// The class of processor that began the run folder `path`; `None` if there is no run, none with networks, or one on a device.
    pub fn kernel_class_in(path: &Path) -> Option<Class> {
        let text = std::fs::read(path.join(MANIFEST)).ok()?;
        let manifest: Value = serde_json::from_slice(&text).ok()?;
        manifest.get("kernel_class")?.as_str()?.parse().ok()
    }

    /// Whether work of this manifest may go on in a folder of the manifest `own`.
    ///
    /// # Errors
    /// Names what differs.
    pub(super) fn check_same(&self, own: &Self, place: &str) -> Result<()> {
        let (mut there, mut here) = (BTreeMap::new(), BTreeMap::new());
        flatten(&serde_json::to_value(own).unwrap_or_default(), &mut Vec::new(), &mut there);
        flatten(&serde_json::to_value(self).unwrap_or_default(), &mut Vec::new(), &mut here);
        // A node that only one of them has is one difference, however many settings it has.
        let node =
            |path: &[String]| (path.len() > 2 && path[0] == "pipeline").then(|| path[..3.min(path.len())].to_vec());
        let has = |of: &BTreeMap<Vec<String>, String>, node: &[String]| of.keys().any(|path| path.starts_with(node));
        let mut differences: Vec<String> = Vec::new();
        for path in there.keys().chain(here.keys().filter(|path| !there.contains_key(*path))) {
            // Digest and inner seed differ whenever what they stand for does.
            let follows = *path == ["pipeline_digest"] || *path == ["pipeline", "pipeline", "seed"];
            if there.get(path) == here.get(path) || follows {
                continue;
            }
            let what = in_words(path);
            let difference = match (there.get(path), here.get(path), node(path).filter(|node| node[1] != "pipeline")) {
                (Some(_), None, Some(node)) if !has(&here, &node) => format!("{} is only there", in_words(&node)),
                (None, Some(_), Some(node)) if !has(&there, &node) => format!("{} is only here", in_words(&node)),
                (there, here, _) => {
                    let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
                    format!("{what} is {} there and {} here", show(there), show(here))
                }
            };
            if !differences.contains(&difference) {
                differences.push(difference);
            }
        }
        if differences.is_empty() {
            if self.pipeline_digest == own.pipeline_digest {
                return Ok(());
            }
            differences.push("something in its graph file is another".to_owned());
        }
        let more = differences.len().saturating_sub(3);
        differences.truncate(3);
        let mut message = format!("{place} belongs to another run: {}", differences.join("; "));
        if more > 0 {
            message += &format!("; and {more} more");
        }
        Err(Error::new(message)
            .with_kind(ErrorKind::OtherPipeline)
            .with_hint("a run folder keeps to one pipeline: write elsewhere with `--out`, or restore what differs"))
    }
}

/// What a leaf of the manifest is called by those who write graph files.
fn in_words(path: &[String]) -> String {
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
        ["models", trial] => format!("the model behind `{trial}`"),
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

/// Every leaf of a value with the names that lead to it.
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
        }
    }

    #[test]
    fn what_differs_is_named() {
        let own = manifest(json!({"stages": {"test": {"conditions": ["found_fraction > 0.7"]}}}));
        own.check_same(&own, "RUN").unwrap();
        let other = manifest(json!({"stages": {"test": {"conditions": ["found_fraction > 0.8"], "attempts": 3}}}));
        let error = other.check_same(&own, "RUN").unwrap_err();
        assert_eq!(
            error.to_string(),
            "RUN belongs to another run: `conditions` of the stage `test` is \"found_fraction > 0.7\" there and \
             \"found_fraction > 0.8\" here; `attempts` of the stage `test` is not set there and 3 here"
        );
        assert!(error.hint().unwrap().contains("--out"));
        let mut seeded = own.clone();
        seeded.seed = 2;
        assert!(seeded.check_same(&own, "RUN").unwrap_err().to_string().contains("the seed is 1 there and 2 here"));
        let more = manifest(
            json!({"stages": {"test": {"conditions": ["found_fraction > 0.7"]}, "lungs": {"kind": "lung", "inputs": ["a"]}}}),
        );
        let error = more.check_same(&own, "RUN").unwrap_err().to_string();
        assert_eq!(error, "RUN belongs to another run: the stage `lungs` is only here");
    }
}
