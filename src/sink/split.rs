//! Splits by patient: all scans of a patient, and all tumors in them, belong to one part of a training set.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Split;
use crate::error::{Complaint, Error, Result};
use crate::random::Key;

/// How patients are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    /// Share of patients that are tuned on, 0 to 1.
    pub validation: f64,
    /// Share of patients that are kept for a single test at the end, 0 to 1.
    pub test: f64,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self { validation: 0.1, test: 0.1 }
    }
}

/// Shares patients out: each by itself, so that an archive may grow without any patient changing sides.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::sink::split::{SplitConfig, Splitter};
/// let splitter = Splitter::new(SplitConfig::default(), Key::root(7)).unwrap();
/// assert_eq!(splitter.split_of("9f86d081884c7d65"), splitter.split_of("9f86d081884c7d65"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Splitter {
    config: SplitConfig,
    key: Key,
}

impl Splitter {
    /// A splitter; `key` is the pipeline's.
    ///
    /// # Errors
    /// Shares that are no shares, or more than all.
    pub fn new(config: SplitConfig, key: Key) -> Result<Self, Vec<Complaint>> {
        let mut complaints = Vec::new();
        for (field, share) in [("validation", config.validation), ("test", config.test)] {
            if !(0.0..=1.0).contains(&share) {
                complaints.push(Complaint::new(field, format!("a share lies in 0..1, got {share}")));
            }
        }
        if complaints.is_empty() && config.validation + config.test > 1.0 {
            let sum = config.validation + config.test;
            complaints
                .push(Complaint::new("test", format!("validation and test take at most everything (1), got {sum}")));
        }
        if complaints.is_empty() { Ok(Self { config, key: key.with("purpose", "split") }) } else { Err(complaints) }
    }

    /// The split of a patient: a function of the pipeline's seed and the patient alone.
    pub fn split_of(&self, patient_key: &str) -> Split {
        let place = self.key.with("patient", patient_key).draws("split").uniform(0.0, 1.0);
        if place < self.config.test {
            Split::Test
        } else if place < self.config.test + self.config.validation {
            Split::Validation
        } else {
            Split::Train
        }
    }
}

/// Sees to it that no patient is in two splits.
#[derive(Debug, Default)]
pub struct SplitGuard {
    seen: BTreeMap<String, Split>,
}

impl SplitGuard {
    /// Takes note of one sample.
    ///
    /// # Errors
    /// Where the patient was in another split before.
    pub fn admit(&mut self, patient_key: &str, split: Split) -> Result<()> {
        match self.seen.get(patient_key) {
            None => {
                self.seen.insert(patient_key.to_owned(), split);
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

    #[test]
    fn shares_come_out_as_asked() {
        let config = SplitConfig { validation: 0.2, test: 0.05 };
        let splitter = Splitter::new(config, Key::root(1)).unwrap();
        let mut counts = BTreeMap::new();
        for patient in 0..20_000 {
            *counts.entry(splitter.split_of(&patient.to_string())).or_insert(0) += 1;
        }
        let share = |split| f64::from(counts[&split]) / 20_000.0;
        assert!(
            (share(Split::Validation) - 0.2).abs() < 0.012 && (share(Split::Test) - 0.05).abs() < 0.006,
            "{counts:?}"
        );
    }

    #[test]
    fn every_bad_share_is_named() {
        let bad = Splitter::new(SplitConfig { validation: -0.1, test: f64::NAN }, Key::root(1)).unwrap_err();
        assert_eq!(bad.iter().map(|c| &c.field[..]).collect::<Vec<_>>(), ["validation", "test"]);
        let bad = Splitter::new(SplitConfig { validation: 0.6, test: 0.6 }, Key::root(1)).unwrap_err();
        assert_eq!(bad.len(), 1);
    }

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
