//! The loop that all stages share.
//!
//! ```text
//! OUT/settings.json        what is trained; a folder keeps to one configuration
//! OUT/checkpoint.safetensors   where the run stands
//! OUT/history.parquet      losses, rates and scores of every step
//! OUT/curves.png           the same to look at
//! OUT/pictures/STEP.png    what the network makes of a slice
//! OUT/weights/NAME.safetensors        each network at the end
//! OUT/weights/NAME-best.safetensors   and where validation was best
//! OUT/private/scans.jsonl  which file each scan is; readable by the owner only
//! OUT/lock                 held while a training writes here
//! ```

mod pace;
mod plan;
mod settings;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pace::Pace;
pub use plan::{Intervals, Progress, RunPlan, TrainingReport};

use super::checkpoint::{self, CheckpointHeader};
use super::curves::curves;
use super::data::{Loader, Sampler};
use super::history::{History, TRAIN, VALIDATION};
use super::learning::TrainedNetwork;
use super::output::write_atomic;
use crate::error::{Error, Result};
use crate::store::{self, FileDigest, FileLock, canonical};
use crate::volume::Picture;

/// What a step, or a validation, found.
pub type Numbers = Vec<(String, f64)>;

/// What takes the steps of a stage.
pub trait Learner {
    /// What a step takes.
    type Batch: Send + 'static;

    /// Takes one step; gives its losses and rates. No number that it acts on may be NaN or infinite: see [`finite`].
    ///
    /// # Errors
    /// Where the step cannot be taken.
    fn learn(&mut self, step: u64, batch: Self::Batch) -> Result<Numbers>;

    /// Scores on what is not trained on; none where there is nothing.
    ///
    /// # Errors
    /// Where they cannot be computed.
    fn validate(&mut self) -> Result<Numbers>;

    /// The name of the score by which the best weights are chosen: the higher, the better.
    fn judged_by(&self) -> &'static str;

    /// Something to look at.
    ///
    /// # Errors
    /// Where it cannot be computed.
    fn picture(&mut self) -> Result<Option<Picture>>;

    /// The networks that learn.
    fn networks(&self) -> Vec<&TrainedNetwork>;

    /// The same, to be restored.
    fn networks_mut(&mut self) -> Vec<&mut TrainedNetwork>;
}

