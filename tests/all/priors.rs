//! Priors stay close to real tumors.

use std::collections::BTreeMap;

use freetumor::synth::prior::{OrganPrior, PRIORS};
use serde_json::Value;

use crate::common;
use crate::shapes::compare;

/// Fewer shapes than the bench draws, so chance adds to each distance: broken priors are far beyond this.
const BOUND: f64 = 0.2;

#[test]
fn drawn_tumors_follow_real_ones() {
    let Some(path) = common::shared("reference/real_tumor_shapes.json") else { return };
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut worst = BTreeMap::new();
    for prior in &PRIORS {
        let (comparisons, _) = compare(&reference, prior, 120);
        assert!(comparisons.len() >= 5, "{}: {} measures", prior.organ, comparisons.len());
        let largest = comparisons.iter().max_by(|a, b| a.distance.total_cmp(&b.distance)).unwrap();
        worst.insert(prior.organ, (largest.distance, largest.measure, largest.median, largest.real_median));
    }
    assert!(worst.values().all(|(distance, ..)| *distance < BOUND), "{worst:?}");
    // The bound can fail: one organ's tumors are not another's.
    let lung = PRIORS.iter().find(|prior| prior.organ == "lung").unwrap();
    let (comparisons, _) = compare(&reference, &OrganPrior { organ: "kidney", ..*lung }, 120);
    assert!(comparisons.iter().any(|comparison| comparison.distance > BOUND));
}
