//! The steps of a training run, from listed scans to the report.

use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;
use serde_json::Value as Json;

use super::data::{Cases, Sampler, Survey};
use super::inputs::TrainingInputs;
use super::run::{Intervals, Learner, Progress, RunPlan, TrainingReport, run};
use super::scans::TrainingCases;
use super::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler, SyntheticSource, TumorMaker};
use super::stage::TrainingStage;
use super::synthesis::{SynthesisConfig, SynthesisLearner, SynthesisSampler};
use super::used_samples::UsedSample;
use crate::error::Result;
use crate::graph::{Plan, free_bytes};
use crate::mask::Organ;
use crate::nn::device::DeviceKind;
use crate::nn::weights::Precision;
use crate::simd::Class;

/// The options of a training run. Only the device changes the result.
#[derive(Clone, Debug)]
pub struct TrainingOptions {
    /// The output folder.
    pub out: PathBuf,
    /// The device.
    pub device: DeviceKind,
    /// Whether to resume from a checkpoint in the folder.
    pub resume: bool,
    /// Threads that make batches; at least 1.
    pub loader_threads: usize,
    /// Bytes of memory for preprocessed scans.
    pub memory_bytes: u64,
    /// The precision of the weights for inference.
    pub precision: Precision,
    /// The maximum number of steps before the training run stops with a checkpoint; `None` for all steps.
    pub limit: Option<u64>,
}

/// Receives the warnings and the progress of a training run.
pub trait TrainingObserver {
    /// Receives a warning.
    ///
    /// # Errors
    /// Returns an error to stop the training run.
    fn warning(&mut self, message: &str) -> Result<()>;

    /// Receives the state after a step.
    fn progress(&mut self, progress: &Progress<'_>);
}

/// The result of a training run.
#[derive(Clone, Debug)]
pub struct TrainingOutcome {
    /// The report.
    pub report: TrainingReport,
    /// The number of scans that could not be read.
    pub failed_scans: usize,
}

/// A training run in progress.
pub(super) struct TrainingRun<'a> {
    pub options: &'a TrainingOptions,
    pub stage: TrainingStage,
    pub plan: &'a Plan,
    /// The content of the file of known held-out scans.
    pub held_out_cache: Vec<u8>,
}

/// The scans and samples of a training run, as its folder lists them.
struct ScanFiles {
    /// Lines that name the file of each scan.
    scan_files: Vec<u8>,
    used_samples: Vec<UsedSample>,
}

/// The data of a training run after its labeled scans were read once.
struct PreparedData {
    settings: Json,
    organs: Arc<[Organ]>,
    files: ScanFiles,
    cases: TrainingCases,
}

