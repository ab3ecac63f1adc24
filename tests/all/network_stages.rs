//! Synthesis, scores and masks by networks: against reference numbers, in whole runs, and with bad input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::graph::{GraphFile, Machine, Plan, Registry, check};
use freetumor::ingest::{Companions, Scan, ScanEntry};
use freetumor::mask::{Mask, MaskedScan, Organ, OrganMask, SegmentorMask, SegmentorMaskConfig};
use freetumor::nn::device::Place;
use freetumor::nn::fill;
use freetumor::nn::network::{Config, Model};
use freetumor::nn::service::Service;
use freetumor::nn::weights::{Precision, write_safetensors};
use freetumor::score::{
    Discriminator, DiscriminatorConfig, Judge, Score, ScoreStage, Scores, Segmentor, SegmentorConfig,
};
use freetumor::synth::blend::blend;
use freetumor::synth::{Activation, Candidate, Generator, GeneratorConfig, Geometry, RulesConfig};
use freetumor::view::{NetworkConfig, Networks, Viewer, Windows};
use freetumor::volume::{Affine, Array3, Grid, Labels, Region, Volume, Voxels};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::shared;
use crate::dataflow::committed;
use crate::for_loop::plain_loop;
use crate::synth::{inner, largest_difference, tensor as golden_tensor};

/// Weights by `fill`, the names in the file without the prefix that goes into the numbers.
fn save(path: &Path, config: &Config, prefix: &str) {
    let tensor = |(name, shape): (String, candle_core::Shape)| {
        let values = fill::parameter(&format!("{prefix}{name}"), shape.dims());
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let weights = config.declared().unwrap().into_iter().map(tensor).collect();
    write_safetensors(path, &weights, &BTreeMap::new(), Precision::Single).unwrap();
}

fn config(model: Model, width: usize, classes: usize) -> Config {
    Config { width, classes, ..model.published() }
}

struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, format!("expected {pattern}, there are no files here")))
    }
}

fn scan_of(volume: Volume) -> Scan {
    let entry = ScanEntry {
        scan_id: "0".into(),
        source: "source".into(),
        key: "key".into(),
        dataset: "dataset".into(),
        patient_key: "patient".into(),
        bytes: 0,
        modified_s: 0,
    };
    Scan { entry, digest: "d".into(), volume, companions: Arc::new(NoCompanions) }
}

fn networks() -> Arc<Networks> {
    Networks::new(Service::new(Place::Cpu, 1))
}

