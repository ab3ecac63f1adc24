//! The scores of real tumors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::tumor::{CalibrationTumor, OnProgress};
use crate::attempt::CandidateNumbers;
use crate::error::{Fault, Result};
use crate::filter::CalibratedScore;
use crate::graph::{LabeledScans, Plan, SynthesisNode};
use crate::id::ScanId;
use crate::ingest::Scan;
use crate::mask::{BitVolume, MaskedScan, Organ, OrganMask};
use crate::random::Key;
use crate::record::Split;
use crate::score::{Score, Scores};
use crate::synth::blend::with_tumor;
use crate::synth::measure::equivalent_diameter_mm;
use crate::synth::{Candidate, Geometry};
use crate::volume::{Array3, Connectivity, Region, Voxels, distance_mm};

/// The minimum number of voxels of a tumor that is scored: 3 voxels across, like the default minimum of synthetic tumors.
const MIN_VOXELS: usize = 14;
/// The distances from a tumor between which the mean HU of healthy organ replace the tumor.
const SURROUNDINGS_MM: [f64; 2] = [2.0, 8.0];
/// The margin of the box in which a tumor is scored.
const MARGIN_MM: f64 = 8.0;

/// The real tumors of each organ, and the numbers of those that the network of a stage may have been trained on.
type RealTumors = (BTreeMap<String, Vec<CalibrationTumor>>, BTreeMap<String, usize>);

/// Scores the real tumors of the labeled scans of training patients, by organ. Patients of the pipeline's other splits are left out, too.
///
/// # Errors
/// Returns an error if a source cannot be listed. Scans that cannot be read are added to `failed`.
pub(super) fn real_tumors(
    plan: &Plan,
    labeled: &LabeledScans,
    synthesis: &SynthesisNode,
    branch: usize,
    failed: &mut BTreeSet<ScanId>,
    on_progress: OnProgress<'_>,
) -> Result<RealTumors> {
    let mut tumors: BTreeMap<String, Vec<CalibrationTumor>> = BTreeMap::new();
    let mut possibly_trained_on = BTreeMap::new();
    for (source, mask, entry) in labeled.training_scans()? {
        if plan.split_of(entry.patient_key) != Split::Train {
            continue;
        }
        let mut score = || -> Result<(), Fault> {
            let scan = Arc::new(source.source.read(&entry)?);
            let masked = MaskedScan { mask: mask.mask.mask(&scan)?, scan };
            for organ in &synthesis.organs {
                // The labels of another file may have other ids.
                let Some(own) = masked.mask.organs.iter().find(|own| own.name == organ.name) else { continue };
                for lesion in lesions(&masked, own) {
                    let Some((healthy, candidate)) = as_candidate(&masked, own, &lesion) else { continue };
                    let tumor = scored(synthesis, branch, &healthy, own, &candidate, &mut possibly_trained_on)?;
                    tumors.entry(organ.name.clone()).or_default().push(tumor);
                }
            }
            Ok(())
        };
        if let Err(fault) = score() {
            tracing::warn!(scan_id = %entry.scan_id, %fault, "cannot score the real tumors of a scan");
            failed.insert(entry.scan_id);
        }
        let counts: Vec<String> = tumors.iter().map(|(organ, all)| format!("{} in the {organ}", all.len())).collect();
        on_progress(&format!("real tumors: {}", counts.join(", ")));
    }
    Ok((tumors, possibly_trained_on))
}

/// Returns the tumors of an organ: sets of voxels in their boxes.
fn lesions(masked: &MaskedScan, organ: &Organ) -> Vec<(Region, Array3<u8>)> {
    let labels = &masked.mask.labels;
    let Some(all) = labels.extent(|&label| label == organ.tumor_label) else { return Vec::new() };
    let set =
        BitVolume::from_fn(all.shape, |voxel| labels[[0, 1, 2].map(|k| all.start[k] + voxel[k])] == organ.tumor_label);
    let components = set.components(Connectivity::Corners);
    let mut boxes: Vec<Option<Region>> = vec![None; components.count()];
    for run in components.runs() {
        let own = Region { start: [run.start, run.y, run.z], shape: [run.end - run.start, 1, 1] };
        let region = &mut boxes[run.component];
        *region = Some(region.map_or(own, |region| region.union(&own)));
    }
    let mut lesions: Vec<(Region, Array3<u8>)> = boxes
        .iter()
        .map(|region| {
            let region = region.unwrap_or(Region { start: [0; 3], shape: [0; 3] });
            (region, Array3::filled(region.shape, 0u8))
        })
        .collect();
    for run in components.runs() {
        let (region, mask) = &mut lesions[run.component];
        let row = mask.row_mut(run.y - region.start[1], run.z - region.start[2]);
        row[run.start - region.start[0]..run.end - region.start[0]].fill(1);
    }
    let is_large = |mask: &Array3<u8>| mask.as_slice().iter().filter(|&&inside| inside != 0).count() >= MIN_VOXELS;
    let placed = |(region, mask): (Region, Array3<u8>)| {
        (Region { start: [0, 1, 2].map(|k| region.start[k] + all.start[k]), ..region }, mask)
    };
    lesions.into_iter().filter(|(_, mask)| is_large(mask)).map(placed).collect()
}

