//! The attempts at the tumors in one organ of one scan.

use super::{
    AttemptLoop, AttemptOutcomes, BranchOutcome, CandidateNumbers, CandidateProperties, Observer, Outcome, Step,
};
use crate::error::Fault;
use crate::mask::{MaskedScan, Organ};
use crate::random::Key;
use crate::score::{Score, Scorer, Scores};
use crate::synth::{Attempt, AttemptKey, Attempts, Candidate};

/// The attempts in one organ of one scan. Values that do not depend on the attempt (distances inside the organ, scores of the original
/// scan) are computed once.
pub struct OrganAttempts<'scan> {
    stages: &'scan AttemptLoop,
    masked: &'scan MaskedScan,
    organ: &'scan Organ,
    attempts: Box<dyn Attempts + 'scan>,
    /// Prepared with the first candidate, because a scorer may infer on the whole original organ first.
    scorers: Vec<Option<Box<dyn Scorer + 'scan>>>,
}

/// A candidate with its number and its scores so far.
struct ScoredCandidate<'a> {
    candidate: &'a Candidate,
    number: u32,
    numbers: CandidateNumbers,
    /// The scores of each stage that has scored, with the scores that it could read.
    computed: Vec<Option<Scores>>,
}

impl<'scan> OrganAttempts<'scan> {
    pub(super) fn new<O: Observer>(
        stages: &'scan AttemptLoop,
        masked: &'scan MaskedScan,
        organ: &'scan Organ,
        observer: &mut O,
    ) -> Result<Self, O::Stop> {
        let attempts = observer.step(Step::Prepare, &stages.name, None, || stages.synthesize.site_plan(masked, organ));
        let attempts = attempts.map_err(|fault| fault.during(&organ.name).at_node(&stages.name))?;
        let scorers = stages.scorers.iter().map(|_| None).collect();
        Ok(Self { stages, masked, organ, attempts, scorers })
    }

    /// Attempts one tumor until every branch has accepted a candidate or has no attempts left. `key` defines all random numbers.
    ///
    /// # Errors
    /// A fault of a stage with the name of the stage, or the error of the observer. The observer has received all attempts before it.
    pub fn attempt_tumor<O: Observer>(&mut self, key: Key, observer: &mut O) -> Result<(), O::Stop> {
        let stages = self.stages;
        let mut open: Vec<usize> = (0..stages.branches.len()).collect();
        for number in 0.. {
            open.retain(|&branch| number < stages.branches[branch].test.attempts());
            if open.is_empty() {
                break;
            }
            let key = AttemptKey::new(key, number);
            let attempt = observer.step(Step::Synthesize, &stages.name, Some(number), || self.attempts.attempt(key));
            let attempt = attempt.map_err(|fault| self.with_attempt(fault, number).at_node(&stages.name))?;
            let outcomes = match &attempt {
                Attempt::Rejected { reason } => open.iter().map(|&branch| rejected(branch, reason)).collect(),
                Attempt::Candidate(candidate) => {
                    let numbers = observer.numbers(key, number);
                    let computed = vec![None; stages.scorers.len()];
                    self.decide(ScoredCandidate { candidate, number, numbers, computed }, &open, observer)?
                }
            };
            let accepted = |branch: &usize| {
                outcomes.iter().any(|outcome| outcome.branch == *branch && outcome.outcome.is_accepted())
            };
            open.retain(|branch| !accepted(branch));
            observer.on_attempt(AttemptOutcomes { number, attempt, outcomes })?;
        }
        Ok(())
    }

    /// Scores a candidate once for all open branches and applies their quality tests.
    fn decide<O: Observer>(
        &mut self,
        mut scored: ScoredCandidate<'_>,
        open: &[usize],
        observer: &mut O,
    ) -> Result<Vec<BranchOutcome>, O::Stop> {
        let stages = self.stages;
        let candidate = CandidateProperties {
            organ: &self.organ.name,
            geometry: &scored.candidate.geometry,
            draw: scored.numbers.draw,
        };
        let decide = |&branch: &usize| {
            stages.decide(branch, &candidate, |index, scores| self.score(index, &mut scored, scores, observer))
        };
        open.iter().map(decide).collect()
    }

