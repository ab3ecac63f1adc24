//! Synthesis by rules: comparison with reference numbers, and properties of every tumor.

use std::sync::Arc;

use freetumor::error::FaultKind;
use freetumor::mask::{MaskedScan, Organ, OrganMask};
use freetumor::random::Key;
use freetumor::score::{Intensity, IntensityConfig, Score, ScoreStage, Scores};
use freetumor::synth::blend::{blend, smooth_difference, soften, tumor_of, with_tumor};
use freetumor::synth::classes::{CLASS_VOXEL_MM, ClassShape, SizeClass};
use freetumor::synth::measure::measure;
use freetumor::synth::texture::TexturePool;
use freetumor::synth::{Attempt, AttemptKey, Candidate, Differences, Rules, RulesConfig, Sites, Sizes, Synthesize};
use freetumor::volume::{Affine, Array3, Grid, HuWindow, Region, Volume, Voxels};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::common;

/// Reads a tensor [x, y, z] of a safetensors file, in which z is fastest.
pub fn tensor(file: &SafeTensors, name: &str) -> Array3<f32> {
    let view = file.tensor(name).unwrap();
    let &[nx, ny, nz] = view.shape() else { panic!("expected three axes of {name}") };
    let values: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Array3::from_fn([nx, ny, nz], |[x, y, z]| values[(x * ny + y) * nz + z])
}

pub fn largest_difference(a: &Array3<f32>, b: &Array3<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub fn inner(array: &Array3<f32>, cut: usize) -> Array3<f32> {
    array.cut(Region { start: [cut; 3], shape: array.shape().map(|n| n - 2 * cut) })
}

#[test]
fn blend_and_labels_equal_reference() {
    let Some(path) = common::shared("golden/candidate.safetensors") else { return };
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, sigma) in [("liver", 1.5), ("kidney", 1.1)] {
        let get = |step: &str| tensor(&file, &format!("{name}.{step}"));
        let organ = Organ { name: name.into(), label: 1, tumor_label: 2 };
        let (image, labels, shape, texture) = (get("image"), get("label"), get("shape"), get("texture"));
        let labels = labels.map(|&label| label as u8);

        // The difference in the file has no outer 4 voxels; smoothing reads 3 neighbours.
        let smooth = smooth_difference(&get("difference"));
        let error = largest_difference(&inner(&smooth, 3), &inner(&get("difference_smooth"), 3));
        assert!(error < 1e-5, "{name} difference_smooth {error}");

        let soft = soften(&shape, [sigma; 3], 4.0);
        let error = largest_difference(&inner(&soft, 4), &get("shape_blurred"));
        assert!(error < 1e-5, "{name} shape_blurred {error}");

        let labels_cut = labels.cut(Region { start: [4; 3], shape: [56; 3] });
        let (image, texture) = (inner(&image, 4), inner(&texture, 4));
        let difference = get("difference_smooth");
        let after = blend(&image, &labels_cut, &organ, &inner(&soft, 4), &difference, &texture, 1.0);
        let expected = get("blended");
        let error = largest_difference(&after, &expected);
        assert!(error < 1e-5, "{name} blended {error}");
        assert!(
            largest_difference(&image, &expected) > 1e-2,
            "{name}: expected a reference that differs from the image"
        );

        let tumor = tumor_of(&inner(&shape, 4).map(|&inside| inside as u8), &labels_cut, &organ);
        let merged = with_tumor(&labels_cut, &tumor, &organ);
        let expected = get("new_label");
        // In the file a synthetic tumor is 3 and a real one 2; in merged labels both are 2.
        let synthetic = expected.map(|&label| u8::from(label == 3.0));
        assert_eq!(tumor, synthetic, "{name}");
        assert_eq!(merged, expected.map(|&label| (label as u8).min(2)), "{name}");
        assert!(expected.as_slice().contains(&2.0), "{name}: expected a real tumor in the labels");
    }
}

