//! Folds of patients: each of several networks is trained without the patients of one fold.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::id::PatientKey;

/// A fold of the labeled patients: training leaves out the patients of the fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fold {
    /// The index of the fold, below `count`.
    pub index: usize,
    /// The number of folds.
    pub count: usize,
}

impl Fold {
    /// Returns the patients of this fold: each patient is in one fold, and folds differ by at most one patient in size. Keys of patients
    /// are hashes, so that their order is random.
    ///
    /// ```
    /// use freetumor::id::PatientKey;
    /// use freetumor::train::Fold;
    /// let patients = (0..7).map(|byte| PatientKey::from_bytes([byte; 8])).collect();
    /// let sizes = [0, 1, 2].map(|index| Fold { index, count: 3 }.patients(&patients).len());
    /// assert_eq!(sizes, [3, 2, 2]);
    /// ```
    pub fn patients(self, all: &BTreeSet<PatientKey>) -> BTreeSet<PatientKey> {
        all.iter().copied().skip(self.index).step_by(self.count.max(1)).collect()
    }
}
