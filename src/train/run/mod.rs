//! The training loop of all stages.
//!
//! ```text
//! OUT/settings.json        the settings; a folder has one configuration
//! OUT/checkpoint.safetensors   the state of the training run
//! OUT/history.parquet      losses, rates and scores of every step
//! OUT/curves.png           plots of the history
//! OUT/pictures/STEP.png    predictions on a slice
//! OUT/weights/NAME.safetensors        the final weights of each network
//! OUT/weights/NAME-best.safetensors   the weights with the best validation score
//! OUT/private/scans.jsonl  the file of each scan; readable by the owner only
//! OUT/private/held_out.json   the known digests of held-out scans, with their paths
//! OUT/lock                 locked while a training run writes to the folder
//! ```

mod pace;
mod plan;
mod settings;

/// The file of the known digests of held-out scans, in the private folder.
pub(super) const HELD_OUT_CACHE: &str = "held_out.json";

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
use super::output::write_bytes;
use super::trained_network::TrainedNetwork;
use crate::error::{Error, Result};
use crate::nn::weights::HELD_OUT_KEY;
use crate::store::{self, FileDigest, FileLock, canonical, write_private};
use crate::train::used_samples::{self, USED_SAMPLES};
use crate::volume::Picture;

/// The losses, rates and scores of a step or a validation, each with its name.
pub type Numbers = Vec<(String, f64)>;

/// The networks of a stage, and how they are trained.
pub trait Learner {
    /// The batch of a step.
    type Batch: Send + 'static;

    /// Takes one step and returns its losses and rates. All numbers must be checked with [`check_finite`] before the weights change.
    ///
    /// # Errors
    /// Returns an error if the step cannot be taken.
    fn learn(&mut self, step: u64, batch: Self::Batch) -> Result<Numbers>;

    /// Returns the scores on the validation scans; empty without such scans.
    ///
    /// # Errors
    /// Returns an error if the scores cannot be computed.
    fn validate(&mut self) -> Result<Numbers>;

    /// Returns the name of the score that selects the best weights; higher is better.
    fn score_name(&self) -> &'static str;

    /// Returns a picture of the current predictions.
    ///
    /// # Errors
    /// Returns an error if the picture cannot be computed.
    fn picture(&mut self) -> Result<Option<Picture>>;

    /// Returns the networks that are trained.
    fn networks(&self) -> Vec<&TrainedNetwork>;

    /// Returns the networks that are trained, to restore them from a checkpoint.
    fn networks_mut(&mut self) -> Vec<&mut TrainedNetwork>;
}

