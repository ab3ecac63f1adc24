//! New decisions on stored candidates after a change of quality tests or sinks: no scan is read and no candidate is made.
//!
//! The attempts at a tumor are tested in their order, as in the attempt loop, with the scores of their rows. A scan is processed again
//! if an attempt, a score or a file is missing: an attempt after the last one that was made, a score that an earlier test did not need, or
//! the patch of a candidate that is accepted now and was not kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::attempt::{AttemptLoop, BranchOutcome, CandidateNumbers, CandidateProperties};
use crate::error::{Error, Result};
use crate::graph::{Plan, SynthesisNode};
use crate::id::{MaskDigest, ScanId};
use crate::record::{QualityGroup, SampleKind, SampleRecord, SampleRow, Status};
use crate::run::{Retest, RunFolder, ScanRows, ScansByEpoch, SourceGraph, retest_scans, visit_scans};
use crate::score::Scores;

use super::changes::{RunScans, ScanChanges};
use super::selections::SinkSelections;

/// Moves the scans whose stored candidates suffice from `affected` to `retested`: those whose candidates do not change and have the
/// required scores and files, and their duplicates. `earlier` are the digests of the graph that made the candidates.
///
/// # Errors
/// If committed files cannot be read.
pub(super) fn select_retested(
    folder: &RunFolder,
    earlier: &BTreeMap<String, SourceGraph>,
    plan: &Plan,
    scans: &RunScans,
    changes: &mut ScanChanges,
) -> Result<()> {
    let graphs = plan.source_graphs();
    let mut possible = ScansByEpoch::new();
    let mut duplicates: HashMap<ScanId, ScanId> = HashMap::new();
    for entry in &changes.affected {
        let (Some(before), Some(after)) = (earlier.get(&entry.source), graphs.get(&entry.source)) else { continue };
        let (Some(ingested), Some(scan)) = (scans.ingested.get(&entry.scan_id), scans.committed.get(&entry.scan_id))
        else {
            continue;
        };
        // Held-out scans are affected without a change of the graph.
        let is_affected_by_graph = before.results != after.results && !scans.is_held_out_changed(entry.scan_id);
        if before.candidates != after.candidates || ingested.graph != before.results || !is_affected_by_graph {
            continue;
        }
        match (scan.status, scan.duplicate_of) {
            (Status::Done, _) => {
                possible.entry(scan.epoch).or_default().insert(entry.scan_id);
            }
            (Status::Duplicate, Some(original)) => {
                duplicates.insert(entry.scan_id, original);
            }
            _ => {}
        }
    }
    let mut retested: HashSet<ScanId> = HashSet::new();
    SinkSelections::of(plan).with_inputs(|inputs| {
        visit_scans(folder, &possible, inputs, &mut |rows, committed| {
            let scan_id = rows.scan.scan_id;
            let decided = decide_again(plan, rows);
            if decided.is_some_and(|after| after.samples.iter().all(|row| committed.has_files(row, inputs))) {
                retested.insert(scan_id);
            }
        })
    })?;
    let of_retested: Vec<ScanId> = duplicates
        .into_iter()
        .filter(|(_, original)| retested.contains(original))
        .map(|(scan_id, _)| scan_id)
        .collect();
    retested.extend(of_retested);
    changes.affected.retain(|entry| !retested.contains(&entry.scan_id));
    // A duplicate follows its original only if the original is processed.
    changes.duplicates.retain(|(original, entry)| !retested.contains(original) && !retested.contains(&entry.scan_id));
    changes.retested = retested.into_iter().collect();
    changes.retested.sort_unstable();
    Ok(())
}

/// Publishes the files of new decisions on scans; returns the changes of files, and the changed numbers of attempts by group.
///
/// # Errors
/// If committed files cannot be read or written.
pub(super) fn retest(
    folder: &RunFolder,
    scans: &ScansByEpoch,
    plan: &Plan,
    sinks: &SinkSelections,
) -> Result<(Retest, BTreeMap<QualityGroup, isize>)> {
    let mut groups: BTreeMap<QualityGroup, isize> = BTreeMap::new();
    let mut add = |rows: &[SampleRow], change: isize| {
        for group in rows.iter().filter_map(|row| QualityGroup::of(&row.record)) {
            *groups.entry(group).or_default() += change;
        }
    };
    let retest = sinks.with_inputs(|inputs| {
        retest_scans(folder, scans, inputs, &mut |before| {
            let scan_id = before.scan.scan_id;
            add(&before.samples, -1);
            let after = decide_again(plan, before).ok_or_else(|| {
                Error::new(format!("scan {scan_id}: expected stored scores for a new decision, got none"))
            })?;
            add(&after.samples, 1);
            Ok(after)
        })
    })?;
    groups.retain(|_, change| *change != 0);
    Ok((retest, groups))
}

/// The attempts at one tumor: synthesis stage, mask, organ and variant.
type TumorKey = (String, MaskDigest, String, u32);

