//! Whole runs, tiny: what is stopped and goes on has the same bits as what never stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use super::data::{Batch, CaseEntry, Cases, Sampler};
use super::history::{History, TRAIN, VALIDATION};
use super::run::{Learner, Numbers, RunPlan, TrainingReport, run};
use super::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler, Synthetic, Tumors};
use super::synthesis::{SynthesisLearner, SynthesisSampler};
use super::testing::{organs, phantom, segmentation, small, synthesis, synthesis_cases};
use super::{TrainedNetwork, checkpoint};
use crate::error::Result;
use crate::filter::{QualityTest, QualityTestConfig};
use crate::nn::weights::Precision;
use crate::random::Key;
use crate::simd::Class;
use crate::synth::{Rules, RulesConfig};

const SEED: u64 = 9;

fn plan(stage: &'static str, steps: u64, every: super::run::Intervals, out: &Path) -> RunPlan {
    RunPlan {
        stage,
        settings: serde_json::json!({ "steps": steps }),
        seed: SEED,
        steps,
        every,
        out: out.to_owned(),
        resume: true,
        kernel_class: Class::current().name().to_owned(),
        loader_threads: 1,
        precision: Precision::Single,
        places: Vec::new(),
        limit: None,
    }
}

fn cases(numbers: std::ops::Range<u32>) -> Arc<Cases> {
    Arc::new(Cases::new(numbers.map(|number| CaseEntry::of(phantom(number))).collect(), small(), u64::MAX))
}

fn sampler(config: &SegmentationConfig) -> Arc<SegmentationSampler> {
    let rules = Rules::new(RulesConfig::default(), &organs(), small().window()).unwrap();
    let test = QualityTest::new(QualityTestConfig::default()).unwrap();
    let attempts = crate::attempt::AttemptLoop::new(Arc::new(rules), Vec::new(), test);
    let tumors = Tumors { attempts, organs: organs() };
    let fresh = Synthetic::Fresh { cases: cases(0..2), tumors };
    Arc::new(SegmentationSampler::new(config, SEED, organs().into(), synthesis_cases(), vec![fresh]))
}

fn segmentor(config: &SegmentationConfig) -> SegmentationLearner {
    SegmentationLearner::new(config, SEED, organs().into(), Some(synthesis_cases()), &Device::Cpu).unwrap()
}

fn train_segmentor(out: &Path, change: impl Fn(&mut RunPlan)) -> TrainingReport {
    let config = segmentation(6);
    let mut plan = plan("segmentation", 6, config.every, out);
    change(&mut plan);
    run(&plan, sampler(&config), &mut segmentor(&config), &mut |_| {}).unwrap()
}

/// Every file of a run folder with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, std::fs::read(path).unwrap());
        }
    }
    found
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (files(one), files(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        assert!(bytes == &other[name], "{name} differs");
    }
}

#[test]
fn a_segmentor_that_was_stopped_goes_on_bit_for_bit_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let report = train_segmentor(&whole, |_| {});
    assert_eq!((report.step, report.new_steps), (6, 6));
    let report = train_segmentor(&stopped, |plan| plan.limit = Some(2));
    assert_eq!((report.step, report.new_steps), (2, 2));
    // A kill between two checkpoints: what was done since the last one is done again.
    let kept = std::fs::read(stopped.join("checkpoint.safetensors")).unwrap();
    train_segmentor(&stopped, |plan| (plan.limit, plan.loader_threads) = (Some(2), 3));
    std::fs::write(stopped.join("checkpoint.safetensors"), kept).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let report = pool.install(|| train_segmentor(&stopped, |plan| plan.loader_threads = 2));
    assert_eq!((report.step, report.new_steps), (6, 4));
    assert_same(&whole, &stopped);
    assert_eq!(train_segmentor(&whole, |_| {}).new_steps, 0, "nothing is left to do");

    let history = History::read(&whole.join("history.parquet"), u64::MAX).unwrap();
    assert_eq!(history.series(TRAIN, "loss").count(), 6);
    assert_eq!(history.series(VALIDATION, "dice of tumors").map(|(step, _)| step).collect::<Vec<_>>(), [3, 5]);
    for name in ["curves.png", "pictures/000000004.png", "weights/segmentor.safetensors", "settings.json"] {
        assert!(files(&whole).contains_key(name), "{name}");
    }
}

