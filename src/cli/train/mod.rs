//! `freetumor train`: the three stages of training.

mod scans;
mod summary;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value as Json, json};

use self::scans::{Part, Scans, agreed_organs, named};
use self::summary::Summary;
use self::watch::Watch;
use super::network::DeviceName;
use super::run::{at_least_one, default_memory_bytes};
use super::validate::{print_problems, printed, unprinted};
use crate::error::{Complaint, Error, Result};
use crate::graph::{CheckedTraining, GraphFile, Place as FilePlace, Plan, Registry, Trial, check_training};
use crate::mask::Organ;
use crate::nn::device::Place;
use crate::nn::kernel::Class;
use crate::sink::durable::FileDigest;
use crate::train::data::{Cases, Survey};
use crate::train::run::{Every, Learner, Report, RunPlan, run};
use crate::train::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler, Synthetic, Tumors};
use crate::train::synthesis::{SynthesisConfig, SynthesisLearner, SynthesisSampler};

/// Train the networks: a segmentor, a generator with its discriminator, the final segmentor
///
/// The file has sources and stages as any pipeline, and a section [train]. What is trained, how and on what lies in it;
/// where it is written and computed in flags. A run that was stopped goes on with --resume as if it had never stopped,
/// bit for bit. Losses and scores are a Parquet table in the folder, beside curves and slices to look at.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// What is trained
    #[arg(value_enum)]
    pub stage: StageName,
    /// The file that says how, such as pipelines/train-segmentor-small.toml
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Folder of the run [default: runs/NAME of the file]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
    /// Override a setting of the file, such as train.steps=2000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Go on with the run in the folder
    #[arg(long)]
    pub resume: bool,
    /// Threads that make batches [default: one for four cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory for scans that are made ready [default: half of the machine's, at most 8 GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Take at most this many steps now
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// File with the secret that patient keys are derived with [default: $FREETUMOR_PATIENT_KEY, or one kept in the user's
    /// configuration folder]
    #[arg(long, value_name = "FILE")]
    pub patient_key_file: Option<PathBuf>,
}

/// The stages of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StageName {
    /// A segmentor on real tumors: it judges synthetic ones.
    Segmentor,
    /// A generator and a discriminator, with a segmentor that stays as it is.
    Synthesis,
    /// The final segmentor on real and synthetic tumors.
    Segmentation,
}

impl StageName {
    fn name(self) -> &'static str {
        match self {
            Self::Segmentor => "segmentor",
            Self::Synthesis => "synthesis",
            Self::Segmentation => "segmentation",
        }
    }
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// What could not be trained, or had to stop.
pub fn train(args: &TrainArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let file = GraphFile::open(&args.config)?.with_sets(&args.set);
    let task = match args.stage {
        StageName::Synthesis => {
            let checked = check_training(&file, registry, synthesis_complaints);
            ready(&file, checked, stderr)?.map(|(config, plan)| Task::new(args, &file, plan).synthesis(config))
        }
        stage => {
            let checked = check_training(&file, registry, |config, plan| segmentation_complaints(stage, config, plan));
            ready(&file, checked, stderr)?
                .map(|(config, plan)| Task::new(args, &file, plan).segmentation(config, stderr))
        }
    };
    let Some(report) = task else { return Ok(2) };
    let (report, spoiled) = report?;
    let written = if args.json {
        let json = serde_json::to_writer_pretty(&mut *stdout, &report).map_err(std::io::Error::from);
        json.and_then(|()| writeln!(stdout))
    } else {
        write!(stdout, "{}", Summary(&report))
    };
    printed(written)?;
    if spoiled > 0 {
        let place = report.folder.join("private").join("scans.jsonl");
        let scans = if spoiled == 1 { "1 scan was" } else { &format!("{spoiled} scans were") };
        writeln!(stderr, "warning: {scans} left out; {} says which file each is", place.display())
            .map_err(unprinted)?;
    }
    Ok(u8::from(spoiled > 0))
}

