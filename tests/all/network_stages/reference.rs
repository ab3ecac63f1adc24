//! Maps, scores and masks of networks, compared with reference numbers and between settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use freetumor::error::ConfigError;
use freetumor::inference::{NetworkConfig, Windows};
use freetumor::mask::{
    IGNORE_LABEL, Mask, MaskedScan, Organ, OrganMask, SegmentorMask, SegmentorMaskConfig, SuspectedTumors,
};
use freetumor::nn::fill;
use freetumor::nn::network::Model;
use freetumor::random::Key;
use freetumor::score::{Discriminator, DiscriminatorConfig, Score, ScoreStage, Scores, Segmentor, SegmentorConfig};
use freetumor::synth::blend::blend;
use freetumor::synth::{
    Attempt, AttemptKey, Candidate, DifferenceActivation, Generator, GeneratorConfig, Geometry, RulesConfig, Synthesize,
};
use freetumor::volume::{Affine, Array3, Grid, Region, Volume, Voxels};
use safetensors::SafeTensors;
use serde_json::Value;

use super::{config, inference, networks, save};
use crate::common::{scan_of, shared};
use crate::synth::{inner, largest_difference, tensor as golden_tensor};

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
        let names =
            file.names().into_iter().filter_map(|key| key.strip_prefix(&format!("{name}."))).collect::<Vec<_>>();
        let arrays: BTreeMap<String, Array3<f32>> =
            names.iter().map(|key| ((*key).to_owned(), golden_tensor(&file, &format!("{name}.{key}")))).collect();
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
            drawn_contrast_hu: None,
            size_class: "small".into(),
            site_voxel: [32; 3],
            site_mm: [48.0; 3],
            radii_mm: [13.5, 12.0, 10.5],
            volume_mm3: 0.0,
            diameter_mm: 0.0,
            sphericity: 1.0,
            clipped_fraction: 0.0,
            boundary_distance_mm: 1.0,
            ..Geometry::default()
        };
        let candidate = Candidate {
            region: whole,
            site_box: whole,
            support: tumor.clone(),
            before: before.clone(),
            after: hu(&blended),
            labels: merged,
            tumor,
            geometry,
        };
        let scan = scan_of(Volume { grid, voxels: Voxels::F32(before) });
        let mask = OrganMask { labels, organs: [organ.clone()].into(), coverage: 1.0 };
        Some((Self { organ, masked: MaskedScan { scan: Arc::new(scan), mask }, candidate, numbers }, arrays))
    }

    fn number(&self, name: &str) -> f64 {
        self.numbers[name].as_f64().unwrap()
    }
}

const CASES: [(&str, [u8; 2]); 2] = [("liver", [1, 2]), ("kidney", [5, 6])];

/// Returns settings with windows of 64³, as in the reference.
fn network_config(weights: PathBuf) -> NetworkConfig {
    NetworkConfig { roi_voxels: [64; 3], ..NetworkConfig::new(weights) }
}

#[test]
fn difference_map_of_generator_equals_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("generator.safetensors");
    for (name, ids) in CASES {
        let Some((golden, arrays)) = Golden::read(name, ids) else { return };
        if !weights.exists() {
            save(&weights, &Model::UNet3D.published(), "");
        }
        let network = network_config(weights.clone());
        let inference = inference(&networks(), &network, Model::UNet3D);
        let config = GeneratorConfig {
            network,
            activation: DifferenceActivation::Tanh,
            strength: [1.0; 2],
            structure: false,
            channels: BTreeMap::new(),
            rules: RulesConfig::default(),
        };
        let generator = Generator::new(config, inference, &golden.masked.mask.organs).unwrap();
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
fn scores_by_networks_equal_the_reference() {
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
            let network = network_config(at("s.safetensors"));
            let config = SegmentorConfig { network, folds: Vec::new(), classes: classes.clone(), held_out };
            let inference = inference(&networks, &config.network, Model::SwinUnetr);
            Segmentor::new(config, inference, &golden.masked.mask.organs).unwrap()
        };
        let scores_of_s = scores(&segmentor(false), &golden);
        let synthetic = golden.number("synthetic_voxels");
        // Rounding may change the class of voxels whose two best classes are nearly tied.
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

        let network = network_config(at("d.safetensors"));
        let inference = inference(&networks, &network, Model::UNet3D);
        let discriminator = Discriminator::new(DiscriminatorConfig { network, real_class: 1 }, inference).unwrap();
        let realness = scores(&discriminator, &golden).get(Score::Realness).unwrap();
        let expected = golden.number("realness");
        assert!((realness - expected).abs() < 1e-4, "{name} realness: {realness} against {expected}");
    }
}

