//! Splits by patient: all scans of a patient and all tumors in these scans belong to one part of a training set.

use std::collections::HashMap;

use super::Split;
use crate::error::{Error, Result};
use crate::id::PatientKey;

/// Ensures that no patient is in two splits.
#[derive(Debug, Default)]
pub struct SplitGuard {
    splits: HashMap<PatientKey, Split>,
}

impl SplitGuard {
    /// Records one sample.
    ///
    /// # Errors
    /// If the patient is already in another split.
    pub fn admit(&mut self, patient_key: PatientKey, split: Split) -> Result<()> {
        match self.splits.get(&patient_key) {
            None => {
                self.splits.insert(patient_key, split);
                Ok(())
            }
            Some(&before) if before == split => Ok(()),
            Some(before) => Err(Error::new(format!(
                "patient {patient_key} is in two splits, {} and {}: an evaluation on them would be biased",
                before.name(),
                split.name()
            ))
            .with_hint("give every scan of a patient the same patient key; see the source's setting `patient`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn guard_fails_at_first_patient_in_two_splits(rows in prop::collection::vec((0..6u8, 0..3usize), 0..40)) {
            let splits = [Split::Train, Split::Validation, Split::Test];
            let mut guard = SplitGuard::default();
            let stopped = rows.iter().position(|(patient, split)| guard.admit(PatientKey::from_bytes([*patient; 8]), splits[*split]).is_err());
            let expected = (0..rows.len()).find(|&i| rows[..i].iter().any(|r| r.0 == rows[i].0 && r.1 != rows[i].1));
            prop_assert_eq!(stopped, expected);
        }
    }
}
