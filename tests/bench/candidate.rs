//! The time of one candidate from site to scores on one core: `cargo bench --bench candidate`.
//!
//! The organ is a synthetic block of noisy liver; textures and the organ's plan are computed once, as in a run. The benchmark measures
//! processor time, so that other load on the machine has little effect. Everything runs in a pool of one thread: work that a step spreads
//! over threads is measured as well. Tumors by rules are measured first, then those by the small networks of `pipelines/networks`;
//! `-- rules` and `-- networks` measure one of both.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use freetumor::error::{Fault, FaultKind};
use freetumor::inference::{NetworkConfig, Networks};
use freetumor::ingest::{Companions, Scan, ScanEntry};
use freetumor::mask::{MaskedScan, Organ, OrganMask};
use freetumor::nn::device::DeviceKind;
use freetumor::nn::kernel::prepare_process;
use freetumor::nn::network::Model;
use freetumor::nn::service::Service;
use freetumor::random::Key;
use freetumor::score::{Intensity, IntensityConfig, ScoreStage, Scores, Segmentor, SegmentorConfig};
use freetumor::synth::{
    Attempt, AttemptKey, DifferenceActivation, Generator, GeneratorConfig, Rules, RulesConfig, Synthesize,
};
use freetumor::volume::{Affine, Array3, Grid, HuWindow, Labels, Volume, Voxels};

/// The attempts for each tumor size; the same attempts in every run.
const ATTEMPTS: u32 = 200;
/// The attempts for each tumor size with networks.
const NETWORK_ATTEMPTS: u32 = 40;

struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, format!("expected {pattern}, got no files")))
    }
}

/// Returns a rounded block of liver of about 180 × 150 × 140 mm.
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
    let mut random = Key::root(1).stream("noise");
    let hu = labels.map(|&label| (f32::from(label) * 210.0 - 100.0 + 60.0 * (random.unit_f32() - 0.5)) as i16);
    let entry = ScanEntry {
        scan_id: freetumor::id::ScanId::from_bytes([0; 8]),
        source: "bench".into(),
        key: "0".into(),
        dataset: "bench".into(),
        patient_key: freetumor::id::PatientKey::from_bytes([0; 8]),
        bytes: 0,
        modified_s: 0,
        version: Default::default(),
    };
    let volume = Volume { grid, voxels: Voxels::I16(hu) };
    let scan = Scan {
        acquisition: Default::default(),
        entry,
        digest: freetumor::id::ScanDigest::from_bytes([0; 32]),
        volume,
        companions: Arc::new(NoCompanions),
    };
    let organs = Arc::new([Organ { name: "liver".into(), label: 1, tumor_label: 2 }]);
    MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs, coverage: 1.0 } }
}

/// Returns the processor seconds of all threads so far, which exclude other load on the machine.
fn processor_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + 1e-9 * now.tv_nsec as f64
}

/// Returns the milliseconds of `work`, ascending, run `count` times after `count / 10` warm-up runs. The time of `inspect` on the results
/// is not measured.
fn measure<T>(count: u32, mut work: impl FnMut(u32) -> T, mut inspect: impl FnMut(T)) -> Vec<f64> {
    (0..count / 10).for_each(|number| drop(black_box(work(number))));
    let once = |number| {
        let before = processor_seconds();
        let result = work(number);
        let time = 1e3 * (processor_seconds() - before);
        inspect(result);
        time
    };
    let mut times: Vec<f64> = (0..count).map(once).collect();
    times.sort_by(f64::total_cmp);
    times
}

fn print(name: &str, times: &[f64], suffix: &str) {
    let at = |share: f64| times[(share * (times.len() - 1) as f64).round() as usize];
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    println!(
        "  {name:<28} median {:7.2}  mean {mean:7.2}  p90 {:7.2}  slowest {:7.2} ms{suffix}",
        at(0.5),
        at(0.9),
        at(1.0)
    );
}

