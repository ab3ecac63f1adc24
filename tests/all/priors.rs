//! Sampled tumors follow the distributions of real tumors.

use std::collections::BTreeMap;

use freetumor::synth::prior::{OrganPrior, PRIORS};
use serde_json::Value;

use crate::common;
use crate::shapes::compare;

/// The test samples fewer shapes than the bench, which increases the distances; wrong priors are far above this bound.
const BOUND: f64 = 0.2;

#[test]
fn sampled_tumors_are_distributed_as_real_tumors() {
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
    // The bound distinguishes the tumors of two organs.
    let lung = PRIORS.iter().find(|prior| prior.organ == "lung").unwrap();
    let (comparisons, _) = compare(&reference, &OrganPrior { organ: "kidney", ..*lung }, 120);
    assert!(comparisons.iter().any(|comparison| comparison.distance > BOUND));
}