fn train_synthesis(out: &Path, weights: &Path, limit: Option<u64>) -> TrainingReport {
    let mut config = synthesis(4);
    config.segmentor.weights = weights.to_owned();
    let cases = synthesis_cases();
    let make = |purpose| {
        SynthesisSampler::new(&config, (SEED, purpose), organs().into(), Arc::clone(&cases), Some(self::cases(0..2)))
    };
    let (sampler, validation) = (make("synthesis").unwrap(), make("validation").unwrap());
    let mut learner = SynthesisLearner::new(&config, SEED, vec![2], &validation, &Device::Cpu).unwrap();
    let plan = RunPlan { limit, ..plan("synthesis", 4, config.every, out) };
    run(&plan, Arc::new(sampler), &mut learner, &mut |_| {}).unwrap()
}

#[test]
fn generator_and_discriminator_go_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("s.safetensors");
    let config = segmentation(1);
    segmentor(&config)
        .learning()
        .write_weights(&weights, &BTreeMap::from([("norm".into(), "instance".into())]), Precision::Single)
        .unwrap();
    let before = std::fs::read(&weights).unwrap();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let report = train_synthesis(&whole, &weights, None);
    assert!(report.scores["found fraction"].is_finite() && report.scores["realness"] > 0.0, "{:?}", report.scores);
    train_synthesis(&stopped, &weights, Some(3));
    train_synthesis(&stopped, &weights, None);
    assert_same(&whole, &stopped);
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    let standing = checkpoint::standing(&whole.join("checkpoint.safetensors")).unwrap();
    assert_eq!(standing.optimiser_steps, [("discriminator".into(), 4), ("generator".into(), 4)].into());
}

#[test]
fn a_segmentor_learns() {
    let mut config = segmentation(100);
    config.synthetic = None;
    config.cut_mix.probability = 0.0;
    config.crops.background = 0.0;
    config.optimiser.rate = 0.01;
    let sampler = SegmentationSampler::new(&config, SEED, organs().into(), synthesis_cases(), Vec::new());
    let mut learner = segmentor(&config);
    let losses: Vec<f64> =
        (0..100).map(|step| learner.learn(step, sampler.batch(step).unwrap()).unwrap()[0].1).collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[80..]) < 0.7 * mean(&losses[..5]), "{losses:?}");
}

#[test]
fn a_frozen_network_follows_and_gets_no_gradients() {
    let config = segmentation(1);
    let learner = segmentor(&config);
    let frozen = learner.learning().frozen().unwrap();
    let x = candle_core::Var::ones((1, 1, 8, 8, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
    let y = frozen.forward(x.as_tensor()).unwrap();
    let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(x.as_tensor()).is_some());
    assert!(learner.learning().weights().values().all(|weight| gradients.get(weight).is_none()));
    let mut learner = learner;
    let sampler = sampler(&config);
    learner.learn(0, sampler.batch(0).unwrap()).unwrap();
    let after = frozen.forward(x.as_tensor()).unwrap();
    assert_ne!(super::losses::host(&y).unwrap(), super::losses::host(&after).unwrap(), "a step is seen at once");
}

/// Batches of which one is no number.
struct Spoiled(Arc<SegmentationSampler>);

impl Sampler for Spoiled {
    type Batch = Batch;

    fn batch(&self, step: u64) -> Result<Batch> {
        let mut batch = self.0.batch(step)?;
        if step == 4 {
            batch.images[7] = f32::NAN;
        }
        Ok(batch)
    }
}

#[test]
fn a_loss_that_is_no_number_stops_with_what_it_saw() {
    let folder = tempfile::tempdir().unwrap();
    let config = segmentation(6);
    let plan = plan("segmentation", 6, config.every, folder.path());
    let sampler = Arc::new(Spoiled(sampler(&config)));
    let error = run(&plan, sampler, &mut segmentor(&config), &mut |_| {}).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("training stopped at step 4: loss is NaN (of loss NaN, rate "), "{said}");
    assert!(said.contains(" on scan ") && said.contains("before it: loss "), "{said}");
    // The last checkpoint is from before it, and goes on.
    let standing = checkpoint::standing(&folder.path().join("checkpoint.safetensors")).unwrap();
    assert_eq!(standing.step, 3);
    let seen = History::read(&folder.path().join("history-until-stop.parquet"), u64::MAX).unwrap();
    assert_eq!(seen.series(TRAIN, "loss").count(), 4);
}