fn viewer(networks: &Networks, config: &NetworkConfig, model: Model) -> Viewer {
    networks.open(config, &config.weights, model).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

/// One case of `candidate.safetensors` as a scan with a candidate.
struct Golden {
    organ: Organ,
    masked: MaskedScan,
    candidate: Candidate,
    numbers: Value,
}

impl Golden {
    fn read(name: &str, labels_of_organ: [u8; 2]) -> Option<(Self, BTreeMap<String, Array3<f32>>)> {
        let bytes = std::fs::read(shared("golden/candidate.safetensors")?).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let text = std::fs::read_to_string(shared("golden/candidate.json")?).unwrap();
        let numbers = serde_json::from_str::<Value>(&text).unwrap()[name].clone();
        let names = file.names().into_iter().filter_map(|it| it.strip_prefix(&format!("{name}."))).collect::<Vec<_>>();
        let arrays: BTreeMap<String, Array3<f32>> =
            names.iter().map(|it| ((*it).to_owned(), golden_tensor(&file, &format!("{name}.{it}")))).collect();
        let [label, tumor_label] = labels_of_organ;
        let organ = Organ { name: name.to_owned(), label, tumor_label };
        let ids = [0, label, tumor_label];
        let grid = Grid { shape: [64; 3], affine: Affine::from_spacing([1.5; 3]) };
        let hu = |image: &Array3<f32>| image.map(|value| value * 425.0 - 175.0);
        let before = hu(&arrays["image"]);
        let mut blended = arrays["image"].clone();
        blended.paste([4; 3], &arrays["blended"]);
        let mut tumor = Array3::filled([64; 3], 0u8);
        tumor.paste([4; 3], &arrays["new_label"].map(|&id| u8::from(id == 3.0)));
        let labels = arrays["label"].map(|&id| ids[id as usize]);
        let merged = Array3::from_fn([64; 3], |at| if tumor[at] == 1 { tumor_label } else { labels[at] });
        let whole = Region { start: [0; 3], shape: [64; 3] };
        let geometry = Geometry {
            size_class: "small".into(),
            site_voxel: [32; 3],
            site_mm: [48.0; 3],
            radii_mm: [13.5, 12.0, 10.5],
            volume_mm3: 0.0,
            diameter_mm: 0.0,
            sphericity: 1.0,
            clipped_fraction: 0.0,
            boundary_distance_mm: 1.0,
        };
        let candidate = Candidate {
            region: whole,
            site_box: whole,
            before: before.clone(),
            after: hu(&blended),
            labels: merged,
            tumor,
            geometry,
        };
        let scan = scan_of(Volume { grid, voxels: Voxels::F32(before) });
        let mask = OrganMask { labels, organs: [organ.clone()].into() };
        Some((Self { organ, masked: MaskedScan { scan: Arc::new(scan), mask }, candidate, numbers }, arrays))
    }

    fn number(&self, name: &str) -> f64 {
        self.numbers[name].as_f64().unwrap()
    }
}

const CASES: [(&str, [u8; 2]); 2] = [("liver", [1, 2]), ("kidney", [5, 6])];

/// Windows of 64³, as the reference numbers have.
fn look(weights: PathBuf) -> NetworkConfig {
    NetworkConfig { roi_voxels: [64; 3], ..NetworkConfig::new(weights) }
}

#[test]
fn a_generators_map_is_that_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("generator.safetensors");
    for (name, ids) in CASES {
        let Some((golden, arrays)) = Golden::read(name, ids) else { return };
        if !weights.exists() {
            save(&weights, &Model::UNet3D.published(), "");
        }
        let network = look(weights.clone());
        let viewer = viewer(&networks(), &network, Model::UNet3D);
        let config = GeneratorConfig {
            network,
            activation: Activation::Tanh,
            channels: BTreeMap::new(),
            rules: RulesConfig::default(),
        };
        let generator = Generator::new(config, viewer, &golden.masked.mask.organs).unwrap();
        let whole = golden.candidate.region;
        let map = generator.difference_map(&golden.masked, &golden.organ, whole, whole).unwrap();
        let off = largest_difference(&inner(&map, 4), &arrays["difference_smooth"]);
        eprintln!("{name}: difference_smooth within {off:.1e}");
        assert!(off < 1e-4, "{name}: {off}");

        let soft = &arrays["shape_blurred"];
        let cut = Region { start: [4; 3], shape: [56; 3] };
        let (labels, texture) = (golden.masked.mask.labels.cut(cut), arrays["texture"].cut(cut));
        let image = golden.candidate.before.cut(cut);
        let after = blend(&image, &labels, &golden.organ, soft, &inner(&map, 4), &texture, 425.0);
        let off = largest_difference(&after, &golden.candidate.after.cut(cut));
        assert!(off < 425.0 * 1e-4, "{name}: blended within {off} HU");
    }
}

fn scores(stage: &dyn ScoreStage, golden: &Golden) -> Scores {
    let mut scores = Scores::default();
    stage.baseline(&golden.masked, &golden.organ).unwrap().score(&golden.candidate, &mut scores).unwrap();
    scores
}

