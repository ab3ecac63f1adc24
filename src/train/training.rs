//! A training from listed scans to its report.

use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;
use serde_json::Value as Json;

use super::data::{Cases, Sampler, Survey};
use super::inputs::TrainingInputs;
use super::run::{Intervals, Learner, Progress, RunPlan, TrainingReport, run};
use super::scans::TrainingCases;
use super::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler, Synthetic, Tumors};
use super::stage::TrainingStage;
use super::synthesis::{SynthesisConfig, SynthesisLearner, SynthesisSampler};
use crate::error::Result;
use crate::graph::{Plan, free_bytes};
use crate::mask::Organ;
use crate::nn::device::DeviceKind;
use crate::nn::weights::Precision;
use crate::simd::Class;

/// How and where a training runs. Nothing here changes its result, except the device.
#[derive(Clone, Debug)]
pub struct TrainingOptions {
    /// Folder of the training.
    pub out: PathBuf,
    /// Where to compute.
    pub device: DeviceKind,
    /// Whether the training resumes from a checkpoint in the folder.
    pub resume: bool,
    /// Threads that make batches; at least 1.
    pub loader_threads: usize,
    /// Memory for preprocessed scans.
    pub memory_bytes: u64,
    /// Precision of the weights that are written for inference.
    pub precision: Precision,
    /// Steps to take now, at most.
    pub limit: Option<u64>,
}

/// Follows a training.
pub trait TrainingObserver {
    /// Receives a warning.
    ///
    /// # Errors
    /// What stops the training.
    fn warning(&mut self, message: &str) -> Result<()>;

    /// Receives the state after a step.
    fn progress(&mut self, progress: &Progress<'_>);
}

/// The end of a training.
#[derive(Clone, Debug)]
pub struct TrainingOutcome {
    /// The report.
    pub report: TrainingReport,
    /// How many scans could not be read.
    pub failed_scans: usize,
}

/// A training in progress.
pub(super) struct TrainingRun<'a> {
    pub options: &'a TrainingOptions,
    pub stage: TrainingStage,
    pub plan: &'a Plan,
}

/// A training whose labeled scans were read once.
struct PreparedData {
    settings: Json,
    organs: Arc<[Organ]>,
    /// Lines that name the file of each scan.
    places: Vec<u8>,
    cases: TrainingCases,
}

impl TrainingRun<'_> {
    fn prepare(&self, inputs: TrainingInputs) -> Result<PreparedData> {
        let TrainingInputs { mut settings, preprocess, organs, scans } = inputs;
        let places = scans.places()?;
        let cases = scans.cases(preprocess, self.options.memory_bytes);
        settings["scans"]["labeled_contents"] = survey("labeled", &cases.labeled, &organs, true)?.into();
        Ok(PreparedData { settings, organs, places, cases })
    }

    pub fn segmentation(
        &self,
        config: &SegmentationConfig,
        inputs: TrainingInputs,
        observer: &mut dyn TrainingObserver,
    ) -> Result<TrainingOutcome> {
        let PreparedData { mut settings, organs, places, cases } = self.prepare(inputs)?;
        let validation = Arc::clone(&cases.validation);
        if validation.is_empty() {
            let advice = "name stages under `validation`, or give validation a share of the patients in [pipeline]";
            observer.warning(&format!("there is nothing to validate on: {advice}"))?;
        } else {
            let survey = validation.survey(cores(), &|| {});
            settings["scans"]["validation_contents"] = survey.contents_digest().into();
            if survey.good == 0 {
                survey.check("validation", validation.entries(), &[])?;
            }
            let shown = survey.cases_with;
            let hidden = organs.iter().filter(|organ| !shown.contains_key(&organ.tumor_label));
            for Organ { name, .. } in hidden {
                let scans = validation.len();
                observer.warning(&format!(
                    "none of the {scans} scans for validation shows a {name} tumor: there is no score for it"
                ))?;
            }
        }
        let mut synthetic: Vec<Synthetic> = cases.pools.iter().cloned().map(Synthetic::Pool).collect();
        for ((synthesis, branch), cases) in self.plan.training_branches().zip(&cases.fresh) {
            if !cases.is_empty() {
                let tumors = Tumors { attempts: synthesis.attempts.only(branch), organs: synthesis.organs.clone() };
                synthetic.push(Synthetic::Fresh { cases: Arc::clone(cases), tumors });
            }
        }
        let device = self.options.device.device()?;
        let seed = self.plan.seed;
        let mut learner = SegmentationLearner::new(config, seed, Arc::clone(&organs), Some(validation), &device)?;
        let labeled = Arc::clone(&cases.labeled);
        let sampler = Arc::new(SegmentationSampler::new(config, seed, organs, labeled, synthetic));
        let plan = self.run_plan(settings, places, (config.steps, config.every));
        let report = take_steps(&plan, Arc::clone(&sampler), &mut learner, observer)?;
        if let Some(few) = sampler.too_few_fresh() {
            observer.warning(&few)?;
        }
        Ok(TrainingOutcome { report, failed_scans: cases.failed() })
    }

    pub fn synthesis(
        &self,
        config: &SynthesisConfig,
        inputs: TrainingInputs,
        observer: &mut dyn TrainingObserver,
    ) -> Result<TrainingOutcome> {
        let PreparedData { mut settings, organs, places, cases } = self.prepare(inputs)?;
        let labeled = Arc::clone(&cases.labeled);
        let unlabeled = (!config.unlabeled.is_empty()).then(|| Arc::clone(&cases.unlabeled));
        if let Some(cases) = unlabeled.as_ref().filter(|cases| cases.is_empty()) {
            survey("unlabeled", cases, &organs, false)?;
        }
        let (device, seed) = (self.options.device.device()?, self.plan.seed);
        // Validation uses patients of its own, if any of them has a tumor.
        let held_out = Arc::clone(&cases.validation);
        let survey = held_out.survey(cores(), &|| {});
        settings["scans"]["validation_contents"] = survey.contents_digest().into();
        let shown = survey.cases_with;
        let has_tumor = organs.iter().any(|organ| shown.contains_key(&organ.tumor_label));
        let validated = if has_tumor { (held_out, None) } else { (Arc::clone(&labeled), unlabeled.clone()) };
        let sampler = |purpose, (labeled, unlabeled)| {
            SynthesisSampler::new(config, (seed, purpose), Arc::clone(&organs), labeled, unlabeled)
        };
        let tumor_labels = organs.iter().map(|organ| organ.tumor_label).collect();
        let validation = sampler("validation", validated)?;
        let mut learner = SynthesisLearner::new(config, seed, tumor_labels, &validation, &device)?;
        let sampler = Arc::new(sampler("synthesis", (labeled, unlabeled))?);
        let plan = self.run_plan(settings, places, (config.steps, config.every));
        let report = take_steps(&plan, sampler, &mut learner, observer)?;
        Ok(TrainingOutcome { report, failed_scans: cases.failed() })
    }

    fn run_plan(&self, settings: Json, places: Vec<u8>, (steps, every): (u64, Intervals)) -> RunPlan {
        let options = self.options;
        RunPlan {
            stage: self.stage.name(),
            settings,
            seed: self.plan.seed,
            steps,
            every,
            out: options.out.clone(),
            resume: options.resume,
            kernel_class: match options.device {
                DeviceKind::Cpu => Class::current().name().to_owned(),
                DeviceKind::Cuda => "cuda".to_owned(),
            },
            loader_threads: options.loader_threads,
            limit: options.limit,
            precision: options.precision,
            places,
        }
    }
}

