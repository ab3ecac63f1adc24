//! The tumors of one organ of one scan: rows of every attempt, and staged files of samples of one tumor.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::attempt::{AttemptOutcomes, CandidateNumbers, Observer, Step as LoopStep};
use crate::compose::Overlay;
use crate::error::{Error, Fault};
use crate::graph::{Plan, Port, SynthesisNode, TumorIdentity, TumorRequest};
use crate::id::{MaskDigest, SampleId};
use crate::mask::{MaskedScan, Organ};
use crate::record::{SampleKind, SampleRecord};
use crate::run::seal::{KEPT_REJECTIONS, rejection_group};
use crate::run::spool::{SampleFiles, ScanSpool};
use crate::score::Scores;
use crate::sink::Content;
use crate::synth::{Attempt, AttemptKey, Candidate};

use super::telemetry::{Step, Telemetry, Timing};
use super::{Epoch, Progress};

/// The reason why the processing of a scan stopped.
#[derive(Debug)]
pub enum Failure {
    /// The scan has a fault; the run continues.
    Scan(Fault),
    /// The run cannot continue.
    Run(Error),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Scan(fault)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// The inputs of the attempts in the organs of one scan.
pub(super) struct ScanContext<'a> {
    pub plan: &'a Plan,
    pub synthesis: &'a SynthesisNode,
    pub epoch: Epoch,
    pub masked: &'a MaskedScan,
    pub mask_digest: MaskDigest,
    pub spool: &'a ScanSpool<'a, 'a>,
    pub telemetry: &'a Telemetry,
    pub progress: &'a Progress,
}

/// The results of the attempts in a scan.
#[derive(Default)]
pub(super) struct AttemptResults {
    /// One row for each attempt and branch that decided on the attempt.
    pub rows: Vec<SampleRecord>,
    /// The staged files of kept samples and candidates.
    pub files: BTreeMap<SampleId, SampleFiles>,
    /// Accepted candidates that wait for the composition of their sample: the sample and the rows of each.
    pub stored: Vec<(u32, Range<usize>)>,
    /// Samples and candidates that are accepted or received by a sink.
    required: BTreeSet<SampleId>,
    /// The rejected candidates with the lowest ids, by branch, organ and reason.
    rejections: BTreeMap<(String, String, String), BTreeSet<SampleId>>,
}

