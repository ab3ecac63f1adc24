//! The tumors of one organ of one scan: rows and staged files of every attempt.

use std::collections::{BTreeMap, BTreeSet};

use crate::attempt::{AttemptOutcomes, Observer, Step as LoopStep};
use crate::error::{Error, Fault};
use crate::graph::{Plan, Port, SynthesisNode, TumorIdentity};
use crate::id::{MaskDigest, SampleId};
use crate::mask::{MaskedScan, Organ};
use crate::record::SampleRecord;
use crate::run::seal::{KEPT_REJECTIONS, rejection_group};
use crate::run::spool::{SampleFiles, ScanSpool};
use crate::score::Scores;
use crate::sink::Content;
use crate::synth::{Attempt, Candidate};

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
    /// The staged files of kept candidates.
    pub files: BTreeMap<SampleId, SampleFiles>,
    /// Candidates that are accepted or received by a sink.
    required: BTreeSet<SampleId>,
    /// The rejected candidates with the lowest ids, by branch, organ and reason.
    rejections: BTreeMap<(String, String, String), BTreeSet<SampleId>>,
}

impl ScanContext<'_> {
    /// Makes all requested tumors in one organ.
    ///
    /// # Errors
    /// A fault of a stage, or an error that stops the run; `results` has the earlier attempts.
    pub(super) fn organ(&self, organ: &Organ, results: &mut AttemptResults) -> Result<(), Failure> {
        let synthesis = self.synthesis;
        let tumor =
            |variant| synthesis.tumor(self.plan.seed, self.masked.scan.digest, self.mask_digest, organ, variant);
        let mut recorder = Recorder { scan: self, organ, variant: 0, tumor: tumor(0), results };
        let mut attempts = synthesis.attempts.prepare(self.masked, organ, &mut recorder)?;
        for variant in 0..synthesis.variants {
            (recorder.variant, recorder.tumor) = (variant, tumor(variant));
            attempts.tumor(tumor(variant).key(), &mut recorder).map_err(|failure| match failure {
                Failure::Scan(fault) => Failure::Scan(fault.during(&format!("variant {variant}"))),
                run @ Failure::Run(_) => run,
            })?;
        }
        Ok(())
    }

    /// Returns the row of an attempt in a branch before its outcome is known.
    fn row(&self, organ: &Organ, tumor: &TumorIdentity<'_>, variant: u32, attempt: u32, branch: usize) -> SampleRecord {
        let (entry, synthesis) = (&self.masked.scan.entry, self.synthesis);
        let own = &synthesis.attempts.branches[branch];
        let scorer = |&index: &usize| (synthesis.attempts.scorers[index].name.clone(), synthesis.score_digests[index]);
        SampleRecord {
            sample_id: tumor.sample_id(attempt),
            scan_id: entry.scan_id,
            scan_digest: self.masked.scan.digest,
            mask_digest: self.mask_digest,
            patient_key: entry.patient_key,
            dataset: entry.dataset.clone(),
            epoch: self.epoch,
            seed: self.plan.seed,
            stage: synthesis.attempts.name.clone(),
            branch: own.name.clone(),
            variant,
            attempt,
            organ: organ.name.clone(),
            tumor_label: organ.tumor_label,
            split: self.plan.split_of(entry.patient_key),
            geometry: None,
            candidate_digest: None,
            scores: Scores::default(),
            outcome: crate::record::Outcome::Accepted,
            stage_digest: synthesis.digests.results,
            score_stages: own.scorers.iter().map(scorer).collect(),
            test_digest: synthesis.branches[branch].test_digest,
            model: synthesis.model.clone(),
            pipeline_digest: self.plan.digest.clone(),
        }
    }

    /// Returns whether sinks receive a row, and whether one of these sinks requires whole volumes.
    fn receiving_sinks(&self, row: &SampleRecord, branch: usize) -> (bool, bool) {
        let port = if row.outcome.is_accepted() { Port::Main } else { Port::Rejected };
        let feeds = self.synthesis.branches[branch].feeds.iter().filter(|feed| feed.port == port);
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
    variant: u32,
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

    fn on_attempt(&mut self, attempt: AttemptOutcomes) -> Result<(), Failure> {
        let scan = self.scan;
        let candidate = match &attempt.attempt {
            Attempt::Candidate(candidate) => Some(&**candidate),
            Attempt::Rejected { .. } => None,
        };
        let digest = candidate.map(Candidate::digest);
        let (mut rows, mut required, mut with_volumes) = (Vec::new(), false, false);
        for outcome in attempt.outcomes {
            let mut row = scan.row(self.organ, &self.tumor, self.variant, attempt.number, outcome.branch);
            row.geometry = candidate.map(|candidate| candidate.geometry.clone());
            row.candidate_digest = digest;
            (row.scores, row.outcome) = (outcome.scores, outcome.outcome);
            scan.progress.attempt(row.outcome.is_accepted());
            let (is_received, volumes) = scan.receiving_sinks(&row, outcome.branch);
            required |= is_received || row.outcome.is_accepted();
            with_volumes |= volumes;
            rows.push(row);
        }
        if let Some(candidate) = candidate {
            self.keep(candidate, &rows, required, with_volumes)?;
        }
        self.results.rows.extend(rows);
        Ok(())
    }
}

impl Recorder<'_> {
    /// Stages the files of a kept candidate, and removes the files of rejected candidates that are no longer kept.
    fn keep(
        &mut self,
        candidate: &Candidate,
        rows: &[SampleRecord],
        required: bool,
        with_volumes: bool,
    ) -> Result<(), Failure> {
        let Some(SampleRecord { sample_id, scan_id, .. }) = rows.first() else { return Ok(()) };
        let results = &mut *self.results;
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
            let name = &self.scan.synthesis.attempts.name;
            let timing = Timing {
                epoch: self.scan.epoch,
                step: Step::Encode,
                node: name,
                scan_id: Some(*scan_id),
                sample_id: Some(*sample_id),
            };
            let files = self.scan.telemetry.time(timing, || self.scan.spool.add(candidate, rows, with_volumes))??;
            results.files.insert(*sample_id, files);
        }
        if required {
            results.required.insert(*sample_id);
        }
        for sample in replaced {
            let is_kept = results.required.contains(&sample)
                || results.rejections.values().any(|lowest| lowest.contains(&sample));
            if !is_kept && results.files.remove(&sample).is_some() {
                self.scan.spool.drop_patch(*scan_id, sample)?;
            }
        }
        Ok(())
    }
}