/// Runs a stage of training to its end, from scratch or from a checkpoint.
///
/// # Errors
/// Returns an error if a batch cannot be made, a step fails or results in a number that is not finite, a file cannot be written, or
/// the folder belongs to another training run.
pub fn run<S, L>(
    plan: &RunPlan,
    sampler: Arc<S>,
    learner: &mut L,
    observe: &mut dyn FnMut(&Progress<'_>),
) -> Result<TrainingReport>
where
    S: Sampler<Batch = L::Batch>,
    L: Learner,
{
    let start = Instant::now();
    let mut run = Run::open(plan, learner)?;
    let first = run.header.step;
    let end = plan.limit.map_or(plan.steps, |limit| plan.steps.min(first + limit));
    let mut loader = Loader::start(sampler, first..end, plan.loader_threads, 2 * plan.loader_threads + 2)?;
    let (mut waited, mut scores) = (Duration::ZERO, run.last_scores());
    let mut pace = Pace::new(plan.every.validation, first..end, plan.steps);
    while run.header.step < end {
        let requested = Instant::now();
        let Some(batch) = loader.next()? else { break };
        waited += requested.elapsed();
        let step = run.header.step;
        let numbers = learner.learn(step, batch).map_err(|error| run.stopped(step, &error))?;
        run.history.add(step, TRAIN, numbers.iter().cloned());
        run.header.step += 1;
        let (done, is_last) = (run.header.step, run.header.step == plan.steps);
        if done.is_multiple_of(plan.every.validation) || is_last {
            let validation_start = Instant::now();
            scores = learner.validate()?;
            run.record_scores(learner, &scores)?;
            pace.add_validation(validation_start.elapsed());
        }
        if done.is_multiple_of(plan.every.picture) || is_last {
            run.write_picture(learner.picture()?)?;
        }
        if done.is_multiple_of(plan.every.checkpoint) || done == end {
            run.save(learner)?;
        }
        let elapsed = start.elapsed();
        let remaining = pace.remaining(done, elapsed);
        observe(&Progress { step: done, steps: plan.steps, numbers: &numbers, scores: &scores, elapsed, remaining });
    }
    drop(loader);
    let has_weights = |run: &Run<'_>| learner.networks().iter().all(|network| run.weights(network.name()).exists());
    if run.header.step == plan.steps && (run.header.step > first || !has_weights(&run)) {
        run.finish(learner)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(TrainingReport {
        stage: plan.stage,
        step: run.header.step,
        steps: plan.steps,
        new_steps: run.header.step - first,
        seconds,
        waiting_share: waited.as_secs_f64() / seconds.max(1e-9),
        scores: scores.into_iter().collect(),
        best: run.header.best,
        folder: plan.out.clone(),
    })
}

/// Checks that numbers are finite, before the weights change.
///
/// # Errors
/// Returns an error if a number is not finite. The error contains all numbers and `crops`, the crops from which they were computed.
pub fn check_finite(numbers: &[(String, f64)], crops: &str) -> Result<()> {
    let Some((name, value)) = numbers.iter().find(|(_, value)| !value.is_finite()) else { return Ok(()) };
    let all = numbers.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
    Err(Error::new(format!("{name} is {value} (all numbers: {all}), computed from {crops}")))
}

/// Files that mark the folder of a pipeline or a data set; a training run does not write to such a folder.
const FOREIGN: [&str; 2] = ["run.json", "dataset.json"];

/// Locks a folder against other training runs; returns `None` if the file system does not support locks.
fn lock(out: &Path) -> Result<Option<FileLock>> {
    store::lock_if_supported(&out.join("lock"), || {
        Error::new(format!("{} is being written by another training run", out.display()))
            .with_hint("wait until the other training run ends, or write to another folder with `--out`")
    })
}

/// A training run in progress.
struct Run<'a> {
    plan: &'a RunPlan,
    header: CheckpointHeader,
    history: History,
    /// The lock of the folder: only one process writes to the folder.
    _lock: Option<FileLock>,
}

impl<'a> Run<'a> {
    fn open(plan: &'a RunPlan, learner: &mut impl Learner) -> Result<Self> {
        let out = &plan.out;
        if let Some(file) = FOREIGN.iter().find(|file| out.join(file).exists()) {
            let message = format!("{} is the folder of a pipeline or a data set: it contains {file}", out.display());
            return Err(Error::new(message).with_hint("write to another folder with `--out`"));
        }
        for folder in [out.clone(), out.join("weights"), out.join("pictures")] {
            std::fs::create_dir_all(&folder).map_err(|cause| Error::io("cannot create", &folder, cause))?;
        }
        let _lock = lock(out)?;
        let settings = canonical::pretty(&plan.settings)?;
        let digest = FileDigest::of(&settings).sha256;
        let mut run = Self {
            plan,
            header: CheckpointHeader::start(plan.stage, plan.seed, digest, &plan.kernel_class),
            history: History::default(),
            _lock,
        };
        let path = plan.checkpoint();
        if !plan.has_checkpoint() {
            write_bytes(&out.join("settings.json"), &settings)?;
            run.write_scan_files()?;
            return Ok(run);
        }
        if !plan.resume {
            let step = checkpoint::read_header(&path)?.step;
            return Err(Error::new(format!("{} contains a training run at step {step}", out.display()))
                .with_hint("resume the training run with `--resume`, or start from scratch with another `--out`"));
        }
        settings::check(plan)?;
        run.write_scan_files()?;
        let expected = run.header.clone();
        run.header = checkpoint::load(&path, &expected, &mut learner.networks_mut())?;
        let table = run.table();
        run.history = History::read(&table, run.header.step)?;
        Ok(run)
    }

    /// Writes the file of each scan to a file that only its owner can read: paths may contain names of patients.
    fn write_scan_files(&self) -> Result<()> {
        if !self.plan.used_samples.is_empty() {
            used_samples::write(&self.plan.out.join(USED_SAMPLES), &self.plan.used_samples)?;
        }
        if self.plan.scan_files.is_empty() {
            return Ok(());
        }
        let folder = self.plan.out.join("private");
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&folder) {
            Err(cause) if !folder.is_dir() => return Err(Error::io("cannot create", &folder, cause)),
            _ => {}
        }
        // The folder may be from another program or an earlier version.
        #[cfg(unix)]
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(|cause| Error::io("cannot make private", &folder, cause))?;
        let files = [("scans.jsonl", &self.plan.scan_files), (HELD_OUT_CACHE, &self.plan.held_out_cache)];
        files.into_iter().filter(|(_, text)| !text.is_empty()).try_for_each(|(name, text)| {
            let path = folder.join(name);
            write_private(&path, |out| out.write_all(text)).map_err(|cause| Error::io("cannot write", &path, cause))
        })
    }

    fn table(&self) -> PathBuf {
        self.plan.out.join("history.parquet")
    }

    fn weights(&self, name: &str) -> PathBuf {
        self.plan.out.join("weights").join(format!("{name}.safetensors"))
    }

    /// Returns the scores of the last validation before the training run was resumed.
    fn last_scores(&self) -> Numbers {
        let rows = || self.history.rows().iter().filter(|row| row.phase == VALIDATION);
        let last = rows().map(|row| row.step).max();
        rows().filter(|row| Some(row.step) == last).map(|row| (row.name.to_string(), row.value)).collect()
    }

    /// Records the scores of a validation, and writes the weights if they are the best so far.
    fn record_scores(&mut self, learner: &impl Learner, scores: &Numbers) -> Result<()> {
        let step = self.header.step;
        self.history.add(step - 1, VALIDATION, scores.iter().cloned());
        let score = scores.iter().find(|(name, _)| name == learner.score_name()).map(|(_, score)| *score);
        let Some(score) = score.filter(|score| score.is_finite()) else { return Ok(()) };
        if self.header.best.is_none_or(|(best, _)| score > best) {
            self.header.best = Some((score, step));
            for network in learner.networks() {
                let path = self.weights(&format!("{}-best", network.name()));
                self.write_weights(network, &path)?;
            }
        }
        Ok(())
    }

    /// Returns the metadata of a weights file.
    fn metadata(&self, network: &TrainedNetwork) -> BTreeMap<String, String> {
        let config = network.config();
        let preprocess = &self.plan.settings["train"]["preprocess"];
        let input_spec = ["window_hu", "spacing_mm", "patch_voxels"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), preprocess.get(name)?.to_string())));
        let mut metadata = BTreeMap::from([
            ("network".to_owned(), network.name().to_owned()),
            ("model".to_owned(), config.model.name().to_owned()),
            ("width".to_owned(), config.width.to_string()),
            ("classes".to_owned(), config.classes.to_string()),
            ("norm".to_owned(), format!("{:?}", config.norm).to_lowercase()),
            ("stage".to_owned(), self.plan.stage.to_owned()),
            ("step".to_owned(), self.header.step.to_string()),
            ("seed".to_owned(), self.plan.seed.to_string()),
            ("settings_sha256".to_owned(), self.header.settings_sha256.clone()),
        ]);
        metadata.extend(input_spec);
        if let Some(hashes) = self.plan.settings.get(HELD_OUT_KEY) {
            metadata.insert(HELD_OUT_KEY.to_owned(), hashes.to_string());
        }
        metadata
    }

    fn write_picture(&self, picture: Option<Picture>) -> Result<()> {
        let Some(picture) = picture else { return Ok(()) };
        let name = format!("{:09}.png", self.header.step);
        write_bytes(&self.plan.out.join("pictures").join(name), &picture.to_png()?)
    }

    /// Writes the table before the checkpoint: if the checkpoint fails, a resumed training run drops the rows after the
    /// previous checkpoint.
    fn save(&self, learner: &impl Learner) -> Result<()> {
        self.history.write(&self.table())?;
        if let Some(picture) = curves(&self.history)? {
            write_bytes(&self.plan.out.join("curves.png"), &picture.to_png()?)?;
        }
        checkpoint::save(&self.plan.checkpoint(), &self.header, &learner.networks())
    }

    fn finish(&self, learner: &impl Learner) -> Result<()> {
        for network in learner.networks() {
            self.write_weights(network, &self.weights(network.name()))?;
        }
        Ok(())
    }

    fn write_weights(&self, network: &TrainedNetwork, path: &Path) -> Result<()> {
        network.write_weights(path, &self.metadata(network), self.plan.precision).map_err(|error| {
            if error.hint().is_some() {
                return error;
            }
            error.with_hint("the last checkpoint is intact: free disk space, then resume with `--resume`")
        })
    }

    /// Returns an error with the cause and the last numbers before the step, and writes the history up to that step.
    fn stopped(&self, step: u64, cause: &Error) -> Error {
        let recent: Vec<String> = self
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
        // The history helps to find the cause; if it cannot be written, the first error is still the one to report.
        let table = self.plan.out.join("history-until-stop.parquet");
        let _ = self.history.write(&table);
        let before = if recent.is_empty() {
            String::new()
        } else {
            format!("; last numbers before the step: {}", recent.join("; "))
        };
        let error = Error::new(format!("training stopped at step {step}: {cause}{before}"));
        match cause.hint() {
            Some(hint) => error.with_hint(hint),
            None => error.with_hint(format!(
                "use a lower learning rate or a longer warm-up; {} contains the numbers of every step before the stop",
                table.display()
            )),
        }
    }
}

/// Formats numbers with their names in one line.
pub fn format_numbers(numbers: &[(String, f64)]) -> String {
    numbers.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join(", ")
}

/// Returns the path of the final weights of a network in the output folder of a training run.
pub fn weights_path(folder: &Path, network: &str) -> PathBuf {
    folder.join("weights").join(format!("{network}.safetensors"))
}
