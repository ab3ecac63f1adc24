//! One tumor, from a scan to a picture, without a graph file or a dataflow.
//!
//! The scan is a procedural abdomen; `freetumor::ingest` reads real ones.
//!
//! ```console
//! $ cargo run --release --example one_tumor -- tumor.png
//! ```

use std::path::Path;
use std::sync::Arc;

use freetumor::attempt::AttemptLoop;
use freetumor::error::ConfigError;
use freetumor::filter::{QualityTest, QualityTestConfig};
use freetumor::ingest::Source;
use freetumor::ingest::phantom::{PhantomConfig, PhantomSource};
use freetumor::mask::{LabelsMask, Mask, MaskedScan};
use freetumor::random::Key;
use freetumor::score::{Intensity, IntensityConfig, ScoreStage};
use freetumor::synth::{Rules, RulesConfig};
use freetumor::volume::{HuWindow, before_and_after};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "tumor.png".to_owned());
    let diameter_mm = draw_tumor([224, 224, 128], [1.6, 1.6, 2.5], Path::new(&path))?;
    println!("{path}: a tumor of {diameter_mm:.1} mm before, after, and its label, in three planes");
    Ok(())
}

/// Makes a tumor in the liver of a phantom, writes its picture, and returns its diameter in mm.
fn draw_tumor(shape: [u32; 3], spacing_mm: [f64; 3], path: &Path) -> Result<f64, Box<dyn std::error::Error>> {
    // The scan and its organ mask.
    let phantoms = PhantomConfig { count: 1, shape, spacing_mm, ..PhantomConfig::default() };
    let phantoms = PhantomSource::new(phantoms, "phantoms").map_err(|errors| message(&errors))?;
    let scan = Arc::new(phantoms.read(&phantoms.list()?[0])?);
    let mask = LabelsMask::new(toml::from_str("organs = [\"liver\"]")?).map_err(|errors| message(&errors))?;
    let mask = mask.mask(&scan)?;
    let masked = MaskedScan { scan, mask };
    let liver = masked.mask.organs[0].clone();

    // The synthesis, one score stage, and a quality test that accepts only tumors that are plainly visible.
    let rules = RulesConfig { diameter_mm: [30.0, 60.0], ..RulesConfig::default() };
    let rules = Rules::new(rules, &masked.mask.organs, HuWindow::ABDOMEN).map_err(|errors| message(&errors))?;
    let intensity =
        Intensity::new(IntensityConfig::default(), &masked.mask.organs).map_err(|errors| message(&errors))?;
    let accept = vec!["cnr < -1.5".to_owned(), "invisible_fraction < 0.3".to_owned()];
    let test = QualityTestConfig { accept, attempts: Some(100), ..QualityTestConfig::default() };
    let test = QualityTest::new(test).map_err(|errors| message(&errors))?;

    let scorers: Vec<Arc<dyn ScoreStage>> = vec![Arc::new(intensity)];
    let tumors = AttemptLoop::new(Arc::new(rules), scorers, test);
    let tumor = tumors.first_accepted(&masked, &liver, Key::root(2))?.ok_or("no attempt passed the quality test")?;

    // The window of the picture is narrower than that of the abdomen: a liver tumor differs from its organ by few HU.
    let window = HuWindow { low_hu: -50.0, high_hu: 190.0 };
    let volume = &masked.scan.volume;
    let picture = before_and_after(volume, tumor.region, &tumor.after, &tumor.tumor, window, 40.0);
    picture.write_png(path)?;
    Ok(tumor.geometry.diameter_mm)
}

fn message(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; ")
}

#[test]
fn tumor_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tumor.png");
    let diameter_mm = draw_tumor([112, 112, 80], [3.2, 3.2, 4.0], &path).unwrap();
    assert!((20.0..70.0).contains(&diameter_mm), "{diameter_mm}");
    assert!(std::fs::read(path).unwrap().starts_with(b"\x89PNG"));
}