/// Returns the names of the measured sizes with their diameters.
fn sizes() -> [(&'static str, [f64; 2]); 3] {
    // The size class "large" starts at 32 mm.
    let largest_mm = RulesConfig::default().diameter_mm[1];
    [("small, 12 mm", [12.0, 12.1]), ("large, as sampled", [32.0, largest_mm]), ("of 60 mm", [60.0, 60.5])]
}

/// Measures attempts from site to scores.
fn measure_attempts(name: &str, scan: &MaskedScan, synthesis: &dyn Synthesize, stages: &[&dyn ScoreStage], count: u32) {
    let organ = &scan.mask.organs[0];
    let plan = synthesis.site_plan(scan, organ).expect("a valid scan");
    let scorers: Vec<_> = stages.iter().map(|stage| stage.baseline(scan, organ).expect("a valid scan")).collect();
    let work = |number| {
        let attempt = plan.attempt(AttemptKey::new(Key::root(2), number)).expect("a valid scan");
        let mut scores = Scores::default();
        if let Attempt::Candidate(candidate) = &attempt {
            scorers.iter().for_each(|scorer| scorer.score(candidate, &mut scores).expect("a valid candidate"));
        }
        (attempt, scores)
    };
    let (mut tumors, mut digest) = (0, 0u64);
    let times = measure(count, work, |(attempt, _)| {
        let Attempt::Candidate(candidate) = attempt else { return };
        tumors += 1;
        for value in candidate.after.as_slice() {
            // The sum converts -0.0 to 0.0.
            digest = digest.rotate_left(5) ^ u64::from((value + 0.0).to_bits());
        }
    });
    // Equal digests before and after a change of the code mean equal tumors.
    print(name, &times, &format!(", {tumors} tumors in {count} attempts, digest {digest:016x}"));
}

fn measure_rules(scan: &MaskedScan) {
    let intensity = Intensity::new(IntensityConfig::default(), &scan.mask.organs).expect("valid defaults");
    for (name, diameter_mm) in sizes() {
        let config = RulesConfig { diameter_mm, ..RulesConfig::default() };
        let rules = Rules::new(config, &scan.mask.organs, HuWindow::ABDOMEN).expect("valid settings");
        measure_attempts(name, scan, &rules, &[&intensity], ATTEMPTS);
    }
    let rules = Rules::new(RulesConfig::default(), &scan.mask.organs, HuWindow::ABDOMEN).expect("valid defaults");
    let times = measure(20, |_| rules.site_plan(scan, &scan.mask.organs[0]).is_ok(), drop);
    print("plan of the organ, once per scan", &times, "");
}

/// Measures attempts with the generator, and with a segmentor as the scorer too, at the settings of `pipelines/quickstart.toml`: one site,
/// and with it one prediction of the generator, for each attempt.
fn measure_networks(scan: &MaskedScan) {
    let networks = Networks::new(Service::new(DeviceKind::Cpu, 1));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/networks");
    let config = |file: &str| NetworkConfig {
        model: Some(Model::UNet3D),
        spacing_mm: [4.0; 3],
        roi_voxels: [32; 3],
        ..NetworkConfig::new(folder.join(file))
    };
    let open =
        |network: &NetworkConfig| networks.open(network, &network.weights, Model::UNet3D).expect("valid weights");
    let intensity = Intensity::new(IntensityConfig::default(), &scan.mask.organs).expect("valid defaults");
    let network = config("segmentor.safetensors");
    let inference = open(&network);
    let classes = BTreeMap::from([("liver".to_owned(), [1, 2])]);
    let segmentor = SegmentorConfig { network, folds: Vec::new(), classes, held_out: false };
    let segmentor = Segmentor::new(segmentor, inference, &scan.mask.organs).expect("valid settings");
    for (name, diameter_mm) in &sizes()[..2] {
        let network = config("generator.safetensors");
        let inference = open(&network);
        let generator = GeneratorConfig {
            network,
            activation: DifferenceActivation::Tanh,
            strength: [-0.8, 1.4],
            structure: false,
            channels: BTreeMap::new(),
            rules: RulesConfig { diameter_mm: *diameter_mm, attempts_per_site: Some(1), ..RulesConfig::default() },
        };
        let generator = Generator::new(generator, inference, &scan.mask.organs).expect("valid settings");
        measure_attempts(name, scan, &generator, &[&intensity], NETWORK_ATTEMPTS);
        let name = format!("{name}, and segmentor");
        measure_attempts(&name, scan, &generator, &[&intensity, &segmentor], NETWORK_ATTEMPTS);
    }
}

fn main() {
    prepare_process(1);
    // `-- rules` or `-- networks` measures one of both.
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_selected = |name: &str| only.is_empty() || only.iter().any(|selected| selected == name);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    pool.install(|| {
        for spacing_mm in [[3.0, 3.0, 3.0], [0.8, 0.8, 1.0]] {
            let scan = scan(spacing_mm);
            if is_selected("rules") {
                println!("liver at {spacing_mm:?} mm by rules, processor time of one core:");
                measure_rules(&scan);
            }
            if is_selected("networks") {
                println!("liver at {spacing_mm:?} mm by the small networks, processor time of all threads:");
                measure_networks(&scan);
            }
        }
    });
}
