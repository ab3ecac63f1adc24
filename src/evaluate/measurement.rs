//! Measurements of every case under every network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::arms::{Arm, Predictions};
use super::metrics::{CaseRow, MeasuredOrgan, measure};
use super::problem::CaseProblem;
use crate::error::{Error, Result};
use crate::ingest::nifti;
use crate::mask::Alignment;
use crate::volume::{Array3, Labels};

/// The share of a truth's voxels that a prediction on another grid has to cover.
const COVERAGE: f64 = 0.99;

/// What is measured, and against which truth.
pub struct Evaluation<'a> {
    /// The arms.
    pub arms: &'a [Arm],
    /// The organs whose tumors are measured.
    pub organs: &'a [MeasuredOrgan],
    /// The true label maps, by case.
    pub truths: &'a BTreeMap<String, PathBuf>,
    /// The patients of cases that share a patient; every other case is a patient of its own.
    pub patients: &'a BTreeMap<String, String>,
    /// The scans, by case; needed for arms of networks only.
    pub images: &'a BTreeMap<String, PathBuf>,
}

/// The measurements of all cases, in the order of their names.
#[derive(Default)]
pub struct Measurements {
    /// A row for each case, network and organ.
    pub rows: Vec<CaseRow>,
    /// Cases that could not be measured.
    pub problems: Vec<CaseProblem>,
    /// The ids that any truth holds.
    pub truth_ids: BTreeSet<u16>,
    /// The ids that any prediction holds.
    pub predicted_ids: BTreeSet<u16>,
}

impl Measurements {
    /// Doubts about the ids, which no number would show.
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

impl Evaluation<'_> {
    /// Measures every case of the truth under every network, several cases at once where no network has to be run.
    ///
    /// # Errors
    /// Returns an error if a patient is given for a case that the truth lacks.
    pub fn measure(&self) -> Result<Measurements> {
        let (truths, patients) = (self.truths, self.patients);
        if let Some(name) = patients.keys().find(|name| !truths.contains_key(*name)) {
            return Err(Error::new(format!("--patients: {name} is none of the {} cases", truths.len()))
                .with_hint("a case is called like its label file, without the ending: case,patient"));
        }
        let measure_case = |(case, path): (&String, &PathBuf)| {
            let patient = patients.get(case).unwrap_or(case);
            self.case(case, patient, path)
        };
        let has_network = |arm: &Arm| arm.networks.iter().any(|one| matches!(one, Predictions::Network(_)));
        // A network uses all threads by itself.
        let each: Vec<Measurements> = if self.arms.iter().any(has_network) {
            truths.iter().map(measure_case).collect()
        } else {
            truths.par_iter().map(measure_case).collect()
        };
        let mut all = Measurements::default();
        for of_case in each {
            all.rows.extend(of_case.rows);
            all.problems.extend(of_case.problems);
            all.truth_ids.extend(of_case.truth_ids);
            all.predicted_ids.extend(of_case.predicted_ids);
        }
        all.problems.extend(self.without_truth());
        Ok(all)
    }

    fn case(&self, case: &str, patient: &str, path: &Path) -> Measurements {
        let mut measured = Measurements::default();
        let problem = |network, message| CaseProblem { case: case.to_owned(), network, message };
        let truth = match self.truth(path) {
            Ok(truth) => truth,
            Err(message) => {
                measured.problems.push(problem(None, message));
                return measured;
            }
        };
        measured.truth_ids = ids_of(&truth.ids);
        for (index, arm) in self.arms.iter().enumerate() {
            for (seed, predictions) in arm.networks.iter().enumerate() {
                match self.prediction(predictions, case, &truth) {
                    Err(message) => measured.problems.push(problem(Some((arm.name.clone(), seed)), message)),
                    Ok(prediction) => {
                        measured.predicted_ids.extend(ids_of(&prediction));
                        measured.rows.extend(self.organs.iter().enumerate().map(|(organ, own)| {
                            let measures = measure(&truth, &prediction, own);
                            let (case, patient) = (case.to_owned(), patient.to_owned());
                            CaseRow { arm: index, seed, case, patient, organ, measures }
                        }));
                    }
                }
            }
        }
        measured
    }

    /// The label map of the truth, if it has an id that is measured.
    fn truth(&self, path: &Path) -> Result<Labels, String> {
        let truth = nifti::read_labels(path)
            .map_err(|fault| format!("the truth cannot be read ({}): {}", fault.kind.name(), fault.message))?;
        let organs = self.organs;
        let is_own = |id: u16| organs.iter().any(|organ| organ.organ_id == Some(id) || organ.tumor_id == id);
        // Without an organ's id, a map without a tumor may be that of a healthy scan.
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
    fn prediction(&self, predictions: &Predictions, case: &str, truth: &Labels) -> Result<Array3<u16>, String> {
        let labels = match predictions {
            Predictions::Files(files) => {
                let path = files.get(case).ok_or("there is no prediction of this name")?;
                let unreadable =
                    |kind: &str, message: &str| format!("the prediction cannot be read ({kind}): {message}");
                nifti::read_labels(path).map_err(|fault| unreadable(fault.kind.name(), &fault.message))?
            }
            Predictions::Network(segment) => {
                let path = self.images.get(case).ok_or("there is no scan of this name")?;
                segment(path).map_err(|error| error.to_string())?
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

    /// Predictions of cases that the truth lacks.
    fn without_truth(&self) -> Vec<CaseProblem> {
        let mut problems = Vec::new();
        for arm in self.arms {
            for (seed, predictions) in arm.networks.iter().enumerate() {
                if let Predictions::Files(files) = predictions {
                    problems.extend(files.keys().filter(|case| !self.truths.contains_key(*case)).map(|case| {
                        CaseProblem {
                            case: case.clone(),
                            network: Some((arm.name.clone(), seed)),
                            message: "there is no truth of this name".to_owned(),
                        }
                    }));
                }
            }
        }
        problems
    }
}

/// The ids of a label map except 0.
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
