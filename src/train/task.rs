//! A checked training task.

use std::path::{Path, PathBuf};

use super::folds::Fold;
use super::held_out::HeldOutContents;
use super::inputs::{TrainingConfig, TrainingInputs};
use super::scans::ScanCounts;
use super::segmentation::SegmentationLearner;
use super::stage::TrainingStage;
use super::synthesis::Networks;
use super::training::{TrainingObserver, TrainingOptions, TrainingOutcome, TrainingRun};
use crate::error::Result;
use crate::graph::{LabeledScans, Plan, ScanStages};
use crate::ingest::HeldOut;
use crate::nn::device::DeviceKind;

/// A training run whose file has no errors. [`count_scans`](Self::count_scans) counts its scans, and [`run`](Self::run) starts it.
pub struct TrainingTask {
    stage: TrainingStage,
    /// The folder to which paths in the file are relative.
    folder: PathBuf,
    config: TrainingConfig,
    plan: Plan,
    fold: Option<Fold>,
}

impl TrainingTask {
    pub(super) fn new(stage: TrainingStage, folder: &Path, config: TrainingConfig, plan: Plan) -> Self {
        Self { stage, folder: folder.to_owned(), config, plan, fold: None }
    }

    /// Trains a segmentor without the patients of one fold, which are validated on instead of the validation share.
    #[must_use]
    pub fn with_fold(self, fold: Fold) -> Self {
        Self { fold: Some(fold), ..self }
    }

    /// Returns the name of the training file.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Returns the sources and masks of the file.
    pub fn scan_stages(&self) -> ScanStages {
        ScanStages { sources: self.plan.sources.clone(), masks: self.plan.masks.clone() }
    }

    /// Returns the mask stages of the labeled scans with their sources.
    pub fn labeled(&self) -> LabeledScans {
        let labeled = match &self.config {
            TrainingConfig::Segmentation(config) => &config.labeled,
            TrainingConfig::Synthesis(config) => &config.labeled,
        };
        LabeledScans::of(self.scan_stages(), self.plan.split, |mask| labeled.contains(&mask.to_owned()))
    }

    /// Lists the scans and opens the weights; no scan is read.
    ///
    /// # Errors
    /// Returns an error if weights do not exist or belong to other networks, a source cannot be listed, a patient is in both
    /// training and validation, or there are no scans to train on.
    pub fn count_scans(mut self) -> Result<ScanCounts> {
        let TrainingInputs { organs, scans, .. } =
            TrainingInputs::prepare(&mut self.config, &self.plan, &self.folder, self.fold, &HeldOut::default())?;
        let device = DeviceKind::Cpu.device()?;
        match &self.config {
            TrainingConfig::Segmentation(config) if config.network.weights.is_some() => {
                SegmentationLearner::new(config, self.plan.seed, organs, None, &device).map(drop)?;
            }
            TrainingConfig::Segmentation(_) => {}
            TrainingConfig::Synthesis(config) => {
                let tumor_labels: Vec<u8> = organs.iter().map(|organ| organ.tumor_label).collect();
                Networks::new(config, self.plan.seed, &tumor_labels, &device).map(drop)?;
            }
        }
        Ok(scans.counts())
    }

    /// Runs the training.
    ///
    /// # Errors
    /// Returns an error if the inputs are invalid or a step fails.
    pub fn run(mut self, options: &TrainingOptions, observer: &mut dyn TrainingObserver) -> Result<TrainingOutcome> {
        let HeldOutContents { contents, cache } = HeldOutContents::of(&self.plan, &options.out)?;
        let mut inputs = TrainingInputs::prepare(&mut self.config, &self.plan, &self.folder, self.fold, &contents)?;
        inputs.settings["scans"] = inputs.scans.digests();
        if !contents.is_empty() {
            inputs.settings["scans"]["held_out"] = contents.digest().into();
        }
        let run = TrainingRun { options, stage: self.stage, plan: &self.plan, held_out_cache: cache };
        match &self.config {
            TrainingConfig::Segmentation(config) => run.segmentation(config, inputs, observer),
            TrainingConfig::Synthesis(config) => run.synthesis(config, inputs, observer),
        }
    }
}