/// Returns a liver-like block in noise, on a grid that differs from the network's.
fn block() -> MaskedScan {
    let grid =
        Grid { shape: [70, 66, 40], affine: Affine([[-1.2, 0., 0., 9.], [0., 1.1, 0., 0.], [0., 0., 2.5, -4.]]) };
    let labels = Array3::from_fn(grid.shape, |[x, y, z]| {
        u8::from((8..60).contains(&x) && (8..58).contains(&y) && (5..36).contains(&z))
    });
    let mut random = freetumor::random::Key::root(3).stream("noise");
    let hu = labels.map(|&label| random.normal(if label == 1 { 110.0 } else { -60.0 }, 25.0).round() as i16);
    let organ = Organ { name: "liver".into(), label: 1, tumor_label: 2 };
    let scan = scan_of(Volume { grid, voxels: Voxels::I16(hu) });
    MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs: [organ].into(), coverage: 1.0 } }
}

/// Returns the change in HU, voxel by voxel, of the first accepted attempt, less what is changed without difference and structure: the
/// tissue that the tumor replaces.
fn change_with(
    weights: &Path,
    strength: [f64; 2],
    structure: bool,
    rules: RulesConfig,
) -> Result<Vec<f32>, Vec<ConfigError>> {
    let with = scan_with(weights, strength, structure, rules.clone())?;
    let without = scan_with(weights, [0.0; 2], false, rules)?;
    Ok(with.as_slice().iter().zip(without.as_slice()).map(|(with, without)| with - without).collect())
}

/// Returns the scan with the tumor of the first accepted attempt.
fn scan_with(
    weights: &Path,
    strength: [f64; 2],
    structure: bool,
    rules: RulesConfig,
) -> Result<Array3<f32>, Vec<ConfigError>> {
    let network = NetworkConfig { roi_voxels: [32; 3], ..NetworkConfig::new(weights) };
    let inference = inference(&networks(), &network, Model::UNet3D);
    let config = GeneratorConfig {
        network,
        activation: DifferenceActivation::Tanh,
        strength,
        structure,
        channels: BTreeMap::new(),
        rules,
    };
    let masked = block();
    let generator = Generator::new(config, inference, &masked.mask.organs)?;
    let plan = generator.site_plan(&masked, &masked.mask.organs[0]).unwrap();
    let candidate = (0..50).find_map(|index| {
        let key = AttemptKey::new(Key::root(7).number("variant", index), 0);
        match plan.attempt(key).unwrap() {
            Attempt::Candidate(candidate) => Some(candidate),
            Attempt::Rejected { .. } => None,
        }
    });
    let candidate = candidate.expect("one of fifty attempts succeeds");
    let volume = &masked.scan.volume;
    let mut hu = volume.voxels.hu_of(volume.grid.region());
    hu.paste(candidate.region.start, &candidate.after);
    Ok(hu)
}

fn generator_weights(folder: &tempfile::TempDir) -> PathBuf {
    let weights = folder.path().join("g.safetensors");
    save(&weights, &config(Model::UNet3D, 4, 3), "");
    weights
}

