//! The decision of a quality test on a candidate, from scores that are computed now or were stored before.

use super::{AttemptLoop, BranchOutcome, Outcome};
use crate::filter::{ScoreSelection, TestedCandidate, Verdict};
use crate::score::Scores;
use crate::synth::Geometry;

/// Properties of a candidate, besides its scores, on which a quality test decides.
#[derive(Clone, Copy, Debug)]
pub struct CandidateProperties<'a> {
    /// The organ's name.
    pub organ: &'a str,
    /// The position and size of the tumor.
    pub geometry: &'a Geometry,
    /// The random number of calibrated acceptance, in 0..1.
    pub draw: f64,
}

impl AttemptLoop {
    /// Decides on a candidate in a branch. `score` adds the scores of a stage, an index into [`AttemptLoop::scorers`]; with
    /// [`ScoreSelection::UntilRejected`], it is not called after the first condition that does not hold.
    ///
    /// # Errors
    /// The error of `score`.
    pub fn decide<E>(
        &self,
        branch: usize,
        candidate: &CandidateProperties<'_>,
        mut score: impl FnMut(usize, &mut Scores) -> Result<(), E>,
    ) -> Result<BranchOutcome, E> {
        let test = &self.branches[branch].test;
        let ends_early = test.selection() == ScoreSelection::UntilRejected;
        let mut scores = Scores::default();
        for index in self.order(&self.branches[branch]) {
            if ends_early && test.failing_known(&scores).is_some() {
                break;
            }
            score(index, &mut scores)?;
        }
        // A condition on a score that was not computed cannot be the reason for the rejection.
        let known = ends_early.then(|| test.failing_known(&scores)).flatten();
        let decision = test.decide(&TestedCandidate {
            organ: candidate.organ,
            diameter_mm: candidate.geometry.diameter_mm,
            steering_factor: candidate.geometry.steering_factor,
            scores: &scores,
            draw: candidate.draw,
        });
        let outcome = match (known, decision.verdict) {
            (Some(condition), _) => Outcome::Rejected { reason: condition.to_string() },
            (None, Verdict::Accepted) => Outcome::Accepted,
            (None, Verdict::Rejected { reason }) => Outcome::Rejected { reason: reason.to_string() },
        };
        Ok(BranchOutcome { branch, scores, likeness: decision.likeness, acceptance: decision.acceptance, outcome })
    }
}
