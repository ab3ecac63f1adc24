//! Every case under every network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::arms::{Arm, Origin};
use super::{EvaluateArgs, files};
use crate::cli::scan::read_scan;
use crate::error::{Error, Result};
use crate::ingest::nifti;
use crate::mask::Alignment;
use crate::train::metrics::{CaseRow, MeasuredOrgan, measure};
use crate::volume::{Array3, Labels};

/// The share of a truth's voxels that a prediction on another grid has to cover.
const COVERAGE: f64 = 0.99;

/// A case that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The case's name.
    pub case: String,
    /// The arm's name and the seed's number within it; none where the truth itself is the problem.
    pub network: Option<(String, usize)>,
    /// What was expected and what came.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.network {
            Some((arm, seed)) => write!(f, "{} ({arm}, seed {seed}): {}", self.case, self.message),
            None => write!(f, "{}: {}", self.case, self.message),
        }
    }
}

/// What came of all cases, in the order of their names.
#[derive(Default)]
pub struct Measured {
    pub rows: Vec<CaseRow>,
    pub problems: Vec<Problem>,
    /// The ids that any truth holds.
    pub truth_ids: BTreeSet<u16>,
    /// The ids that any prediction holds.
    pub predicted_ids: BTreeSet<u16>,
}

/// Measures every case of the truth under every network, several cases at once where no network has to be run.
///
/// # Errors
/// Where the scans' folder cannot be read.
pub fn measure_all(
    args: &EvaluateArgs,
    arms: &[Arm],
    truths: &BTreeMap<String, PathBuf>,
    patients: &BTreeMap<String, String>,
) -> Result<Measured> {
    if let Some(name) = patients.keys().find(|name| !truths.contains_key(*name)) {
        return Err(Error::new(format!("--patients: {name} is none of the {} cases", truths.len()))
            .with_hint("a case is called like its label file, without the ending: case,patient"));
    }
    let images = match &args.images {
        Some(folder) => files::list_images(&files::image_folder(folder)?)?,
        None => BTreeMap::new(),
    };
    let measuring = Measuring { args, arms, images };
    let one = |(case, path): (&String, &PathBuf)| {
        let patient = patients.get(case).unwrap_or(case);
        measuring.case(case, patient, path)
    };
    let is_network = |arm: &Arm| arm.networks.iter().any(|origin| matches!(origin, Origin::Network(_)));
    // A network uses all threads by itself.
    let each: Vec<Measured> = if arms.iter().any(is_network) {
        truths.iter().map(one).collect()
    } else {
        truths.par_iter().map(one).collect()
    };
    let mut all = Measured::default();
    for one in each {
        all.rows.extend(one.rows);
        all.problems.extend(one.problems);
        all.truth_ids.extend(one.truth_ids);
        all.predicted_ids.extend(one.predicted_ids);
    }
    all.problems.extend(measuring.without_truth(truths));
    Ok(all)
}

impl Measured {
    /// What seems to be wrong with the ids: nothing that a number would tell.
    pub fn doubts(&self, organs: &[MeasuredOrgan]) -> Vec<String> {
        let mut doubts = Vec::new();
        for MeasuredOrgan { name, tumor_id, .. } in organs {
            if !self.truth_ids.contains(tumor_id) {
                doubts.push(format!(
                    "no truth holds {tumor_id}, the tumors of {name}, so that all cases count as healthy; they hold {:?}",
                    Vec::from_iter(&self.truth_ids)
                ));
            }
        }
        let own: BTreeSet<u16> =
            organs.iter().flat_map(|organ| organ.organ_id.into_iter().chain([organ.tumor_id])).collect();
        let known = |id: &&u16| own.contains(*id) || self.truth_ids.contains(*id);
        let strange: Vec<u16> = self.predicted_ids.iter().filter(|id| !known(id)).copied().collect();
        if !strange.is_empty() {
            doubts.push(format!(
                "predictions hold {strange:?}, which no truth and no organ has: they count as nothing; measured are {:?}",
                Vec::from_iter(&own)
            ));
        }
        doubts
    }
}

/// The ids of a label map, but for 0.
fn ids_of(labels: &Array3<u16>) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    let mut last = 0;
    for id in labels.as_slice() {
        if *id != last {
            found.insert(*id);
            last = *id;
        }
    }
    found.remove(&0);
    found
}