#[test]
fn strength_multiplies_the_change_by_one_factor_for_each_tumor() {
    let folder = tempfile::tempdir().unwrap();
    let weights = generator_weights(&folder);
    let change = |strength| change_with(&weights, strength, false, RulesConfig::default());
    let unscaled = change([1.0; 2]).unwrap();
    let mirrored = change([-2.0; 2]).unwrap();
    assert!(unscaled.iter().any(|hu| hu.abs() > 5.0));
    // Voxels are whole HU here.
    assert!(unscaled.iter().zip(&mirrored).all(|(unscaled, mirrored)| (mirrored + 2.0 * unscaled).abs() <= 1.5));
    let random = change([0.5, 3.0]).unwrap();
    let sum = |hu: &[f32]| hu.iter().map(|hu| f64::from(hu.abs())).sum::<f64>();
    let factor = sum(&random) / sum(&unscaled);
    assert!((0.45..3.05).contains(&factor) && (factor - 1.0).abs() > 0.05, "{factor}");
    assert!(unscaled.iter().zip(&random).all(|(unscaled, random)| (random - factor as f32 * unscaled).abs() < 3.0));
    for invalid in [[2.0, 1.0], [f64::NAN, 1.0], [-11.0, 1.0], [1.0, f64::INFINITY]] {
        let errors = change(invalid).unwrap_err();
        assert_eq!(errors[0].field, "strength", "{invalid:?}");
        assert!(errors[0].message.contains("in ascending order"), "{}", errors[0].message);
    }
}

#[test]
fn necrotic_core_darkens_only_the_middle_of_large_tumors() {
    let folder = tempfile::tempdir().unwrap();
    let weights = generator_weights(&folder);
    let rules = |diameter_mm, necrotic_fraction| RulesConfig {
        diameter_mm: [diameter_mm, diameter_mm + 1.0],
        necrotic_fraction: Some(necrotic_fraction),
        rim_fraction: Some(0.0),
        capsule_fraction: Some(0.0),
        calcified_fraction: Some(0.0),
        fat_fraction: Some(0.0),
        ..RulesConfig::default()
    };
    // With a strength of 0, only the structure changes voxels.
    let large = change_with(&weights, [0.0; 2], true, rules(30.0, 1.0)).unwrap();
    let changed = large.iter().filter(|hu| **hu != 0.0).count();
    let darkest = large.iter().copied().fold(0f32, f32::min);
    assert!((-60.0..=-8.0).contains(&darkest), "{darkest}");
    assert!(large.iter().all(|hu| *hu <= 0.0) && changed > 0 && changed < large.len() / 2, "{changed}");
    for (strength, structure, rules) in
        [([0.0; 2], true, rules(30.0, 0.0)), ([0.0; 2], true, rules(12.0, 1.0)), ([0.0; 2], false, rules(30.0, 1.0))]
    {
        let same = change_with(&weights, strength, structure, rules).unwrap();
        assert!(same.iter().all(|hu| *hu == 0.0));
    }
    let with = change_with(&weights, [1.0; 2], true, rules(12.0, 1.0)).unwrap();
    assert_eq!(
        with,
        change_with(&weights, [1.0; 2], false, rules(12.0, 1.0)).unwrap(),
        "expected no structure in small tumors"
    );
}

fn map_with(windows: Windows, weights: &Path, norm: freetumor::nn::ops::NormScope) -> (Array3<f32>, u64) {
    let network =
        NetworkConfig { windows, norm: Some(norm), roi_voxels: [32; 3], overlap: 0.5, ..NetworkConfig::new(weights) };
    let inference = inference(&networks(), &network, Model::UNet3D);
    let config = GeneratorConfig {
        network,
        activation: DifferenceActivation::Tanh,
        strength: [1.0; 2],
        structure: false,
        channels: BTreeMap::new(),
        rules: RulesConfig::default(),
    };
    let masked = block();
    let generator = Generator::new(config, inference, &masked.mask.organs).unwrap();
    let site = Region { start: [9, 10, 6], shape: [8, 8, 4] };
    let map = generator.difference_map(&masked, &masked.mask.organs[0], site, site).unwrap();
    let costs = freetumor::synth::Synthesize::inference(&generator).unwrap().costs();
    (map, costs.values().map(|cost| cost.windows).sum())
}

#[test]
fn windows_that_reach_a_tumor_predict_the_same_as_all_windows() {
    use freetumor::nn::ops::NormScope;
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("g.safetensors");
    save(&weights, &config(Model::UNet3D, 4, 3), "");
    let (all, windows) = map_with(Windows::Reference, &weights, NormScope::Instance);
    let (some, fewer) = map_with(Windows::Reaching, &weights, NormScope::Instance);
    assert_eq!(some, all, "expected the same bits");
    assert!(fewer < windows, "{fewer} of {windows} windows");
    let (centred, one) = map_with(Windows::Centred, &weights, NormScope::Instance);
    assert_eq!(one, 1);
    assert_ne!(centred, all);
    // As published, the prediction for a window depends on its group.
    let (grouped, _) = map_with(Windows::Reference, &weights, NormScope::Batch);
    assert_ne!(grouped, all);
    assert!(all.as_slice().iter().any(|difference| difference.abs() > 1e-3));
}

