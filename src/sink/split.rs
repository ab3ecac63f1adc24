//! Splits by patient: all scans of a patient, and all tumors in them, belong to one part of a training set.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::Split;
use crate::error::{Error, Result};

/// Sees to it that no patient is in two splits.
#[derive(Debug, Default)]
pub struct SplitGuard {
    /// By the first 16 bytes of the key's hash: archives have many patients.
    seen: HashMap<u128, Split>,
}

impl SplitGuard {
    /// Takes note of one sample.
    ///
    /// # Errors
    /// Where the patient was in another split before.
    pub fn admit(&mut self, patient_key: &str, split: Split) -> Result<()> {
        let hash = Sha256::digest(patient_key).iter().take(16).fold(0, |all, &byte| all << 8 | u128::from(byte));
        match self.seen.get(&hash) {
            None => {
                self.seen.insert(hash, split);
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
            let stopped = rows.iter().position(|(patient, split)| guard.admit(&patient.to_string(), splits[*split]).is_err());
            let expected = (0..rows.len()).find(|&i| rows[..i].iter().any(|r| r.0 == rows[i].0 && r.1 != rows[i].1));
            prop_assert_eq!(stopped, expected);
        }
    }
}
