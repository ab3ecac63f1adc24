//! The layout of the Medical Segmentation Decathlon: `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs` and `dataset.json`
//! with lists for MONAI.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::layout::{folders, label_names};
use super::pairs::{DatasetDescription, Pair, PairLayout, PairSink};
use super::volume_files::DEFAULT_GZIP_LEVEL;
use super::{check_gzip_level, check_name};
use crate::error::{ConfigError, Result};
use crate::mask::Organ;
use crate::record::Split;

/// Settings of a sink of kind `decathlon`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecathlonConfig {
    /// The data set's name in `dataset.json`.
    pub dataset_name: String,
    /// Gzip level of `.nii.gz` files: 1 (fast) to 9 (small). The highest level of all sinks applies to all sinks.
    pub gzip_level: u32,
}

impl Default for DecathlonConfig {
    fn default() -> Self {
        Self { dataset_name: "FreeTumor".to_owned(), gzip_level: DEFAULT_GZIP_LEVEL }
    }
}

/// A training set in `RUN/layouts/NAME`: `dataset.json` with the lists `training`, `validation` and `test` of `{image, label}`.
pub type DecathlonSink = PairSink<DecathlonConfig>;

impl DecathlonSink {
    /// Creates a sink for samples with the labels of `organs`.
    ///
    /// # Errors
    /// Returns every invalid setting.
    pub fn new(name: &str, config: DecathlonConfig, organs: Arc<[Organ]>) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        check_name(name, &mut errors);
        check_gzip_level(config.gzip_level, &mut errors);
        if config.dataset_name.trim().is_empty() {
            errors.push(ConfigError::new("dataset_name", "expected a name, got an empty string"));
        }
        if errors.is_empty() { Ok(Self::of(name, config, organs)) } else { Err(errors) }
    }
}

impl PairLayout for DecathlonConfig {
    fn gzip_level(&self) -> u32 {
        self.gzip_level
    }

    fn folder(&self) -> String {
        String::new()
    }

    fn image_suffix(&self) -> &'static str {
        ".nii.gz"
    }

    fn describe(&self, samples: &DatasetDescription<'_>) -> Result<()> {
        let list = |split| {
            let (images, labels) = folders(split);
            samples.list(split, move |Pair { sample_id, .. }| {
                let file = |folder| format!("./{folder}/{sample_id}.nii.gz");
                json!({ "image": file(images), "label": file(labels) })
            })
        };
        samples.write_json(
            "dataset.json",
            &Dataset {
                description: "Synthetic tumors in real CT scans, made and filtered by freetumor.",
                labels: label_names(samples.organs).into_iter().map(|(id, name)| (id.to_string(), name)).collect(),
                modality: json!({ "0": "CT" }),
                name: &self.dataset_name,
                num_test: samples.test,
                num_training: samples.training,
                tensor_image_size: "3D",
                test: (samples.test > 0).then(|| list(Split::Test)),
                training: list(Split::Train),
                validation: list(Split::Validation),
            },
        )?;
        samples.write_patients()
    }
}

/// `dataset.json`.
#[derive(Serialize)]
struct Dataset<'a, A, B, C> {
    description: &'a str,
    labels: BTreeMap<String, String>,
    modality: Value,
    name: &'a str,
    #[serde(rename = "numTest")]
    num_test: usize,
    #[serde(rename = "numTraining")]
    num_training: usize,
    #[serde(rename = "tensorImageSize")]
    tensor_image_size: &'a str,
    // MONAI reads the first entry of this list and fails if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<A>,
    training: B,
    validation: C,
}
