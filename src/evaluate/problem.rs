//! Cases that cannot be measured.

use std::fmt;

use serde::Serialize;

/// A case that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CaseProblem {
    /// The case's name.
    pub case: String,
    /// The arm's name and the seed's number within it; `None` where the truth itself is the problem.
    pub network: Option<(String, usize)>,
    /// Expected and actual state.
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
