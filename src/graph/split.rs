//! The split of patients into training, validation and test.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::ConfigError;
use crate::id::PatientKey;
use crate::record::Split;

/// The share of patients in each split; the shares add up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitShares {
    /// Share of patients for training (0 to 1).
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub train: f64,
    /// Share of patients for validation (0 to 1).
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub validation: f64,
    /// Share of patients for the final test (0 to 1).
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub test: f64,
}

impl Default for SplitShares {
    fn default() -> Self {
        Self { train: 0.8, validation: 0.1, test: 0.1 }
    }
}

impl SplitShares {
    /// Returns the errors of the shares: a share outside 0 to 1, or a sum other than 1. Fields are relative to the table of the shares.
    pub fn errors(&self) -> Vec<ConfigError> {
        let named = [("train", self.train), ("validation", self.validation), ("test", self.test)];
        let outside = named.iter().filter(|(_, share)| !(0.0..=1.0).contains(share));
        let mut errors: Vec<_> = outside
            .map(|(name, share)| ConfigError::new(*name, format!("expected a share between 0 and 1, got {share}")))
            .collect();
        let sum = self.train + self.validation + self.test;
        // Shares are decimal fractions written by hand: a difference larger than rounding is an error.
        if errors.is_empty() && (sum - 1.0).abs() > 1e-9 {
            let rounded = (sum * 1e6).round() / 1e6;
            let message = format!("the shares add up to {rounded}, expected 1");
            errors.push(ConfigError::new("", message).with_hint("omitted shares are 0"));
        }
        errors
    }

    /// Returns the split of a patient.
    ///
    /// The split depends on the patient and the shares alone, neither on the seed nor on other patients, so that it is the same while the
    /// archive grows and in all pipelines with the same shares.
    ///
    /// ```
    /// use freetumor::{graph::SplitShares, record::Split};
    /// let all_for_training = SplitShares { train: 1.0, validation: 0.0, test: 0.0 };
    /// assert_eq!(all_for_training.of("9f86d081884c7d65".parse()?), Split::Train);
    /// # Ok::<(), freetumor::error::Error>(())
    /// ```
    pub fn of(&self, patient_key: PatientKey) -> Split {
        let hash = Sha256::new_with_prefix(b"freetumor split").chain_update(patient_key.to_string()).finalize();
        let position = hash.iter().take(6).fold(0.0, |sum, &byte| sum * 256.0 + f64::from(byte)) / 256f64.powi(6);
        if position < self.train {
            Split::Train
        } else if position < self.train + self.validation || self.test == 0.0 {
            // Rounding may leave a gap above the last share, which must not select a split with a share of 0.
            if self.validation > 0.0 { Split::Validation } else { Split::Train }
        } else {
            Split::Test
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> PatientKey {
        PatientKey::from_bytes(number.to_be_bytes())
    }

    #[test]
    fn splits_of_many_patients_match_shares() {
        let shares = SplitShares { train: 0.7, validation: 0.2, test: 0.1 };
        let mut counts = std::collections::BTreeMap::new();
        for patient in 0..20_000u64 {
            *counts.entry(shares.of(key(patient))).or_insert(0) += 1;
        }
        assert!((13_700..14_300).contains(&counts[&Split::Train]), "{counts:?}");
        assert!((3_800..4_200).contains(&counts[&Split::Validation]), "{counts:?}");
        assert!((1_850..2_150).contains(&counts[&Split::Test]), "{counts:?}");
    }

    #[test]
    fn split_of_patient_is_stable() {
        // Published sets depend on these values: a change here moves test patients into training.
        let shares = SplitShares::default();
        let splits: Vec<_> = (0..24).map(|patient| &shares.of(key(patient)).name()[..2]).collect();
        assert_eq!(splits.join(" "), "tr tr te te tr tr tr tr tr tr tr tr tr tr te tr tr tr tr tr tr tr va tr");
    }

    #[test]
    fn errors_name_invalid_shares() {
        let fields = |train, validation, test| {
            let errors = SplitShares { train, validation, test }.errors();
            errors.into_iter().map(|error| (error.field, error.message)).collect::<Vec<_>>()
        };
        assert!(fields(0.8, 0.1, 0.1).is_empty());
        assert!(fields(0.7, 0.2, 0.1).is_empty());
        assert_eq!(fields(0.8, 0.1, 0.2), [("".into(), "the shares add up to 1.1, expected 1".into())]);
        assert_eq!(fields(1.5, 0.1, -0.6)[1].0, "test");
        assert_eq!(fields(f64::NAN, 0.5, 0.5)[0].0, "train");
    }

    proptest! {
        #[test]
        fn split_with_share_zero_has_no_patients(patient in "[0-9a-f]{16}", train in 0.0..1.0f64) {
            let shares = SplitShares { train, validation: 1.0 - train, test: 0.0 };
            prop_assert_ne!(shares.of(patient.parse().unwrap()), Split::Test);
            let shares = SplitShares { train, validation: 0.0, test: 1.0 - train };
            prop_assert_ne!(shares.of(patient.parse().unwrap()), Split::Validation);
        }
    }
}
