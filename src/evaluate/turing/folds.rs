//! Which patients are held out together.

use std::collections::BTreeMap;

use super::features::LesionSample;
use crate::random::Key;

/// Deals patients into `count` folds. Those with real lesions only, with synthetic ones only, and with both are dealt
/// apart, so that every fold has its share of each; gives the fold of each specimen.
pub(super) fn deal(specimens: &[LesionSample], count: usize, key: Key) -> Vec<usize> {
    let mut kinds: BTreeMap<&str, [bool; 2]> = BTreeMap::new();
    for specimen in specimens {
        kinds.entry(&specimen.patient).or_default()[usize::from(specimen.is_real)] = true;
    }
    let mut folds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut next = 0;
    for kind in [[true, true], [true, false], [false, true]] {
        let mut patients: Vec<&str> = kinds.iter().filter(|(_, own)| **own == kind).map(|(name, _)| *name).collect();
        let mut draws = key.with("kind", if kind[0] { "synthetic" } else { "real" }).draws("deal");
        for last in (1..patients.len()).rev() {
            patients.swap(last, draws.index(last + 1));
        }
        for patient in patients {
            folds.insert(patient, next % count);
            next += 1;
        }
    }
    specimens.iter().map(|specimen| folds[specimen.patient.as_str()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_is_in_one_fold_and_every_fold_has_both_kinds() {
        let specimens: Vec<LesionSample> = (0..90)
            .map(|i| LesionSample { patient: format!("p{}", i % 30), is_real: i % 30 < 14, values: vec![] })
            .collect();
        let folds = deal(&specimens, 5, Key::root(3));
        for fold in 0..5 {
            let own = specimens.iter().zip(&folds).filter(|(_, own)| **own == fold);
            let real: Vec<bool> = own.map(|(specimen, _)| specimen.is_real).collect();
            assert!(real.contains(&true) && real.contains(&false));
        }
        assert!((30..90).all(|i| folds[i] == folds[i - 30]));
        assert_ne!(folds, deal(&specimens, 5, Key::root(4)));
    }
}