#[test]
fn measures_equal_calibration_of_digital_spheres() {
    let Some(path) = common::shared("reference/real_tumor_shapes.json") else { return };
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let calibration = reference["digital_sphere_calibration"].as_object().unwrap();
    assert_eq!(calibration.len(), 5);
    for (grid, spheres) in calibration {
        let numbers = grid.split(['(', ')']).nth(1).unwrap();
        let spacing: Vec<f64> = numbers.split(", ").map(|mm| mm.parse().unwrap()).collect();
        let spacing = [spacing[0], spacing[1], spacing[2]];
        let coarse = spacing[2] > 2.0;
        // With few thick slices, the measures of a small sphere depend on its position.
        let diameters: &[f64] = if coarse { &[20.0, 40.0] } else { &[10.0, 20.0, 40.0] };
        for diameter in diameters.iter().copied() {
            let expected = &spheres[format!("sphere_diameter_{diameter}_mm")];
            // The position of the reference's sphere on the grid is not known, so the mean over positions is compared.
            let mut random = Key::root(1).stream("sphere");
            let all: Vec<_> = (0..8)
                .map(|_| {
                    let centre = [0, 1, 2].map(|_| random.uniform(0.0, 1.0));
                    let shape = spacing.map(|mm| (diameter / mm) as usize + 4);
                    let ball = Array3::from_fn(shape, |voxel| {
                        let offset = |k: usize| (voxel[k] as f64 - (shape[k] / 2) as f64 - centre[k]) * spacing[k];
                        u8::from((0..3).map(|k| offset(k).powi(2)).sum::<f64>() < diameter * diameter / 4.0)
                    });
                    measure(&ball, spacing).unwrap()
                })
                .collect();
            let mean = |value: fn(&freetumor::synth::measure::ShapeMeasures) -> f64| {
                all.iter().map(value).sum::<f64>() / all.len() as f64
            };
            for (name, value, tolerance) in [
                ("sphericity", mean(|m| m.sphericity), if coarse { 0.016 } else { 0.005 }),
                (
                    "surface_irregularity_ratio",
                    mean(|m| m.surface_irregularity_ratio),
                    if coarse { 0.015 } else { 0.006 },
                ),
                ("ellipsoid_dice", mean(|m| m.ellipsoid_dice), if coarse { 0.015 } else { 0.003 }),
                ("radial_residual_sd", mean(|m| m.radial_residual_sd), if coarse { 0.012 } else { 0.003 }),
                ("pca_major_over_minor_ratio", mean(|m| m.axes_mm[0] / m.axes_mm[2]), if coarse { 0.05 } else { 0.01 }),
            ] {
                let expected = expected[name].as_f64().unwrap();
                assert!(
                    (value - expected).abs() <= tolerance,
                    "{grid} {diameter} mm {name}: expected {expected}, got {value}"
                );
            }
        }
    }
}

fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let position = percent / 100.0 * (sorted.len() - 1) as f64;
    let below = position as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

#[test]
fn classes_are_distributed_as_published() {
    let Some(path) = common::shared("golden/shape_statistics.json") else { return };
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    // Quartiles within 0.1, tails within 0.2: the scatter and step of the reference's percentiles, which are from 500, 500, 200 and 80
    // shapes on whole voxels (0.1 is half a voxel of a tiny tumor). Half or twice the deformation changes the Dice by more than 0.12.
    for (class, count) in
        [(SizeClass::Tiny, 400), (SizeClass::Small, 400), (SizeClass::Medium, 200), (SizeClass::Large, 80)]
    {
        let mut rows: [Vec<f64>; 3] = Default::default();
        for seed in 0..count {
            let shape = ClassShape::sample(&mut Key::root(seed).stream("class"), class);
            let raster = shape.rasterize([0.0; 3], [CLASS_VOXEL_MM; 3]);
            let ellipsoid = |index: usize| {
                let [nx, ny, _] = raster.mask.shape();
                let voxel = [index % nx, index / nx % ny, index / nx / ny];
                let level =
                    (0..3).map(|k| ((raster.start[k] + voxel[k] as i64) as f64 / shape.radii_voxels[k]).powi(2));
                level.sum::<f64>() < 1.0
            };
            let (mut inside, mut before, mut shared) = (0usize, 0usize, 0usize);
            let (mut low, mut high) = (usize::MAX, 0usize);
            for (index, &set) in raster.mask.as_slice().iter().enumerate() {
                let original = ellipsoid(index);
                before += usize::from(original);
                inside += usize::from(set);
                shared += usize::from(original && set != 0);
                if set != 0 {
                    low = low.min(index % raster.mask.shape()[0]);
                    high = high.max(index % raster.mask.shape()[0]);
                }
            }
            if inside > 0 {
                rows[0].push(inside as f64 / before as f64);
                rows[1].push((high - low + 1) as f64 / (2.0 * shape.radii_voxels[0]));
                rows[2].push(2.0 * shared as f64 / (inside + before) as f64);
            }
        }
        for (name, values) in ["volume_ratio", "extent_ratio_x", "dice_with_ellipsoid"].iter().zip(&mut rows) {
            values.sort_by(f64::total_cmp);
            for (k, percent) in [5.0, 25.0, 50.0, 75.0, 95.0].into_iter().enumerate() {
                let expected = reference[class.name()][name][k].as_f64().unwrap();
                let value = percentile(values, percent);
                let allowed = if k == 0 || k == 4 { 0.2 } else { 0.1 + 1e-9 };
                assert!((value - expected).abs() <= allowed, "{} {name} p{percent}: {value} {expected}", class.name());
            }
        }
    }
}

