//! The layout of the Medical Segmentation Decathlon: `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs` and `dataset.json`
//! with the lists that MONAI reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::durable::Durable;
use super::layout::{FOLDERS, Layout, folders, label_names, training_count};
use super::nifti::DEFAULT_GZIP_LEVEL;
use super::{FileEntry, Sealed, Sink, Split, Spooled, check_gzip_level, check_name, pairs};
use crate::error::{Complaint, Result};
use crate::mask::Organ;

/// Settings of a sink of kind `decathlon`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecathlonConfig {
    /// The data set's name in `dataset.json`.
    pub dataset_name: String,
    /// How hard `.nii.gz` files are compressed: 1 (fast) to 9 (small). The highest of all sinks holds for all.
    pub gzip_level: u32,
}

impl Default for DecathlonConfig {
    fn default() -> Self {
        Self { dataset_name: "FreeTumor".to_owned(), gzip_level: DEFAULT_GZIP_LEVEL }
    }
}

/// A training set as `RUN/layouts/NAME/dataset.json` with lists `training`, `validation` and `test`, each of
/// `{image, label}`.
pub struct DecathlonSink {
    name: String,
    config: DecathlonConfig,
    organs: Arc<[Organ]>,
}

impl DecathlonSink {
    /// A sink for samples whose labels are those of `organs`.
    ///
    /// # Errors
    /// Every bad setting.
    pub fn new(name: &str, config: DecathlonConfig, organs: Arc<[Organ]>) -> Result<Self, Vec<Complaint>> {
        let mut complaints = Vec::new();
        check_name(name, &mut complaints);
        check_gzip_level(config.gzip_level, &mut complaints);
        if config.dataset_name.trim().is_empty() {
            complaints.push(Complaint::new("dataset_name", "a name is expected, got nothing"));
        }
        if complaints.is_empty() { Ok(Self { name: name.to_owned(), config, organs }) } else { Err(complaints) }
    }
}

impl Sink for DecathlonSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> String {
        pairs::index_of(&self.name)
    }

    fn gzip_level(&self) -> u32 {
        self.config.gzip_level
    }

    fn seal(&self, store: &dyn Durable, epoch: u64, samples: &[Spooled]) -> Result<Sealed> {
        pairs::seal(store, &self.name, epoch, samples)
    }

    fn project(&self, store: &dyn Durable, index: &[FileEntry]) -> Result<()> {
        let samples = pairs::listed(store, index)?;
        let mut layout = Layout::new(&self.name, &FOLDERS);
        let mut lists: BTreeMap<Split, Vec<Value>> = BTreeMap::new();
        for sample in &samples {
            let (images, labels) = folders(sample.split);
            let file = format!("{}.nii.gz", sample.sample_id);
            layout.link(images, file.clone(), sample.image_path());
            layout.link(labels, file.clone(), sample.label_path());
            let listed = json!({ "image": format!("./{images}/{file}"), "label": format!("./{labels}/{file}") });
            lists.entry(sample.split).or_default().push(listed);
        }
        let list = |split| lists.get(&split).map_or(&[][..], Vec::as_slice);
        let labels: BTreeMap<String, String> =
            label_names(&self.organs).into_iter().map(|(id, name)| (id.to_string(), name)).collect();
        layout.json(
            "dataset.json",
            &json!({
                "name": self.config.dataset_name,
                "description": "Synthetic tumors in real CT scans, made and filtered by freetumor.",
                "tensorImageSize": "3D",
                "modality": { "0": "CT" },
                "labels": labels,
                "numTraining": training_count(&samples),
                "numTest": samples.len() - training_count(&samples),
                "training": list(Split::Train),
                "validation": list(Split::Validation),
                "test": list(Split::Test),
            }),
        )?;
        layout.write(store)
    }
}
