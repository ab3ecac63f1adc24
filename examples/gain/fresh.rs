//! Tumors that are made while an arm learns: as a pool's, each tried until one passes.

use std::sync::Arc;

use freetumor::error::{Error, Fault, Result};
use freetumor::filter::{QualityTest, QualityTestConfig};
use freetumor::graph::{Plan, ScoreNode, Trial};
use freetumor::inference::Viewer;
use freetumor::mask::{MaskedScan, Organ};
use freetumor::score::{Score, Scorer, Scores};
use freetumor::synth::{Attempt, AttemptKey, Attempts, Synthesize};
use freetumor::train::segmentation::Tumors;

use super::lab::refused;

/// A synthesis of which every tumor has passed: in training a tumor has one try otherwise, and fewer tumors than in a
/// fixed set would come of it.
struct UntilOnePasses {
    trial: Trial,
    scores: Vec<ScoreNode>,
    above: f64,
    tries: u32,
}

/// The tumors of a pool's graph, fresh ones.
///
/// # Errors
/// Where the graph has none.
pub fn tumors(plan: &Plan, above: f64, tries: u32) -> Result<Tumors> {
    let trial = plan.trials.first().ok_or_else(|| Error::new("the graph makes no tumors"))?.clone();
    let gives_verdict = |node: &&ScoreNode| node.stage.gives().contains(&Score::FoundFraction);
    let scores = trial.scores.iter().filter(gives_verdict).cloned().collect();
    let everything = QualityTest::new(QualityTestConfig { attempts: 1, accept: Vec::new() });
    let test = everything.map_err(|complaints| refused("the test that accepts everything", complaints))?;
    let organs = trial.organs.clone();
    let synthesize = Arc::new(UntilOnePasses { trial, scores, above, tries });
    Ok(Tumors { synthesize, scores: Vec::new(), test, organs })
}

impl Synthesize for UntilOnePasses {
    fn site_plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault> {
        let attempts = self.trial.synthesize.site_plan(scan, organ)?;
        let judges = self.scores.iter().map(|node| node.stage.baseline(scan, organ)).collect::<Result<_, _>>()?;
        Ok(Box::new(Trying { of: self, attempts, judges }))
    }

    fn viewer(&self) -> Option<&Viewer> {
        self.trial.synthesize.viewer()
    }
}

/// The tries at one organ of one scan.
struct Trying<'scan> {
    of: &'scan UntilOnePasses,
    attempts: Box<dyn Attempts + 'scan>,
    judges: Vec<Box<dyn Scorer + 'scan>>,
}

impl Attempts for Trying<'_> {
    fn attempt(&self, key: AttemptKey) -> Result<Attempt, Fault> {
        for number in 0..self.of.tries {
            let made = self.attempts.attempt(AttemptKey::new(key.attempt(), number))?;
            let Attempt::Candidate(candidate) = made else { continue };
            let mut scores = Scores::default();
            for judge in &self.judges {
                judge.score(&candidate, &mut scores)?;
            }
            if scores.get(Score::FoundFraction).is_some_and(|found| found > self.of.above) {
                return Ok(Attempt::Candidate(candidate));
            }
        }
        Ok(Attempt::Rejected { reason: "none_passed".to_owned() })
    }
}
