//! The private settings of a run: the folder of the graph file, and the pipeline with all paths.
//!
//! A path may contain the name of a patient. `RUN/run.json`, which is shared with the tables, therefore has keyed digests instead of
//! paths ([`without_paths`]); `RUN/private/pipeline.json` has the paths, for commands that read scans again, such as `export`. The
//! private file differs between equal runs, so it is not part of a commit or digest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{RunFolder, RunWriter};
use crate::error::{Error, Result};
use crate::ingest::{PatientSecret, path_text};
use crate::store::canonical;

const PIPELINE: &str = "private/pipeline.json";

/// Names of settings with paths or patterns of paths.
const PATH_SETTINGS: [&str; 11] =
    ["root", "include", "exclude", "list", "path", "splits", "pattern", "argv", "scratch", "weights", "never_train"];

/// The private settings of a run, the content of `private/pipeline.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivatePipeline {
    /// The absolute folder of the graph file, to which relative paths in the pipeline refer.
    #[serde(with = "path_text")]
    pub folder: PathBuf,
    /// The graph file with all defaults.
    pub pipeline: Json,
}

/// Replaces each path of a pipeline by `private:DIGEST`, a digest that is keyed with the patients' secret.
pub fn without_paths(pipeline: &Json, secret: &PatientSecret) -> Json {
    let mut pipeline = pipeline.clone();
    hide_paths(&mut pipeline, secret);
    pipeline
}

fn hide_paths(settings: &mut Json, secret: &PatientSecret) {
    match settings {
        Json::Object(table) => {
            for (name, value) in table {
                if PATH_SETTINGS.contains(&name.as_str()) {
                    hide_strings(value, secret)
                } else {
                    hide_paths(value, secret)
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| hide_paths(item, secret)),
        _ => {}
    }
}

fn hide_strings(value: &mut Json, secret: &PatientSecret) {
    match value {
        Json::String(text) => *text = format!("private:{}", secret.setting_digest(text)),
        Json::Array(items) => items.iter_mut().for_each(|item| hide_strings(item, secret)),
        // A table here is a node with the name of a setting.
        other => hide_paths(other, secret),
    }
}

impl RunWriter {
    /// Writes the pipeline with its paths, and the folder of its graph file, to `RUN/private/pipeline.json`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn record_private_pipeline(&self, folder: &Path, pipeline: &Json) -> Result<()> {
        let folder = std::path::absolute(folder).map_err(|e| Error::io("cannot find", folder, e))?;
        let text = canonical::pretty(&PrivatePipeline { folder, pipeline: pipeline.clone() })?;
        self.folder().store().replace(PIPELINE, &mut |out| out.write_all(&text))
    }
}

impl RunFolder {
    /// Reads the pipeline with its paths as of the last start of the run; `None` if `RUN/private` has no pipeline.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn private_pipeline(&self) -> Result<Option<PrivatePipeline>> {
        let path = self.store().display_path(PIPELINE);
        let text = self.store().read(PIPELINE)?;
        text.map(|text| canonical::parse(&text, &path)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[cfg(unix)]
    #[test]
    fn non_utf8_folder_round_trips_through_json() {
        let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"/graphs/n\xFF".to_vec());
        let pipeline = PrivatePipeline { folder: name.into(), pipeline: json!({}) };
        let text = serde_json::to_string(&pipeline).unwrap();
        assert_eq!(serde_json::from_str::<PrivatePipeline>(&text).unwrap(), pipeline);
    }

    #[test]
    fn without_paths_replaces_only_paths() {
        let secret = PatientSecret::new("correct horse battery staple").unwrap();
        let pipeline = json!({
            "sources": { "list": { "kind": "folder", "root": "/scans/pat-17", "include": ["pat-17/*.nii"], "dataset": "LiTS" } },
            "stages": { "organs": { "kind": "labels", "pattern": "pat-17.nii", "organs": ["liver"] },
                        "own": { "kind": "command", "argv": ["run", "pat-17"], "time_limit_s": 3 } },
        });
        let public = without_paths(&pipeline, &secret);
        assert!(!public.to_string().contains("pat-17"), "{public}");
        assert_eq!(public["sources"]["list"]["dataset"], "LiTS");
        assert_eq!(public["stages"]["organs"]["organs"], json!(["liver"]));
        assert_eq!(public["stages"]["own"]["time_limit_s"], 3);
        let root = format!("private:{}", secret.setting_digest("/scans/pat-17"));
        assert_eq!(public["sources"]["list"]["root"], root);
        let other = PatientSecret::new("another horse battery staple").unwrap();
        assert_ne!(without_paths(&pipeline, &other), public);
    }
}