#[test]
fn scores_by_networks_are_those_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, ids) in CASES {
        let Some((golden, _)) = Golden::read(name, ids) else { return };
        if !at("s.safetensors").exists() {
            save(&at("s.safetensors"), &config(Model::SwinUnetr, 12, 7), "");
            save(&at("d.safetensors"), &Model::UNet3D.published(), "discriminator.");
        }
        let classes = [("liver", [1, 2]), ("pancreas", [3, 4]), ("kidney", [5, 6])];
        let classes: BTreeMap<String, [usize; 2]> = classes.map(|(name, ids)| (name.to_owned(), ids)).into();
        let networks = networks();
        let segmentor = |held_out| {
            let config = SegmentorConfig { network: look(at("s.safetensors")), classes: classes.clone(), held_out };
            let viewer = viewer(&networks, &config.network, Model::SwinUnetr);
            Segmentor::new(config, viewer, &golden.masked.mask.organs).unwrap()
        };
        let scores_of_s = scores(&segmentor(false), &golden);
        let synthetic = golden.number("synthetic_voxels");
        // Voxels whose two best classes are nearly tied may fall on either side.
        let tied = golden.number("voxels_whose_two_best_classes_differ_by_less_than_1e-4");
        for (score, key, tolerance) in [
            (Score::FoundFraction, "found_fraction", (0.02f64).min(tied / synthetic)),
            (Score::RightClassFraction, "right_class_fraction", (0.02f64).min(tied / synthetic)),
            (Score::TumorProbability, "tumor_probability", 1e-4),
        ] {
            let (got, expected) = (scores_of_s.get(score).unwrap(), golden.number(key));
            eprintln!("{name} {key}: {got} against {expected}");
            assert!((got - expected).abs() <= tolerance, "{name} {key}: {got} against {expected}");
        }
        let voxels = scores_of_s.get(Score::NewFalsePositiveMm3).unwrap() / 1.5f64.powi(3);
        let expected = golden.number("new_false_positive_voxels");
        assert!((voxels - expected).abs() <= tied, "{name}: {voxels} new false positives against {expected}");

        let held_out = scores(&segmentor(true), &golden);
        assert_eq!(held_out.get(Score::HeldOutFoundFraction), scores_of_s.get(Score::FoundFraction));

        let network = look(at("d.safetensors"));
        let viewer = viewer(&networks, &network, Model::UNet3D);
        let discriminator = Discriminator::new(DiscriminatorConfig { network, real_class: 1 }, viewer).unwrap();
        let realness = scores(&discriminator, &golden).get(Score::Realness).unwrap();
        let expected = golden.number("realness");
        assert!((realness - expected).abs() < 1e-4, "{name} realness: {realness} against {expected}");
    }
}

/// A liver-like block in noise, on a grid that is not the network's.
fn block() -> MaskedScan {
    let grid =
        Grid { shape: [70, 66, 40], affine: Affine([[-1.2, 0., 0., 9.], [0., 1.1, 0., 0.], [0., 0., 2.5, -4.]]) };
    let labels = Array3::from_fn(grid.shape, |[x, y, z]| {
        u8::from((8..60).contains(&x) && (8..58).contains(&y) && (5..36).contains(&z))
    });
    let mut draws = freetumor::random::Key::root(3).draws("noise");
    let hu = labels.map(|&label| draws.normal(if label == 1 { 110.0 } else { -60.0 }, 25.0).round() as i16);
    let organ = Organ { name: "liver".into(), label: 1, tumor_label: 2 };
    let scan = scan_of(Volume { grid, voxels: Voxels::I16(hu) });
    MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs: [organ].into() } }
}

fn map_with(windows: Windows, weights: &Path, norm: freetumor::nn::ops::Over) -> (Array3<f32>, u64) {
    let network =
        NetworkConfig { windows, norm: Some(norm), roi_voxels: [32; 3], overlap: 0.5, ..NetworkConfig::new(weights) };
    let viewer = viewer(&networks(), &network, Model::UNet3D);
    let config = GeneratorConfig {
        network,
        activation: Activation::Tanh,
        channels: BTreeMap::new(),
        rules: RulesConfig::default(),
    };
    let masked = block();
    let generator = Generator::new(config, viewer, &masked.mask.organs).unwrap();
    let site = Region { start: [9, 10, 6], shape: [8, 8, 4] };
    let map = generator.difference_map(&masked, &masked.mask.organs[0], site, site).unwrap();
    let efforts = freetumor::synth::Synthesize::viewer(&generator).unwrap().efforts();
    (map, efforts.values().map(|effort| effort.windows).sum())
}

