//! Contact sheets of synthetic tumors in real scans: one sheet for each organ, and one of the real tumors in the same scans.
//!
//! Each row shows one tumor in three planes: before, after, and after with its outline. Rows of real tumors show the scan twice.
//!
//! ```console
//! $ cargo run --release --example contact_sheet -- ../shared/ct sheets
//! $ cargo run --release --example contact_sheet -- ../shared/ct sheets 7 --blind
//! ```
//!
//! The scans are those of `../shared/ct`; without them the example prints a message and draws nothing. A number as the third argument is
//! the seed. `--blind` draws one sheet of 24 real and synthetic tumors in a random order instead, without marks, and writes which is which
//! to a separate file.

mod blind;
mod real;

use std::path::Path;
use std::sync::Arc;

use freetumor::attempt::AttemptLoop;
use freetumor::error::{ConfigError, Error, Fault, Result};
use freetumor::filter::{QualityTest, QualityTestConfig};
use freetumor::ingest::{FolderConfig, FolderSource, Scan, Source};
use freetumor::mask::{LabelsMask, Mask, MaskedScan};
use freetumor::random::Key;
use freetumor::score::{Intensity, IntensityConfig, ScoreStage};
use freetumor::synth::{Candidate, Rules, RulesConfig};
use freetumor::volume::{HuWindow, Picture, Volume, before_and_after_row, stacked};

/// The number of tumors on a sheet.
const TUMORS: u64 = 6;
/// The maximum number of keys whose tumors are made for one sheet.
const MAX_KEYS: u64 = 200;
/// The margin of the scan around a tumor.
const MARGIN_MM: f64 = 32.0;
/// The longest side of a plane.
const PIXELS: f64 = 150.0;

/// The scans of one organ.
struct Sheet {
    organ: &'static str,
    /// Pattern of the scans, and pattern of their label files.
    scans: &'static [(&'static str, &'static str)],
    /// The organ's ids as settings of the mask kind `labels`.
    mask: &'static str,
    window: HuWindow,
    diameter_mm: [f64; 2],
}

const SHEETS: [Sheet; 4] = [
    Sheet {
        organ: "liver",
        scans: &[("crlm_1004/dicom", "liver.nii.gz")],
        mask: "scheme = \"custom\"\norgans = { liver = { ids = [1] } }",
        window: HuWindow::ABDOMEN,
        diameter_mm: [6.0, 60.0],
    },
    Sheet {
        organ: "kidney",
        scans: &[("totalseg_abdomen/ct.nii.gz", "labels.nii.gz")],
        mask: "organs = [\"kidney\"]",
        window: HuWindow::ABDOMEN,
        diameter_mm: [12.0, 60.0],
    },
    Sheet {
        organ: "pancreas",
        scans: &[("totalseg_abdomen/ct.nii.gz", "labels.nii.gz")],
        mask: "organs = [\"pancreas\"]",
        window: HuWindow::ABDOMEN,
        diameter_mm: [10.0, 40.0],
    },
    Sheet {
        organ: "lung",
        scans: &[("lung1_001/ct.nii.gz", "labels.nii.gz")],
        mask: "scheme = \"custom\"\norgans = { lung = { ids = [1, 2], tumor_ids = [4] } }",
        window: HuWindow { low_hu: -1000.0, high_hu: 500.0 },
        diameter_mm: [6.0, 50.0],
    },
];

fn main() -> Result<()> {
    let (options, arguments): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
    let argument = |index: usize, default: &str| arguments.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let (root, out) = (argument(0, "../shared/ct"), argument(1, "sheets"));
    let seed = argument(2, "1").parse().map_err(|_| Error::new("expected a number as the third argument"))?;
    let is_blind = match options.as_slice() {
        [] => false,
        [option] if option == "--blind" => true,
        _ => return Err(Error::new(format!("expected no option or `--blind`, got {}", options.join(" ")))),
    };
    if !Path::new(&root).is_dir() {
        println!("skipped: {root} is not a folder");
        return Ok(());
    }
    std::fs::create_dir_all(&out).map_err(|cause| Error::io("cannot create", &out, cause))?;
    if is_blind {
        return blind::draw(Path::new(&root), Path::new(&out), seed);
    }
    for sheet in &SHEETS {
        let rows = draw(sheet, Path::new(&root), seed)?;
        let path = Path::new(&out).join(format!("{}.png", sheet.organ));
        stacked(&rows, 6).write_png(&path)?;
        println!("{}: {} tumors of the {}", path.display(), rows.len(), sheet.organ);
    }
    let tumors = real::tumors(Path::new(&root))?;
    let rows: Vec<Picture> = tumors.iter().map(real::RealTumor::row).collect();
    let path = Path::new(&out).join("real.png");
    stacked(&rows, 6).write_png(&path)?;
    println!("{}: {} real tumors", path.display(), rows.len());
    Ok(())
}