/// What a good file says; nothing, once its problems were shown, where it is not.
fn ready<C>(file: &GraphFile, checked: CheckedTraining<C>, stderr: &mut dyn Write) -> Result<Option<(C, Plan)>> {
    print_problems(file, &checked.problems.iter().collect::<Vec<_>>(), stderr)?;
    for node in checked.plan.iter().flat_map(|plan| &plan.sinks).filter(|node| !node.sink.trains()) {
        let word = format!("`sinks.{}` gets nothing here: trainings feed sinks of kind `trainer` alone", node.name);
        writeln!(stderr, "warning: {word}").map_err(unprinted)?;
    }
    Ok(checked.settings.zip(checked.plan))
}

fn segmentation_complaints(stage: StageName, config: &SegmentationConfig, plan: Option<&Plan>) -> Vec<Complaint> {
    let mut complaints = config.complaints();
    match (stage, &config.synthetic) {
        (StageName::Segmentor, Some(_)) => complaints.push(
            Complaint::new("synthetic", "a segmentor that judges synthetic tumors is trained on real ones alone")
                .with_hint("`freetumor train segmentation` takes both"),
        ),
        (StageName::Segmentation, None) => complaints.push(
            Complaint::new("", "expected [train.synthetic], which says how many tumors are synthetic")
                .with_hint("`freetumor train segmentor` trains on real tumors alone"),
        ),
        _ => {}
    }
    let Some(plan) = plan else { return complaints };
    complaints.extend(named("labeled", &config.labeled, plan));
    complaints.extend(named("validation", &config.validation, plan));
    let feeding = plan.trials.iter().filter(|trial| trial.feeds_training(plan)).flat_map(|trial| &trial.masks);
    let fed: Vec<String> = feeding.map(|mask| plan.masks[*mask].name.clone()).collect();
    let lists = [("labeled", &config.labeled[..]), ("validation", &config.validation), ("synthetic", &fed)];
    if let Err(complaint) = agreed_organs(plan, &lists) {
        complaints.push(complaint);
    }
    if let Some(synthetic) = &config.synthetic
        && synthetic.runs.is_empty()
        && !plan.trials.iter().any(|trial| trial.feeds_training(plan))
    {
        let (message, hint) = if plan.trials.is_empty() {
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
        complaints.push(Complaint::new("synthetic", message).with_hint(hint));
    }
    complaints
}

fn synthesis_complaints(config: &SynthesisConfig, plan: Option<&Plan>) -> Vec<Complaint> {
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

/// A training that was found good.
struct Task<'a> {
    args: &'a TrainArgs,
    file: &'a GraphFile,
    plan: Plan,
}

impl<'a> Task<'a> {
    fn new(args: &'a TrainArgs, file: &'a GraphFile, plan: Plan) -> Self {
        Self { args, file, plan }
    }

    fn segmentation(self, mut config: SegmentationConfig, stderr: &mut dyn Write) -> Result<(Report, usize)> {
        let mut settings = self.settings(&config)?;
        self.resolve(config.network.weights.as_mut(), "network.weights", &mut settings)?;
        let preprocess = config.preprocess.build().map_err(first)?;
        let organs = self.organs(&[("labeled", &config.labeled), ("validation", &config.validation)])?;
        let mut scans = Scans::of(&self.plan, &config.labeled, &config.validation)?;
        let pools = config.synthetic.iter().flat_map(|synthetic| &synthetic.runs);
        for pool in pools {
            let folder = self.path("synthetic.runs", &pool.folder)?;
            scans.add_run(&folder, pool.at, &organs)?;
        }
        if config.synthetic.is_some() {
            for trial in feeding(&self.plan) {
                scans.add_trial(&self.plan, trial)?;
            }
        }
        settings["scans"] = scans.digests();
        let places = scans.places()?;
        let mut cases = scans.cases(preprocess, self.memory_bytes());
        let all = cases.all();
        let labeled = cases.take(Part::Labeled);
        settings["scans"]["labeled_contents"] = self.survey("labeled", &labeled, &organs, true)?.into();
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
        for (trial, cases) in feeding(&self.plan).zip(cases.trials) {
            if !cases.is_empty() {
                let scores = trial.scores.iter().map(|node| Arc::clone(&node.stage)).collect();
                let (synthesize, test) = (Arc::clone(&trial.synthesize), trial.test.clone());
                let tumors = Tumors { synthesize, scores, test, organs: trial.organs.clone() };
                synthetic.push(Synthetic::Fresh { cases, tumors });
            }
        }
        if config.synthetic.is_some() && synthetic.is_empty() {
            return Err(Error::new("no scan of a training patient is left for synthetic tumors")
                .with_hint("does the source of the synthesis list scans, and are their patients not in validation?"));
        }
        let device = self.device().device()?;
        let seed = self.plan.seed;
        let mut learner = SegmentationLearner::new(&config, seed, Arc::clone(&organs), Some(validation), &device)?;
        let sampler = SegmentationSampler::new(&config, seed, organs, labeled, synthetic);
        let report = self.run(settings, places, (config.steps, config.every), Arc::new(sampler), &mut learner)?;
        Ok((report, spoiled(&all)))
    }

    fn synthesis(self, mut config: SynthesisConfig) -> Result<(Report, usize)> {
        let mut settings = self.settings(&config)?;
        self.resolve(Some(&mut config.segmentor.weights), "segmentor.weights", &mut settings)?;
        self.resolve(config.generator.weights.as_mut(), "generator.weights", &mut settings)?;
        self.resolve(config.discriminator.weights.as_mut(), "discriminator.weights", &mut settings)?;
        let preprocess = config.preprocess.build().map_err(first)?;
        let organs = self.organs(&[("labeled", &config.labeled), ("unlabeled", &config.unlabeled)])?;
        let mut scans = Scans::of(&self.plan, &config.labeled, &[])?;
        scans.add_unlabeled(&self.plan, &config.unlabeled)?;
        settings["scans"] = scans.digests();
        let places = scans.places()?;
        let mut cases = scans.cases(preprocess, self.memory_bytes());
        let all = cases.all();
        let labeled = cases.take(Part::Labeled);
        settings["scans"]["labeled_contents"] = self.survey("labeled", &labeled, &organs, true)?.into();
        let unlabeled = (!config.unlabeled.is_empty()).then(|| cases.take(Part::Unlabeled));
        if let Some(cases) = unlabeled.as_ref().filter(|cases| cases.is_empty()) {
            self.survey("unlabeled", cases, &organs, false)?;
        }
        let (device, seed) = (self.device().device()?, self.plan.seed);
        // A validation looks at patients of its own, if any of them has a tumor.
        let held_out = cases.take(Part::Validation);
        let survey = held_out.survey(cores(), &|| {});
        settings["scans"]["validation_contents"] = survey.contents_digest().into();
        let shown = survey.cases_with;
        let has_tumor = organs.iter().any(|organ| shown.contains_key(&organ.tumor_label));
        let judged = if has_tumor { (held_out, None) } else { (Arc::clone(&labeled), unlabeled.clone()) };
        let sampler = |purpose, (labeled, unlabeled)| {
            SynthesisSampler::new(&config, (seed, purpose), Arc::clone(&organs), labeled, unlabeled)
        };
        let tumor_labels = organs.iter().map(|organ| organ.tumor_label).collect();
        let validation = sampler("validation", judged)?;
        let mut learner = SynthesisLearner::new(&config, seed, tumor_labels, &validation, &device)?;
        let sampler = Arc::new(sampler("synthesis", (labeled, unlabeled))?);
        let report = self.run(settings, places, (config.steps, config.every), sampler, &mut learner)?;
        Ok((report, spoiled(&all)))
    }

    fn run<L: Learner>(
        &self,
        settings: Json,
        places: Vec<u8>,
        (steps, every): (u64, Every),
        sampler: Arc<impl crate::train::data::Sampler<Batch = L::Batch>>,
        learner: &mut L,
    ) -> Result<Report> {
        let out = self.args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&self.plan.name));
        let plan = RunPlan {
            stage: self.args.stage.name(),
            settings,
            seed: self.plan.seed,
            steps,
            every,
            out,
            resume: self.args.resume,
            kernel_class: match self.args.device {
                DeviceName::Cpu => Class::detect().name().to_owned(),
                DeviceName::Cuda => "cuda".to_owned(),
            },
            loader_threads: at_least_one("--threads", self.args.threads.unwrap_or_else(|| (cores() / 4).max(1)))?,
            limit: self.args.limit,
            places,
        };
        if plan.resume && !plan.has_begun() {
            tracing::warn!("{} has no checkpoint to go on from: the run starts anew", plan.out.display());
        }
        let mut watch = Watch::new(plan.stage);
        let report = run(&plan, sampler, learner, &mut |progress| watch.seen(progress));
        watch.finish();
        report
    }

    /// What decides the result: the file with its defaults filled in.
    fn settings(&self, config: &impl Serialize) -> Result<Json> {
        let mut settings = self.plan.resolved.clone();
        settings["train"] = serde_json::to_value(config)
            .map_err(|cause| Error::new(format!("cannot write down the settings: {cause}")).with_source(cause))?;
        settings["weights"] = json!({});
        Ok(settings)
    }

    /// Makes a path of the file one of this machine, and puts the digest of what lies there into the settings.
    fn resolve(&self, path: Option<&mut PathBuf>, field: &str, settings: &mut Json) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        *path = self.path(field, path)?;
        let bytes = std::fs::read(&*path).map_err(|cause| {
            let error = Error::io(&format!("`train.{field}`: cannot read"), &*path, cause);
            error.with_hint("a relative path begins at the folder of the configuration")
        })?;
        settings["weights"][field] = json!(FileDigest::of(&bytes).sha256);
        Ok(())
    }

    fn path(&self, field: &str, written: &Path) -> Result<PathBuf> {
        let place = FilePlace {
            name: "train".to_owned(),
            folder: self.file.folder().to_owned(),
            seed: self.plan.seed,
            organs: [].into(),
        };
        place.path(field, written).map_err(|complaint| first(vec![complaint]))
    }

    fn organs(&self, lists: &[(&str, &[String])]) -> Result<Arc<[Organ]>> {
        agreed_organs(&self.plan, lists).map_err(|complaint| first(vec![complaint]))
    }

    fn memory_bytes(&self) -> u64 {
        self.args.memory.map_or_else(default_memory_bytes, |size| size.as_u64())
    }

    fn device(&self) -> Place {
        match self.args.device {
            DeviceName::Cpu => Place::Cpu,
            DeviceName::Cuda => Place::Cuda,
        }
    }

    /// Looks at every scan once; gives a digest of what they hold. Each that cannot be read is a line of the log.
    fn survey(&self, what: &str, cases: &Cases, organs: &[Organ], with_tumors: bool) -> Result<String> {
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
}

/// How many scans could not be read, of whatever list.
fn spoiled(cases: &[Arc<Cases>]) -> usize {
    cases.iter().map(|cases| cases.spoiled()).sum()
}

/// The trials whose tumors are trained on.
fn feeding(plan: &Plan) -> impl Iterator<Item = &Trial> {
    plan.trials.iter().filter(|trial| trial.feeds_training(plan))
}

/// The first of several complaints as an error: for what was checked before.
fn first(complaints: Vec<Complaint>) -> Error {
    let Some(Complaint { field, message, hint }) = complaints.into_iter().next() else { return Error::new("") };
    let error = Error::new(format!("`train.{field}`: {message}"));
    hint.into_iter().fold(error, Error::with_hint)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