#[test]
fn the_windows_that_reach_a_tumor_say_what_all_windows_say() {
    use freetumor::nn::ops::Over;
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("g.safetensors");
    save(&weights, &config(Model::UNet3D, 4, 3), "");
    let (all, windows) = map_with(Windows::Reference, &weights, Over::Instance);
    let (some, fewer) = map_with(Windows::Reaching, &weights, Over::Instance);
    assert_eq!(some, all, "bit by bit");
    assert!(fewer < windows, "{fewer} of {windows} windows");
    let (centred, one) = map_with(Windows::Centred, &weights, Over::Instance);
    assert_eq!(one, 1);
    assert_ne!(centred, all);
    // As published, a window's answer depends on its group.
    let (grouped, _) = map_with(Windows::Reference, &weights, Over::Batch);
    assert_ne!(grouped, all);
    assert!(all.as_slice().iter().any(|difference| difference.abs() > 1e-3));
}

#[test]
fn a_window_is_answered_alike_alone_and_in_a_batch() {
    use freetumor::nn::ops::Over;
    use freetumor::nn::predictor::{Predictor, Wanted};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for (model, width, side) in [(Model::UNet3D, 16, 24), (Model::SwinUnetr, 12, 32)] {
        save(&path, &config(model, width, 3), "");
        let wanted = Wanted {
            model,
            part: freetumor::nn::weights::Part::Whole,
            classes: None,
            width: None,
            norm: Some(Over::Instance),
        };
        let network = Predictor::open(&path, &wanted, &Device::Cpu).unwrap();
        let shape = [4, 1, side, side, side];
        let windows = Tensor::from_vec(fill::uniform("w", shape.iter().product(), 0.0, 1.0), &shape, &Device::Cpu);
        let windows = windows.unwrap();
        let numbers = |x: &Tensor| network.forward(x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let together = numbers(&windows);
        let alone: Vec<f32> = (0..4).flat_map(|at| numbers(&windows.narrow(0, at, 1).unwrap())).collect();
        assert!(together == alone, "{model}: the same bits");
    }
}

/// A pipeline of narrow networks on phantoms.
fn graph(more: &str) -> String {
    format!(
        r#"
        [pipeline]
        name = "networks"
        seed = 5
        epoch_scans = 2

        [sources.phantoms]
        kind = "phantom"
        count = 4
        body = "abdomen"
        shape = [48, 48, 32]
        spacing_mm = [6, 6, 7]

        [stages.organs]
        kind = "labels"
        inputs = ["phantoms"]
        scheme = "totalsegmentator"
        organs = ["liver", "kidney"]

        [stages.tumors]
        kind = "generator"
        inputs = ["organs"]
        network = {{ weights = "gan.safetensors", part = "generator", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }}
        rules = {{ variants = 2, diameter_mm = [20, 60] }}

        [stages.seen]
        kind = "segmentor"
        inputs = ["tumors"]
        network = {{ weights = "s.safetensors", model = "unet3d", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }}

        [stages.held]
        kind = "segmentor"
        held_out = true
        inputs = ["seen"]
        network = {{ weights = "h.safetensors", model = "unet3d", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }}

        [stages.real]
        kind = "discriminator"
        inputs = ["held"]
        network = {{ weights = "gan.safetensors", part = "discriminator", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }}

        [stages.test]
        kind = "quality-test"
        inputs = ["real"]
        attempts = 3
        accept = ["tumor_probability > 0.27", "realness > 0", "disagreement < 1"]

        [sinks.training_set]
        kind = "decathlon"
        inputs = ["test"]
        {more}
        "#
    )
}

/// A folder with the weights that [`graph`] names.
fn weights() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let narrow = config(Model::UNet3D, 2, 3);
    let mut gan = BTreeMap::new();
    for part in ["netG.", "netD."] {
        for (name, shape) in narrow.declared().unwrap() {
            let values = fill::parameter(&format!("{part}{name}"), shape.dims());
            gan.insert(format!("module.{part}{name}"), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        }
    }
    let path = folder.path().join("gan.safetensors");
    write_safetensors(&path, &gan, &BTreeMap::new(), Precision::Single).unwrap();
    save(&folder.path().join("s.safetensors"), &config(Model::UNet3D, 2, 7), "");
    save(&folder.path().join("h.safetensors"), &config(Model::UNet3D, 2, 7), "held.");
    folder
}

fn plan_with(text: &str, folder: &Path, batch: usize) -> Result<Plan, Vec<String>> {
    let networks = Networks::new(Service::new(Place::Cpu, batch));
    let registry = Registry::on(&Machine { networks, ..Machine::default() });
    let checked = check(&GraphFile::new("test.toml", folder, text), &registry);
    let problems = checked.problems.iter().map(ToString::to_string).collect();
    checked.plan.ok_or(problems)
}

fn run_in(plan: Plan, folder: &Path, options: &RunOptions) -> freetumor::error::Result<RunReport> {
    run(plan, folder, options, &Arc::new(Progress::default()))
}

#[test]
fn networks_in_the_dataflow_give_the_bytes_of_the_loop_whatever_the_batch() {
    let folder = weights();
    let plan = |batch| plan_with(&graph(""), folder.path(), batch).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let plain = tempfile::tempdir().unwrap();
    plain_loop(plan(1), plain.path()).unwrap();
    let expected = committed(plain.path());
    for (workers, threads, batch) in [(1, 1, 1), (2, 3, 4)] {
        let out = tempfile::tempdir().unwrap();
        let options = RunOptions { workers, threads, ..RunOptions::default() };
        let report = run_in(plan(batch), out.path(), &options).unwrap();
        assert_eq!((report.scans, report.faults), (4, 0));
        assert!(report.accepted > 0 && report.rejected > 0, "{report:?}");
        assert_eq!(committed(out.path()), expected, "{workers} workers, batches of {batch}");
        let phases: Vec<_> = report.networks.iter().map(|it| (it.node.as_str(), it.phase)).collect();
        use freetumor::view::Phase::{After, Before, Generate};
        let nodes = [("tumors", Generate), ("seen", Before), ("seen", After), ("held", After), ("real", After)];
        assert_eq!(phases, nodes);
        let windows = |at: usize| report.networks[at].effort.windows;
        // What is said of the untouched scan is kept over the attempts at a site.
        assert!(windows(0) < windows(2) && windows(1) < windows(2), "{:?}", report.networks);
        assert!(report.device_busy_share > 0.0 && report.other_seconds > 0.0);
    }
}

#[test]
fn what_is_wrong_with_networks_is_said_before_anything_runs() {
    let folder = weights();
    let nan = Tensor::full(f32::NAN, (3, 2, 1, 1, 1), &Device::Cpu).unwrap();
    let path = folder.path().join("nan.safetensors");
    write_safetensors(&path, &BTreeMap::from([("out.weight".to_owned(), nan)]), &BTreeMap::new(), Precision::Single)
        .unwrap();
    let problems = |from: &str, to: &str| {
        let text = graph("").replace(from, to);
        assert_ne!(text, graph(""), "{from} is there");
        plan_with(&text, folder.path(), 1).err().unwrap_or_default().join("\n")
    };
    for (from, to, expected) in [
        ("s.safetensors", "none.safetensors", "cannot read the weights"),
        ("s.safetensors", "nan.safetensors", "the weights do not fit"),
        ("model = \"unet3d\", roi", "model = \"swin_unetr\", roi", "the weights do not fit"),
        ("s.safetensors\", model", "gan.safetensors\", model", "several networks: generator, discriminator"),
        ("s.safetensors\", model", "gan.safetensors\", part = \"generator\", model", "the network has 0 to 2"),
        ("kind = \"discriminator\"", "kind = \"discriminator\"\nreal_class = 3", "0 to 2, got 3"),
        ("rules = {", "channels = { liver = 3 }\nrules = {", "the liver has channel 3, but the network has 3"),
        ("rules = {", "channels = { colon = 1 }\nrules = {", "expected an organ of the mask"),
        ("rules = { variants = 2,", "rules = { variants = 0,", "expected at least 1, got 0"),
        (
            "part = \"discriminator\", roi_voxels = [16, 16, 16]",
            "part = \"discriminator\", roi_voxels = [16, 12, 16]",
            "multiples of 8",
        ),
        ("part = \"generator\",", "part = \"generator\", overlap = 1.0,", "from 0 to below 1"),
        ("part = \"generator\",", "part = \"generator\", window_hu = [250, -175],", "a lower and a higher number"),
        ("kind = \"generator\"", "kind = \"generatr\"", "generator"),
    ] {
        let said = problems(from, to);
        assert!(said.contains(expected), "{to}: {said}");
        assert!(said.contains("test.toml:"), "a place: {said}");
    }
    let said = problems(
        "part = \"discriminator\", roi_voxels",
        "part = \"discriminator\", window_hu = [-1000, 500], roi_voxels",
    );
    assert!(said.contains("another window"), "{said}");
}

#[test]
fn logits_without_numbers_spoil_the_scan_and_nothing_else() {
    let folder = weights();
    // Weights so large that their sums are infinite.
    let huge = config(Model::UNet3D, 2, 7).declared().unwrap().into_iter().map(|(name, shape)| {
        let tensor = Tensor::full(3e38f32, shape, &Device::Cpu).unwrap();
        (name, tensor)
    });
    let path = folder.path().join("h.safetensors");
    write_safetensors(&path, &huge.collect(), &BTreeMap::new(), Precision::Single).unwrap();
    let out = tempfile::tempdir().unwrap();
    let plan = plan_with(&graph(""), folder.path(), 2).unwrap();
    let report = run_in(plan, out.path(), &RunOptions::default()).unwrap();
    assert_eq!(report.scans, 4);
    assert_eq!(report.fault_kinds.get("score/network"), Some(&report.faults), "{report:?}");
    assert!(report.faults > 0);
}

#[test]
fn a_device_that_vanishes_stops_the_run_which_can_go_on() {
    /// A score that is not given while the device is away.
    struct Away(bool);
    impl ScoreStage for Away {
        fn gives(&self) -> &'static [Score] {
            &[Score::Cnr]
        }
        fn baseline<'s>(&'s self, scan: &'s MaskedScan, _: &'s Organ) -> Result<Box<dyn Judge + 's>, Fault> {
            if self.0 && *scan.scan.digest > *"8" {
                return Err(Fault::new(Stage::Score, FaultKind::Device, "no card answers"));
            }
            Ok(Box::new(self))
        }
    }
    impl Judge for &Away {
        fn score(&self, _: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
            scores.set(Score::Cnr, 1.0);
            Ok(())
        }
    }
    #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Nothing {}

    let text = graph("").replace(
        "kind = \"discriminator\"\n        inputs = [\"held\"]\n        network = { weights = \"gan.safetensors\", part = \"discriminator\", roi_voxels = [16, 16, 16], spacing_mm = [6, 6, 6] }",
        "kind = \"away\"\n        inputs = [\"held\"]",
    );
    let text = text.replace("\"realness > 0\"", "\"cnr > 0\"");
    let folder = weights();
    let plan = |away: bool| {
        let mut registry = Registry::standard();
        registry.score("away", "Is away at times.", move |_: Nothing, _| {
            Ok(freetumor::graph::Scoring { stage: Arc::new(Away(away)), frame: Default::default() })
        });
        let checked = check(&GraphFile::new("test.toml", folder.path(), text.clone()), &registry);
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        checked.plan.unwrap_or_else(|| panic!("{problems:#?}"))
    };
    let whole = tempfile::tempdir().unwrap();
    run_in(plan(false), whole.path(), &RunOptions::default()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = run_in(plan(true), out.path(), &RunOptions::default()).unwrap_err();
    assert!(error.to_string().contains("the device of the networks is gone"), "{error}");
    run_in(plan(false), out.path(), &RunOptions::default()).unwrap();
    assert_eq!(committed(out.path()), committed(whole.path()), "nothing is lost, nothing is twice");
}

