//! What is run: everything that decides what comes out, apart from the scans themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// The version of the run folder that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// `run.json`. Two runs with equal manifests and equal intakes have equal files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// Version of the run folder; [`FORMAT_VERSION`].
    pub format: u32,
    /// The graph file with everything filled in.
    pub pipeline: Value,
    /// Its digest.
    pub pipeline_digest: String,
    /// The pipeline's seed.
    pub seed: u64,
    /// Version of the program.
    pub code_version: String,
    /// Buckets of tar shards, by sink.
    pub shard_buckets: BTreeMap<String, u32>,
    /// Which kernels compute: `portable`, `avx2`, `avx512` or a device. Decides a network's last bits.
    pub kernel_class: String,
    /// Which secret patient keys are derived with, as a hash; absent where no source needs one.
    pub patient_secret: Option<String>,
    /// Digests of the networks' weights, by stage.
    pub models: BTreeMap<String, String>,
}

impl RunManifest {
    /// Whether work of this manifest may go on in a folder of the manifest `own`.
    ///
    /// # Errors
    /// Names what differs.
    pub(super) fn check_same(&self, own: &Self, place: &str) -> Result<()> {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        flatten(&serde_json::to_value(own).unwrap_or_default(), String::new(), &mut here);
        flatten(&serde_json::to_value(self).unwrap_or_default(), String::new(), &mut there);
        let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) = (here.into_iter().collect(), there.into_iter().collect());
        let mut differences: Vec<String> = here
            .keys()
            .chain(there.keys().filter(|key| !here.contains_key(*key)))
            // It differs whenever the pipeline does.
            .filter(|key| here.get(*key) != there.get(*key) && *key != "pipeline_digest")
            .map(|key| {
                let show = |value: Option<&String>| value.map_or("nothing", String::as_str).to_owned();
                format!("{key} is {} there, {} here", show(here.get(key)), show(there.get(key)))
            })
            .collect();
        if differences.is_empty() {
            if self.pipeline_digest == own.pipeline_digest {
                return Ok(());
            }
            differences
                .push(format!("pipeline_digest is {} there, {} here", own.pipeline_digest, self.pipeline_digest));
        }
        let more = differences.len().saturating_sub(3);
        differences.truncate(3);
        let mut message = format!("{place} belongs to another run: {}", differences.join("; "));
        if more > 0 {
            message += &format!("; and {more} more");
        }
        Err(Error::new(message)
            .with_hint("a run folder keeps to one pipeline: write elsewhere with `--out`, or restore what differs"))
    }
}

/// Every leaf of a value with its dotted path.
fn flatten(value: &Value, path: String, leaves: &mut Vec<(String, String)>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| flatten(value, join(key), leaves));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, value)| flatten(value, format!("{path}[{index}]"), leaves));
        }
        leaf => leaves.push((path, leaf.to_string())),
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
            kernel_class: "portable".into(),
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
            "RUN belongs to another run: pipeline.stages.test.conditions[0] is \"found_fraction > 0.7\" there, \
             \"found_fraction > 0.8\" here; pipeline.stages.test.attempts is nothing there, 3 here"
        );
        assert!(error.hint().unwrap().contains("--out"));
        let mut seeded = own.clone();
        seeded.seed = 2;
        assert!(seeded.check_same(&own, "RUN").unwrap_err().to_string().contains("seed is 1 there, 2 here"));
    }
}