#[test]
fn a_folder_keeps_to_its_run() {
    let folder = tempfile::tempdir().unwrap();
    train_segmentor(folder.path(), |plan| plan.limit = Some(1));
    let config = segmentation(6);
    let refused = |change: &dyn Fn(&mut RunPlan)| {
        let mut plan = plan("segmentation", 6, config.every, folder.path());
        change(&mut plan);
        run(&plan, sampler(&config), &mut segmentor(&config), &mut |_| {}).unwrap_err()
    };
    let error = refused(&|plan| plan.resume = false);
    assert!(error.to_string().ends_with("holds a run that has taken 1 steps"), "{error}");
    assert!(error.hint().unwrap().contains("--resume"));
    assert!(refused(&|plan| plan.seed = 1).to_string().contains("the seed is 9 there and 1 here"));
    assert!(refused(&|plan| plan.stage = "segmentor").to_string().contains("the stage is segmentation there"));
    assert!(
        refused(&|plan| plan.settings = serde_json::json!({}))
            .to_string()
            .contains("`steps` is 6 there and not set here")
    );
    std::fs::write(folder.path().join("checkpoint.safetensors"), b"rubbish").unwrap();
    assert!(refused(&|_| {}).to_string().contains("not a safetensors file"));
}

/// A learner whose weights are no numbers after its first step.
struct Diverged(SegmentationLearner);

impl Learner for Diverged {
    type Batch = Batch;

    fn learn(&mut self, step: u64, batch: Batch) -> Result<Numbers> {
        let numbers = self.0.learn(step, batch)?;
        let mut tensors: BTreeMap<_, _> = self.0.learning().tensors().collect();
        for tensor in tensors.values_mut() {
            *tensor = (&*tensor * f64::NAN).unwrap();
        }
        self.0.networks_mut()[0].restore(&tensors, 1)?;
        Ok(numbers)
    }

    fn validate(&mut self) -> Result<Numbers> {
        Ok(Vec::new())
    }

    fn judged_by(&self) -> &'static str {
        ""
    }

    fn picture(&mut self) -> Result<Option<crate::volume::Picture>> {
        Ok(None)
    }

    fn networks(&self) -> Vec<&TrainedNetwork> {
        self.0.networks()
    }

    fn networks_mut(&mut self) -> Vec<&mut TrainedNetwork> {
        self.0.networks_mut()
    }
}

#[test]
fn weights_that_are_no_numbers_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let config = segmentation(6);
    let plan = RunPlan { limit: Some(1), ..plan("segmentation", 6, config.every, folder.path()) };
    let error = run(&plan, sampler(&config), &mut Diverged(segmentor(&config)), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no longer finite"), "{error}");
    assert!(!folder.path().join("checkpoint.safetensors").exists());
}

#[test]
fn a_folder_has_one_writer_and_is_no_pipelines() {
    let folder = tempfile::tempdir().unwrap();
    let config = segmentation(6);
    let train = |plan: &RunPlan| run(plan, sampler(&config), &mut segmentor(&config), &mut |_| {}).map(drop);
    let places = b"{}\n".to_vec();
    let plan = RunPlan { limit: Some(1), places, ..plan("segmentation", 6, config.every, folder.path()) };
    let lock = std::fs::File::create(folder.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let error = train(&plan).unwrap_err().to_string();
    assert!(error.ends_with("is being written by another training"), "{error}");
    assert!(!plan.has_begun());
    lock.unlock().unwrap();
    train(&plan).unwrap();
    assert!(plan.has_begun());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::metadata(folder.path().join("private")).unwrap();
        assert_eq!(private.permissions().mode() & 0o777, 0o700);
    }
    let pipelines = tempfile::tempdir().unwrap();
    std::fs::write(pipelines.path().join("run.json"), "{}").unwrap();
    let error = train(&RunPlan { out: pipelines.path().to_owned(), ..plan }).unwrap_err().to_string();
    assert!(error.contains("is the folder of a pipeline or a data set: it holds run.json"), "{error}");
}

#[test]
fn the_seed_decides_the_first_weights() {
    let weights = |seed: u64, name| {
        let config = segmentation(1).network.build(3);
        let learning = TrainedNetwork::new(name, config, Default::default(), Key::root(seed), &Device::Cpu).unwrap();
        super::losses::host(&learning.weights()["down_tr64.ops.0.conv1.weight"]).unwrap()
    };
    assert_eq!(weights(1, "generator"), weights(1, "generator"));
    assert_ne!(weights(1, "generator"), weights(2, "generator"));
    assert_ne!(weights(1, "generator"), weights(1, "discriminator"));
}
