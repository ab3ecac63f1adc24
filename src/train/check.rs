//! Validation of a training file, before any scan is read.

use super::inputs::TrainingConfig;
use super::mask_lists::{common_organs, unknown_names};
use super::segmentation::SegmentationConfig;
use super::stage::TrainingStage;
use super::synthesis::SynthesisConfig;
use super::task::TrainingTask;
use crate::error::ConfigError;
use crate::graph::{
    CheckedTraining, GraphFile, NodeConfig, Plan, Problem, Registry, Severity, check_training, training_keys,
};
use crate::sink::Output;

/// The problems of a training file, and the training task if the file has no errors.
pub struct CheckedTask {
    /// Errors and warnings.
    pub problems: Vec<Problem>,
    /// The training task; `None` if the file has errors.
    pub task: Option<TrainingTask>,
}

/// Returns the stage that a file is for, by the keys of its section `[train]`; `None` if the file has no such section.
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

/// Checks a file for a stage of training. Only the file itself is read.
pub fn check(stage: TrainingStage, file: &GraphFile, registry: &Registry) -> CheckedTask {
    match stage {
        TrainingStage::Synthesis => {
            let checked = check_training(file, registry, synthesis_errors);
            checked_task(stage, file, checked, |config| TrainingConfig::Synthesis(Box::new(config)))
        }
        stage => {
            let errors = |config: &_, plan: Option<&_>| segmentation_errors(stage, config, plan);
            let checked = check_training(file, registry, errors);
            checked_task(stage, file, checked, |config| TrainingConfig::Segmentation(Box::new(config)))
        }
    }
}

fn checked_task<C: NodeConfig>(
    stage: TrainingStage,
    file: &GraphFile,
    checked: CheckedTraining<C>,
    training: impl Fn(C) -> TrainingConfig,
) -> CheckedTask {
    let CheckedTraining { mut problems, settings, plan } = checked;
    for node in plan.iter().flat_map(|plan| &plan.sinks).filter(|node| !matches!(node.output, Output::Trainer)) {
        let message =
            format!("`sinks.{}` receives no samples: a training run feeds only sinks of kind `trainer`", node.name);
        problems.push(Problem::without_location(Severity::Warning, message, None));
    }
    let task = settings.zip(plan).map(|(config, plan)| TrainingTask::new(stage, file.folder(), training(config), plan));
    CheckedTask { problems, task }
}

fn segmentation_errors(stage: TrainingStage, config: &SegmentationConfig, plan: Option<&Plan>) -> Vec<ConfigError> {
    let mut errors = config.errors();
    match (stage, &config.synthetic) {
        (TrainingStage::Segmentor, Some(_)) => errors.push(
            ConfigError::new("synthetic", "expected no [train.synthetic]: this stage trains on real tumors only")
                .with_hint("use `freetumor train segmentation` to train on both"),
        ),
        (TrainingStage::Segmentation, None) => errors.push(
            ConfigError::new("", "expected [train.synthetic], which sets the share of synthetic tumors")
                .with_hint("use `freetumor train segmentor` to train on real tumors only"),
        ),
        _ => {}
    }
    let Some(plan) = plan else { return errors };
    errors.extend(unknown_names("labeled", &config.labeled, plan));
    errors.extend(unknown_names("validation", &config.validation, plan));
    let feeding = plan.training_branches().flat_map(|(synthesis, _)| &synthesis.masks);
    let fed: Vec<String> = feeding.map(|mask| plan.masks[*mask].name.clone()).collect();
    let lists = [("labeled", &config.labeled[..]), ("validation", &config.validation), ("synthetic", &fed)];
    if let Err(error) = common_organs(plan, &lists) {
        errors.push(error);
    }
    if let Some(synthetic) = &config.synthetic
        && synthetic.runs.is_empty()
        && plan.training_branches().next().is_none()
    {
        let (message, hint) = if plan.syntheses.is_empty() {
            (
                "no stage makes synthetic tumors: the file has no quality test and names no run folders",
                "add a synthesis, a quality test and a sink of kind `trainer`, or runs = [{ folder = \"runs/liver\", at = 3 }]",
            )
        } else {
            (
                "no stage produces samples for training: no sink of kind `trainer` has a quality test as input, and the file names no run folders",
                "add [sinks.training]\nkind = \"trainer\"\ninputs = [\"NAME OF THE QUALITY TEST\"]",
            )
        };
        errors.push(ConfigError::new("synthetic", message).with_hint(hint));
    }
    errors
}

fn synthesis_errors(config: &SynthesisConfig, plan: Option<&Plan>) -> Vec<ConfigError> {
    let mut errors = config.errors();
    let Some(plan) = plan else { return errors };
    errors.extend(unknown_names("labeled", &config.labeled, plan));
    errors.extend(unknown_names("unlabeled", &config.unlabeled, plan));
    match common_organs(plan, &[("labeled", &config.labeled), ("unlabeled", &config.unlabeled)]) {
        Err(error) => errors.push(error),
        Ok(organs) => errors.extend(config.shape_errors(&organs)),
    }
    errors
}
