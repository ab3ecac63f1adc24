//! Checking a file for training, before any scan is read.

use super::inputs::TrainingConfig;
use super::mask_lists::{agreed_organs, unknown_names};
use super::segmentation::SegmentationConfig;
use super::stage::TrainingStage;
use super::synthesis::SynthesisConfig;
use super::task::TrainingTask;
use crate::error::ConfigError;
use crate::graph::{
    CheckedTraining, GraphFile, Plan, Problem, Registry, Severity, StageConfig, check_training, training_keys,
};
use crate::sink::Output;

/// A checked file for training.
pub struct CheckedTask {
    /// Errors and warnings.
    pub problems: Vec<Problem>,
    /// The training, where it can start.
    pub task: Option<TrainingTask>,
}

/// The stage that a file is for, by the keys of its section `[train]`; `None` where it has no such section.
pub fn stage_of(file: &GraphFile) -> Option<TrainingStage> {
    let keys = training_keys(file)?;
    let has = |names: &[&str]| keys.iter().any(|key| names.contains(&key.as_str()));
    Some(if has(&["segmentor", "generator", "discriminator"]) {
        TrainingStage::Synthesis
    } else if has(&["synthetic"]) {
        TrainingStage::Segmentation
    } else {
        TrainingStage::Segmentor
    })
}

/// Checks a file for a stage of training; nothing is read but the file.
pub fn check(stage: TrainingStage, file: &GraphFile, registry: &Registry) -> CheckedTask {
    match stage {
        TrainingStage::Synthesis => {
            let checked = check_training(file, registry, synthesis_complaints);
            ready(stage, file, checked, |config| TrainingConfig::Synthesis(Box::new(config)))
        }
        stage => {
            let complaints = |config: &_, plan: Option<&_>| segmentation_complaints(stage, config, plan);
            let checked = check_training(file, registry, complaints);
            ready(stage, file, checked, |config| TrainingConfig::Segmentation(Box::new(config)))
        }
    }
}

fn ready<C: StageConfig>(
    stage: TrainingStage,
    file: &GraphFile,
    checked: CheckedTraining<C>,
    training: impl Fn(C) -> TrainingConfig,
) -> CheckedTask {
    let CheckedTraining { mut problems, settings, plan } = checked;
    for node in plan.iter().flat_map(|plan| &plan.sinks).filter(|node| !matches!(node.output, Output::Trainer)) {
        let message = format!("`sinks.{}` gets nothing here: trainings feed sinks of kind `trainer` alone", node.name);
        problems.push(Problem::without_location(Severity::Warning, message, None));
    }
    let task = settings.zip(plan).map(|(config, plan)| TrainingTask::new(stage, file.folder(), training(config), plan));
    CheckedTask { problems, task }
}

fn segmentation_complaints(stage: TrainingStage, config: &SegmentationConfig, plan: Option<&Plan>) -> Vec<ConfigError> {
    let mut complaints = config.complaints();
    match (stage, &config.synthetic) {
        (TrainingStage::Segmentor, Some(_)) => complaints.push(
            ConfigError::new("synthetic", "a segmentor that scores synthetic tumors is trained on real ones alone")
                .with_hint("`freetumor train segmentation` takes both"),
        ),
        (TrainingStage::Segmentation, None) => complaints.push(
            ConfigError::new("", "expected [train.synthetic], which says how many tumors are synthetic")
                .with_hint("`freetumor train segmentor` trains on real tumors alone"),
        ),
        _ => {}
    }
    let Some(plan) = plan else { return complaints };
    complaints.extend(unknown_names("labeled", &config.labeled, plan));
    complaints.extend(unknown_names("validation", &config.validation, plan));
    let feeding = plan.training_branches().flat_map(|(synthesis, _)| &synthesis.masks);
    let fed: Vec<String> = feeding.map(|mask| plan.masks[*mask].name.clone()).collect();
    let lists = [("labeled", &config.labeled[..]), ("validation", &config.validation), ("synthetic", &fed)];
    if let Err(complaint) = agreed_organs(plan, &lists) {
        complaints.push(complaint);
    }
    if let Some(synthetic) = &config.synthetic
        && synthetic.runs.is_empty()
        && plan.training_branches().next().is_none()
    {
        let (message, hint) = if plan.syntheses.is_empty() {
            (
                "nothing makes synthetic tumors: the file has no quality test, and no runs are named",
                "add a synthesis, a quality test and a sink of kind `trainer`, or runs = [{ folder = \"runs/liver\", at = 3 }]",
            )
        } else {
            (
                "nothing feeds the training: no sink of kind `trainer` takes from a quality test, and no runs are named",
                "[sinks.training]\nkind = \"trainer\"\ninputs = [\"NAME OF THE QUALITY TEST\"]",
            )
        };
        complaints.push(ConfigError::new("synthetic", message).with_hint(hint));
    }
    complaints
}

fn synthesis_complaints(config: &SynthesisConfig, plan: Option<&Plan>) -> Vec<ConfigError> {
    let mut complaints = config.complaints();
    let Some(plan) = plan else { return complaints };
    complaints.extend(unknown_names("labeled", &config.labeled, plan));
    complaints.extend(unknown_names("unlabeled", &config.unlabeled, plan));
    match agreed_organs(plan, &[("labeled", &config.labeled), ("unlabeled", &config.unlabeled)]) {
        Err(complaint) => complaints.push(complaint),
        Ok(organs) => complaints.extend(config.shape_complaints(&organs)),
    }
    complaints
}
