//! A training that was found good: which scans it takes, and its way from there to its end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::scans::{Listed, Part, ReadyCases, Scans, agreed_organs};
use super::watch::Watch;
use super::{StageName, TrainArgs};
use crate::cli::network::DeviceName;
use crate::cli::print::unprinted;
use crate::cli::run::{at_least_one, default_memory_bytes};
use crate::error::{ConfigError, Error, Result};
use crate::graph::{Place as FilePlace, Plan, free_bytes};
use crate::mask::Organ;
use crate::nn::device::Place;
use crate::nn::kernel::Class;
use crate::nn::weights::{Precision, Stated};
use crate::store::FileDigest;
use crate::train::data::{Cases, Sampler, Survey};
use crate::train::run::{Every, Learner, Report, RunPlan, run};
use crate::train::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler, Synthetic, Tumors};
use crate::train::synthesis::{Networks, SynthesisConfig, SynthesisLearner, SynthesisSampler};
use crate::volume::Preprocess;

/// A training whose file is good.
pub struct Task {
    stage: StageName,
    /// The folder to which paths in the file are relative.
    folder: PathBuf,
    training: Training,
    plan: Plan,
}

/// What a file says of its training.
pub enum Training {
    /// Of a segmentor, with or without synthetic tumors.
    Segmentation(Box<SegmentationConfig>),
    /// Of a generator with its discriminator.
    Synthesis(Box<SynthesisConfig>),
}

/// A training whose scans are listed and whose weights are there.
struct Prepared {
    settings: Json,
    preprocess: Preprocess,
    organs: Arc<[Organ]>,
    scans: Scans,
}

impl Task {
    /// A training for the scans of `plan`.
    pub(super) fn new(stage: StageName, folder: &Path, training: Training, plan: Plan) -> Self {
        Self { stage, folder: folder.to_owned(), training, plan }
    }

    /// Lists its scans and opens its weights; no scan is read.
    ///
    /// # Errors
    /// Where weights are not there or not those of its networks, a source cannot be listed, a patient is trained and
    /// validated on, or there is nothing to train on.
    pub fn listed(mut self) -> Result<Listed> {
        let Prepared { organs, scans, .. } = self.prepare()?;
        let device = Place::Cpu.device()?;
        match &self.training {
            Training::Segmentation(config) if config.network.weights.is_some() => {
                SegmentationLearner::new(config, self.plan.seed, organs, None, &device).map(drop)?;
            }
            Training::Segmentation(_) => {}
            Training::Synthesis(config) => {
                let tumor_labels: Vec<u8> = organs.iter().map(|organ| organ.tumor_label).collect();
                Networks::new(config, self.plan.seed, &tumor_labels, &device).map(drop)?;
            }
        }
        Ok(scans.listed())
    }

    /// Trains; gives the report, and how many scans could not be read.
    ///
    /// # Errors
    /// What could not be trained, or had to stop.
    pub fn run(mut self, args: &TrainArgs, stderr: &mut dyn Write) -> Result<(Report, usize)> {
        let mut prepared = self.prepare()?;
        prepared.settings["scans"] = prepared.scans.digests();
        let Self { stage, training, plan, .. } = self;
        let doing = Doing { args, stage, plan };
        match training {
            Training::Segmentation(config) => doing.segmentation(&config, prepared, stderr),
            Training::Synthesis(config) => doing.synthesis(&config, prepared),
        }
    }

