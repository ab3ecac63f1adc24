//! Tests of whole tiny training runs: a resumed training run has the same bits as an uninterrupted one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use super::data::{Batch, CaseEntry, Cases, Sampler};
use super::history::{History, TRAIN, VALIDATION};
use super::run::{Learner, Numbers, RunPlan, TrainingReport, run};
use super::segmentation::{SegmentationConfig, SegmentationLearner, SegmentationSampler, SyntheticSource, TumorMaker};
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
        scan_files: Vec::new(),
        used_samples: Vec::new(),
        held_out_cache: Vec::new(),
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
    let tumors = TumorMaker { attempts, organs: organs(), per_scan: 1 };
    let fresh = SyntheticSource::Fresh { cases: cases(0..2), tumors };
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

/// Reads every file of a run folder.
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
fn resumed_segmentor_training_is_bit_identical_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let report = train_segmentor(&whole, |_| {});
    assert_eq!((report.step, report.new_steps), (6, 6));
    let report = train_segmentor(&stopped, |plan| plan.limit = Some(2));
    assert_eq!((report.step, report.new_steps), (2, 2));
    // As after a kill between two checkpoints: the steps since the last one are repeated.
    let kept = std::fs::read(stopped.join("checkpoint.safetensors")).unwrap();
    train_segmentor(&stopped, |plan| (plan.limit, plan.loader_threads) = (Some(2), 3));
    std::fs::write(stopped.join("checkpoint.safetensors"), kept).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let report = pool.install(|| train_segmentor(&stopped, |plan| plan.loader_threads = 2));
    assert_eq!((report.step, report.new_steps), (6, 4));
    assert_same(&whole, &stopped);
    assert_eq!(train_segmentor(&whole, |_| {}).new_steps, 0, "no steps are left");

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
fn resumed_synthesis_training_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("s.safetensors");
    let config = segmentation(1);
    segmentor(&config)
        .segmentor()
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
    let header = checkpoint::read_header(&whole.join("checkpoint.safetensors")).unwrap();
    assert_eq!(header.optimiser_steps, [("discriminator".into(), 4), ("generator".into(), 4)].into());
}

