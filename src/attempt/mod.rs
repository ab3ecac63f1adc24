//! The attempt loop of a tumor: synthesize, score, decide, and attempt again.
//!
//! This module owns the attempt loop and its outcomes. The dataflow, training and other programs run the same loop, so that all of them
//! produce the same tumor. The loop is pure: its result is a function of the scan, the organ and the tumor's key. An [`Observer`]
//! receives the attempts.
//!
//! Several quality tests may share one synthesis: each is a [`Branch`]. A branch is open while it has attempts left and no
//! accepted candidate. A candidate is synthesized once for all open branches, each score stage scores it once, and every branch decides
//! by the scores of its stages.
//!
//! # Source
//! FreeTumor accepts a synthetic tumor with a found fraction above 0.7, with up to ten attempts when it saves data sets.

mod decide;
mod order;
mod tumor;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use decide::CandidateProperties;
pub use tumor::OrganAttempts;

use crate::error::Fault;
use crate::filter::QualityTest;
use crate::id::SampleId;
use crate::random::Key;
use crate::score::{ScoreStage, Scores};
use crate::synth::{Attempt, AttemptKey, Synthesize};

/// A synthesis with its score stages and quality tests.
#[derive(Clone)]
pub struct AttemptLoop {
    /// The name of the synthesis, for faults and timings.
    pub name: String,
    /// The synthesis of candidates.
    pub synthesize: Arc<dyn Synthesize>,
    /// The score stages of all branches, each after the stages whose scores it reads.
    pub scorers: Vec<ScoreNode>,
    /// The quality tests.
    pub branches: Vec<Branch>,
}

/// A score stage with its name.
#[derive(Clone)]
pub struct ScoreNode {
    /// The name in the graph file.
    pub name: String,
    /// The stage.
    pub stage: Arc<dyn ScoreStage>,
    /// The score stages whose scores this stage may read: indices into [`AttemptLoop::scorers`], all below the index of this stage.
    pub after: Vec<usize>,
}

/// A quality test with the score stages it depends on.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The name of the quality test in the graph file.
    pub name: String,
    /// The score stages: ascending indices into [`AttemptLoop::scorers`].
    pub scorers: Vec<usize>,
    /// The conditions and the maximum number of attempts.
    pub test: QualityTest,
}

/// Accepted, or the reason for the rejection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Outcome {
    /// All conditions hold.
    Accepted,
    /// Rejected; `reason` is the condition from the graph file, or a code such as `no_site`.
    Rejected {
        /// The reason.
        reason: String,
    },
}

impl Outcome {
    /// Returns whether the attempt was accepted.
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }

    /// Returns the reason for the rejection; `None` if the attempt was accepted.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Accepted => None,
            Self::Rejected { reason } => Some(reason),
        }
    }
}

/// One attempt with its outcome in every open branch.
#[derive(Debug)]
pub struct AttemptOutcomes {
    /// The number of the attempt at the tumor, from 0.
    pub number: u32,
    /// The candidate, or the reason why there is none.
    pub attempt: Attempt,
    /// The outcome in each open branch.
    pub outcomes: Vec<BranchOutcome>,
}

/// The scores and the outcome of an attempt in one branch.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchOutcome {
    /// Index into [`AttemptLoop::branches`].
    pub branch: usize,
    /// The scores of the branch's stages.
    pub scores: Scores,
    /// The density ratio of real and synthetic tumors at the scores; `None` without calibration.
    pub likeness: Option<f64>,
    /// The acceptance probability of the candidate; `None` without calibration.
    pub acceptance: Option<f64>,
    /// Accepted, or the reason for the rejection.
    pub outcome: Outcome,
}

/// The numbers that a candidate's id determines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CandidateNumbers {
    /// The random number of calibrated acceptance, in 0..1.
    pub draw: f64,
    /// The number whose remainder selects one of several cross-fitted networks.
    pub fold: u64,
}

impl CandidateNumbers {
    /// Returns the numbers of a key.
    pub fn of(key: Key) -> Self {
        Self { draw: key.stream("accept").uniform(0.0, 1.0), fold: key.stream("fold").index(1 << 32) as u64 }
    }

    /// Returns the numbers of a candidate in a pipeline: a function of values in its row.
    pub fn of_candidate(seed: u64, candidate_id: SampleId) -> Self {
        Self::of(Key::root(seed).with("candidate", &candidate_id.to_string()))
    }
}

/// A timed step of the attempt loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Preparation of one organ for all attempts.
    Prepare,
    /// Synthesis of one candidate.
    Synthesize,
    /// Scoring of one candidate by one stage.
    Score,
}

/// An observer of the attempt loop, which times steps and receives attempts.
pub trait Observer {
    /// The reason for an early end of the attempt loop.
    type Stop: From<Fault>;

    /// Runs one step of the attempt loop; `attempt` is the number of the step's attempt.
    fn step<T>(&mut self, step: Step, node: &str, attempt: Option<u32>, work: impl FnOnce() -> T) -> T {
        let _ = (step, node, attempt);
        work()
    }

    /// Returns the numbers that the id of a candidate determines, by default those of the attempt's key.
    fn numbers(&self, key: AttemptKey, attempt: u32) -> CandidateNumbers {
        let _ = attempt;
        CandidateNumbers::of(key.attempt())
    }

    /// Receives an attempt after all branches have decided.
    ///
    /// # Errors
    /// Returns an error to end the attempt loop.
    fn on_attempt(&mut self, attempt: AttemptOutcomes) -> Result<(), Self::Stop>;
}

impl AttemptLoop {
    /// Creates an attempt loop with one quality test. Each score stage follows the stages whose scores it reads; stages are named by their
    /// position.
    pub fn new(synthesize: Arc<dyn Synthesize>, scorers: Vec<Arc<dyn ScoreStage>>, test: QualityTest) -> Self {
        let branch = Branch { name: "test".to_owned(), scorers: (0..scorers.len()).collect(), test };
        let named =
            |(position, stage)| ScoreNode { name: format!("scores {position}"), stage, after: (0..position).collect() };
        Self {
            name: "tumors".to_owned(),
            synthesize,
            scorers: scorers.into_iter().enumerate().map(named).collect(),
            branches: vec![branch],
        }
    }

    /// Returns an attempt loop with only this branch.
    ///
    /// # Panics
    /// If there is no such branch.
    #[must_use]
    pub fn only(&self, branch: usize) -> Self {
        let Branch { name, scorers, test } = &self.branches[branch];
        let selected = |&index: &usize| {
            let node = self.scorers[index].clone();
            let after = (0..scorers.len()).filter(|&at| node.after.contains(&scorers[at])).collect();
            ScoreNode { after, ..node }
        };
        Self {
            name: self.name.clone(),
            synthesize: Arc::clone(&self.synthesize),
            scorers: scorers.iter().map(selected).collect(),
            branches: vec![Branch { name: name.clone(), scorers: (0..scorers.len()).collect(), test: test.clone() }],
        }
    }
}

impl std::fmt::Debug for AttemptLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scorers: Vec<&str> = self.scorers.iter().map(|scorer| scorer.name.as_str()).collect();
        f.debug_struct("AttemptLoop")
            .field("name", &self.name)
            .field("scorers", &scorers)
            .field("branches", &self.branches)
            .finish_non_exhaustive()
    }
}
