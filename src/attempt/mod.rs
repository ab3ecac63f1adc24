//! The loop that makes a tumor: synthesize, score, decide, and try again.
//!
//! This room owns the loop and its outcomes. The dataflow, training and plain programs all run it, so that all of them make the same
//! tumor. The loop is pure: its result is a function of the scan, the organ and the tumor's key. What is done with each attempt is up to an [`Observer`].
//!
//! Several quality tests may share one synthesis: each is a [`Branch`]. A candidate is synthesized once for all branches that still
//! need one, each score stage scores it once, and every branch decides by the scores of its own stages.
//!
//! # Source
//! FreeTumor accepts a synthetic tumor whose found fraction is above 0.7, and makes up to ten when it saves data sets.

mod tumor;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use tumor::OrganAttempts;

use crate::error::Fault;
use crate::filter::QualityTest;
use crate::score::{ScoreStage, Scores};
use crate::synth::{Attempt, Synthesize};

/// A synthesis with the score stages and quality tests behind it.
#[derive(Clone)]
pub struct AttemptLoop {
    /// Name of the synthesis, for faults and timings.
    pub name: String,
    /// What makes candidates.
    pub synthesize: Arc<dyn Synthesize>,
    /// The score stages of all branches, each after those it takes scores from.
    pub scorers: Vec<ScoreNode>,
    /// The quality tests.
    pub branches: Vec<Branch>,
}

/// A score stage with its name.
#[derive(Clone)]
pub struct ScoreNode {
    /// Its name in the graph file.
    pub name: String,
    /// The stage.
    pub stage: Arc<dyn ScoreStage>,
}

/// A quality test with the score stages that it depends on.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Name of the quality test in the graph file.
    pub name: String,
    /// Its score stages: ascending indices into [`AttemptLoop::scorers`].
    pub scorers: Vec<usize>,
    /// Its conditions, and how many attempts a tumor has.
    pub test: QualityTest,
}

/// How an attempt ended in one branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Outcome {
    /// It passed every condition.
    Accepted,
    /// It did not; `reason` is the condition as the graph file has it, or a code such as `no_site`.
    Rejected {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Whether the attempt passed.
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }

    /// Why it was rejected; `None` where it was accepted.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Accepted => None,
            Self::Rejected { reason } => Some(reason),
        }
    }
}

/// One attempt with its outcome in every branch that still needed one.
#[derive(Debug)]
pub struct AttemptOutcomes {
    /// Its number among the attempts at the tumor, from 0.
    pub number: u32,
    /// The candidate, or why there is none.
    pub attempt: Attempt,
    /// The outcome in each branch that takes part.
    pub outcomes: Vec<BranchOutcome>,
}

/// The outcome of an attempt in one branch.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchOutcome {
    /// Index into [`AttemptLoop::branches`].
    pub branch: usize,
    /// The scores of the branch's own stages.
    pub scores: Scores,
    /// Whether the attempt passed.
    pub outcome: Outcome,
}

/// A part of the loop that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What all attempts in one organ share is computed.
    Prepare,
    /// One candidate is synthesized.
    Synthesize,
    /// One stage scores one candidate.
    Score,
}

/// What follows the loop: it times steps and receives attempts.
pub trait Observer {
    /// Why the loop ends early.
    type Stop: From<Fault>;

    /// Runs one step of the loop; `attempt` is the number of the attempt that the step belongs to.
    fn step<T>(&mut self, step: Step, node: &str, attempt: Option<u32>, work: impl FnOnce() -> T) -> T {
        let _ = (step, node, attempt);
        work()
    }

    /// Receives an attempt when all branches have decided.
    ///
    /// # Errors
    /// What ends the loop.
    fn attempted(&mut self, attempt: AttemptOutcomes) -> Result<(), Self::Stop>;
}

impl AttemptLoop {
    /// A loop with one quality test. Score stages come in the order in which they take scores from one another, and are named by
    /// their place.
    pub fn new(synthesize: Arc<dyn Synthesize>, scorers: Vec<Arc<dyn ScoreStage>>, test: QualityTest) -> Self {
        let branch = Branch { name: "test".to_owned(), scorers: (0..scorers.len()).collect(), test };
        let named = |(place, stage)| ScoreNode { name: format!("scores {place}"), stage };
        Self {
            name: "tumors".to_owned(),
            synthesize,
            scorers: scorers.into_iter().enumerate().map(named).collect(),
            branches: vec![branch],
        }
    }

    /// The loop for one of its branches alone.
    ///
    /// # Panics
    /// Where there is no such branch.
    #[must_use]
    pub fn only(&self, branch: usize) -> Self {
        let Branch { name, scorers, test } = &self.branches[branch];
        Self {
            name: self.name.clone(),
            synthesize: Arc::clone(&self.synthesize),
            scorers: scorers.iter().map(|&index| self.scorers[index].clone()).collect(),
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