impl ScanContext<'_> {
    /// Makes all samples of the scan; `volumes_ml` are the volumes of the organs in the mask. Scans without an organ of the stage have
    /// none.
    ///
    /// # Errors
    /// A fault of a stage, or an error that stops the run; `results` has the earlier attempts.
    pub(super) fn samples(&self, volumes_ml: &[(String, f64)], results: &mut AttemptResults) -> Result<(), Failure> {
        let organs = self.synthesis.organs_in(&self.masked.mask.organs);
        let organs: Vec<&Organ> =
            organs.filter(|organ| volumes_ml.iter().any(|(name, _)| *name == organ.name)).collect();
        let requests = self.synthesis.requests(self.plan.seed, self.masked.scan.digest, &organs);
        for (index, organ) in organs.iter().enumerate() {
            let own: Vec<TumorRequest> = requests.iter().filter(|request| request.organ == index).copied().collect();
            self.organ(organ, &own, results)?;
        }
        self.compose(results)?;
        if organs.is_empty() { Ok(()) } else { self.negative(results) }
    }

    /// Makes the requested tumors in one organ.
    ///
    /// # Errors
    /// A fault of a stage, or an error that stops the run; `results` has the earlier attempts.
    pub(super) fn organ(
        &self,
        organ: &Organ,
        requests: &[TumorRequest],
        results: &mut AttemptResults,
    ) -> Result<(), Failure> {
        let synthesis = self.synthesis;
        let tumor = |request: TumorRequest| {
            let digest = self.masked.scan.digest;
            let tumor = synthesis.tumor(self.plan.seed, digest, self.mask_digest, organ, request.variant);
            tumor.numbered(request.number)
        };
        let Some(&first) = requests.first() else { return Ok(()) };
        let mut recorder = Recorder { scan: self, organ, request: first, tumor: tumor(first), results };
        let mut attempts = synthesis.attempts.prepare(self.masked, organ, &mut recorder)?;
        for &request in requests {
            (recorder.request, recorder.tumor) = (request, tumor(request));
            attempts.attempt_tumor(tumor(request).key(), &mut recorder).map_err(|failure| match failure {
                Failure::Scan(fault) => Failure::Scan(fault.during(&format!("variant {}", request.variant))),
                run @ Failure::Run(_) => run,
            })?;
        }
        Ok(())
    }

    /// Returns the row of a sample without tumors in a branch.
    pub(super) fn row(&self, sample_id: SampleId, branch: usize) -> SampleRecord {
        let (entry, synthesis) = (&self.masked.scan.entry, self.synthesis);
        SampleRecord {
            sample_id,
            kind: SampleKind::Negative,
            tumor_id: 0,
            candidate_id: None,
            scan_id: entry.scan_id,
            scan_digest: self.masked.scan.digest,
            mask_digest: self.mask_digest,
            patient_key: entry.patient_key,
            dataset: entry.dataset.clone(),
            epoch: self.epoch,
            seed: self.plan.seed,
            stage: synthesis.attempts.name.clone(),
            branch: synthesis.attempts.branches[branch].name.clone(),
            variant: 0,
            attempt: 0,
            organ: String::new(),
            tumor_label: 0,
            split: self.plan.split_of(entry.patient_key),
            geometry: None,
            candidate_digest: None,
            scores: Scores::default(),
            likeness: None,
            acceptance: None,
            outcome: crate::record::Outcome::Accepted,
            stage_digest: synthesis.digests.results,
            score_stages: Vec::new(),
            test_digest: synthesis.branches[branch].test_digest,
            model: synthesis.model.clone(),
            pipeline_digest: self.plan.digest.clone(),
        }
    }

    /// Returns the row of an attempt in a branch before its outcome is known.
    fn attempt_row(
        &self,
        organ: &Organ,
        tumor: &TumorIdentity<'_>,
        request: TumorRequest,
        attempt: u32,
        branch: usize,
    ) -> SampleRecord {
        let synthesis = self.synthesis;
        let scorer = |&index: &usize| (synthesis.attempts.scorers[index].name.clone(), synthesis.score_digests[index]);
        let candidate_id = tumor.sample_id(attempt);
        SampleRecord {
            kind: SampleKind::Synthetic,
            tumor_id: request.tumor_id,
            candidate_id: Some(candidate_id),
            variant: request.variant,
            attempt,
            organ: organ.name.clone(),
            tumor_label: organ.tumor_label,
            score_stages: synthesis.attempts.branches[branch].scorers.iter().map(scorer).collect(),
            ..self.row(candidate_id, branch)
        }
    }

    /// Returns whether sinks receive a row, and whether one of these sinks requires whole volumes.
    fn receiving_sinks(&self, row: &SampleRecord) -> (bool, bool) {
        let port = if row.outcome.is_accepted() { Port::Main } else { Port::Rejected };
        let branches = self.synthesis.attempts.branches.iter().zip(&self.synthesis.branches);
        let own = branches.filter(|(branch, _)| branch.name == row.branch).flat_map(|(_, node)| &node.feeds);
        let feeds = own.filter(|feed| feed.port == port);
        let mut contents =
            feeds.filter_map(|feed| self.plan.sinks[feed.sink].output.layout()).map(|layout| layout.content());
        let is_received = contents.clone().next().is_some();
        (is_received, contents.any(|content| matches!(content, Content::Volumes { .. })))
    }
}

/// An observer that records attempts as rows and staged files.
struct Recorder<'a> {
    scan: &'a ScanContext<'a>,
    organ: &'a Organ,
    request: TumorRequest,
    tumor: TumorIdentity<'a>,
    results: &'a mut AttemptResults,
}

