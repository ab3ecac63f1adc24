//! The lesions of a data set on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::features::{LesionSample, describe};
use crate::error::{Error, Fault, Result};
use crate::evaluate::data_set::{CaseSelection, DataSet};
use crate::evaluate::metrics::MeasuredOrgan;
use crate::evaluate::problem::CaseProblem;
use crate::ingest::volume_file;

/// The lesions of a data set, in the order of its cases.
#[derive(Clone, Debug, Default)]
pub struct DataSetLesions {
    /// The described lesions.
    pub lesions: Vec<LesionSample>,
    /// Cases that could not be read.
    pub problems: Vec<CaseProblem>,
}

/// Describes every lesion of a data set of images and labels, such as a run folder or one of its layouts. `patients` contains the patients
/// of cases that share a patient; by default, those that the data set names.
///
/// # Errors
/// Returns an error if a folder cannot be read or has no volume file.
pub fn read_lesions(
    folder: &Path,
    is_real: bool,
    organ: &MeasuredOrgan,
    patients: &BTreeMap<String, String>,
) -> Result<DataSetLesions> {
    let data = DataSet::open(folder, CaseSelection::All)?;
    let DataSet { images, labels, .. } = &data;
    if images.is_empty() {
        return Err(Error::new(format!("{} has no images", folder.display()))
            .with_hint("use a data set with the folders imagesTr and labelsTr, or images and labels"));
    }
    let described: Vec<_> = labels
        .par_iter()
        .map(|(case, path)| {
            let lesions = describe_case(case, images.get(case), path, organ);
            lesions.map(|lesions| (case, lesions)).map_err(|message| CaseProblem {
                case: case.clone(),
                network: None,
                message,
            })
        })
        .collect();
    let mut data_set = DataSetLesions::default();
    for case in described {
        match case {
            Err(problem) => data_set.problems.push(problem),
            Ok((case, lesions)) => {
                let patient = patients.get(case).or_else(|| data.patients.get(case)).unwrap_or(case);
                let lesion = |values| LesionSample { patient: patient.clone(), is_real, values };
                data_set.lesions.extend(lesions.into_iter().map(lesion));
            }
        }
    }
    Ok(data_set)
}

fn describe_case(
    case: &str,
    image: Option<&PathBuf>,
    labels: &Path,
    organ: &MeasuredOrgan,
) -> Result<Vec<Vec<f64>>, String> {
    let image = image.ok_or_else(|| format!("expected an image named {case}, got none"))?;
    let read = || {
        let volume = volume_file::read_volume(image)?;
        let labels = volume_file::read_labels(labels)?;
        let on_scan = if labels.grid.agrees_with(&volume.grid) { labels } else { labels.onto(&volume.grid)? };
        Ok(describe(&volume, &on_scan, organ.organ_id, organ.tumor_id))
    };
    read().map_err(|fault: Fault| fault.message)
}
