//! Masks of real kidney tumors, and of tumors made in real kidneys, on the same grid.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use freetumor::ingest::{FolderConfig, FolderSource, Scan, Source};
use freetumor::mask::{LabelsMask, Mask, MaskedScan, Organ, OrganMask};
use freetumor::random::Key;
use freetumor::synth::{Attempt, AttemptKey, Rules, RulesConfig, Synthesize};
use freetumor::volume::{Array3, HuWindow, OutsideValue, Region, Resampling, Volume, Voxels};
use rayon::prelude::*;

use crate::mask_features::{ORGAN, TUMOR};

/// The grid of the real masks.
pub const SPACING_MM: [f64; 3] = [2.0; 3];
/// The margin of a box around its tumor in voxels.
const MARGIN: usize = 6;

/// A box with a tumor and its kidney; see [`crate::mask_features`] for the labels.
pub struct KidneyBox {
    /// The name of the patient.
    pub case: String,
    pub labels: Array3<u8>,
}

/// Reads the boxes of real tumors: a zip file of NumPy arrays named `case_NUMBER_TUMOR.npy`.
pub fn real(path: &Path) -> Result<Vec<KidneyBox>, String> {
    let file = std::fs::File::open(path).map_err(|cause| format!("cannot open {}: {cause}", path.display()))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|cause| format!("cannot read {}: {cause}", path.display()))?;
    let mut boxes = Vec::new();
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(|cause| cause.to_string())?;
        let name = member.name().map_err(|cause| cause.to_string())?.into_owned();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|cause| format!("cannot read {name}: {cause}"))?;
        let labels = array_of(&bytes).ok_or_else(|| format!("{name}: expected bytes in three dimensions, C order"))?;
        let case = name.rsplit_once('_').map_or(name.as_str(), |(case, _)| case).to_owned();
        boxes.push(KidneyBox { case, labels });
    }
    Ok(boxes)
}

/// Parses a NumPy file of version 1 with bytes in C order; `None` for other files. The last axis of the file becomes the first.
fn array_of(bytes: &[u8]) -> Option<Array3<u8>> {
    let header_bytes = usize::from(u16::from_le_bytes([*bytes.get(8)?, *bytes.get(9)?]));
    let header = std::str::from_utf8(bytes.get(10..10 + header_bytes)?).ok()?;
    let is_supported = bytes.starts_with(b"\x93NUMPY\x01") && header.contains("'|u1'") && header.contains("False");
    let (_, shape) = header.split_once("'shape': (")?;
    let (shape, _) = shape.split_once(')')?;
    let lengths: Vec<usize> = shape.split(',').filter_map(|length| length.trim().parse().ok()).collect();
    let (&[slow, middle, fast], true) = (lengths.as_slice(), is_supported) else { return None };
    let values = bytes.get(10 + header_bytes..)?;
    (values.len() == slow * middle * fast).then(|| Array3::from_vec([fast, middle, slow], values.to_vec()))
}

/// Makes tumors in the kidneys of a scan of `folder`, resampled to the grid of the real masks, with `attempts` keys.
pub fn made(folder: &Path, attempts: u32) -> Result<Vec<KidneyBox>, String> {
    let scan = kidneys(folder)?;
    let organ = &scan.mask.organs[0];
    let rules = Rules::new(RulesConfig::default(), &scan.mask.organs, HuWindow::ABDOMEN)
        .map_err(|errors| errors[0].message.clone())?;
    let plan = rules.site_plan(&scan, organ).map_err(|fault| fault.to_string())?;
    let boxes = (0..attempts).into_par_iter().filter_map(|number| {
        let Ok(Attempt::Candidate(tumor)) = plan.attempt(AttemptKey::new(Key::root(5), number)) else { return None };
        let mut labels = scan.mask.labels.clone();
        labels.paste(tumor.region.start, &tumor.labels);
        let inside = tumor.tumor.extent(|&inside| inside != 0)?;
        let start = [0, 1, 2].map(|axis| tumor.region.start[axis] + inside.start[axis]);
        let region = Region { start, shape: inside.shape }.grown([MARGIN; 3], labels.shape());
        Some(KidneyBox { case: format!("made-{number}"), labels: labels.cut(region) })
    });
    Ok(boxes.collect())
}

/// Reads the scan of a folder and its kidneys.
fn kidneys(folder: &Path) -> Result<MaskedScan, String> {
    let settings = format!("root = {folder:?}\ninclude = [\"ct.nii.gz\"]");
    let settings: FolderConfig = toml::from_str(&settings).map_err(|cause| cause.to_string())?;
    let source = FolderSource::new("scans", settings).map_err(|errors| errors[0].message.clone())?;
    let entry = source.list().map_err(|error| error.to_string())?.remove(0);
    let scan = source.read(&entry).map_err(|fault| fault.to_string())?;
    let mask =
        toml::from_str("pattern = \"labels.nii.gz\"\norgans = [\"kidney\"]").map_err(|cause| cause.to_string())?;
    let mask = LabelsMask::new(mask).map_err(|errors| errors[0].message.clone())?;
    let mask = mask.mask(&scan).map_err(|fault| fault.to_string())?;

    let resampling = Resampling::to_spacing(&scan.volume.grid, SPACING_MM).map_err(|fault| fault.to_string())?;
    let resampled = scan.volume.resampled(&resampling, OutsideValue::Edge);
    let hu = resampled.voxels.hu_of(resampled.grid.region()).map(|hu| hu.round() as i16);
    let kidneys = mask.labels.map(|&label| u8::from(label == mask.organs[0].label));
    let labels = resampling.linear(&kidneys, OutsideValue::Value(0.0)).map(|&share| u8::from(share >= 0.5) * ORGAN);
    let volume = Volume { grid: resampled.grid, voxels: Voxels::I16(hu) };
    let organs = Arc::new([Organ { name: "kidney".into(), label: ORGAN, tumor_label: TUMOR }]);
    let mask = OrganMask { labels, organs, coverage: 1.0 };
    Ok(MaskedScan { scan: Arc::new(Scan { volume, ..scan }), mask })
}
