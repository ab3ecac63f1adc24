//! Fresh tumors, made and tested during the training run.

use crate::attempt::AttemptLoop;
use crate::error::Fault;
use crate::graph::SynthesisNode;
use crate::mask::Organ;
use crate::random::Key;
use crate::synth::Candidate;
use crate::train::data::Case;

/// Makes tumors in cases.
#[derive(Clone, Debug)]
pub struct TumorMaker {
    /// The loop from synthesis to verdict.
    pub attempts: AttemptLoop,
    /// The organs in which tumors are made.
    pub organs: Vec<Organ>,
    /// The number of tumors of one scan among which the tumor of a crop is sampled by [`TumorSampling::Voxel`].
    ///
    /// [`TumorSampling::Voxel`]: crate::train::data::TumorSampling::Voxel
    pub per_scan: u32,
}

/// The maximum of [`TumorMaker::per_scan`] in a training run: each tumor of a crop costs as many syntheses.
const MAX_PER_SCAN: u32 = 4;

impl TumorMaker {
    /// Creates the maker of the tumors of one quality test of a synthesis.
    pub(in crate::train) fn new(synthesis: &SynthesisNode, branch: usize) -> Self {
        Self {
            attempts: synthesis.attempts.only(branch),
            organs: synthesis.organs.clone(),
            per_scan: synthesis.variants.clamp(1, MAX_PER_SCAN),
        }
    }

    /// Makes the tumor of `key` in one organ of a case, from the first attempt that passes; returns `None` if no attempt passes.
    ///
    /// # Errors
    /// Returns the fault of a stage.
    pub fn make(&self, case: &Case, organ: &Organ, key: Key) -> Result<Option<Box<Candidate>>, Fault> {
        self.attempts.first_accepted(&case.masked, organ, key)
    }

    /// Returns the maximum number of attempts per tumor.
    pub fn max_attempts(&self) -> u32 {
        self.attempts.branches.iter().map(|branch| branch.test.attempts()).max().unwrap_or(0)
    }
}
