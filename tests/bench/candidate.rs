//! One candidate from site to scores on one core: `cargo bench --bench candidate`.
//!
//! The organ is a block of noisy liver made here; textures and the organ's plan are made once, as in a run.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use freetumor::error::{Fault, FaultKind};
use freetumor::ingest::{Companions, Scan, ScanEntry};
use freetumor::mask::{MaskedScan, Organ, OrganMask};
use freetumor::random::Key;
use freetumor::score::{Intensity, IntensityConfig, ScoreStage, Scores};
use freetumor::synth::{Attempt, Rules, RulesConfig, Synthesize};
use freetumor::volume::{Affine, Array3, Grid, HuWindow, Labels, Volume, Voxels};

struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, format!("expected {pattern}, there are no files here")))
    }
}

/// A rounded block of liver of about 180 × 150 × 140 mm.
fn scan(spacing_mm: [f64; 3]) -> MaskedScan {
    let extent_mm = [220.0, 190.0, 170.0];
    let shape = [0, 1, 2].map(|k| (extent_mm[k] / spacing_mm[k]) as usize);
    let grid = Grid { shape, affine: Affine::from_spacing(spacing_mm) };
    let labels = Array3::from_fn(shape, |voxel| {
        let level: f64 = (0..3)
            .map(|k| ((voxel[k] as f64 * spacing_mm[k] - extent_mm[k] / 2.0) / (extent_mm[k] / 2.0 - 18.0)).powi(4))
            .sum();
        u8::from(level < 1.0)
    });
    let mut draws = Key::root(1).draws("noise");
    let hu = labels.map(|&label| (f32::from(label) * 210.0 - 100.0 + 60.0 * (draws.unit_f32() - 0.5)) as i16);
    let entry = ScanEntry {
        scan_id: "0".into(),
        source: "bench".into(),
        key: "0".into(),
        dataset: "bench".into(),
        patient_key: "0".into(),
        bytes: 0,
        modified_s: 0,
    };
    let volume = Volume { grid, voxels: Voxels::I16(hu) };
    let scan = Scan { entry, digest: "0".into(), volume, companions: Arc::new(NoCompanions) };
    let organs = Arc::new([Organ { name: "liver".into(), label: 1, tumor_label: 2 }]);
    MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs } }
}

fn candidates(criterion: &mut Criterion) {
    for spacing_mm in [[3.0, 3.0, 3.0], [0.8, 0.8, 1.0]] {
        let scan = scan(spacing_mm);
        let organ = &scan.mask.organs[0];
        let stage = Intensity::new(IntensityConfig::default(), &scan.mask.organs).expect("the defaults are right");
        let judge = stage.baseline(&scan, organ).expect("the scan is right");
        let mut group = criterion.benchmark_group(format!("{spacing_mm:?} mm"));
        group.sample_size(20);
        for (name, diameter_mm) in [("small, 12 mm", [12.0, 12.1]), ("large, 60 mm", [60.0, 60.5])] {
            let config = RulesConfig { diameter_mm, ..RulesConfig::default() };
            let rules = Rules::new(config, &scan.mask.organs, HuWindow::ABDOMEN).expect("the settings are right");
            let plan = rules.site_plan(&scan, organ).expect("the scan is right");
            let mut number = 0;
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    let attempt = plan.attempt(Key::root(2).number("attempt", number)).expect("the scan is right");
                    let mut scores = Scores::default();
                    if let Attempt::Candidate(candidate) = &attempt {
                        judge.score(candidate, &mut scores).expect("the candidate is right");
                    }
                    black_box((attempt, scores))
                });
            });
        }
        group.bench_function("the organ's plan, once a scan", |bencher| {
            let rules = Rules::new(RulesConfig::default(), &scan.mask.organs, HuWindow::ABDOMEN)
                .expect("the defaults are right");
            bencher.iter(|| black_box(rules.site_plan(&scan, organ).is_ok()));
        });
        group.finish();
    }
}

criterion_group!(benches, candidates);
criterion_main!(benches);