    fn prepare(&mut self) -> Result<Prepared> {
        let Self { folder, plan, training, .. } = self;
        let place = FilePlace { name: "train".to_owned(), folder: folder.clone(), seed: plan.seed, organs: [].into() };
        let path = |field: &str, written: &Path| place.path(field, written).map_err(|complaint| first(vec![complaint]));
        let organs =
            |lists: &[(&str, &[String])]| agreed_organs(plan, lists).map_err(|complaint| first(vec![complaint]));
        let mut weights = json!({});
        let mut found = |field: &str, network: &str, written: Option<&mut PathBuf>| -> Result<Stated> {
            let Some(written) = written else { return Ok(Stated::default()) };
            *written = path(field, written)?;
            weights[field] = json!(weights_digest(field, written)?);
            let said = Stated::of(written);
            match said.other_than(network) {
                Some(message) => Err(Error::new(format!("`train.{field}`: {message}"))),
                None => Ok(said),
            }
        };
        match training {
            Training::Segmentation(config) => {
                let mut settings = settings(plan, config)?;
                found("network.weights", "segmentor", config.network.weights.as_mut())?;
                settings["weights"] = weights;
                let organs = organs(&[("labeled", &config.labeled), ("validation", &config.validation)])?;
                let mut scans = Scans::of(plan, &config.labeled, &config.validation)?;
                for pool in config.synthetic.iter().flat_map(|synthetic| &synthetic.runs) {
                    scans.add_run(&path("synthetic.runs", &pool.folder)?, pool.at, &organs)?;
                }
                if config.synthetic.is_some() {
                    for (synthesis, _) in plan.training_branches() {
                        scans.add_synthesis(plan, synthesis)?;
                    }
                    if scans.listed().synthetic_sources() == 0 {
                        let error = Error::new("no scan of a training patient is left for synthetic tumors");
                        return Err(error.with_hint(
                            "does the source of the synthesis list scans, and are their patients not in validation?",
                        ));
                    }
                }
                let preprocess = config.preprocess.build().map_err(first)?;
                Ok(Prepared { settings, preprocess, organs, scans })
            }
            Training::Synthesis(config) => {
                let mut settings = settings(plan, config)?;
                let judge = found("segmentor.weights", "segmentor", Some(&mut config.segmentor.weights))?;
                let seen = &config.preprocess;
                if let Some((field, message, own)) =
                    judge.other_frame(seen.window_hu, seen.spacing_mm).into_iter().next()
                {
                    return Err(Error::new(format!("`train.segmentor.weights`: {message}"))
                        .with_hint(format!("the weights say {field} = {own}: set `train.preprocess.{field}` to it")));
                }
                found("generator.weights", "generator", config.generator.weights.as_mut())?;
                found("discriminator.weights", "discriminator", config.discriminator.weights.as_mut())?;
                settings["weights"] = weights;
                let organs = organs(&[("labeled", &config.labeled), ("unlabeled", &config.unlabeled)])?;
                let mut scans = Scans::of(plan, &config.labeled, &[])?;
                scans.add_unlabeled(plan, &config.unlabeled)?;
                let preprocess = config.preprocess.build().map_err(first)?;
                Ok(Prepared { settings, preprocess, organs, scans })
            }
        }
    }
}

/// A training that runs.
struct Doing<'a> {
    args: &'a TrainArgs,
    stage: StageName,
    plan: Plan,
}

/// A training whose labeled scans were looked at.
struct Begun {
    settings: Json,
    organs: Arc<[Organ]>,
    places: Vec<u8>,
    /// All scans but the labeled ones.
    cases: ReadyCases,
    all: Vec<Arc<Cases>>,
    labeled: Arc<Cases>,
}