impl Observer for Recorder<'_> {
    type Stop = Failure;

    fn step<T>(&mut self, step: LoopStep, node: &str, attempt: Option<u32>, work: impl FnOnce() -> T) -> T {
        let step = match step {
            LoopStep::Prepare => Step::Prepare,
            LoopStep::Synthesize => Step::Synthesize,
            LoopStep::Score => Step::Score,
        };
        let sample_id = attempt.map(|number| self.tumor.sample_id(number));
        let scan_id = Some(self.scan.masked.scan.entry.scan_id);
        self.scan.telemetry.time(Timing { epoch: self.scan.epoch, step, node, scan_id, sample_id }, work)
    }

    fn numbers(&self, _: AttemptKey, attempt: u32) -> CandidateNumbers {
        CandidateNumbers::of_candidate(self.scan.plan.seed, self.tumor.sample_id(attempt))
    }

    fn on_attempt(&mut self, attempt: AttemptOutcomes) -> Result<(), Failure> {
        let scan = self.scan;
        let candidate = match &attempt.attempt {
            Attempt::Candidate(candidate) => Some(&**candidate),
            Attempt::Rejected { .. } => None,
        };
        let digest = candidate.map(Candidate::digest);
        let mut rows = Vec::new();
        for outcome in attempt.outcomes {
            let mut row = scan.attempt_row(self.organ, &self.tumor, self.request, attempt.number, outcome.branch);
            row.geometry = candidate.map(|candidate| candidate.geometry.clone());
            row.candidate_digest = digest;
            (row.scores, row.outcome) = (outcome.scores, outcome.outcome);
            (row.likeness, row.acceptance) = (outcome.likeness, outcome.acceptance);
            scan.progress.attempt(row.outcome.is_accepted());
            rows.push(row);
        }
        if let Some(candidate) = candidate {
            let is_accepted = rows.iter().any(|row| row.outcome.is_accepted());
            if is_accepted && scan.synthesis.numbers.is_some() {
                scan.spool.store_tumor(candidate.into(), &rows)??;
                let first = self.results.rows.len();
                self.results.stored.push((self.request.variant, first..first + rows.len()));
            } else {
                scan.keep(&[candidate.into()], &rows, self.results)?;
            }
        }
        self.results.rows.extend(rows);
        Ok(())
    }
}

impl ScanContext<'_> {
    /// Stages the files of a sample or candidate that is kept, and removes the files of rejected candidates that are no longer kept. `rows`
    /// are the rows with its id.
    pub(super) fn keep(
        &self,
        boxes: &[Overlay<'_>],
        rows: &[SampleRecord],
        results: &mut AttemptResults,
    ) -> Result<(), Failure> {
        let Some(SampleRecord { sample_id, scan_id, .. }) = rows.first() else { return Ok(()) };
        let (mut required, mut with_volumes) = (false, false);
        for row in rows {
            let (is_received, volumes) = self.receiving_sinks(row);
            required |= is_received || row.outcome.is_accepted();
            with_volumes |= volumes;
        }
        let (mut is_first, mut replaced) = (false, Vec::new());
        for (branch, organ, reason) in rows.iter().filter_map(rejection_group) {
            let group = (branch.to_owned(), organ.to_owned(), reason.to_owned());
            let lowest = results.rejections.entry(group).or_default();
            lowest.insert(*sample_id);
            if lowest.len() > KEPT_REJECTIONS {
                replaced.extend(lowest.pop_last());
            }
            is_first |= lowest.contains(sample_id);
        }
        if required || is_first {
            let name = &self.synthesis.attempts.name;
            let timing = Timing {
                epoch: self.epoch,
                step: Step::Encode,
                node: name,
                scan_id: Some(*scan_id),
                sample_id: Some(*sample_id),
            };
            let files = self.telemetry.time(timing, || self.spool.add(boxes, rows, with_volumes))??;
            results.files.insert(*sample_id, files);
        }
        if required {
            results.required.insert(*sample_id);
        }
        for sample in replaced {
            let is_kept = results.required.contains(&sample)
                || results.rejections.values().any(|lowest| lowest.contains(&sample));
            if !is_kept && results.files.remove(&sample).is_some() {
                self.spool.drop_patch(*scan_id, sample)?;
            }
        }
        Ok(())
    }
}