/// Draws the tumors of one sheet.
fn draw(sheet: &Sheet, root: &Path, seed: u64) -> Result<Vec<Picture>> {
    let mut rows = Vec::new();
    for &(scans, labels) in sheet.scans {
        for masked in read(root, scans, &format!("pattern = \"{labels}\"\n{}", sheet.mask))? {
            for tumor in made(sheet, &masked, seed, TUMORS as usize - rows.len())? {
                describe(sheet.organ, &tumor);
                rows.push(row(&masked.scan.volume, &tumor, sheet.window));
            }
        }
    }
    Ok(rows)
}

/// Makes tumors in the first organ of a scan.
fn made(sheet: &Sheet, masked: &MaskedScan, seed: u64, count: usize) -> Result<Vec<Candidate>> {
    let organ = masked.mask.organs[0].clone();
    let rules = RulesConfig { diameter_mm: sheet.diameter_mm, ..RulesConfig::default() };
    let rules = Rules::new(rules, &masked.mask.organs, sheet.window).map_err(one)?;
    let intensity = Intensity::new(IntensityConfig::default(), &masked.mask.organs).map_err(one)?;
    let test = QualityTestConfig { accept: vec!["invisible_fraction < 0.5".to_owned()], ..Default::default() };
    let scorers: Vec<Arc<dyn ScoreStage>> = vec![Arc::new(intensity)];
    let tumors = AttemptLoop::new(Arc::new(rules), scorers, QualityTest::new(test).map_err(one)?);
    let mut made = Vec::new();
    for number in 0..MAX_KEYS {
        if made.len() == count {
            break;
        }
        let key = Key::root(seed).with("sheet", sheet.organ).number("tumor", number);
        made.extend(tumors.first_accepted(masked, &organ, key).map_err(failed)?.map(|tumor| *tumor));
    }
    Ok(made)
}

/// Reads the scans that match a pattern.
fn scans(root: &Path, include: &str) -> Result<Vec<Arc<Scan>>> {
    let folder: FolderConfig = toml::from_str(&format!("root = {root:?}\ninclude = [{include:?}]"))
        .map_err(|cause| Error::new("cannot read the settings of the source").with_source(cause))?;
    let source = FolderSource::new("scans", folder).map_err(one)?;
    source.list()?.iter().map(|entry| Ok(Arc::new(source.read(entry).map_err(failed)?))).collect()
}

/// Reads the scans that match a pattern, with their masks.
fn read(root: &Path, include: &str, mask: &str) -> Result<Vec<MaskedScan>> {
    let mask =
        toml::from_str(mask).map_err(|cause| Error::new("cannot read the settings of the mask").with_source(cause))?;
    let mask = LabelsMask::new(mask).map_err(one)?;
    let with_mask = |scan: Arc<Scan>| Ok(MaskedScan { mask: mask.mask(&scan).map_err(failed)?, scan });
    scans(root, include)?.into_iter().map(with_mask).collect()
}

fn row(scan: &Volume, tumor: &Candidate, window: HuWindow) -> Picture {
    before_and_after_row(scan, tumor.region, &tumor.after, &tumor.tumor, window, MARGIN_MM, PIXELS)
}

fn describe(organ: &str, tumor: &Candidate) {
    let geometry = &tumor.geometry;
    println!(
        "  {organ}: {:.1} mm, {:.0} HU, mass effect {:.2}, {:.0}% of the surface outside, clipped {:.0}%, {:?}",
        geometry.diameter_mm,
        geometry.drawn_contrast_hu.unwrap_or(f64::NAN),
        geometry.mass_effect,
        100.0 * geometry.exterior_fraction,
        100.0 * geometry.clipped_fraction,
        geometry.structure,
    );
}

fn failed(fault: Fault) -> Error {
    Error::new(fault.to_string())
}

/// Returns the errors of settings as one.
fn one(errors: Vec<ConfigError>) -> Error {
    Error::new(errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; "))
}

#[test]
fn missing_folder_is_an_error() {
    assert!(read(Path::new("no such folder"), "*.nii.gz", "organs = [\"liver\"]").is_err());
}