    /// Adds the scores of a stage to `scores`. The scores are computed once for all branches.
    fn score<O: Observer>(
        &mut self,
        index: usize,
        scored: &mut ScoredCandidate<'_>,
        scores: &mut Scores,
        observer: &mut O,
    ) -> Result<(), O::Stop> {
        let node = &self.stages.scorers[index];
        if let Some(computed) = &scored.computed[index] {
            merge(scores, computed, node.stage.scores());
            return Ok(());
        }
        // A stage reads the scores of the stages before it alone, so that branches with other stages have the same results.
        let mut own = Scores::default();
        for &earlier in &node.after {
            if let Some(computed) = &scored.computed[earlier] {
                merge(&mut own, computed, self.stages.scorers[earlier].stage.scores());
            }
        }
        let scorer = match &mut self.scorers[index] {
            Some(scorer) => scorer,
            empty => {
                let (masked, organ) = (self.masked, self.organ);
                let scorer = observer.step(Step::Prepare, &node.name, None, || node.stage.baseline(masked, organ));
                empty.insert(scorer.map_err(|fault| fault.during(&organ.name).at_node(&node.name))?)
            }
        };
        let (number, fold) = (scored.number, scored.numbers.fold);
        let result = observer
            .step(Step::Score, &node.name, Some(number), || scorer.score_in_fold(scored.candidate, fold, &mut own));
        result.map_err(|fault| self.with_attempt(fault, number).at_node(&node.name))?;
        merge(scores, &own, node.stage.scores());
        scored.computed[index] = Some(own);
        Ok(())
    }

    fn with_attempt(&self, fault: Fault, number: u32) -> Fault {
        fault.during(&format!("{}, attempt {number}", self.organ.name))
    }
}

fn rejected(branch: usize, reason: &str) -> BranchOutcome {
    let outcome = Outcome::Rejected { reason: reason.to_owned() };
    BranchOutcome { branch, scores: Scores::default(), likeness: None, acceptance: None, outcome }
}

/// Copies the scores in `selection` from `source` to `scores`.
fn merge(scores: &mut Scores, source: &Scores, selection: &[Score]) {
    for &score in selection {
        if let Some(value) = source.get(score) {
            scores.set(score, value);
        }
    }
}

impl AttemptLoop {
    /// Returns the first candidate of a tumor that all branches accept at the same attempt; `None` if there is none. `key` defines all
    /// random numbers. For programs that need one tumor and no rows.
    ///
    /// # Errors
    /// A fault of a stage.
    pub fn first_accepted(
        &self,
        masked: &MaskedScan,
        organ: &Organ,
        key: Key,
    ) -> Result<Option<Box<Candidate>>, Fault> {
        let mut first = FirstAccepted { branches: self.branches.len(), candidate: None };
        self.prepare(masked, organ, &mut first)?.attempt_tumor(key, &mut first)?;
        Ok(first.candidate)
    }

    /// Prepares the attempts in one organ of a scan. Use the result for all tumors of the organ.
    ///
    /// # Errors
    /// A fault of the synthesis with its name.
    pub fn prepare<'scan, O: Observer>(
        &'scan self,
        masked: &'scan MaskedScan,
        organ: &'scan Organ,
        observer: &mut O,
    ) -> Result<OrganAttempts<'scan>, O::Stop> {
        OrganAttempts::new(self, masked, organ, observer)
    }
}

/// Keeps the first candidate that all branches accept at the same attempt.
struct FirstAccepted {
    branches: usize,
    candidate: Option<Box<Candidate>>,
}

impl Observer for FirstAccepted {
    type Stop = Fault;

    fn on_attempt(&mut self, attempt: AttemptOutcomes) -> Result<(), Fault> {
        let all = attempt.outcomes.len() == self.branches
            && attempt.outcomes.iter().all(|branch| branch.outcome.is_accepted());
        if let (true, None, Attempt::Candidate(candidate)) = (all, &self.candidate, attempt.attempt) {
            self.candidate = Some(candidate);
        }
        Ok(())
    }
}