#[test]
fn textures_are_distributed_as_published() {
    let Some(path) = common::shared("golden/shape_statistics.json") else { return };
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let reference = &reference["texture_sigma_3_4"];
    for volume in TexturePool::abdomen().volumes() {
        let mut values: Vec<f64> = volume.as_slice().iter().map(|&value| f64::from(value)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        let [nx, ny, nz] = volume.shape();
        let correlation = |lag: usize| {
            let rows = (0..nz).flat_map(|z| (0..ny).map(move |y| (y, z)));
            let products = rows.flat_map(|(y, z)| {
                let row = volume.row(y, z);
                (0..nx).map(move |x| (f64::from(row[x]) - mean) * (f64::from(row[(x + lag) % nx]) - mean))
            });
            products.sum::<f64>() / (values.len() as f64 * deviation * deviation)
        };
        let half = (1..20).find(|&lag| correlation(lag) < 0.5).unwrap() as f64;
        values.sort_by(f64::total_cmp);
        let measured = [
            ("mean", mean, 0.01),
            ("std", deviation, 0.004),
            ("p5", percentile(&values, 5.0), 0.015),
            ("p50", percentile(&values, 50.0), 0.01),
            ("p95", percentile(&values, 95.0), 0.015),
            ("half_autocorrelation_voxels", half, 0.5),
        ];
        for (name, value, slack) in measured {
            let (low, high) = (reference[name][0].as_f64().unwrap(), reference[name][1].as_f64().unwrap());
            assert!((low - slack..=high + slack).contains(&value), "{name}: {value} outside {low}..{high}");
        }
    }
}

fn liver() -> Organ {
    Organ { name: "liver".into(), label: 1, tumor_label: 2 }
}

fn organs() -> [Organ; 2] {
    [liver(), Organ { name: "lung".into(), label: 3, tumor_label: 4 }]
}

/// Returns a round liver below a lung in a box of 120×100×90 mm, with a real tumor in the liver.
fn scan(spacing_mm: [f64; 3], float: bool) -> MaskedScan {
    let shape = [0, 1, 2].map(|k| ([120.0, 100.0, 90.0][k] / spacing_mm[k]) as usize);
    let mut affine = Affine::from_spacing(spacing_mm);
    affine.0[0][3] = -31.0;
    let grid = Grid { shape, affine };
    let ball = |voxel: [usize; 3], centre: [f64; 3], radius: f64| {
        (0..3).map(|k| (voxel[k] as f64 * spacing_mm[k] - centre[k]).powi(2)).sum::<f64>() < radius * radius
    };
    let labels = Array3::from_fn(shape, |voxel| match () {
        () if ball(voxel, [45.0, 50.0, 40.0], 9.0) => 2,
        () if ball(voxel, [60.0, 50.0, 35.0], 40.0) => 1,
        () if voxel[2] as f64 * spacing_mm[2] > 60.0 => 3,
        () => 0,
    });
    let mut random = Key::root(5).stream("noise");
    let hu = Array3::from_fn(shape, |voxel| {
        let mean = [-90.0, 110.0, 70.0, -850.0][usize::from(labels[voxel])];
        random.normal(mean, 12.0).round()
    });
    let voxels = if float { Voxels::F32(hu.map(|&hu| hu as f32 + 0.25)) } else { Voxels::I16(hu.map(|&hu| hu as i16)) };
    let scan = common::scan_of(Volume { grid, voxels });
    MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs: Arc::new(organs()), coverage: 1.0 } }
}

