//! The trainings of all segmentors and generators.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use freetumor::error::{Error, Result};
use freetumor::nn::weights::Precision;
use freetumor::store::FileDigest;
use freetumor::train::data::{Cases, Sampler};
use freetumor::train::run::{Intervals, Learner, Progress, RunPlan, format_numbers, run, weights_path};
use freetumor::train::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler, SyntheticSource};
use freetumor::train::synthesis::{SynthesisConfig, SynthesisLearner, SynthesisSampler};
use serde_json::{Value, json};

use super::config::PoolKind;
use super::data_set::Scans;
use super::parallel::run_parallel;
use super::workspace::{Workspace, print_status};

/// The time between status lines of a training.
const PAUSE: Duration = Duration::from_secs(60);

/// The training of a segmentor.
pub struct SegmentorTraining {
    /// The name of its folder in `trainings`.
    pub name: String,
    pub config: SegmentationConfig,
    pub seed: u64,
    pub real: Arc<Cases>,
    pub synthetic: Vec<SyntheticSource>,
    /// The scans for validation during the training.
    pub validation: Option<Arc<Cases>>,
    /// The inputs that determine the result in addition to the settings.
    pub inputs: Value,
}

/// Returns the folder of a training.
pub fn folder(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.out.join("trainings").join(name)
}

/// Returns the path of the weights of a finished segmentor.
pub fn weights(workspace: &Workspace, name: &str) -> PathBuf {
    weights_path(&folder(workspace, name), "segmentor")
}

/// Returns the settings of segmentors that are trained on real tumors only.
pub fn real_only(workspace: &Workspace) -> SegmentationConfig {
    SegmentationConfig { synthetic: None, ..workspace.experiment.segmentation.clone() }
}

/// Trains a segmentor, from scratch or from its last checkpoint.
///
/// # Errors
/// Returns an error if the training fails.
pub fn train(workspace: &Workspace, training: SegmentorTraining) -> Result<PathBuf> {
    let SegmentorTraining { name, config, seed, real, synthetic, validation, inputs } = training;
    let device = workspace.device()?;
    let settings = json!({ "experiment": "gain", "seed": seed, "beside": inputs, "train": config });
    let mut learner = SegmentationLearner::new(&config, seed, Arc::clone(&workspace.organs), validation, &device)?;
    let sampler = SegmentationSampler::new(&config, seed, Arc::clone(&workspace.organs), real, synthetic);
    let plan = plan(workspace, "segmentation", &name, settings, (seed, config.steps, config.every));
    run_training(&plan, &name, Arc::new(sampler), &mut learner)?;
    Ok(weights(workspace, &name))
}

/// Trains the quality segmentor and the held-out segmentor.
///
/// # Errors
/// Returns an error if a training fails.
pub fn train_quality_segmentors(workspace: &Workspace, labeled: &Scans, validation: &Scans) -> Result<()> {
    let quality = &workspace.experiment.quality;
    let mut held_out = real_only(workspace);
    held_out.network.width = Some(quality.held_out_width);
    let both = [(QUALITY, real_only(workspace), quality.seed), (HELD_OUT, held_out, quality.held_out_seed)];
    run_parallel(workspace.jobs, &both, |(name, config, seed)| {
        if weights(workspace, name).exists() {
            return Ok(());
        }
        let training = SegmentorTraining {
            name: (*name).to_owned(),
            config: SegmentationConfig { steps: quality.steps, ..config.clone() },
            seed: *seed,
            real: Arc::clone(&labeled.cases),
            synthetic: Vec::new(),
            validation: Some(Arc::clone(&validation.cases)),
            inputs: json!({}),
        };
        train(workspace, training).map(drop)
    })
}

/// The name of the quality segmentor, which filters.
pub const QUALITY: &str = "judge";
/// The name of the held-out segmentor, which no generator is trained against.
pub const HELD_OUT: &str = "held_out";

/// Returns the path of the weights of a generator.
pub fn generator_weights(workspace: &Workspace, pool_kind: PoolKind) -> PathBuf {
    weights_path(&folder(workspace, pool_kind.name()), "generator")
}

/// Trains a generator against the quality segmentor.
///
/// # Errors
/// Returns an error if the training fails.
pub fn train_generator(workspace: &Workspace, pool_kind: PoolKind, labeled: &Scans, unlabeled: &Scans) -> Result<()> {
    if pool_kind == PoolKind::Rules || generator_weights(workspace, pool_kind).exists() {
        return Ok(());
    }
    let seed = workspace.experiment.seeds.generator;
    let mut config: SynthesisConfig = workspace.experiment.synthesis.clone();
    let unlabeled = (pool_kind == PoolKind::Generator).then(|| Arc::clone(&unlabeled.cases));
    if unlabeled.is_none() {
        config.unlabeled.clear();
    }
    let mut settings = json!({ "experiment": "gain", "seed": seed, "train": config });
    let segmentor = weights(workspace, QUALITY);
    settings["judge"] = json!(digest(&segmentor)?);
    config.segmentor.weights = segmentor;
    let sampler = |purpose| {
        let (organs, labeled) = (Arc::clone(&workspace.organs), Arc::clone(&labeled.cases));
        SynthesisSampler::new(&config, (seed, purpose), organs, labeled, unlabeled.clone())
    };
    let tumor_labels = workspace.organs.iter().map(|organ| organ.tumor_label).collect();
    let mut learner =
        SynthesisLearner::new(&config, seed, tumor_labels, &sampler("validation")?, &workspace.device()?)?;
    let plan = plan(workspace, "synthesis", pool_kind.name(), settings, (seed, config.steps, config.every));
    run_training(&plan, pool_kind.name(), Arc::new(sampler("synthesis")?), &mut learner)
}

/// Returns the SHA-256 of a file.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|cause| Error::io("cannot read", path, cause))?;
    Ok(FileDigest::of(&bytes).sha256)
}

fn plan(
    workspace: &Workspace,
    stage: &'static str,
    name: &str,
    settings: Value,
    schedule: (u64, u64, Intervals),
) -> RunPlan {
    let (seed, steps, every) = schedule;
    RunPlan {
        used_samples: Vec::new(),
        stage,
        settings,
        seed,
        steps,
        every,
        out: folder(workspace, name),
        resume: true,
        kernel_class: workspace.kernel_class(),
        loader_threads: 1,
        precision: Precision::Single,
        scan_files: Vec::new(),
        held_out_cache: Vec::new(),
        limit: None,
    }
}

fn run_training<L: Learner>(
    plan: &RunPlan,
    name: &str,
    sampler: Arc<impl Sampler<Batch = L::Batch>>,
    learner: &mut L,
) -> Result<()> {
    let mut next = PAUSE;
    let mut observe = |progress: &Progress<'_>| {
        if progress.elapsed >= next {
            next = progress.elapsed + PAUSE;
            let Progress { step, steps, remaining, .. } = progress;
            let minutes = remaining.as_secs() / 60;
            print_status(&format!(
                "{name}: step {step} of {steps}, {minutes} min left, {}",
                format_numbers(progress.numbers)
            ));
        }
    };
    let report = run(plan, sampler, learner, &mut observe)?;
    let scores: Vec<(String, f64)> = report.scores.into_iter().filter(|(_, value)| value.is_finite()).collect();
    print_status(&format!(
        "{name}: {} steps in {:.0} s, {}",
        report.new_steps,
        report.seconds,
        format_numbers(&scores)
    ));
    Ok(())
}