#[test]
fn a_network_gives_organs_and_suspects_real_tumors() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("bright.safetensors");
    // Class 1 where a voxel is bright, else class 0; class 2 is never called.
    let unet = config(Model::UNet3D, 2, 3);
    let bright = crate::infer::bright(&unet, 0.5);
    write_safetensors(&weights, &bright, &BTreeMap::new(), Precision::Single).unwrap();
    let network = NetworkConfig { roi_voxels: [64; 3], overlap: 0.25, ..NetworkConfig::new(&weights) };
    let mask_with = |classes: [usize; 2], suspected_from_mm3: f64| {
        let config = SegmentorMaskConfig {
            network: network.clone(),
            classes: BTreeMap::from([("liver".to_owned(), classes)]),
            merged_ids: BTreeMap::new(),
            suspected_from_mm3,
            min_organ_ml: 5.0,
        };
        SegmentorMask::new(config, viewer(&networks(), &network, Model::UNet3D)).unwrap()
    };
    let masked = block();
    let found = mask_with([1, 2], 50.0).mask(&masked.scan).unwrap();
    assert_eq!(found.labels.shape(), masked.mask.labels.shape());
    let pairs = || found.labels.as_slice().iter().zip(masked.mask.labels.as_slice());
    let both = pairs().filter(|(a, b)| (**a, **b) == (1, 1)).count() as f64;
    let dice = 2.0 * both / pairs().map(|(a, b)| usize::from(*a == 1) + usize::from(*b == 1)).sum::<usize>() as f64;
    assert!(dice > 0.9, "the bright block is the liver: {dice}");
    // The same voxels called tumor: large ones are suspected, small ones are organ.
    let suspects = mask_with([2, 1], 50.0).mask(&masked.scan).unwrap();
    assert!(suspects.labels.as_slice().contains(&2));
    let organ_only = mask_with([2, 1], 1e9).mask(&masked.scan).unwrap();
    assert!(!organ_only.labels.as_slice().contains(&2) && organ_only.labels.as_slice().contains(&1));
}

