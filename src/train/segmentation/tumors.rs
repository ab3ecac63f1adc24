//! Fresh tumors: made and judged while a network learns.

use std::sync::Arc;

use crate::error::Fault;
use crate::filter::{QualityTest, Verdict};
use crate::mask::Organ;
use crate::random::Key;
use crate::score::{ScoreStage, Scores};
use crate::synth::{Attempt, AttemptKey, Candidate, Synthesize};
use crate::train::data::Case;

/// Makes tumors in cases and judges them.
#[derive(Clone)]
pub struct Tumors {
    /// What makes them.
    pub synthesize: Arc<dyn Synthesize>,
    /// What gives scores, each after those it takes from.
    pub scores: Vec<Arc<dyn ScoreStage>>,
    /// The conditions, and how often a tumor is tried.
    pub test: QualityTest,
    /// The organs that get tumors.
    pub organs: Vec<Organ>,
}

impl Tumors {
    /// The tumor that `key` defines in one organ of a case, the first of its attempts that passes; `None` where none does.
    ///
    /// # Errors
    /// A fault of a stage.
    pub fn make(&self, case: &Case, organ: &Organ, key: Key) -> Result<Option<Candidate>, Fault> {
        let attempts = self.synthesize.site_plan(&case.masked, organ)?;
        let mut judges: Option<Vec<_>> = None;
        for number in 0..self.test.attempts() {
            let Attempt::Candidate(candidate) = attempts.attempt(AttemptKey::new(key, number))? else { continue };
            let judges = match &mut judges {
                Some(judges) => judges,
                // Judges look at the scan first, which is in vain where no candidate comes.
                None => {
                    let each = self.scores.iter().map(|stage| stage.baseline(&case.masked, organ));
                    judges.insert(each.collect::<Result<_, _>>()?)
                }
            };
            let mut scores = Scores::default();
            for judge in judges {
                judge.score(&candidate, &mut scores)?;
            }
            if self.test.verdict(&scores) == Verdict::Accepted {
                return Ok(Some(*candidate));
            }
        }
        Ok(None)
    }
}
