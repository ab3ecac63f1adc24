//! Trainings: segmentors of all arms, and the generators.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use freetumor::error::{Error, Result};
use freetumor::nn::weights::Precision;
use freetumor::store::FileDigest;
use freetumor::train::data::{Cases, Sampler};
use freetumor::train::run::{Intervals, Learner, Progress, RunPlan, in_words, run, weights_of};
use freetumor::train::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler, Synthetic};
use freetumor::train::synthesis::{SynthesisConfig, SynthesisLearner, SynthesisSampler};
use serde_json::{Value, json};

use super::config::Maker;
use super::data_set::Scans;
use super::lab::{Lab, say};
use super::side_by_side::side_by_side;

/// Time between two words about a training.
const PAUSE: Duration = Duration::from_secs(60);

/// A segmentor that is to be trained.
pub struct Recipe {
    /// Its folder, below that of the experiment.
    pub name: String,
    pub config: SegmentationConfig,
    pub seed: u64,
    pub real: Arc<Cases>,
    pub synthetic: Vec<Synthetic>,
    /// What is looked at while it learns.
    pub validation: Option<Arc<Cases>>,
    /// What decides the result beside the settings.
    pub beside: Value,
}

/// Where a training lies.
pub fn folder(lab: &Lab, name: &str) -> PathBuf {
    lab.out.join("trainings").join(name)
}

/// The weights of a finished segmentor.
pub fn weights(lab: &Lab, name: &str) -> PathBuf {
    weights_of(&folder(lab, name), "segmentor")
}

/// The settings of segmentors that see real tumors alone.
pub fn real_only(lab: &Lab) -> SegmentationConfig {
    SegmentationConfig { synthetic: None, ..lab.experiment.segmentation.clone() }
}

/// Trains a segmentor to its end, or goes on where it stopped.
///
/// # Errors
/// Returns an error if it cannot be trained.
pub fn train(lab: &Lab, recipe: Recipe) -> Result<PathBuf> {
    let Recipe { name, config, seed, real, synthetic, validation, beside } = recipe;
    let device = lab.device()?;
    let settings = json!({ "experiment": "gain", "seed": seed, "beside": beside, "train": config });
    let mut learner = SegmentationLearner::new(&config, seed, Arc::clone(&lab.organs), validation, &device)?;
    let sampler = SegmentationSampler::new(&config, seed, Arc::clone(&lab.organs), real, synthetic);
    let plan = plan(lab, "segmentation", &name, settings, (seed, config.steps, config.every));
    go(&plan, &name, Arc::new(sampler), &mut learner)?;
    Ok(weights(lab, &name))
}

/// Trains the judging and the held-out segmentor.
///
/// # Errors
/// Returns an error if they cannot be trained.
pub fn train_judges(lab: &Lab, labeled: &Scans, validation: &Scans) -> Result<()> {
    let judges = &lab.experiment.judges;
    let mut held_out = real_only(lab);
    held_out.network.width = Some(judges.held_out_width);
    let both = [(JUDGE, real_only(lab), judges.seed), (HELD_OUT, held_out, judges.held_out_seed)];
    side_by_side(lab.jobs, &both, |(name, config, seed)| {
        if weights(lab, name).exists() {
            return Ok(());
        }
        let recipe = Recipe {
            name: (*name).to_owned(),
            config: SegmentationConfig { steps: judges.steps, ..config.clone() },
            seed: *seed,
            real: Arc::clone(&labeled.cases),
            synthetic: Vec::new(),
            validation: Some(Arc::clone(&validation.cases)),
            beside: json!({}),
        };
        train(lab, recipe).map(drop)
    })
}

/// The segmentor that filters.
pub const JUDGE: &str = "judge";
/// The segmentor that no generator sees.
pub const HELD_OUT: &str = "held_out";

/// The weights of a generator.
pub fn generator_weights(lab: &Lab, maker: Maker) -> PathBuf {
    weights_of(&folder(lab, maker.name()), "generator")
}

/// Trains a generator against the judging segmentor.
///
/// # Errors
/// Returns an error if it cannot be trained.
pub fn train_generator(lab: &Lab, maker: Maker, labeled: &Scans, unlabeled: &Scans) -> Result<()> {
    if maker == Maker::Rules || generator_weights(lab, maker).exists() {
        return Ok(());
    }
    let seed = lab.experiment.seeds.generator;
    let mut config: SynthesisConfig = lab.experiment.synthesis.clone();
    let unlabeled = (maker == Maker::Generator).then(|| Arc::clone(&unlabeled.cases));
    if unlabeled.is_none() {
        config.unlabeled.clear();
    }
    let mut settings = json!({ "experiment": "gain", "seed": seed, "train": config });
    let judge = weights(lab, JUDGE);
    settings["judge"] = json!(digest(&judge)?);
    config.segmentor.weights = judge;
    let sampler = |purpose| {
        let (organs, labeled) = (Arc::clone(&lab.organs), Arc::clone(&labeled.cases));
        SynthesisSampler::new(&config, (seed, purpose), organs, labeled, unlabeled.clone())
    };
    let tumor_labels = lab.organs.iter().map(|organ| organ.tumor_label).collect();
    let mut learner = SynthesisLearner::new(&config, seed, tumor_labels, &sampler("validation")?, &lab.device()?)?;
    let plan = plan(lab, "synthesis", maker.name(), settings, (seed, config.steps, config.every));
    go(&plan, maker.name(), Arc::new(sampler("synthesis")?), &mut learner)
}

/// The SHA-256 of a file.
///
/// # Errors
/// Returns an error if it cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|cause| Error::io("cannot read", path, cause))?;
    Ok(FileDigest::of(&bytes).sha256)
}

fn plan(lab: &Lab, stage: &'static str, name: &str, settings: Value, how: (u64, u64, Intervals)) -> RunPlan {
    let (seed, steps, every) = how;
    RunPlan {
        stage,
        settings,
        seed,
        steps,
        every,
        out: folder(lab, name),
        resume: true,
        kernel_class: lab.kernel_class(),
        loader_threads: 1,
        precision: Precision::Single,
        places: Vec::new(),
        limit: None,
    }
}

fn go<L: Learner>(
    plan: &RunPlan,
    name: &str,
    sampler: Arc<impl Sampler<Batch = L::Batch>>,
    learner: &mut L,
) -> Result<()> {
    let mut next = PAUSE;
    let mut seen = |progress: &Progress<'_>| {
        if progress.elapsed >= next {
            next = progress.elapsed + PAUSE;
            let Progress { step, steps, left, .. } = progress;
            let minutes = left.as_secs() / 60;
            say(&format!("{name}: step {step} of {steps}, {minutes} min left, {}", in_words(progress.numbers)));
        }
    };
    let report = run(plan, sampler, learner, &mut seen)?;
    let scores: Vec<(String, f64)> = report.scores.into_iter().filter(|(_, value)| value.is_finite()).collect();
    say(&format!("{name}: {} steps in {:.0} s, {}", report.new_steps, report.seconds, in_words(&scores)));
    Ok(())
}