/// Narrow networks under the names of the published ones.
fn published() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, channels) in [("TGAN.pt", 3), ("TGAN_chest.pt", 1)] {
        let mut both = BTreeMap::new();
        for (part, classes) in [("netG.", channels), ("netD.", 3)] {
            for (name, shape) in config(Model::UNet3D, 2, classes).declared().unwrap() {
                let values = fill::parameter(&format!("{part}{name}"), shape.dims());
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
                both.insert(format!("module.{part}{name}"), tensor);
            }
        }
        write_safetensors(&at(name), &both, &BTreeMap::new(), Precision::Single).unwrap();
    }
    save(&at("model_baseline_segmentor.pt"), &config(Model::SwinUnetr, 12, 7), "");
    save(&at("model_covid_voco160k.pt"), &config(Model::SwinUnetr, 12, 2), "");
    folder
}

#[test]
fn pipelines_of_published_networks_are_complete() {
    let Some(_) = shared("ct") else { return };
    let weights = published();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["liver", "abdomen", "lung"] {
        let file = root.join(format!("pipelines/{name}-networks.toml"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
        let output = command.arg("validate").arg(&file).env("FREETUMOR_WEIGHTS", weights.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let out = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.arg("run").arg(root.join("pipelines/liver-networks.toml")).arg("--out").arg(out.path().join("run"));
    command.args(["--limit", "1", "--json", "--batch", "2"]).env("FREETUMOR_WEIGHTS", weights.path());
    for stage in ["synthesize", "segmentor", "discriminator"] {
        command.arg("--set").arg(format!("stages.{stage}.network.roi_voxels=[32, 32, 32]"));
    }
    let output = command
        .args(["--set", "stages.quality.attempts=2"])
        .env("FREETUMOR_PATIENT_KEY", "a secret for tests only")
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["scans"], &report["faults"]), (&1.into(), &0.into()));
    assert!(report["networks"].as_array().unwrap().len() == 4, "{report}");
}