fn take_steps<L: Learner>(
    plan: &RunPlan,
    sampler: Arc<impl Sampler<Batch = L::Batch>>,
    learner: &mut L,
    observer: &mut dyn TrainingObserver,
) -> Result<TrainingReport> {
    if plan.resume && !plan.has_begun() {
        tracing::warn!("{} has no checkpoint to resume from: the training starts from scratch", plan.out.display());
    }
    warn_of_space(plan, learner);
    run(plan, sampler, learner, &mut |progress| observer.progress(progress))
}

/// Reads every scan once; returns a digest of their contents. Each that cannot be read is a line of the log.
fn survey(what: &str, cases: &Cases, organs: &[Organ], with_tumors: bool) -> Result<String> {
    let found = cases.survey(cores(), &|| {});
    let names = organs.iter().map(|organ| (organ.label, organ.name.clone()));
    let tumors = organs.iter().map(|organ| (organ.tumor_label, format!("a {} tumor", organ.name)));
    let needed: Vec<_> = names.chain(tumors.filter(|_| with_tumors)).collect();
    found.check(what, cases.entries(), &needed)?;
    if found.padded > 0 {
        let Survey { padded, good, least_voxels, .. } = &found;
        let (patch, least) = (cases.preprocess().patch(), least_voxels.unwrap_or_default());
        tracing::warn!(
            "{padded} of {good} {what} scans are smaller than `patch_voxels` {patch:?} and padded with the window's low \
             end; the fewest voxels along an axis are {least:?}"
        );
    }
    Ok(found.contents_digest())
}

/// Warns where the disk is too small: a checkpoint is written beside the previous one, and weights beside it at the end and where
/// validation was best. It is better to know before the training than after hours.
fn warn_of_space(plan: &RunPlan, learner: &impl Learner) {
    let sizes: Vec<[u64; 2]> = learner.networks().iter().map(|network| network.bytes()).collect();
    let [weights, checkpoint] = [0, 1].map(|which| sizes.iter().map(|size| size[which]).sum::<u64>());
    let needed = 2 * checkpoint + 2 * weights;
    if let Some(free) = free_bytes(&plan.out).filter(|free| *free < needed) {
        let (needed, free, out) = (ByteSize(needed), ByteSize(free), plan.out.display());
        tracing::warn!("checkpoints and weights need about {needed}, {free} are free at {out}");
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