/// Returns a real tumor as a candidate of a scan without it: its voxels have the mean HU of the healthy organ around it, and the label of
/// the organ. `None` if there is no healthy organ around the tumor.
fn as_candidate(
    masked: &MaskedScan,
    organ: &Organ,
    (lesion, mask): &(Region, Array3<u8>),
) -> Option<(MaskedScan, Candidate)> {
    let grid = &masked.scan.volume.grid;
    let spacing_mm = grid.spacing_mm();
    let region = lesion.grown(spacing_mm.map(|mm| (MARGIN_MM / mm).ceil() as usize), grid.shape);
    let at = [0, 1, 2].map(|k| lesion.start[k] - region.start[k]);
    let mut tumor = Array3::filled(region.shape, 0u8);
    tumor.paste(at, mask);
    let (after, labels) = (masked.scan.volume.voxels.hu_of(region), masked.mask.labels.cut(region));
    let distance = distance_mm(&tumor, spacing_mm, MARGIN_MM + 1.0, |&inside| inside != 0);
    let [near, far] = SURROUNDINGS_MM;
    let healthy = labels.as_slice().iter().zip(distance.as_slice()).zip(after.as_slice());
    let healthy = healthy.filter(|((label, mm), _)| **label == organ.label && (near..=far).contains(&f64::from(**mm)));
    let (sum, count) = healthy.fold((0.0, 0usize), |(sum, count), (_, hu)| (sum + f64::from(*hu), count + 1));
    if count == 0 {
        return None;
    }
    let healthy_hu = (sum / count as f64).round() as f32;
    let replaced = |(hu, inside): (&f32, &u8)| if *inside != 0 { healthy_hu } else { *hu };
    let before: Vec<f32> = after.as_slice().iter().zip(tumor.as_slice()).map(replaced).collect();
    let before = Array3::from_vec(region.shape, before);
    let relabeled = |(label, inside): (&u8, &u8)| if *inside != 0 { organ.label } else { *label };
    let healthy_labels: Vec<u8> = labels.as_slice().iter().zip(tumor.as_slice()).map(relabeled).collect();
    let healthy_labels = Array3::from_vec(region.shape, healthy_labels);

    let mut volume = masked.scan.volume.clone();
    match &mut volume.voxels {
        Voxels::I16(array) => array.paste(region.start, &before.map(|hu| *hu as i16)),
        Voxels::F32(array) => array.paste(region.start, &before),
    }
    let mut mask_labels = masked.mask.labels.clone();
    mask_labels.paste(region.start, &healthy_labels);
    let scan = Scan { volume, ..(*masked.scan).clone() };
    let organ_mask = OrganMask { labels: mask_labels, ..masked.mask.clone() };
    let volume_mm3 = mask.as_slice().iter().filter(|&&inside| inside != 0).count() as f64 * grid.voxel_volume_mm3();
    let geometry = Geometry { volume_mm3, diameter_mm: equivalent_diameter_mm(volume_mm3), ..Geometry::default() };
    let candidate = Candidate {
        region,
        site_box: region,
        support: tumor.clone(),
        before,
        after,
        labels: with_tumor(&healthy_labels, &tumor, organ),
        tumor,
        geometry,
    };
    Some((MaskedScan { scan: Arc::new(scan), mask: organ_mask }, candidate))
}

/// Scores a real tumor by the stages of a branch. A stage with several networks uses the one that was not trained on the patient.
fn scored(
    synthesis: &SynthesisNode,
    branch: usize,
    healthy: &MaskedScan,
    organ: &Organ,
    candidate: &Candidate,
    possibly_trained_on: &mut BTreeMap<String, usize>,
) -> Result<CalibrationTumor, Fault> {
    let attempts = &synthesis.attempts;
    let patient = healthy.scan.entry.patient_key;
    let key = Key::root(0).with("scan", &healthy.scan.entry.scan_id.to_string());
    let other = CandidateNumbers::of(key.number("voxel", candidate.region.start.iter().sum::<usize>() as u64)).fold;
    let test = &attempts.branches[branch].test;
    let calibrated: Vec<CalibratedScore> = test.calibration().map(|own| own.scores.clone()).unwrap_or_default();
    let mut scores = Scores::default();
    for &index in &attempts.branches[branch].scorers {
        let node = &attempts.scorers[index];
        let fold = node.stage.fold_without(patient);
        let is_used = |score: &Score| calibrated.contains(&CalibratedScore::Score(*score));
        if fold.is_none() && !node.stage.weights().is_empty() && node.stage.scores().iter().any(is_used) {
            *possibly_trained_on.entry(node.name.clone()).or_default() += 1;
        }
        let fold = fold.unwrap_or(other);
        let scorer = node.stage.baseline(healthy, organ).map_err(|fault| fault.at_node(&node.name))?;
        scorer.score_in_fold(candidate, fold, &mut scores).map_err(|fault| fault.at_node(&node.name))?;
    }
    Ok(CalibrationTumor {
        patient: patient.to_string(),
        diameter_mm: candidate.geometry.diameter_mm,
        meets_conditions: test.failing(&scores).is_none(),
        scores,
        ..CalibrationTumor::default()
    })
}
