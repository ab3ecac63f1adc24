//! A checked training, which can be listed or run.

use std::path::{Path, PathBuf};

use super::inputs::{TrainingConfig, TrainingInputs};
use super::scans::ListedScans;
use super::segmentation::SegmentationLearner;
use super::stage::TrainingStage;
use super::synthesis::Networks;
use super::training::{TrainingObserver, TrainingOptions, TrainingOutcome, TrainingRun};
use crate::error::Result;
use crate::graph::Plan;
use crate::nn::device::DeviceKind;

/// A training whose file has no errors.
pub struct TrainingTask {
    stage: TrainingStage,
    /// The folder to which paths in the file are relative.
    folder: PathBuf,
    config: TrainingConfig,
    plan: Plan,
}

impl TrainingTask {
    pub(super) fn new(stage: TrainingStage, folder: &Path, config: TrainingConfig, plan: Plan) -> Self {
        Self { stage, folder: folder.to_owned(), config, plan }
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Lists its scans and opens its weights; no scan is read.
    ///
    /// # Errors
    /// Where weights do not exist or are not those of its networks, a source cannot be listed, a patient is trained and
    /// validated on, or there is nothing to train on.
    pub fn listed(mut self) -> Result<ListedScans> {
        let TrainingInputs { organs, scans, .. } = TrainingInputs::prepare(&mut self.config, &self.plan, &self.folder)?;
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
        Ok(scans.listed())
    }

    /// Trains.
    ///
    /// # Errors
    /// What could not be trained, or had to stop.
    pub fn run(mut self, options: &TrainingOptions, observer: &mut dyn TrainingObserver) -> Result<TrainingOutcome> {
        let mut inputs = TrainingInputs::prepare(&mut self.config, &self.plan, &self.folder)?;
        inputs.settings["scans"] = inputs.scans.digests();
        let run = TrainingRun { options, stage: self.stage, plan: &self.plan };
        match &self.config {
            TrainingConfig::Segmentation(config) => run.segmentation(config, inputs, observer),
            TrainingConfig::Synthesis(config) => run.synthesis(config, inputs, observer),
        }
    }
}