fn synthesize(scan: &MaskedScan, organ: &Organ, config: RulesConfig, count: u32) -> (Vec<Candidate>, Vec<String>) {
    let rules = Rules::new(config, &organs(), HuWindow::ABDOMEN).unwrap();
    let plan = rules.site_plan(scan, organ).unwrap();
    let (mut candidates, mut reasons) = (Vec::new(), Vec::new());
    for number in 0..count {
        match plan.attempt(AttemptKey::new(Key::root(11), number)).unwrap() {
            Attempt::Candidate(candidate) => candidates.push(*candidate),
            Attempt::Rejected { reason } => reasons.push(reason),
        }
    }
    (candidates, reasons)
}

/// Checks the invariants of a candidate's box.
fn check(scan: &MaskedScan, organ: &Organ, candidate: &Candidate) {
    let region = candidate.region;
    let before = scan.scan.volume.voxels.hu_of(region);
    let labels = scan.mask.labels.cut(region);
    assert_eq!(candidate.before, before);
    let integer = matches!(scan.scan.volume.voxels, Voxels::I16(_));
    let tumor_labels: Vec<u8> = scan.mask.organs.iter().map(|organ| organ.tumor_label).collect();
    let (mut voxels, mut support) = (0, 0);
    for index in 0..region.voxels() {
        let (was, is) = (before.as_slice()[index], candidate.after.as_slice()[index]);
        let (label, new) = (labels.as_slice()[index], candidate.labels.as_slice()[index]);
        let (tumor, changed) = (candidate.tumor.as_slice()[index], candidate.support.as_slice()[index]);
        if changed == 0 {
            assert_eq!(was.to_bits(), is.to_bits());
            assert_eq!((label, tumor), (new, 0));
        }
        if tumor == 1 {
            assert_eq!(new, organ.tumor_label);
        }
        if tumor_labels.contains(&label) {
            assert_eq!((label, was.to_bits(), tumor), (new, is.to_bits(), 0), "a real tumor was changed");
        }
        assert!(!integer || is.fract() == 0.0);
        assert!(is.is_finite());
        voxels += usize::from(tumor);
        support += usize::from(changed);
    }
    let geometry = &candidate.geometry;
    let grid = scan.scan.volume.grid;
    assert!((geometry.volume_mm3 - voxels as f64 * grid.voxel_volume_mm3()).abs() < 1e-6);
    assert!((geometry.support_mm3 - support as f64 * grid.voxel_volume_mm3()).abs() < 1e-6);
    let nearest = grid.affine.apply(geometry.site_voxel.map(|index| index as f64));
    assert!((0..3).all(|k| (geometry.site_mm[k] - nearest[k]).abs() <= 0.5 * grid.spacing_mm()[k] + 1e-9));
    assert_eq!(scan.mask.labels[geometry.site_voxel], organ.label);
    assert!(geometry.radii_mm[0] >= geometry.radii_mm[1] && geometry.radii_mm[1] >= geometry.radii_mm[2]);
    assert!((0.0..=1.0).contains(&geometry.clipped_fraction) && geometry.boundary_distance_mm > 0.0);
}

#[test]
fn candidates_meet_all_invariants() {
    for (spacing_mm, float) in [([0.9, 0.9, 1.0], false), ([0.8, 0.8, 5.0], false), ([3.0, 3.0, 3.0], true)] {
        let scan = scan(spacing_mm, float);
        for (organ, config) in [
            (liver(), RulesConfig::default()),
            (organs()[1].clone(), RulesConfig::default()),
            (
                liver(),
                RulesConfig {
                    sizes: Sizes::Classes,
                    sites: Sites::Reference,
                    difference: Differences::Reference,
                    ..RulesConfig::default()
                },
            ),
        ] {
            let (candidates, reasons) = synthesize(&scan, &organ, config, 12);
            assert!(candidates.len() >= 6, "{spacing_mm:?} {} {reasons:?}", organ.name);
            for candidate in &candidates {
                check(&scan, &organ, candidate);
            }
        }
    }
}

