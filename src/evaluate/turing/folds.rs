//! The assignment of patients to folds.

use std::collections::BTreeMap;

use super::features::LesionSample;
use crate::random::Key;

/// Assigns patients to `count` folds at random and returns the fold of each lesion. Patients with only real lesions, with only synthetic
/// lesions, and with both are assigned separately, so that every fold has its share of each.
pub(super) fn assign_folds(lesions: &[LesionSample], count: usize, key: Key) -> Vec<usize> {
    let mut kinds: BTreeMap<&str, [bool; 2]> = BTreeMap::new();
    for lesion in lesions {
        kinds.entry(&lesion.patient).or_default()[usize::from(lesion.is_real)] = true;
    }
    let mut folds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut next = 0;
    for kind in [[true, true], [true, false], [false, true]] {
        let mut patients: Vec<&str> =
            kinds.iter().filter(|(_, other)| **other == kind).map(|(name, _)| *name).collect();
        let mut random = key.with("kind", if kind[0] { "synthetic" } else { "real" }).stream("deal");
        for last in (1..patients.len()).rev() {
            patients.swap(last, random.index(last + 1));
        }
        for patient in patients {
            folds.insert(patient, next % count);
            next += 1;
        }
    }
    lesions.iter().map(|lesion| folds[lesion.patient.as_str()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_keep_patients_together_and_contain_both_kinds() {
        let lesions: Vec<LesionSample> = (0..90)
            .map(|i| LesionSample { patient: format!("p{}", i % 30), is_real: i % 30 < 14, values: vec![] })
            .collect();
        let folds = assign_folds(&lesions, 5, Key::root(3));
        for fold in 0..5 {
            let in_fold = lesions.iter().zip(&folds).filter(|(_, other)| **other == fold);
            let real: Vec<bool> = in_fold.map(|(lesion, _)| lesion.is_real).collect();
            assert!(real.contains(&true) && real.contains(&false));
        }
        assert!((30..90).all(|i| folds[i] == folds[i - 30]));
        assert_ne!(folds, assign_folds(&lesions, 5, Key::root(4)));
    }
}
