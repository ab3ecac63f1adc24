//! The inputs of a training run, resolved before any scan is read: settings, weights, lists of scans.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::folds::Fold;
use super::mask_lists::common_organs;
use super::scans::TrainingScans;
use super::segmentation::SegmentationConfig;
use super::synthesis::SynthesisConfig;
use crate::error::{ConfigError, Error, Result};
use crate::graph::{BuildContext, Plan};
use crate::ingest::HeldOut;
use crate::mask::Organ;
use crate::nn::weights::{HELD_OUT_KEY, WeightsMetadata, held_out_hash};
use crate::store::FileDigest;
use crate::volume::Preprocess;

/// The section `[train]` of a file.
pub enum TrainingConfig {
    /// Settings for training a segmentor, with or without synthetic tumors.
    Segmentation(Box<SegmentationConfig>),
    /// Settings for training a generator with its discriminator.
    Synthesis(Box<SynthesisConfig>),
}

/// The inputs of a training run: settings, listed scans, and weights that exist.
pub(super) struct TrainingInputs {
    pub settings: Json,
    pub preprocess: Preprocess,
    pub organs: Arc<[Organ]>,
    pub scans: TrainingScans,
}

impl TrainingInputs {
    /// Resolves the paths of weights, which are relative to `folder`, writes them into `config`, and lists the scans. Scans of the contents
    /// `held_out` are not trained on.
    ///
    /// # Errors
    /// Returns an error if weights do not exist or belong to other networks, a source cannot be listed, a patient is in both
    /// training and validation, or there are no scans to train on.
    pub fn prepare(
        config: &mut TrainingConfig,
        plan: &Plan,
        folder: &Path,
        fold: Option<Fold>,
        held_out: &HeldOut,
    ) -> Result<Self> {
        let context = BuildContext {
            name: "train".to_owned(),
            folder: folder.to_owned(),
            seed: plan.seed,
            organs: [].into(),
            is_calibration: false,
        };
        let path = |field: &str, file: &Path| context.path(field, file).map_err(|error| first_error(vec![error]));
        let organs = |lists: &[(&str, &[String])]| common_organs(plan, lists).map_err(|error| first_error(vec![error]));
        let mut weights = json!({});
        let mut resolve = |field: &str, network: &str, file: Option<&mut PathBuf>| -> Result<WeightsMetadata> {
            let Some(file) = file else { return Ok(WeightsMetadata::default()) };
            *file = path(field, file)?;
            weights[field] = json!(weights_digest(field, file)?);
            let metadata = WeightsMetadata::of(file);
            match metadata.network_mismatch(network) {
                Some(message) => Err(Error::new(format!("`train.{field}`: {message}"))),
                None => Ok(metadata),
            }
        };
        match config {
            TrainingConfig::Segmentation(config) => {
                let mut settings = settings(plan, config)?;
                resolve("network.weights", "segmentor", config.network.weights.as_mut())?;
                settings["weights"] = weights;
                let organs = organs(&[("labeled", &config.labeled), ("validation", &config.validation)])?;
                let mut scans = TrainingScans::new(plan, &config.labeled, &config.validation, fold, held_out)?;
                if let Some(fold) = fold {
                    let hashes: Vec<String> = scans.fold().iter().map(|patient| held_out_hash(*patient)).collect();
                    settings["fold"] = json!(fold);
                    settings[HELD_OUT_KEY] = json!(hashes);
                }
                for pool in config.synthetic.iter().flat_map(|synthetic| &synthetic.runs) {
                    scans.add_run(&path("synthetic.runs", &pool.folder)?, pool.at, &organs)?;
                }
                if config.synthetic.is_some() {
                    for (synthesis, _) in plan.training_branches() {
                        scans.add_synthesis(plan, synthesis)?;
                    }
                    if scans.counts().synthetic_sources() == 0 {
                        let error = Error::new(
                            "expected at least one scan of a training patient for synthetic tumors, got none",
                        );
                        return Err(error.with_hint(
                            "check that the source of the synthesis lists scans whose patients are not in validation",
                        ));
                    }
                }
                let preprocess = config.preprocess.build().map_err(first_error)?;
                Ok(Self { settings, preprocess, organs, scans })
            }
            TrainingConfig::Synthesis(config) => {
                let mut settings = settings(plan, config)?;
                let segmentor = resolve("segmentor.weights", "segmentor", Some(&mut config.segmentor.weights))?;
                let own = &config.preprocess;
                if let Some((field, message, trained)) =
                    segmentor.preprocessing_mismatches(own.window_hu, own.spacing_mm).into_iter().next()
                {
                    return Err(Error::new(format!("`train.segmentor.weights`: {message}"))
                        .with_hint(format!("set `train.preprocess.{field}` to {trained}, the value in the weights")));
                }
                resolve("generator.weights", "generator", config.generator.weights.as_mut())?;
                resolve("discriminator.weights", "discriminator", config.discriminator.weights.as_mut())?;
                settings["weights"] = weights;
                let organs = organs(&[("labeled", &config.labeled), ("unlabeled", &config.unlabeled)])?;
                let mut scans = TrainingScans::new(plan, &config.labeled, &[], None, held_out)?;
                scans.add_unlabeled(plan, &config.unlabeled)?;
                let preprocess = config.preprocess.build().map_err(first_error)?;
                Ok(Self { settings, preprocess, organs, scans })
            }
        }
    }
}

/// Returns the settings that determine the result: the file with its defaults filled in.
fn settings(plan: &Plan, config: &impl Serialize) -> Result<Json> {
    let mut settings = plan.resolved.clone();
    settings["train"] = serde_json::to_value(config)
        .map_err(|cause| Error::new(format!("cannot serialize the settings: {cause}")).with_source(cause))?;
    Ok(settings)
}

fn weights_digest(field: &str, path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|cause| {
        let error = Error::io(&format!("`train.{field}`: cannot read"), path, cause);
        error.with_hint("relative paths are resolved against the folder of the configuration")
    })?;
    Ok(FileDigest::of(&bytes).sha256)
}

/// Converts the first of several errors; the settings were checked before.
fn first_error(errors: Vec<ConfigError>) -> Error {
    let Some(ConfigError { field, message, hint }) = errors.into_iter().next() else { return Error::new("") };
    let error = Error::new(format!("`train.{field}`: {message}"));
    hint.into_iter().fold(error, Error::with_hint)
}