#[test]
fn segmentor_loss_decreases() {
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
fn frozen_network_shares_weights_without_gradients() {
    let config = segmentation(1);
    let learner = segmentor(&config);
    let frozen = learner.segmentor().frozen().unwrap();
    let x = candle_core::Var::ones((1, 1, 8, 8, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
    let y = frozen.forward(x.as_tensor()).unwrap();
    let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(x.as_tensor()).is_some());
    assert!(learner.segmentor().weights().values().all(|weight| gradients.get(weight).is_none()));
    let mut learner = learner;
    let sampler = sampler(&config);
    learner.learn(0, sampler.batch(0).unwrap()).unwrap();
    let after = frozen.forward(x.as_tensor()).unwrap();
    assert_ne!(
        super::losses::to_host(&y).unwrap(),
        super::losses::to_host(&after).unwrap(),
        "a step changes the frozen network too"
    );
}

/// Batches of which one contains NaN.
struct NanBatches(Arc<SegmentationSampler>);

impl Sampler for NanBatches {
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
fn nan_loss_stops_training_with_scans_and_history() {
    let folder = tempfile::tempdir().unwrap();
    let config = segmentation(6);
    let plan = plan("segmentation", 6, config.every, folder.path());
    let sampler = Arc::new(NanBatches(sampler(&config)));
    let error = run(&plan, sampler, &mut segmentor(&config), &mut |_| {}).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("training stopped at step 4: loss is NaN (all numbers: loss NaN, rate "), "{message}");
    assert!(
        message.contains("computed from scan ") && message.contains("last numbers before the step: loss "),
        "{message}"
    );
    // The last checkpoint is from before the failed step.
    let header = checkpoint::read_header(&folder.path().join("checkpoint.safetensors")).unwrap();
    assert_eq!(header.step, 3);
    let history = History::read(&folder.path().join("history-until-stop.parquet"), u64::MAX).unwrap();
    assert_eq!(history.series(TRAIN, "loss").count(), 4);
}

#[test]
fn run_refuses_folder_of_another_run() {
    let folder = tempfile::tempdir().unwrap();
    train_segmentor(folder.path(), |plan| plan.limit = Some(1));
    let config = segmentation(6);
    let refused = |change: &dyn Fn(&mut RunPlan)| {
        let mut plan = plan("segmentation", 6, config.every, folder.path());
        change(&mut plan);
        run(&plan, sampler(&config), &mut segmentor(&config), &mut |_| {}).unwrap_err()
    };
    let error = refused(&|plan| plan.resume = false);
    assert!(error.to_string().ends_with("contains a training run at step 1"), "{error}");
    assert!(error.hint().unwrap().contains("--resume"));
    assert!(refused(&|plan| plan.seed = 1).to_string().contains("expected seed 9, got 1"));
    assert!(
        refused(&|plan| plan.stage = "segmentor").to_string().contains("expected stage segmentation, got segmentor")
    );
    assert!(
        refused(&|plan| plan.settings = serde_json::json!({}))
            .to_string()
            .contains("expected `steps` to be 6, got not set")
    );
    std::fs::write(folder.path().join("checkpoint.safetensors"), b"invalid").unwrap();
    assert!(refused(&|_| {}).to_string().contains("not a safetensors file"));
}

/// A learner whose weights are NaN after the first step.
struct DivergedLearner(SegmentationLearner);

impl Learner for DivergedLearner {
    type Batch = Batch;

    fn learn(&mut self, step: u64, batch: Batch) -> Result<Numbers> {
        let numbers = self.0.learn(step, batch)?;
        let mut tensors: BTreeMap<_, _> = self.0.segmentor().tensors().collect();
        for tensor in tensors.values_mut() {
            *tensor = (&*tensor * f64::NAN).unwrap();
        }
        self.0.networks_mut()[0].restore(&tensors, 1)?;
        Ok(numbers)
    }

    fn validate(&mut self) -> Result<Numbers> {
        Ok(Vec::new())
    }

    fn score_name(&self) -> &'static str {
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
fn nan_weights_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let config = segmentation(6);
    let plan = RunPlan { limit: Some(1), ..plan("segmentation", 6, config.every, folder.path()) };
    let error = run(&plan, sampler(&config), &mut DivergedLearner(segmentor(&config)), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no longer finite"), "{error}");
    assert!(!folder.path().join("checkpoint.safetensors").exists());
}

#[test]
fn run_refuses_locked_folder_and_folder_of_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let config = segmentation(6);
    let train = |plan: &RunPlan| run(plan, sampler(&config), &mut segmentor(&config), &mut |_| {}).map(drop);
    let scan_files = b"{}\n".to_vec();
    let plan = RunPlan { limit: Some(1), scan_files, ..plan("segmentation", 6, config.every, folder.path()) };
    let lock = std::fs::File::create(folder.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let error = train(&plan).unwrap_err().to_string();
    assert!(error.ends_with("is being written by another training run"), "{error}");
    assert!(!plan.has_checkpoint());
    lock.unlock().unwrap();
    train(&plan).unwrap();
    assert!(plan.has_checkpoint());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let private = folder.path().join("private");
        assert_eq!((mode(&private), mode(&private.join("scans.jsonl"))), (0o700, 0o600));
    }
    let pipeline = tempfile::tempdir().unwrap();
    std::fs::write(pipeline.path().join("run.json"), "{}").unwrap();
    let error = train(&RunPlan { out: pipeline.path().to_owned(), ..plan }).unwrap_err().to_string();
    assert!(error.contains("is the folder of a pipeline or a data set: it contains run.json"), "{error}");
}

#[test]
fn seed_determines_initial_weights() {
    let weights = |seed: u64, name| {
        let config = segmentation(1).network.build(3);
        let network = TrainedNetwork::new(name, config, Default::default(), Key::root(seed), &Device::Cpu).unwrap();
        super::losses::to_host(&network.weights()["down_tr64.ops.0.conv1.weight"]).unwrap()
    };
    assert_eq!(weights(1, "generator"), weights(1, "generator"));
    assert_ne!(weights(1, "generator"), weights(2, "generator"));
    assert_ne!(weights(1, "generator"), weights(1, "discriminator"));
}
