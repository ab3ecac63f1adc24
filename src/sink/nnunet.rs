//! The layout of nnU-Net (version 2): `DatasetNNN_Name` with `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs`,
//! `dataset.json` and `splits_final.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::layout::{label_names, tumor_name};
use super::pairs::{DatasetDescription, PairLayout, PairSink};
use super::volume_files::DEFAULT_GZIP_LEVEL;
use super::{check_gzip_level, check_name};
use crate::error::{ConfigError, Result};
use crate::mask::Organ;
use crate::record::Split;

/// Names of labels with a meaning of their own in nnU-Net: `background` is 0, `ignore` the highest id, for voxels without a label.
const RESERVED_LABELS: [&str; 2] = ["background", "ignore"];

/// Settings of a sink of kind `nnunet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NnunetConfig {
    /// nnU-Net's id of the data set, 1 to 999; the Decathlon uses the ids below 10.
    pub dataset_id: u32,
    /// nnU-Net's name of the data set: letters, digits and `_`.
    pub dataset_name: String,
    /// Gzip level of `.nii.gz` files: 1 (fast) to 9 (small). The highest level of all sinks applies to all sinks.
    pub gzip_level: u32,
}

impl Default for NnunetConfig {
    fn default() -> Self {
        Self { dataset_id: 900, dataset_name: "FreeTumor".to_owned(), gzip_level: DEFAULT_GZIP_LEVEL }
    }
}

/// A training set for nnU-Net. Set `nnUNet_raw` to `RUN/layouts/NAME`; copy `splits_final.json` into nnU-Net's folder of
/// preprocessed data to train on fold 0 with the validation patients of this run.
pub type NnunetSink = PairSink<NnunetConfig>;

impl NnunetSink {
    /// Creates a sink for samples with the labels of `organs`.
    ///
    /// # Errors
    /// Returns every setting that nnU-Net would reject.
    pub fn new(name: &str, config: NnunetConfig, organs: Arc<[Organ]>) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        check_name(name, &mut errors);
        check_gzip_level(config.gzip_level, &mut errors);
        if !(1..=999).contains(&config.dataset_id) {
            errors.push(ConfigError::new(
                "dataset_id",
                format!("expected a number from 1 to 999, got {}", config.dataset_id),
            ));
        }
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !plain(&config.dataset_name) {
            let message = format!("expected letters, digits and `_`, got {:?}", config.dataset_name);
            errors.push(ConfigError::new("dataset_name", message));
        }
        let names = label_names(&organs);
        if !names.keys().copied().eq(0..names.len() as u8) {
            let got = names.iter().map(|(id, name)| format!("{id} {name}")).collect::<Vec<_>>().join(", ");
            let message = format!("expected consecutive labels from 0 for nnU-Net, got {got}");
            let ids = organs
                .iter()
                .enumerate()
                .map(|(at, organ)| format!("{} = [{}, {}]", toml_key(&organ.name), 2 * at + 1, 2 * at + 2));
            let ids = ids.collect::<Vec<_>>().join(", ");
            let hint = format!("set merged_ids = {{ {ids} }} in the mask stage, or use the kind `decathlon`");
            errors.push(ConfigError::new("", message).with_hint(hint));
        }
        errors.extend(name_errors(&organs));
        if errors.is_empty() { Ok(Self::of(name, config, organs)) } else { Err(errors) }
    }
}

/// Returns an error for every label name that nnU-Net would reject: reserved names, and names of two labels.
fn name_errors(organs: &[Organ]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for Organ { name, .. } in organs {
        if RESERVED_LABELS.contains(&name.as_str()) {
            let message = format!("expected a label name that nnU-Net does not reserve, got `{name}`");
            errors.push(ConfigError::new("", message).with_hint("rename the organ in the mask stage"));
        }
        let tumor = tumor_name(name);
        if organs.iter().any(|other| other.name == tumor) {
            let message = format!(
                "expected each label name once, got `{tumor}` twice: as an organ and as the tumors of `{name}`"
            );
            let hint = format!("rename the organ `{tumor}`, or use it as the tumors of `{name}`, in the mask stage");
            errors.push(ConfigError::new("", message).with_hint(hint));
        }
    }
    errors
}

/// Quotes a key of TOML if necessary.
fn toml_key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { name.to_owned() } else { format!("{name:?}") }
}

impl PairLayout for NnunetConfig {
    fn gzip_level(&self) -> u32 {
        self.gzip_level
    }

    fn folder(&self) -> String {
        format!("Dataset{:03}_{}", self.dataset_id, self.dataset_name)
    }

    fn image_suffix(&self) -> &'static str {
        "_0000.nii.gz"
    }

    fn describe(&self, samples: &DatasetDescription<'_>) -> Result<()> {
        let labels: BTreeMap<String, u8> =
            label_names(samples.organs).into_iter().map(|(id, name)| (name, id)).collect();
        samples.write_json(
            "dataset.json",
            &json!({
                "name": self.dataset_name,
                "description": "Synthetic tumors in real CT scans, made and filtered by freetumor.",
                "channel_names": { "0": "CT" },
                "labels": labels,
                "numTraining": samples.training,
                "file_ending": ".nii.gz",
            }),
        )?;
        let cases = |split| samples.list(split, |pair| pair.sample_id);
        let fold = Fold { train: cases(Split::Train), val: cases(Split::Validation) };
        samples.write_json("splits_final.json", &[fold])?;
        samples.write_patients()
    }
}

/// Fold 0.
#[derive(Serialize)]
struct Fold<A, B> {
    train: A,
    val: B,
}