#[test]
fn tumors_avoid_real_tumors_and_meet_clipping_limit() {
    let scan = scan([1.0, 1.0, 1.5], false);
    let config = RulesConfig { max_clipped_fraction: Some(0.01), diameter_mm: [8.0, 25.0], ..RulesConfig::default() };
    let (candidates, reasons) = synthesize(&scan, &liver(), config, 60);
    assert!(
        candidates.len() > 20 && reasons.iter().any(|reason| reason == "clipped"),
        "{} {reasons:?}",
        candidates.len()
    );
    for candidate in &candidates {
        assert!(candidate.geometry.clipped_fraction <= 0.01);
        // No voxel of a real tumor has a synthetic neighbour.
        let labels = scan.mask.labels.cut(candidate.region);
        let shape = labels.shape();
        for index in (0..labels.as_slice().len()).filter(|&index| labels.as_slice()[index] == 2) {
            let voxel = [index % shape[0], index / shape[0] % shape[1], index / shape[0] / shape[1]];
            let around = Region { start: voxel, shape: [1; 3] }.grown([1; 3], shape);
            assert!(candidate.tumor.cut(around).as_slice().iter().all(|&inside| inside == 0));
        }
    }
}

#[test]
fn equal_keys_produce_equal_candidates() {
    let scan = scan([1.2, 1.2, 2.0], false);
    let (first, _) = synthesize(&scan, &liver(), RulesConfig::default(), 5);
    let (again, _) = synthesize(&scan, &liver(), RulesConfig::default(), 5);
    assert_eq!(first, again);
    assert!(first.windows(2).all(|pair| pair[0].geometry != pair[1].geometry));
}

#[test]
fn attempts_in_small_or_absent_organ_are_rejected_with_no_site() {
    let mut scan = scan([2.0; 3], false);
    let config = RulesConfig { diameter_mm: [140.0, 150.0], ..RulesConfig::default() };
    let (candidates, reasons) = synthesize(&scan, &liver(), config, 3);
    assert!(candidates.is_empty() && reasons.iter().all(|reason| reason == "no_site"), "{reasons:?}");
    scan.mask.labels.as_mut_slice().fill(0);
    let (candidates, reasons) = synthesize(&scan, &liver(), RulesConfig::default(), 2);
    assert!(candidates.is_empty() && reasons == ["no_site", "no_site"], "{reasons:?}");
}

#[test]
fn site_plan_fails_on_mask_of_another_shape() {
    let mut scan = scan([3.0; 3], false);
    scan.mask.labels = Array3::filled([3, 3, 3], 1);
    let rules = Rules::new(RulesConfig::default(), &organs(), HuWindow::ABDOMEN).unwrap();
    let fault = rules.site_plan(&scan, &liver()).err().unwrap();
    assert_eq!(fault.kind, FaultKind::Mismatch);
}

#[test]
fn contrasts_match_prior_of_organ() {
    let scan = scan([1.0, 1.0, 2.0], false);
    let stage = Intensity::new(IntensityConfig::default(), &organs()).unwrap();
    let scored = |organ: &Organ, config: RulesConfig| -> Vec<Scores> {
        let config = RulesConfig { diameter_mm: [10.0, 24.0], ..config };
        let scorer = stage.baseline(&scan, organ).unwrap();
        let (candidates, _) = synthesize(&scan, organ, config, 30);
        assert!(candidates.len() >= 10);
        let mut all = Vec::new();
        for candidate in &candidates {
            let mut scores = Scores::default();
            scorer.score(candidate, &mut scores).unwrap();
            all.push(scores);
        }
        all
    };
    for scores in scored(&liver(), RulesConfig::default()) {
        let delta = scores.get(Score::DeltaHu).unwrap();
        // Edges, thin parts and bright rims have less contrast than what is sampled, at least 12 HU.
        assert!((-75.0..0.0).contains(&delta), "liver {delta}");
        assert!((scores.get(Score::OrganMedianHu).unwrap() - 110.0).abs() <= 1.0);
        assert!((scores.get(Score::HuRing).unwrap() - 110.0).abs() < 8.0);
    }
    for scores in scored(&organs()[1], RulesConfig::default()) {
        let inside = scores.get(Score::HuInside).unwrap();
        assert!((-760.0..80.0).contains(&inside), "lung {inside}");
        assert!(scores.get(Score::DeltaHu).unwrap() > 60.0);
    }
    let fixed = RulesConfig { contrast_hu: [("liver".to_owned(), [-40.0, -40.0])].into(), ..RulesConfig::default() };
    for scores in scored(&liver(), fixed) {
        let delta = scores.get(Score::DeltaHu).unwrap();
        // The soft edge reduces the mean contrast.
        assert!((-42.0..-15.0).contains(&delta), "{delta}");
    }
}
