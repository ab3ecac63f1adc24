//! The inputs of a training, found before any scan is read: settings, weights, lists of scans.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::mask_lists::agreed_organs;
use super::scans::TrainingScans;
use super::segmentation::SegmentationConfig;
use super::synthesis::SynthesisConfig;
use crate::error::{ConfigError, Error, Result};
use crate::graph::{BuildContext, Plan};
use crate::mask::Organ;
use crate::nn::weights::WeightsMetadata;
use crate::store::FileDigest;
use crate::volume::Preprocess;

/// The section `[train]` of a file.
pub enum TrainingConfig {
    /// Of a segmentor, with or without synthetic tumors.
    Segmentation(Box<SegmentationConfig>),
    /// Of a generator with its discriminator.
    Synthesis(Box<SynthesisConfig>),
}

/// What a training starts from: scans that are listed, weights that exist.
pub(super) struct TrainingInputs {
    pub settings: Json,
    pub preprocess: Preprocess,
    pub organs: Arc<[Organ]>,
    pub scans: TrainingScans,
}

impl TrainingInputs {
    /// Finds weights, whose paths are relative to `folder`, and lists scans. Paths in `config` become those of the files found.
    ///
    /// # Errors
    /// Where weights do not exist or are not those of the networks, a source cannot be listed, a patient is trained and
    /// validated on, or there is nothing to train on.
    pub fn prepare(config: &mut TrainingConfig, plan: &Plan, folder: &Path) -> Result<Self> {
        let place =
            BuildContext { name: "train".to_owned(), folder: folder.to_owned(), seed: plan.seed, organs: [].into() };
        let path =
            |field: &str, written: &Path| place.path(field, written).map_err(|complaint| first_error(vec![complaint]));
        let organs =
            |lists: &[(&str, &[String])]| agreed_organs(plan, lists).map_err(|complaint| first_error(vec![complaint]));
        let mut weights = json!({});
        let mut found = |field: &str, network: &str, written: Option<&mut PathBuf>| -> Result<WeightsMetadata> {
            let Some(written) = written else { return Ok(WeightsMetadata::default()) };
            *written = path(field, written)?;
            weights[field] = json!(weights_digest(field, written)?);
            let stated = WeightsMetadata::of(written);
            match stated.network_mismatch(network) {
                Some(message) => Err(Error::new(format!("`train.{field}`: {message}"))),
                None => Ok(stated),
            }
        };
        match config {
            TrainingConfig::Segmentation(config) => {
                let mut settings = settings(plan, config)?;
                found("network.weights", "segmentor", config.network.weights.as_mut())?;
                settings["weights"] = weights;
                let organs = organs(&[("labeled", &config.labeled), ("validation", &config.validation)])?;
                let mut scans = TrainingScans::new(plan, &config.labeled, &config.validation)?;
                for pool in config.synthetic.iter().flat_map(|synthetic| &synthetic.runs) {
                    scans.add_run(&path("synthetic.runs", &pool.folder)?, pool.at, &organs)?;
                }
                if config.synthetic.is_some() {
                    for (synthesis, _) in plan.training_branches() {
                        scans.add_synthesis(plan, synthesis)?;
                    }
                    if scans.listed().synthetic_sources() == 0 {
                        let error = Error::new("no scan of a training patient is left for synthetic tumors");
                        return Err(error.with_hint(
                            "does the source of the synthesis list scans, and are their patients not in validation?",
                        ));
                    }
                }
                let preprocess = config.preprocess.build().map_err(first_error)?;
                Ok(Self { settings, preprocess, organs, scans })
            }
            TrainingConfig::Synthesis(config) => {
                let mut settings = settings(plan, config)?;
                let segmentor = found("segmentor.weights", "segmentor", Some(&mut config.segmentor.weights))?;
                let own = &config.preprocess;
                if let Some((field, message, trained)) =
                    segmentor.preprocessing_mismatches(own.window_hu, own.spacing_mm).into_iter().next()
                {
                    return Err(Error::new(format!("`train.segmentor.weights`: {message}")).with_hint(format!(
                        "the weights say {field} = {trained}: set `train.preprocess.{field}` to it"
                    )));
                }
                found("generator.weights", "generator", config.generator.weights.as_mut())?;
                found("discriminator.weights", "discriminator", config.discriminator.weights.as_mut())?;
                settings["weights"] = weights;
                let organs = organs(&[("labeled", &config.labeled), ("unlabeled", &config.unlabeled)])?;
                let mut scans = TrainingScans::new(plan, &config.labeled, &[])?;
                scans.add_unlabeled(plan, &config.unlabeled)?;
                let preprocess = config.preprocess.build().map_err(first_error)?;
                Ok(Self { settings, preprocess, organs, scans })
            }
        }
    }
}

/// What decides the result: the file with its defaults filled in.
fn settings(plan: &Plan, config: &impl Serialize) -> Result<Json> {
    let mut settings = plan.resolved.clone();
    settings["train"] = serde_json::to_value(config)
        .map_err(|cause| Error::new(format!("cannot write down the settings: {cause}")).with_source(cause))?;
    Ok(settings)
}

fn weights_digest(field: &str, path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|cause| {
        let error = Error::io(&format!("`train.{field}`: cannot read"), path, cause);
        error.with_hint("a relative path begins at the folder of the configuration")
    })?;
    Ok(FileDigest::of(&bytes).sha256)
}

/// The first of several problems as an error: for settings that were checked before.
fn first_error(problems: Vec<ConfigError>) -> Error {
    let Some(ConfigError { field, message, hint }) = problems.into_iter().next() else { return Error::new("") };
    let error = Error::new(format!("`train.{field}`: {message}"));
    hint.into_iter().fold(error, Error::with_hint)
}