/// Runs a stage to its end, or from where it stopped.
///
/// # Errors
/// Where a batch cannot be made, a step cannot be taken or gives a number that is not finite, nothing can be written, or
/// the folder belongs to another run.
pub fn run<S, L>(
    plan: &RunPlan,
    sampler: Arc<S>,
    learner: &mut L,
    seen: &mut dyn FnMut(&Progress<'_>),
) -> Result<TrainingReport>
where
    S: Sampler<Batch = L::Batch>,
    L: Learner,
{
    let start = Instant::now();
    let mut run = Run::open(plan, learner)?;
    let first = run.standing.step;
    let end = plan.limit.map_or(plan.steps, |limit| plan.steps.min(first + limit));
    let mut loader = Loader::start(sampler, first..end, plan.loader_threads, 2 * plan.loader_threads + 2)?;
    let (mut waited, mut scores) = (Duration::ZERO, run.last_scores());
    let mut pace = Pace::new(plan.every.validation, first..end, plan.steps);
    while run.standing.step < end {
        let asked = Instant::now();
        let Some(batch) = loader.next()? else { break };
        waited += asked.elapsed();
        let step = run.standing.step;
        let numbers = learner.learn(step, batch).map_err(|error| run.stopped(step, &error))?;
        run.history.add(step, TRAIN, numbers.iter().cloned());
        run.standing.step += 1;
        let (done, is_last) = (run.standing.step, run.standing.step == plan.steps);
        if done.is_multiple_of(plan.every.validation) || is_last {
            let asked = Instant::now();
            scores = learner.validate()?;
            run.judge(learner, &scores)?;
            pace.validated(asked.elapsed());
        }
        if done.is_multiple_of(plan.every.picture) || is_last {
            run.show(learner.picture()?)?;
        }
        if done.is_multiple_of(plan.every.checkpoint) || done == end {
            run.save(learner)?;
        }
        let elapsed = start.elapsed();
        let left = pace.left(done, elapsed);
        seen(&Progress { step: done, steps: plan.steps, numbers: &numbers, scores: &scores, elapsed, left });
    }
    drop(loader);
    let is_whole = |run: &Run<'_>| learner.networks().iter().all(|network| run.weights(network.name()).exists());
    if run.standing.step == plan.steps && (run.standing.step > first || !is_whole(&run)) {
        run.finish(learner)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(TrainingReport {
        stage: plan.stage,
        step: run.standing.step,
        steps: plan.steps,
        new_steps: run.standing.step - first,
        seconds,
        waiting_share: waited.as_secs_f64() / seconds.max(1e-9),
        scores: scores.into_iter().collect(),
        best: run.standing.best,
        folder: plan.out.clone(),
    })
}

/// Whether numbers are finite, before anything is done with them.
///
/// # Errors
/// Where one is not, with all of them and with what they were computed from.
pub fn finite(numbers: &[(String, f64)], from: &str) -> Result<()> {
    let Some((name, value)) = numbers.iter().find(|(_, value)| !value.is_finite()) else { return Ok(()) };
    let all = numbers.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
    Err(Error::new(format!("{name} is {value} (of {all}) on {from}")))
}

/// Files of other folders, among which no training is written.
const FOREIGN: [&str; 2] = ["run.json", "dataset.json"];

/// Keeps other trainings out of a folder as long as the lock is held; `None` where its file system does not support locks.
fn lock(out: &Path) -> Result<Option<FileLock>> {
    store::lock_if_supported(&out.join("lock"), || {
        Error::new(format!("{} is being written by another training", out.display()))
            .with_hint("wait until it ends, or write elsewhere with `--out`")
    })
}

/// A run on its way.
struct Run<'a> {
    plan: &'a RunPlan,
    standing: CheckpointHeader,
    history: History,
    /// The folder has one writer.
    _lock: Option<FileLock>,
}

impl<'a> Run<'a> {
    fn open(plan: &'a RunPlan, learner: &mut impl Learner) -> Result<Self> {
        let out = &plan.out;
        if let Some(file) = FOREIGN.iter().find(|file| out.join(file).exists()) {
            let message = format!("{} is the folder of a pipeline or a data set: it holds {file}", out.display());
            return Err(Error::new(message).with_hint("give a folder of its own with `--out`"));
        }
        for folder in [out.clone(), out.join("weights"), out.join("pictures")] {
            std::fs::create_dir_all(&folder).map_err(|cause| Error::io("cannot make", &folder, cause))?;
        }
        let _lock = lock(out)?;
        let settings = canonical::pretty(&plan.settings)?;
        let digest = FileDigest::of(&settings).sha256;
        let mut run = Self {
            plan,
            standing: CheckpointHeader::start(plan.stage, plan.seed, digest, &plan.kernel_class),
            history: History::default(),
            _lock,
        };
        let path = plan.checkpoint();
        if !plan.has_begun() {
            let place = out.join("settings.json");
            write_atomic(&place, &settings)?;
            run.write_places()?;
            return Ok(run);
        }
        if !plan.resume {
            let step = checkpoint::standing(&path)?.step;
            return Err(Error::new(format!("{} holds a run that has taken {step} steps", out.display()))
                .with_hint("--resume goes on with it, another --out starts anew"));
        }
        settings::check(plan)?;
        run.write_places()?;
        let expected = run.standing.clone();
        run.standing = checkpoint::load(&path, &expected, &mut learner.networks_mut())?;
        let table = run.table();
        run.history = History::read(&table, run.standing.step)?;
        Ok(run)
    }

    /// Says where scans lie, for their owner alone: paths may name patients.
    fn write_places(&self) -> Result<()> {
        if self.plan.places.is_empty() {
            return Ok(());
        }
        let folder = self.plan.out.join("private");
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&folder) {
            Err(cause) if !folder.is_dir() => return Err(Error::io("cannot make", &folder, cause)),
            _ => {}
        }
        write_atomic(&folder.join("scans.jsonl"), &self.plan.places)
    }

    fn table(&self) -> PathBuf {
        self.plan.out.join("history.parquet")
    }

    fn weights(&self, name: &str) -> PathBuf {
        self.plan.out.join("weights").join(format!("{name}.safetensors"))
    }

    /// The scores of the last validation before a run went on.
    fn last_scores(&self) -> Numbers {
        let rows = || self.history.rows().iter().filter(|row| row.phase == VALIDATION);
        let last = rows().map(|row| row.step).max();
        rows().filter(|row| Some(row.step) == last).map(|row| (row.name.to_string(), row.value)).collect()
    }

    /// Takes note of a validation, and keeps the weights where it is the best so far.
    fn judge(&mut self, learner: &impl Learner, scores: &Numbers) -> Result<()> {
        let step = self.standing.step;
        self.history.add(step - 1, VALIDATION, scores.iter().cloned());
        let score = scores.iter().find(|(name, _)| name == learner.judged_by()).map(|(_, score)| *score);
        let Some(score) = score.filter(|score| score.is_finite()) else { return Ok(()) };
        if self.standing.best.is_none_or(|(best, _)| score > best) {
            self.standing.best = Some((score, step));
            for network in learner.networks() {
                let path = self.weights(&format!("{}-best", network.name()));
                self.write_weights(network, &path)?;
            }
        }
        Ok(())
    }

    /// What is said of weights in their file.
    fn about(&self, network: &TrainedNetwork) -> BTreeMap<String, String> {
        let config = network.config();
        let seen = &self.plan.settings["train"]["preprocess"];
        let frame = ["window_hu", "spacing_mm", "patch_voxels"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), seen.get(name)?.to_string())));
        let mut about = BTreeMap::from([
            ("network".to_owned(), network.name().to_owned()),
            ("model".to_owned(), config.model.name().to_owned()),
            ("width".to_owned(), config.width.to_string()),
            ("classes".to_owned(), config.classes.to_string()),
            ("norm".to_owned(), format!("{:?}", config.norm).to_lowercase()),
            ("stage".to_owned(), self.plan.stage.to_owned()),
            ("step".to_owned(), self.standing.step.to_string()),
            ("seed".to_owned(), self.plan.seed.to_string()),
            ("settings_sha256".to_owned(), self.standing.settings_sha256.clone()),
        ]);
        about.extend(frame);
        about
    }

    fn show(&self, picture: Option<Picture>) -> Result<()> {
        let Some(picture) = picture else { return Ok(()) };
        let name = format!("{:09}.png", self.standing.step);
        write_atomic(&self.plan.out.join("pictures").join(name), &picture.to_png()?)
    }

    /// The table goes first: where the checkpoint fails, its rows behind the last checkpoint are passed over.
    fn save(&self, learner: &impl Learner) -> Result<()> {
        self.history.write(&self.table())?;
        if let Some(picture) = curves(&self.history)? {
            write_atomic(&self.plan.out.join("curves.png"), &picture.to_png()?)?;
        }
        checkpoint::save(&self.plan.checkpoint(), &self.standing, &learner.networks())
    }

    fn finish(&self, learner: &impl Learner) -> Result<()> {
        for network in learner.networks() {
            self.write_weights(network, &self.weights(network.name()))?;
        }
        Ok(())
    }

    fn write_weights(&self, network: &TrainedNetwork, path: &Path) -> Result<()> {
        network.write_weights(path, &self.about(network), self.plan.precision).map_err(|error| {
            if error.hint().is_some() {
                return error;
            }
            error.with_hint("the last checkpoint is intact: free some space and go on with --resume")
        })
    }

    /// Why training stopped at a step: what was seen before it is in the table.
    fn stopped(&self, step: u64, cause: &Error) -> Error {
        let lately: Vec<String> = self
            .history
            .names(TRAIN)
            .iter()
            .filter_map(|name| {
                let series: Vec<f64> = self.history.series(TRAIN, name).map(|(_, value)| value).collect();
                let last = &series[series.len().saturating_sub(3)..];
                (!last.is_empty()).then(|| {
                    let values = last.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ");
                    format!("{name} {values}")
                })
            })
            .collect();
        // What led to it is worth looking at; where it cannot be written, the first failure is still the one to report.
        let table = self.plan.out.join("history-until-stop.parquet");
        let _ = self.history.write(&table);
        let before = if lately.is_empty() { String::new() } else { format!("; before it: {}", lately.join("; ")) };
        let error = Error::new(format!("training stopped at step {step}: {cause}{before}"));
        match cause.hint() {
            Some(hint) => error.with_hint(hint),
            None => error.with_hint(format!(
                "a lower rate or a longer warm-up often helps; {} holds every step before it",
                table.display()
            )),
        }
    }
}

/// What is printed of numbers in one line.
pub fn in_words(numbers: &[(String, f64)]) -> String {
    numbers.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join(", ")
}

/// A path of a run's folder, for those who go on from it.
pub fn weights_of(folder: &Path, network: &str) -> PathBuf {
    folder.join("weights").join(format!("{network}.safetensors"))
}
