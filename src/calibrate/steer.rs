//! The estimate of the factors of steering.

use super::tumor::{CalibrationTumor, quantile, ratio};
use crate::filter::OrganReference;
use crate::synth::Steering;

/// The number of bins of the sampled diameter.
const DIAMETER_BINS: usize = 6;
/// The number of bins of the sampled contrast.
const CONTRAST_BINS: usize = 5;
/// The share of candidates that the maximum of the quotient of ratio and factor may clip.
const CLIPPED: f64 = 0.03;

/// Estimates the factor of each bin of sampled diameters and contrasts: the mean density ratio of its candidates, where rejected ones count
/// as 0, between 1 / max_factor and max_factor. The bins have equal numbers of candidates along each axis.
pub(super) fn fit(
    reference: &OrganReference,
    candidates: &[CalibrationTumor],
    floor: f64,
    max_factor: f64,
) -> Steering {
    let edges = |values: Vec<f64>, bins: usize| {
        let mut edges: Vec<f64> = (1..bins)
            .map(|k| quantile(values.clone(), k as f64 / bins as f64))
            .filter(|edge| edge.is_finite())
            .collect();
        edges.dedup();
        edges
    };
    let diameters_mm = edges(candidates.iter().map(|tumor| tumor.sampled_mm).collect(), DIAMETER_BINS);
    let contrasts_hu = edges(candidates.iter().filter_map(|tumor| tumor.sampled_hu).collect(), CONTRAST_BINS);
    let bins = (diameters_mm.len() + 1) * (contrasts_hu.len() + 1);
    let mut steering =
        Steering { diameters_mm, contrasts_hu, factors: vec![1.0; bins], maximum: reference.maximum, max_factor };
    let clipped = |tumor: &CalibrationTumor| ratio(reference, tumor, floor).map_or(0.0, |r| r.min(reference.maximum));
    let mut sums = vec![[0.0f64; 2]; bins];
    for tumor in candidates {
        let sum = &mut sums[steering.bin(tumor.sampled_mm, tumor.sampled_hu)];
        *sum = [sum[0] + clipped(tumor), sum[1] + 1.0];
    }
    for (factor, [sum, count]) in steering.factors.iter_mut().zip(sums) {
        *factor = if count > 0.0 { (sum / count).clamp(1.0 / max_factor, max_factor) } else { 1.0 };
    }
    let quotients = candidates
        .iter()
        .map(|tumor| clipped(tumor) / steering.factor(tumor.sampled_mm, tumor.sampled_hu))
        .filter(|quotient| *quotient > 0.0);
    steering.maximum = quantile(quotients.collect(), 1.0 - CLIPPED);
    steering
}