/// Returns a scan with the rows of the quality tests of a plan, decided from stored scores; `None` if an attempt or a score is missing.
fn decide_again(plan: &Plan, before: ScanRows) -> Option<ScanRows> {
    let ScanRows { mut scan, samples } = before;
    if samples.is_empty() {
        // A duplicate, or a scan without organs.
        return Some(ScanRows { scan, samples });
    }
    let source = plan.source_index(&scan.source)?;
    let syntheses: Vec<&SynthesisNode> = plan.masks_of(source).flat_map(|(mask, _)| plan.syntheses_of(mask)).collect();
    // The samples of several tumors are composed of accepted ones, which needs their voxels.
    if syntheses.iter().any(|synthesis| synthesis.numbers.is_some()) {
        return None;
    }
    let mut tumors: BTreeMap<TumorKey, BTreeMap<u32, Vec<SampleRow>>> = BTreeMap::new();
    let mut negatives: BTreeMap<(String, MaskDigest), SampleRow> = BTreeMap::new();
    for row in samples {
        let SampleRecord { stage, mask_digest, organ, variant, attempt, .. } = &row.record;
        match row.record.kind {
            SampleKind::Negative => {
                negatives.entry((stage.clone(), *mask_digest)).or_insert(row);
            }
            SampleKind::Synthetic => {
                let key = (stage.clone(), *mask_digest, organ.clone(), *variant);
                tumors.entry(key).or_default().entry(*attempt).or_default().push(row);
            }
        }
    }
    let synthesis_of = |stage: &str| syntheses.iter().copied().find(|synthesis| synthesis.attempts.name == stage);
    let mut samples = Vec::new();
    for ((stage, ..), attempts) in &tumors {
        let synthesis = synthesis_of(stage)?;
        for branch in 0..synthesis.branches.len() {
            decide_tumor(plan, synthesis, branch, attempts, &mut samples)?;
        }
    }
    for ((stage, _), row) in negatives {
        let synthesis = synthesis_of(&stage)?;
        samples.extend((0..synthesis.branches.len()).map(|branch| of_branch(plan, synthesis, branch, row.clone())));
    }
    let attempts = || samples.iter().filter(|row| row.record.kind == SampleKind::Synthetic);
    scan.accepted = attempts().filter(|row| row.record.outcome.is_accepted()).count() as u32;
    scan.rejected = attempts().count() as u32 - scan.accepted;
    Some(ScanRows { scan, samples })
}

/// Adds the rows of the attempts at one tumor in a branch, up to the accepted one; `None` if an attempt or a score is missing.
fn decide_tumor(
    plan: &Plan,
    synthesis: &SynthesisNode,
    branch: usize,
    attempts: &BTreeMap<u32, Vec<SampleRow>>,
    samples: &mut Vec<SampleRow>,
) -> Option<()> {
    let stages = &synthesis.attempts;
    for number in 0..stages.branches[branch].test.attempts() {
        let rows = attempts.get(&number)?;
        let mut row = of_branch(plan, synthesis, branch, rows.first()?.clone());
        let record = &mut row.record;
        if let (Some(_), Some(geometry), Some(candidate_id)) =
            (record.candidate_digest, record.geometry.clone(), record.candidate_id)
        {
            let draw = CandidateNumbers::of_candidate(plan.seed, candidate_id).draw;
            let facts = CandidateProperties { organ: &record.organ, geometry: &geometry, draw };
            let score = |index: usize, scores: &mut Scores| add_stored(synthesis, index, rows, scores).ok_or(());
            let BranchOutcome { scores, likeness, acceptance, outcome, .. } =
                stages.decide(branch, &facts, score).ok()?;
            (record.scores, record.likeness, record.acceptance, record.outcome) =
                (scores, likeness, acceptance, outcome);
        }
        let is_accepted = record.outcome.is_accepted();
        samples.push(row);
        if is_accepted {
            break;
        }
    }
    Some(())
}

/// Adds the scores of a stage from the rows of a candidate; `None` if the stage has not scored the candidate.
fn add_stored(synthesis: &SynthesisNode, index: usize, rows: &[SampleRow], scores: &mut Scores) -> Option<()> {
    let AttemptLoop { scorers, .. } = &synthesis.attempts;
    let (name, digest) = (&scorers[index].name, &synthesis.score_digests[index]);
    let of_stage = scorers[index].stage.scores();
    let stored = rows.iter().map(|row| &row.record).find(|record| {
        record.score_stages.iter().any(|(stage, own)| stage == name && own == digest)
            && of_stage.iter().any(|&score| record.scores.get(score).is_some())
    })?;
    for &score in of_stage {
        if let Some(value) = stored.scores.get(score) {
            scores.set(score, value);
        }
    }
    Some(())
}

/// Returns a row as a row of a branch.
fn of_branch(plan: &Plan, synthesis: &SynthesisNode, branch: usize, mut row: SampleRow) -> SampleRow {
    let own = &synthesis.attempts.branches[branch];
    row.record.branch.clone_from(&own.name);
    row.record.test_digest = synthesis.branches[branch].test_digest;
    row.record.pipeline_digest.clone_from(&plan.digest);
    if row.record.kind == SampleKind::Synthetic {
        let scorer = |&index: &usize| (synthesis.attempts.scorers[index].name.clone(), synthesis.score_digests[index]);
        row.record.score_stages = own.scorers.iter().map(scorer).collect();
    }
    row
}
