//! Splits by patient: all scans of a patient, and all tumors in them, belong to one part of a training set.

use std::collections::HashMap;

use super::Split;
use crate::error::{Error, Result};
use crate::id::PatientKey;

/// Ensures that no patient is in two splits.
#[derive(Debug, Default)]
pub struct SplitGuard {
    seen: HashMap<PatientKey, Split>,
}

impl SplitGuard {
    /// Records one sample.
    ///
    /// # Errors
    /// Where the patient was in another split before.
    pub fn admit(&mut self, patient_key: PatientKey, split: Split) -> Result<()> {
        match self.seen.get(&patient_key) {
            None => {
                self.seen.insert(patient_key, split);
                Ok(())
            }
            Some(&before) if before == split => Ok(()),
            Some(before) => Err(Error::new(format!(
                "patient {patient_key} is in two splits, {} and {}: a test on them would mean nothing",
                before.name(),
                split.name()
            ))
            .with_hint("every scan of a patient needs the same patient key; see the source's `patient` setting")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_guard_stops_at_the_first_patient_in_two_splits(rows in prop::collection::vec((0..6u8, 0..3usize), 0..40)) {
            let splits = [Split::Train, Split::Validation, Split::Test];
            let mut guard = SplitGuard::default();
            let stopped = rows.iter().position(|(patient, split)| guard.admit(PatientKey::from_bytes([*patient; 8]), splits[*split]).is_err());
            let expected = (0..rows.len()).find(|&i| rows[..i].iter().any(|r| r.0 == rows[i].0 && r.1 != rows[i].1));
            prop_assert_eq!(stopped, expected);
        }
    }
}
