//! The settings of a run that hold paths: where its graph file is, and the pipeline with every setting readable.
//!
//! A path may name a patient. `RUN/run.json`, which whoever has the tables may have, therefore holds keyed digests in place of paths
//! ([`without_paths`]); `RUN/private/pipeline.json` holds the settings themselves, for commands that read scans again, such as `export`.
//! It differs between equal runs, so it is part of no commit and no digest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{RunFolder, RunWriter};
use crate::error::{Error, Result};
use crate::ingest::PatientSecret;
use crate::store::canonical;

const PIPELINE: &str = "private/pipeline.json";

/// Names of settings that hold paths or patterns of paths.
const PATH_SETTINGS: [&str; 9] =
    ["root", "include", "exclude", "list", "splits", "pattern", "argv", "scratch", "weights"];

/// `private/pipeline.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivatePipeline {
    /// The folder of the graph file, absolute: relative paths in the pipeline begin there.
    pub folder: PathBuf,
    /// The graph file with all defaults filled in.
    pub pipeline: Json,
}

/// A pipeline in which each path is replaced by `private:DIGEST`, with a digest that is keyed with the patients' secret.
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
                    hide_text(value, secret)
                } else {
                    hide_paths(value, secret)
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| hide_paths(item, secret)),
        _ => {}
    }
}

fn hide_text(value: &mut Json, secret: &PatientSecret) {
    match value {
        Json::String(text) => *text = format!("private:{}", secret.setting_digest(text)),
        Json::Array(items) => items.iter_mut().for_each(|item| hide_text(item, secret)),
        // A node of that name.
        other => hide_paths(other, secret),
    }
}

impl RunWriter {
    /// Records the pipeline and the folder of its graph file.
    ///
    /// # Errors
    /// If it cannot be written, or the folder's name is not UTF-8.
    pub fn record_private_pipeline(&self, folder: &Path, pipeline: &Json) -> Result<()> {
        let folder = std::path::absolute(folder).map_err(|e| Error::io("cannot find", folder, e))?;
        let text = canonical::pretty(&PrivatePipeline { folder, pipeline: pipeline.clone() })?;
        self.folder().store().replace(PIPELINE, &mut |out| out.write_all(&text))
    }
}

impl RunFolder {
    /// The pipeline with its paths, as it was when the run was last continued; `None` if `RUN/private` lacks it.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn private_pipeline(&self) -> Result<Option<PrivatePipeline>> {
        let place = self.store().display_path(PIPELINE);
        let text = self.store().read(PIPELINE)?;
        text.map(|text| canonical::parse(&text, &place)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_hidden_and_other_settings_stay() {
        let secret = PatientSecret::new("correct horse battery staple").unwrap();
        let pipeline = json!({
            "sources": { "list": { "kind": "folder", "root": "/scans/pat-17", "include": ["pat-17/*.nii"], "dataset": "LiTS" } },
            "stages": { "organs": { "kind": "labels", "pattern": "pat-17.nii", "organs": ["liver"] },
                        "own": { "kind": "command", "argv": ["run", "pat-17"], "time_limit_s": 3 } },
        });
        let shown = without_paths(&pipeline, &secret);
        assert!(!shown.to_string().contains("pat-17"), "{shown}");
        assert_eq!(shown["sources"]["list"]["dataset"], "LiTS");
        assert_eq!(shown["stages"]["organs"]["organs"], json!(["liver"]));
        assert_eq!(shown["stages"]["own"]["time_limit_s"], 3);
        let root = format!("private:{}", secret.setting_digest("/scans/pat-17"));
        assert_eq!(shown["sources"]["list"]["root"], root);
        let other = PatientSecret::new("another horse battery staple").unwrap();
        assert_ne!(without_paths(&pipeline, &other), shown);
    }
}
