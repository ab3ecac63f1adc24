//! The predictions of trained segmentors, as files that `freetumor evaluate` also supports, and their measures.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use freetumor::error::{Error, Result};
use freetumor::evaluate::metrics::{CaseRow, MeasuredOrgan, measure};
use freetumor::ingest::nifti::{self, Datatype, encode_header};
use freetumor::nn::predictor::{ExpectedNetwork, Predictor};
use freetumor::nn::weights::NetworkPart;
use freetumor::train::segmentation::segment;
use freetumor::volume::{Array3, Grid, Labels};
use rayon::prelude::*;

use super::data_set::Scans;
use super::population::{LIVER, TUMOR};
use super::segmentors::digest;
use super::workspace::Workspace;

/// Returns the measured organ.
pub fn organ() -> MeasuredOrgan {
    MeasuredOrgan { name: "liver".to_owned(), organ_id: Some(LIVER.into()), tumor_id: TUMOR.into() }
}

/// Predicts the scans without a prediction and returns the folder of predictions, which depends on the weights.
///
/// # Errors
/// Returns an error if a scan cannot be read, or the network fails.
pub fn predict(workspace: &Workspace, subfolder: &str, name: &str, weights: &Path, scans: &Scans) -> Result<PathBuf> {
    let folder = workspace.out.join(subfolder).join(format!("{name}-{}", &digest(weights)?[..12]));
    workspace.create_folder(&folder)?;
    let (settings, device) = (&workspace.experiment.segmentation, workspace.device()?);
    let expected = ExpectedNetwork {
        model: settings.network.model.model(),
        part: NetworkPart::Whole,
        classes: None,
        width: None,
        norm: None,
    };
    let mut network = None;
    for (index, patient) in scans.names.iter().enumerate() {
        let path = file(&folder, patient);
        if path.exists() {
            continue;
        }
        let network = match &mut network {
            Some(network) => network,
            none => none.insert(Predictor::open(weights, &expected, &device)?),
        };
        let case = scans.cases.get(index).map_err(|fault| Error::new(format!("scan {patient}: {fault}")))?;
        let windows = (settings.preprocess.patch_voxels, settings.overlap);
        let labels = segment(&case, windows, &device, |window| network.forward(window))?;
        write_labels(workspace, &path, &case.masked.scan.volume.grid, &labels)?;
    }
    Ok(folder)
}

fn file(folder: &Path, patient: &str) -> PathBuf {
    folder.join(format!("{patient}.nii.gz"))
}

fn write_labels(workspace: &Workspace, path: &Path, grid: &Grid, labels: &Array3<u8>) -> Result<()> {
    let header = encode_header(grid, Datatype::U8, "labels predicted by a segmentor, freetumor");
    let header = header.map_err(|fault| Error::new(format!("{}: {fault}", path.display())))?;
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    let written = out.write_all(&header).and_then(|()| out.write_all(labels.as_slice()));
    let bytes = written.and_then(|()| out.finish()).map_err(|cause| Error::io("cannot compress", path, cause))?;
    workspace.write(path, &bytes)
}

/// Measures the predictions of a folder; `arm` and `seed` are their indices in the report.
///
/// # Errors
/// Returns an error if a prediction or its scan cannot be read.
pub fn rows(folder: &Path, scans: &Scans, arm: usize, seed: usize) -> Result<Vec<CaseRow>> {
    let organ = organ();
    let measure_scan = |(index, name): (usize, &String)| -> Result<CaseRow> {
        let case = scans.cases.get(index).map_err(|fault| Error::new(format!("scan {name}: {fault}")))?;
        let path = file(folder, name);
        let predicted = nifti::read_labels(&path);
        let predicted = predicted.map_err(|fault| Error::new(format!("{}: {fault}", path.display())))?;
        let truth =
            Labels { grid: case.masked.scan.volume.grid, ids: case.masked.mask.labels.map(|id| u16::from(*id)) };
        if predicted.ids.shape() != truth.ids.shape() {
            return Err(Error::new(format!("{}: expected a prediction of the shape of the scan", path.display())));
        }
        let measures = measure(&truth, &predicted.ids, &organ);
        Ok(CaseRow { arm, seed, case: name.clone(), patient: name.clone(), organ: 0, measures })
    };
    scans.names.par_iter().enumerate().map(measure_scan).collect()
}

/// Returns the mean Dice of the tumors in percent, over cases with tumors.
pub fn mean_dsc(rows: &[CaseRow]) -> f64 {
    let with_tumors = rows.iter().filter(|row| !row.measures.is_healthy());
    let dice: Vec<f64> = with_tumors.filter_map(|row| row.measures.tumor_dice).collect();
    100.0 * dice.iter().sum::<f64>() / dice.len() as f64
}