struct Measuring<'a> {
    args: &'a EvaluateArgs,
    arms: &'a [Arm],
    images: BTreeMap<String, PathBuf>,
}

impl Measuring<'_> {
    fn case(&self, case: &str, patient: &str, path: &Path) -> Measured {
        let mut measured = Measured::default();
        let problem = |network, message| Problem { case: case.to_owned(), network, message };
        let truth = match self.truth(path) {
            Ok(truth) => truth,
            Err(message) => {
                measured.problems.push(problem(None, message));
                return measured;
            }
        };
        measured.truth_ids = ids_of(&truth.ids);
        for (place, arm) in self.arms.iter().enumerate() {
            for (seed, origin) in arm.networks.iter().enumerate() {
                match self.prediction(origin, case, &truth) {
                    Err(message) => measured.problems.push(problem(Some((arm.name.clone(), seed)), message)),
                    Ok(prediction) => {
                        measured.predicted_ids.extend(ids_of(&prediction));
                        measured.rows.extend(self.args.organ.iter().enumerate().map(|(organ, own)| {
                            let measures = measure(&truth, &prediction, own);
                            let (case, patient) = (case.to_owned(), patient.to_owned());
                            CaseRow { arm: place, seed, case, patient, organ, measures }
                        }));
                    }
                }
            }
        }
        measured
    }

    /// A truth that holds something to measure.
    fn truth(&self, path: &Path) -> Result<Labels, String> {
        let truth = nifti::read_labels(path)
            .map_err(|fault| format!("the truth cannot be read ({}): {}", fault.kind.name(), fault.message))?;
        let organs = &self.args.organ;
        let is_own = |id: u16| organs.iter().any(|organ| organ.organ_id == Some(id) || organ.tumor_id == id);
        // Without an organ's id nothing can be said of a map that holds no tumor: it may be a healthy scan.
        let may_be_empty = organs.iter().any(|organ| organ.organ_id.is_none());
        if may_be_empty || truth.ids.as_slice().iter().any(|id| is_own(*id)) {
            return Ok(truth);
        }
        let there = Vec::from_iter(ids_of(&truth.ids));
        let wanted = organs.iter().flat_map(|organ| organ.organ_id.into_iter().chain([organ.tumor_id]));
        Err(format!(
            "the truth has none of the ids {:?} but {there:?}; --organ NAME=ORGAN:TUMOR says which to measure",
            wanted.collect::<Vec<_>>()
        ))
    }

    /// A prediction on the truth's grid.
    fn prediction(&self, origin: &Origin, case: &str, truth: &Labels) -> Result<Array3<u16>, String> {
        let labels = match origin {
            Origin::Folder(files) => {
                let path = files.get(case).ok_or("there is no prediction of this name")?;
                let unreadable =
                    |kind: &str, message: &str| format!("the prediction cannot be read ({kind}): {message}");
                nifti::read_labels(path).map_err(|fault| unreadable(fault.kind.name(), &fault.message))?
            }
            Origin::Network(predictor) => {
                let path = self.images.get(case).ok_or("there is no scan of this name")?;
                let scan = read_scan(path).map_err(|error| error.to_string())?;
                let seen = self.args.network.look(predictor, &scan, path).map_err(|error| error.to_string())?;
                Labels { grid: scan.grid, ids: seen.labels() }
            }
        };
        if labels.grid.agrees_with(&truth.grid) {
            return Ok(labels.ids);
        }
        let alignment = Alignment::new(&labels.grid, &truth.grid, COVERAGE)
            .map_err(|fault| format!("the prediction lies elsewhere than the truth: {}", fault.message))?;
        let mut ids = Array3::filled(truth.grid.shape, 0u16);
        alignment.for_each_label(&labels, |index, id| ids.as_mut_slice()[index] = id);
        Ok(ids)
    }

    fn without_truth(&self, truths: &BTreeMap<String, PathBuf>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for arm in self.arms {
            for (seed, origin) in arm.networks.iter().enumerate() {
                if let Origin::Folder(files) = origin {
                    problems.extend(files.keys().filter(|case| !truths.contains_key(*case)).map(|case| Problem {
                        case: case.clone(),
                        network: Some((arm.name.clone(), seed)),
                        message: "there is no truth of this name".to_owned(),
                    }));
                }
            }
        }
        problems
    }
}
