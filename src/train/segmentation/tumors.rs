//! Fresh tumors: made and tested while a network learns.

use crate::attempt::AttemptLoop;
use crate::error::Fault;
use crate::mask::Organ;
use crate::random::Key;
use crate::synth::Candidate;
use crate::train::data::Case;

/// Makes tumors in cases.
#[derive(Clone, Debug)]
pub struct Tumors {
    /// The loop from synthesis to verdict.
    pub attempts: AttemptLoop,
    /// The organs that get tumors.
    pub organs: Vec<Organ>,
}

impl Tumors {
    /// The tumor that `key` defines in one organ of a case, the first of its attempts that passes; `None` where none does.
    ///
    /// # Errors
    /// A fault of a stage.
    pub fn make(&self, case: &Case, organ: &Organ, key: Key) -> Result<Option<Box<Candidate>>, Fault> {
        self.attempts.first_accepted(&case.masked, organ, key)
    }

    /// How many attempts a tumor has at most.
    pub fn attempts_each(&self) -> u32 {
        self.attempts.branches.iter().map(|branch| branch.test.attempts()).max().unwrap_or(0)
    }
}