impl Doing<'_> {
    fn begin(&self, prepared: Prepared) -> Result<Begun> {
        let Prepared { mut settings, preprocess, organs, scans } = prepared;
        let places = scans.places()?;
        let mut cases = scans.cases(preprocess, self.memory_bytes());
        let all = cases.all();
        let labeled = cases.take(Part::Labeled);
        settings["scans"]["labeled_contents"] = look_at("labeled", &labeled, &organs, true)?.into();
        Ok(Begun { settings, organs, places, cases, all, labeled })
    }

    fn segmentation(
        &self,
        config: &SegmentationConfig,
        prepared: Prepared,
        stderr: &mut dyn Write,
    ) -> Result<(Report, usize)> {
        let Begun { mut settings, organs, places, mut cases, all, labeled } = self.begin(prepared)?;
        let validation = cases.take(Part::Validation);
        if validation.is_empty() {
            let advice = "name stages under `validation`, or give validation a share of the patients in [pipeline]";
            writeln!(stderr, "warning: there is nothing to validate on: {advice}").map_err(unprinted)?;
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
                writeln!(
                    stderr,
                    "warning: none of the {scans} scans for validation shows a {name} tumor: there is no score for it"
                )
                .map_err(unprinted)?;
            }
        }
        let mut synthetic: Vec<Synthetic> = cases.pools.into_iter().map(Synthetic::Pool).collect();
        for ((synthesis, branch), cases) in self.plan.training_branches().zip(cases.fresh) {
            if !cases.is_empty() {
                let tumors = Tumors { attempts: synthesis.attempts.only(branch), organs: synthesis.organs.clone() };
                synthetic.push(Synthetic::Fresh { cases, tumors });
            }
        }
        let device = self.args.device.place().device()?;
        let seed = self.plan.seed;
        let mut learner = SegmentationLearner::new(config, seed, Arc::clone(&organs), Some(validation), &device)?;
        let sampler = Arc::new(SegmentationSampler::new(config, seed, organs, labeled, synthetic));
        let report = self.run(settings, places, (config.steps, config.every), Arc::clone(&sampler), &mut learner)?;
        if let Some(few) = sampler.too_few_fresh() {
            writeln!(stderr, "warning: {few}").map_err(unprinted)?;
        }
        Ok((report, spoiled(&all)))
    }

    fn synthesis(&self, config: &SynthesisConfig, prepared: Prepared) -> Result<(Report, usize)> {
        let Begun { mut settings, organs, places, mut cases, all, labeled } = self.begin(prepared)?;
        let unlabeled = (!config.unlabeled.is_empty()).then(|| cases.take(Part::Unlabeled));
        if let Some(cases) = unlabeled.as_ref().filter(|cases| cases.is_empty()) {
            look_at("unlabeled", cases, &organs, false)?;
        }
        let (device, seed) = (self.args.device.place().device()?, self.plan.seed);
        // A validation looks at patients of its own, if any of them has a tumor.
        let held_out = cases.take(Part::Validation);
        let survey = held_out.survey(cores(), &|| {});
        settings["scans"]["validation_contents"] = survey.contents_digest().into();
        let shown = survey.cases_with;
        let has_tumor = organs.iter().any(|organ| shown.contains_key(&organ.tumor_label));
        let judged = if has_tumor { (held_out, None) } else { (Arc::clone(&labeled), unlabeled.clone()) };
        let sampler = |purpose, (labeled, unlabeled)| {
            SynthesisSampler::new(config, (seed, purpose), Arc::clone(&organs), labeled, unlabeled)
        };
        let tumor_labels = organs.iter().map(|organ| organ.tumor_label).collect();
        let validation = sampler("validation", judged)?;
        let mut learner = SynthesisLearner::new(config, seed, tumor_labels, &validation, &device)?;
        let sampler = Arc::new(sampler("synthesis", (labeled, unlabeled))?);
        let report = self.run(settings, places, (config.steps, config.every), sampler, &mut learner)?;
        Ok((report, spoiled(&all)))
    }

    fn run<L: Learner>(
        &self,
        settings: Json,
        places: Vec<u8>,
        (steps, every): (u64, Every),
        sampler: Arc<impl Sampler<Batch = L::Batch>>,
        learner: &mut L,
    ) -> Result<Report> {
        let args = self.args;
        let out = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&self.plan.name));
        let plan = RunPlan {
            stage: self.stage.name(),
            settings,
            seed: self.plan.seed,
            steps,
            every,
            out,
            resume: args.resume,
            kernel_class: match args.device {
                DeviceName::Cpu => Class::current().name().to_owned(),
                DeviceName::Cuda => "cuda".to_owned(),
            },
            loader_threads: at_least_one("--threads", args.threads.unwrap_or_else(|| (cores() / 4).max(1)))?,
            limit: args.limit,
            precision: if args.half { Precision::Half } else { Precision::Single },
            places,
        };
        if plan.resume && !plan.has_begun() {
            tracing::warn!("{} has no checkpoint to go on from: the run starts anew", plan.out.display());
        }
        warn_of_space(&plan, learner);
        let mut watch = Watch::new(plan.stage);
        let report = run(&plan, sampler, learner, &mut |progress| watch.seen(progress));
        watch.finish();
        report
    }

    fn memory_bytes(&self) -> u64 {
        self.args.memory.map_or_else(default_memory_bytes, |size| size.as_u64())
    }
}