#[test]
fn prediction_of_window_is_the_same_alone_and_in_a_batch() {
    use freetumor::nn::ops::NormScope;
    use freetumor::nn::predictor::{ExpectedNetwork, Predictor};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for (model, width, side) in [(Model::UNet3D, 16, 24), (Model::SwinUnetr, 12, 32)] {
        save(&path, &config(model, width, 3), "");
        let expected = ExpectedNetwork {
            model,
            part: freetumor::nn::weights::NetworkPart::Whole,
            classes: None,
            width: None,
            norm: Some(NormScope::Instance),
        };
        let network = Predictor::open(&path, &expected, &Device::Cpu).unwrap();
        let shape = [4, 1, side, side, side];
        let windows = Tensor::from_vec(fill::uniform("w", shape.iter().product(), 0.0, 1.0), &shape, &Device::Cpu);
        let windows = windows.unwrap();
        let numbers = |x: &Tensor| network.forward(x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let together = numbers(&windows);
        let alone: Vec<f32> = (0..4).flat_map(|at| numbers(&windows.narrow(0, at, 1).unwrap())).collect();
        assert!(together == alone, "{model}: expected the same bits");
    }
}

#[test]
fn segmentor_mask_labels_organs_and_suspects_large_tumors() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("bright.safetensors");
    // Class 1 where a voxel is bright, else class 0; the network never predicts class 2.
    let unet = config(Model::UNet3D, 2, 3);
    let bright = crate::infer::bright(&unet, 0.5);
    crate::infer::save(&weights, &bright);
    let network = NetworkConfig { roi_voxels: [64; 3], overlap: 0.25, ..NetworkConfig::new(&weights) };
    let labeled = |suspected: SuspectedTumors, classes: [usize; 2], suspected_from_mm3: f64| {
        let config = SegmentorMaskConfig {
            network: network.clone(),
            classes: BTreeMap::from([("liver".to_owned(), classes)]),
            merged_ids: BTreeMap::new(),
            suspected,
            suspected_from_mm3,
            min_organ_ml: 5.0,
        };
        SegmentorMask::new(config, inference(&networks(), &network, Model::UNet3D)).unwrap()
    };
    let mask_with = |classes, from_mm3| labeled(SuspectedTumors::Tumor, classes, from_mm3);
    let masked = block();
    let mask = mask_with([1, 2], 50.0).mask(&masked.scan).unwrap();
    assert_eq!(mask.labels.shape(), masked.mask.labels.shape());
    let pairs = || mask.labels.as_slice().iter().zip(masked.mask.labels.as_slice());
    let both = pairs().filter(|(a, b)| (**a, **b) == (1, 1)).count() as f64;
    let dice = 2.0 * both / pairs().map(|(a, b)| usize::from(*a == 1) + usize::from(*b == 1)).sum::<usize>() as f64;
    assert!(dice > 0.9, "the bright block is the liver: {dice}");
    // The same voxels with the tumor class: large components are suspected, small components are organ.
    let suspects = mask_with([2, 1], 50.0).mask(&masked.scan).unwrap();
    assert!(suspects.labels.as_slice().contains(&2));
    let stage = labeled(SuspectedTumors::Ignore, [2, 1], 50.0);
    let ignored = stage.mask(&masked.scan).unwrap();
    assert!(stage.may_ignore() && !mask_with([2, 1], 50.0).may_ignore());
    assert_eq!(ignored.labels, suspects.labels.map(|label| if *label == 2 { IGNORE_LABEL } else { *label }));
    let organ_only = mask_with([2, 1], 1e9).mask(&masked.scan).unwrap();
    assert!(!organ_only.labels.as_slice().contains(&2) && organ_only.labels.as_slice().contains(&1));
}