impl TrainingRun<'_> {
    fn prepare(&self, inputs: TrainingInputs) -> Result<PreparedData> {
        let TrainingInputs { mut settings, preprocess, organs, scans } = inputs;
        let files = ScanFiles { scan_files: scans.scan_files()?, used_samples: scans.used_samples().to_vec() };
        let cases = scans.cases(preprocess, self.options.memory_bytes);
        settings["scans"]["labeled_contents"] = survey("labeled", &cases.labeled, &organs, true)?.into();
        Ok(PreparedData { settings, organs, files, cases })
    }

    pub fn segmentation(
        &self,
        config: &SegmentationConfig,
        inputs: TrainingInputs,
        observer: &mut dyn TrainingObserver,
    ) -> Result<TrainingOutcome> {
        let PreparedData { mut settings, organs, files, cases } = self.prepare(inputs)?;
        let validation = Arc::clone(&cases.validation);
        if validation.is_empty() {
            let advice = "name stages in `validation`, or set a validation share in `split` of [pipeline]";
            observer.warning(&format!("no validation scans: {advice}"))?;
        } else {
            let survey = validation.survey(cores(), &|| {});
            settings["scans"]["validation_contents"] = survey.contents_digest().into();
            if survey.readable == 0 {
                survey.check("validation", validation.entries(), &[])?;
            }
            let cases_with = survey.cases_with;
            let absent = organs.iter().filter(|organ| !cases_with.contains_key(&organ.tumor_label));
            for Organ { name, .. } in absent {
                observer.warning(&format!(
                    "no validation scan has a {name} tumor: the Dice of {name} tumors is undefined"
                ))?;
            }
        }
        let mut synthetic: Vec<SyntheticSource> = cases.pools.iter().cloned().map(SyntheticSource::Pool).collect();
        for ((synthesis, branch), cases) in self.plan.training_branches().zip(&cases.fresh) {
            if !cases.is_empty() {
                let tumors = TumorMaker::new(synthesis, branch);
                synthetic.push(SyntheticSource::Fresh { cases: Arc::clone(cases), tumors });
            }
        }
        let device = self.options.device.device()?;
        let seed = self.plan.seed;
        let mut learner = SegmentationLearner::new(config, seed, Arc::clone(&organs), Some(validation), &device)?;
        let labeled = Arc::clone(&cases.labeled);
        let sampler = Arc::new(SegmentationSampler::new(config, seed, organs, labeled, synthetic));
        let plan = self.run_plan(settings, files, (config.steps, config.every));
        let report = take_steps(&plan, Arc::clone(&sampler), &mut learner, observer)?;
        if let Some(warning) = sampler.low_acceptance_warning() {
            observer.warning(&warning)?;
        }
        Ok(TrainingOutcome { report, failed_scans: cases.failed() })
    }

    pub fn synthesis(
        &self,
        config: &SynthesisConfig,
        inputs: TrainingInputs,
        observer: &mut dyn TrainingObserver,
    ) -> Result<TrainingOutcome> {
        let PreparedData { mut settings, organs, files, cases } = self.prepare(inputs)?;
        let labeled = Arc::clone(&cases.labeled);
        let unlabeled = (!config.unlabeled.is_empty()).then(|| Arc::clone(&cases.unlabeled));
        if let Some(cases) = unlabeled.as_ref().filter(|cases| cases.is_empty()) {
            survey("unlabeled", cases, &organs, false)?;
        }
        let (device, seed) = (self.options.device.device()?, self.plan.seed);
        // Validation uses the held-out patients, if any of them has a tumor.
        let held_out = Arc::clone(&cases.validation);
        let survey = held_out.survey(cores(), &|| {});
        settings["scans"]["validation_contents"] = survey.contents_digest().into();
        let has_tumor = organs.iter().any(|organ| survey.cases_with.contains_key(&organ.tumor_label));
        let validation_cases = if has_tumor { (held_out, None) } else { (Arc::clone(&labeled), unlabeled.clone()) };
        let sampler = |purpose, (labeled, unlabeled)| {
            SynthesisSampler::new(config, (seed, purpose), Arc::clone(&organs), labeled, unlabeled)
        };
        let tumor_labels = organs.iter().map(|organ| organ.tumor_label).collect();
        let validation = sampler("validation", validation_cases)?;
        let mut learner = SynthesisLearner::new(config, seed, tumor_labels, &validation, &device)?;
        let sampler = Arc::new(sampler("synthesis", (labeled, unlabeled))?);
        let plan = self.run_plan(settings, files, (config.steps, config.every));
        let report = take_steps(&plan, sampler, &mut learner, observer)?;
        Ok(TrainingOutcome { report, failed_scans: cases.failed() })
    }

    fn run_plan(&self, settings: Json, files: ScanFiles, (steps, every): (u64, Intervals)) -> RunPlan {
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
            scan_files: files.scan_files,
            used_samples: files.used_samples,
            held_out_cache: self.held_out_cache.clone(),
        }
    }
}

fn take_steps<L: Learner>(
    plan: &RunPlan,
    sampler: Arc<impl Sampler<Batch = L::Batch>>,
    learner: &mut L,
    observer: &mut dyn TrainingObserver,
) -> Result<TrainingReport> {
    if plan.resume && !plan.has_checkpoint() {
        tracing::warn!("{} has no checkpoint to resume from: the training run starts from scratch", plan.out.display());
    }
    warn_if_disk_is_small(plan, learner);
    run(plan, sampler, learner, &mut |progress| observer.progress(progress))
}

/// Reads every scan once and returns a digest of their contents. Scans that cannot be read are logged.
fn survey(list: &str, cases: &Cases, organs: &[Organ], with_tumors: bool) -> Result<String> {
    let survey = cases.survey(cores(), &|| {});
    let names = organs.iter().map(|organ| (organ.label, organ.name.clone()));
    let tumors = organs.iter().map(|organ| (organ.tumor_label, format!("a {} tumor", organ.name)));
    let required: Vec<_> = names.chain(tumors.filter(|_| with_tumors)).collect();
    survey.check(list, cases.entries(), &required)?;
    if survey.padded > 0 {
        let Survey { padded, readable, least_voxels, .. } = &survey;
        let (patch, least) = (cases.preprocess().patch(), least_voxels.unwrap_or_default());
        tracing::warn!(
            "{padded} of {readable} {list} scans are smaller than `patch_voxels` {patch:?} and padded with the lower bound of \
             the window; the fewest voxels along each axis are {least:?}"
        );
    }
    Ok(survey.contents_digest())
}

/// Warns before the first step if the disk is too small for two checkpoints (a checkpoint is written next to the previous one), the
/// final weights and the best weights.
fn warn_if_disk_is_small(plan: &RunPlan, learner: &impl Learner) {
    let sizes: Vec<[u64; 2]> = learner.networks().iter().map(|network| network.bytes()).collect();
    let [weights, checkpoint] = [0, 1].map(|index| sizes.iter().map(|size| size[index]).sum::<u64>());
    let required = 2 * checkpoint + 2 * weights;
    if let Some(free) = free_bytes(&plan.out).filter(|free| *free < required) {
        let (required, free, out) = (ByteSize(required), ByteSize(free), plan.out.display());
        tracing::warn!("expected about {required} of free disk space for checkpoints and weights, got {free} at {out}");
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