/// What decides the result: the file with its defaults filled in.
fn settings(plan: &Plan, config: &impl Serialize) -> Result<Json> {
    let mut settings = plan.resolved.clone();
    settings["train"] = serde_json::to_value(config)
        .map_err(|cause| Error::new(format!("cannot write down the settings: {cause}")).with_source(cause))?;
    Ok(settings)
}

fn weights_digest(field: &str, path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|cause| {
        let error = Error::io(&format!("`train.{field}`: cannot read"), path, cause);
        error.with_hint("a relative path begins at the folder of the configuration")
    })?;
    Ok(FileDigest::of(&bytes).sha256)
}

/// Looks at every scan once; gives a digest of what they hold. Each that cannot be read is a line of the log.
fn look_at(what: &str, cases: &Cases, organs: &[Organ], with_tumors: bool) -> Result<String> {
    let survey = cases.survey(cores(), &|| {});
    let names = organs.iter().map(|organ| (organ.label, organ.name.clone()));
    let tumors = organs.iter().map(|organ| (organ.tumor_label, format!("a {} tumor", organ.name)));
    let needed: Vec<_> = names.chain(tumors.filter(|_| with_tumors)).collect();
    survey.check(what, cases.entries(), &needed)?;
    if survey.padded > 0 {
        let Survey { padded, good, least_voxels, .. } = &survey;
        let (patch, least) = (cases.preprocess().patch(), least_voxels.unwrap_or_default());
        tracing::warn!(
            "{padded} of {good} {what} scans are smaller than `patch_voxels` {patch:?} and padded with the window's low \
             end; the fewest voxels along an axis are {least:?}"
        );
    }
    Ok(survey.contents_digest())
}

/// A checkpoint is written beside the one before it, and weights beside it at the end and where validation was best:
/// what does not fit is better known before the hours than behind them.
fn warn_of_space(plan: &RunPlan, learner: &impl Learner) {
    let sizes: Vec<[u64; 2]> = learner.networks().iter().map(|network| network.bytes()).collect();
    let [weights, checkpoint] = [0, 1].map(|which| sizes.iter().map(|size| size[which]).sum::<u64>());
    let needed = 2 * checkpoint + 2 * weights;
    if let Some(free) = free_bytes(&plan.out).filter(|free| *free < needed) {
        let (needed, free, out) = (ByteSize(needed), ByteSize(free), plan.out.display());
        tracing::warn!("checkpoints and weights need about {needed}, {free} are free at {out}");
    }
}

/// How many scans could not be read, of whatever list.
fn spoiled(cases: &[Arc<Cases>]) -> usize {
    cases.iter().map(|cases| cases.spoiled()).sum()
}

/// The first of several complaints as an error: for what was checked before.
fn first(complaints: Vec<ConfigError>) -> Error {
    let Some(ConfigError { field, message, hint }) = complaints.into_iter().next() else { return Error::new("") };
    let error = Error::new(format!("`train.{field}`: {message}"));
    hint.into_iter().fold(error, Error::with_hint)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
