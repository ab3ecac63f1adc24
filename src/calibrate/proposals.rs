//! The candidates of a calibration: made for it, or those of a run folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::tumor::{CalibrationTumor, OnProgress};
use crate::attempt::{AttemptOutcomes, CandidateNumbers, Observer};
use crate::error::{Error, Fault, Result};
use crate::filter::QualityTest;
use crate::graph::{Plan, SynthesisNode};
use crate::id::{SampleId, ScanId};
use crate::mask::MaskedScan;
use crate::record::parquet::{Row, decode_part};
use crate::record::{SampleKind, SampleRow, Split};
use crate::run::RunFolder;
use crate::score::Scores;
use crate::synth::{Attempt, AttemptKey, Geometry};

/// Returns a candidate with its scores.
fn calibration_tumor(test: &QualityTest, patient: String, geometry: &Geometry, scores: Scores) -> CalibrationTumor {
    let sampled_mm = 2.0 * libm::cbrt(geometry.radii_mm.iter().product());
    CalibrationTumor {
        patient,
        diameter_mm: geometry.diameter_mm,
        meets_conditions: test.failing(&scores).is_none(),
        scores,
        sampled_mm,
        sampled_hu: geometry.drawn_contrast_hu,
    }
}

/// An observer that collects the candidates of one organ of a scan.
struct Collector<'a> {
    seed: u64,
    test: &'a QualityTest,
    patient: String,
    candidate_id: SampleId,
    tumors: &'a mut Vec<CalibrationTumor>,
}

impl Observer for Collector<'_> {
    type Stop = Fault;

    fn numbers(&self, _: AttemptKey, _: u32) -> CandidateNumbers {
        CandidateNumbers::of_candidate(self.seed, self.candidate_id)
    }

    fn on_attempt(&mut self, attempt: AttemptOutcomes) -> Result<(), Fault> {
        if let (Attempt::Candidate(candidate), Some(outcome)) = (attempt.attempt, attempt.outcomes.into_iter().next()) {
            self.tumors.push(calibration_tumor(self.test, self.patient.clone(), &candidate.geometry, outcome.scores));
        }
        Ok(())
    }
}

/// Makes `count` candidates in each organ of a synthesis, in scans of training patients, and scores them.
///
/// # Errors
/// Returns an error if a source cannot be listed. Scans that cannot be read are added to `failed`.
pub(super) fn made_candidates(
    plan: &Plan,
    synthesis: &SynthesisNode,
    branch: usize,
    count: usize,
    failed: &mut BTreeSet<ScanId>,
    on_progress: OnProgress<'_>,
) -> Result<BTreeMap<String, Vec<CalibrationTumor>>> {
    let attempts = synthesis.attempts.only(branch);
    let test = &attempts.branches[0].test;
    let mut entries = Vec::new();
    for &mask in &synthesis.masks {
        for &source in &plan.masks[mask].sources {
            let listed = plan.sources[source].source.list()?.into_iter();
            let listed = listed.filter(|entry| plan.split_of(entry.patient_key) == Split::Train);
            entries.extend(listed.map(|entry| (entry.scan_id, mask, source, entry)));
        }
    }
    // Ids are hashes: a part of a long list is a random sample.
    entries.sort_by_key(|(id, mask, ..)| (*id, *mask));
    let per_scan = count.div_ceil(entries.len().max(1)) as u32;
    let mut tumors: BTreeMap<String, Vec<CalibrationTumor>> = BTreeMap::new();
    let is_complete = |tumors: &BTreeMap<String, Vec<CalibrationTumor>>| {
        synthesis.organs.iter().all(|organ| tumors.get(&organ.name).is_some_and(|own| own.len() >= count))
    };
    for (_, mask, source, entry) in &entries {
        if is_complete(&tumors) {
            break;
        }
        let mut make = || -> Result<(), Fault> {
            let scan = Arc::new(plan.sources[*source].source.read(entry)?);
            let masked = MaskedScan { mask: plan.masks[*mask].mask.mask(&scan)?, scan };
            let mask_digest = masked.mask.digest();
            for organ in synthesis.organs_in(&masked.mask.organs) {
                let own = tumors.entry(organ.name.clone()).or_default();
                let patient = entry.patient_key.to_string();
                let identity = |variant| synthesis.tumor(plan.seed, masked.scan.digest, mask_digest, organ, variant);
                let candidate_id = identity(0).sample_id(0);
                let mut collector = Collector { seed: plan.seed, test, patient, candidate_id, tumors: own };
                let mut prepared = attempts.prepare(&masked, organ, &mut collector)?;
                for variant in 0..per_scan {
                    let tumor = identity(variant);
                    collector.candidate_id = tumor.sample_id(0);
                    prepared.attempt_tumor(tumor.key(), &mut collector)?;
                }
            }
            Ok(())
        };
        if let Err(fault) = make() {
            tracing::warn!(scan_id = %entry.scan_id, %fault, "cannot make candidates in a scan");
            failed.insert(entry.scan_id);
        }
        let counts: Vec<String> = tumors.iter().map(|(organ, all)| format!("{} in the {organ}", all.len())).collect();
        on_progress(&format!("candidates: {}", counts.join(", ")));
    }
    Ok(tumors)
}

/// Reads the candidates of a quality test from the tables of a run folder.
///
/// # Errors
/// Returns an error if the tables cannot be read, have no such candidates, or were made with steering.
pub(super) fn candidates_of_run(
    plan: &Plan,
    synthesis: &SynthesisNode,
    branch: usize,
    folder: &Path,
    at: Option<u64>,
) -> Result<BTreeMap<String, Vec<CalibrationTumor>>> {
    let run = RunFolder::open(folder)?;
    let branch = &synthesis.attempts.branches[branch];
    let (stage, name) = (synthesis.attempts.name.as_str(), branch.name.as_str());
    let mut tumors: BTreeMap<String, Vec<CalibrationTumor>> = BTreeMap::new();
    for file in run.files(SampleRow::TABLE.name(), at)? {
        for SampleRow { record, .. } in decode_part::<SampleRow>(run.read_verified(&file)?)? {
            let is_own = record.kind == SampleKind::Synthetic && record.stage == stage && record.branch == name;
            let is_same = record.stage_digest == synthesis.digests.results;
            let Some(geometry) =
                record.geometry.filter(|_| is_own && plan.split_of(record.patient_key) == Split::Train)
            else {
                continue;
            };
            if geometry.steering_factor.is_some() {
                return Err(Error::new(format!(
                    "expected a run without steering, got steered tumors in {}",
                    folder.display()
                ))
                .with_hint("calibrate without --run, or use a run without `steering` in the synthesis"));
            }
            if !is_same {
                return Err(Error::new(format!(
                    "expected candidates of `{stage}` with the present settings in {}, got others",
                    folder.display()
                ))
                .with_hint("calibrate without --run, or run the pipeline again"));
            }
            // Later attempts prefer scans in which few tumors are accepted.
            if record.attempt == 0 {
                let patient = record.patient_key.to_string();
                tumors.entry(record.organ).or_default().push(calibration_tumor(
                    &branch.test,
                    patient,
                    &geometry,
                    record.scores,
                ));
            }
        }
    }
    if tumors.is_empty() {
        return Err(Error::new(format!(
            "expected candidates of `{name}` after `{stage}` in {}, got none",
            folder.display()
        ))
        .with_hint("use the run folder of this pipeline"));
    }
    Ok(tumors)
}
