//! Cases that cannot be measured.

use std::fmt;

use serde::Serialize;

/// A case that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CaseProblem {
    /// The name of the case.
    pub case: String,
    /// The name of the arm and the index of the seed in the arm; `None` if the ground-truth label map could not be read.
    pub network: Option<(String, usize)>,
    /// The message, with the expected and the actual state.
    pub message: String,
}

impl fmt::Display for CaseProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.network {
            Some((arm, seed)) => write!(f, "{} ({arm}, seed {seed}): {}", self.case, self.message),
            None => write!(f, "{}: {}", self.case, self.message),
        }
    }
}
