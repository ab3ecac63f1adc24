//! Whether a file says all that a training needs, found before any scan is read.

use super::StageName;
use super::scans::{agreed_organs, named};
use super::task::{Task, Training};
use crate::error::ConfigError;
use crate::graph::{
    CheckedTraining, GraphFile, Plan, Problem, Registry, Severity, StageConfig, check_training, training_keys,
};
use crate::sink::Output;
use crate::train::segmentation::SegmentationConfig;
use crate::train::synthesis::SynthesisConfig;

/// What came of checking a file for training.
pub struct Checked {
    /// Everything that is wrong or hardly meant.
    pub problems: Vec<Problem>,
    /// The training, where nothing keeps it from starting.
    pub task: Option<Task>,
}

/// The stage that a file is for, by what its section `[train]` has; `None` where it has none.
pub fn stage_of(file: &GraphFile) -> Option<StageName> {
    let keys = training_keys(file)?;
    let has = |names: &[&str]| keys.iter().any(|key| names.contains(&key.as_str()));
    Some(if has(&["segmentor", "generator", "discriminator"]) {
        StageName::Synthesis
    } else if has(&["synthetic"]) {
        StageName::Segmentation
    } else {
        StageName::Segmentor
    })
}

/// Checks a file for a stage of training; nothing is read but the file.
pub fn check(stage: StageName, file: &GraphFile, registry: &Registry) -> Checked {
    match stage {
        StageName::Synthesis => {
            let checked = check_training(file, registry, synthesis_complaints);
            ready(stage, file, checked, |config| Training::Synthesis(Box::new(config)))
        }
        stage => {
            let complaints = |config: &_, plan: Option<&_>| segmentation_complaints(stage, config, plan);
            let checked = check_training(file, registry, complaints);
            ready(stage, file, checked, |config| Training::Segmentation(Box::new(config)))
        }
    }
}

fn ready<C: StageConfig>(
    stage: StageName,
    file: &GraphFile,
    checked: CheckedTraining<C>,
    training: impl Fn(C) -> Training,
) -> Checked {
    let CheckedTraining { mut problems, settings, plan } = checked;
    for node in plan.iter().flat_map(|plan| &plan.sinks).filter(|node| !matches!(node.output, Output::Trainer)) {
        let message = format!("`sinks.{}` gets nothing here: trainings feed sinks of kind `trainer` alone", node.name);
        problems.push(Problem::of_file(Severity::Warning, message, None));
    }
    let task = settings.zip(plan).map(|(config, plan)| Task::new(stage, file.folder(), training(config), plan));
    Checked { problems, task }
}

fn segmentation_complaints(stage: StageName, config: &SegmentationConfig, plan: Option<&Plan>) -> Vec<ConfigError> {
    let mut complaints = config.complaints();
    match (stage, &config.synthetic) {
        (StageName::Segmentor, Some(_)) => complaints.push(
            ConfigError::new("synthetic", "a segmentor that judges synthetic tumors is trained on real ones alone")
                .with_hint("`freetumor train segmentation` takes both"),
        ),
        (StageName::Segmentation, None) => complaints.push(
            ConfigError::new("", "expected [train.synthetic], which says how many tumors are synthetic")
                .with_hint("`freetumor train segmentor` trains on real tumors alone"),
        ),
        _ => {}
    }
    let Some(plan) = plan else { return complaints };
    complaints.extend(named("labeled", &config.labeled, plan));
    complaints.extend(named("validation", &config.validation, plan));
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
    complaints.extend(named("labeled", &config.labeled, plan));
    complaints.extend(named("unlabeled", &config.unlabeled, plan));
    match agreed_organs(plan, &[("labeled", &config.labeled), ("unlabeled", &config.unlabeled)]) {
        Err(complaint) => complaints.push(complaint),
        Ok(organs) => complaints.extend(config.shape_complaints(&organs)),
    }
    complaints
}
