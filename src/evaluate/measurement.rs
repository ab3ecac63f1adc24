//! The measurements of every case with every network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::arms::{Arm, Predictions};
use super::metrics::{CaseRow, MeasuredOrgan, measure};
use super::problem::CaseProblem;
use crate::error::{Error, Result};
use crate::ingest::volume_file;
use crate::mask::Alignment;
use crate::volume::{Array3, Labels};

/// The minimum share of the voxels of a ground-truth label map that a prediction on another grid covers.
const COVERAGE: f64 = 0.99;

/// The arms, the ground truth and the organs of an evaluation.
pub struct Evaluation<'a> {
    /// The arms.
    pub arms: &'a [Arm],
    /// The organs whose tumors are measured.
    pub organs: &'a [MeasuredOrgan],
    /// The ground-truth label maps, by case.
    pub truths: &'a BTreeMap<String, PathBuf>,
    /// The patients of cases that share a patient; every other case is a separate patient.
    pub patients: &'a BTreeMap<String, String>,
    /// The scans, by case; required only for arms of networks.
    pub images: &'a BTreeMap<String, PathBuf>,
}

/// The measurements of all cases, in the order of case names.
#[derive(Default)]
pub struct Measurements {
    /// One row for each case, network and organ.
    pub rows: Vec<CaseRow>,
    /// Cases that could not be measured.
    pub problems: Vec<CaseProblem>,
    /// The ids in the ground-truth label maps.
    pub truth_ids: BTreeSet<u16>,
    /// The ids in the predictions.
    pub predicted_ids: BTreeSet<u16>,
}

impl Measurements {
    /// Returns warnings about label ids that the ground-truth label maps or the organs do not have.
    pub fn id_warnings(&self, organs: &[MeasuredOrgan]) -> Vec<String> {
        let mut warnings = Vec::new();
        for MeasuredOrgan { name, tumor_id, .. } in organs {
            if !self.truth_ids.contains(tumor_id) {
                warnings.push(format!(
                    "no ground-truth label map contains the tumor id {tumor_id} of {name}: all cases count as healthy; the label maps contain the ids {:?}",
                    Vec::from_iter(&self.truth_ids)
                ));
            }
        }
        let measured: BTreeSet<u16> =
            organs.iter().flat_map(|organ| organ.organ_id.into_iter().chain([organ.tumor_id])).collect();
        let is_expected = |id: &&u16| measured.contains(*id) || self.truth_ids.contains(*id);
        let unexpected: Vec<u16> = self.predicted_ids.iter().filter(|id| !is_expected(id)).copied().collect();
        if !unexpected.is_empty() {
            warnings.push(format!(
                "predictions contain the ids {unexpected:?}, which no ground-truth label map and no organ has: these ids are ignored; the measured ids are {:?}",
                Vec::from_iter(&measured)
            ));
        }
        warnings
    }
}

impl Evaluation<'_> {
    /// Measures every case of the ground truth with every network; in parallel, unless an arm computes its predictions by a network.
    ///
    /// # Errors
    /// Returns an error if `patients` contains a case that the ground truth lacks.
    pub fn measure(&self) -> Result<Measurements> {
        let (truths, patients) = (self.truths, self.patients);
        if let Some(name) = patients.keys().find(|name| !truths.contains_key(*name)) {
            return Err(Error::new(format!("--patients: expected a case of the ground truth, got {name}"))
                .with_hint("use lines case,patient, with the name of the label file without its ending as the case"));
        }
        let measure_case = |(case, path): (&String, &PathBuf)| {
            let patient = patients.get(case).unwrap_or(case);
            self.measure_case(case, patient, path)
        };
        let has_network = |arm: &Arm| arm.networks.iter().any(|network| matches!(network, Predictions::Network(_)));
        // A network uses all threads.
        let each: Vec<Measurements> = if self.arms.iter().any(has_network) {
            truths.iter().map(measure_case).collect()
        } else {
            truths.par_iter().map(measure_case).collect()
        };
        let mut all = Measurements::default();
        for case in each {
            all.rows.extend(case.rows);
            all.problems.extend(case.problems);
            all.truth_ids.extend(case.truth_ids);
            all.predicted_ids.extend(case.predicted_ids);
        }
        all.problems.extend(self.predictions_without_ground_truth());
        Ok(all)
    }

    fn measure_case(&self, case: &str, patient: &str, path: &Path) -> Measurements {
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

    /// Reads a ground-truth label map, and checks that it has an id that is measured.
    fn truth(&self, path: &Path) -> Result<Labels, String> {
        let truth = volume_file::read_labels(path).map_err(|fault| {
            format!("cannot read the ground-truth label map ({}): {}", fault.kind.name(), fault.message)
        })?;
        let organs = self.organs;
        let is_measured = |id: u16| organs.iter().any(|organ| organ.organ_id == Some(id) || organ.tumor_id == id);
        // Without an organ id, a map without a tumor may belong to a healthy scan.
        let may_be_empty = organs.iter().any(|organ| organ.organ_id.is_none());
        if may_be_empty || truth.ids.as_slice().iter().any(|id| is_measured(*id)) {
            return Ok(truth);
        }
        let got = Vec::from_iter(ids_of(&truth.ids));
        let expected = organs.iter().flat_map(|organ| organ.organ_id.into_iter().chain([organ.tumor_id]));
        Err(format!(
            "expected a ground-truth label map with one of the ids {:?}, got {got:?}; set the ids with --organ NAME=ORGAN:TUMOR",
            expected.collect::<Vec<_>>()
        ))
    }

    /// Returns a prediction on the grid of the ground truth.
    fn prediction(&self, predictions: &Predictions, case: &str, truth: &Labels) -> Result<Array3<u16>, String> {
        let labels = match predictions {
            Predictions::Files(files) => {
                let path = files.get(case).ok_or_else(|| format!("expected a prediction named {case}, got none"))?;
                let unreadable = |kind: &str, message: &str| format!("cannot read the prediction ({kind}): {message}");
                volume_file::read_labels(path).map_err(|fault| unreadable(fault.kind.name(), &fault.message))?
            }
            Predictions::Network(segment) => {
                let path = self.images.get(case).ok_or_else(|| format!("expected a scan named {case}, got none"))?;
                segment(path).map_err(|error| error.to_string())?
            }
        };
        if labels.grid.agrees_with(&truth.grid) {
            return Ok(labels.ids);
        }
        let alignment = Alignment::new(&labels.grid, &truth.grid, COVERAGE).map_err(|fault| {
            format!("the prediction and the ground truth are at different positions: {}", fault.message)
        })?;
        let mut ids = Array3::filled(truth.grid.shape, 0u16);
        alignment.for_each_label(&labels, |index, id| ids.as_mut_slice()[index] = id);
        Ok(ids)
    }

    /// Returns the predictions of cases that the ground truth lacks.
    fn predictions_without_ground_truth(&self) -> Vec<CaseProblem> {
        let mut problems = Vec::new();
        for arm in self.arms {
            for (seed, predictions) in arm.networks.iter().enumerate() {
                if let Predictions::Files(files) = predictions {
                    problems.extend(files.keys().filter(|case| !self.truths.contains_key(*case)).map(|case| {
                        CaseProblem {
                            case: case.clone(),
                            network: Some((arm.name.clone(), seed)),
                            message: format!("expected a ground-truth label map named {case}, got none"),
                        }
                    }));
                }
            }
        }
        problems
    }
}

/// Returns the ids in a label map except 0.
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
