//! The distance between two samples of numbers.

/// Returns the maximum difference between the distribution functions of a sample and of a weighted sample (Kolmogorov and Smirnov);
/// `None` if a sample is empty or the weights sum to 0.
///
/// # Shapes
/// There are as many weights as values in `weighted`.
///
/// ```
/// use freetumor::statistics::weighted_distance;
/// assert_eq!(weighted_distance(&[1.0, 2.0], &[1.0, 2.0], &[3.0, 3.0]), Some(0.0));
/// assert_eq!(weighted_distance(&[1.0, 2.0], &[1.0, 2.0], &[3.0, 1.0]), Some(0.25));
/// assert_eq!(weighted_distance(&[1.0], &[2.0], &[1.0]), Some(1.0));
/// ```
pub fn weighted_distance(sample: &[f64], weighted: &[f64], weights: &[f64]) -> Option<f64> {
    let all: f64 = weights.iter().sum();
    if sample.is_empty() || all <= 0.0 {
        return None;
    }
    let first = sample.iter().map(|value| (*value, 1.0 / sample.len() as f64, 0.0));
    let second = weighted.iter().zip(weights).map(|(value, weight)| (*value, 0.0, weight / all));
    let mut steps: Vec<(f64, f64, f64)> = first.chain(second).collect();
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut functions, mut distance) = ([0.0f64; 2], 0.0f64);
    for (index, (value, first, second)) in steps.iter().enumerate() {
        functions = [functions[0] + first, functions[1] + second];
        // Equal values are one step.
        if steps.get(index + 1).is_none_or(|next| next.0 > *value) {
            distance = distance.max((functions[0] - functions[1]).abs());
        }
    }
    Some(distance)
}

/// Returns the effective size of a weighted sample: the size of an unweighted sample with the same variance of its mean.
///
/// # Source
/// Kish, Survey Sampling, 1965.
///
/// ```
/// use freetumor::statistics::effective_sample_size;
/// assert_eq!(effective_sample_size(&[0.5, 0.5, 0.5]), 3.0);
/// assert_eq!(effective_sample_size(&[1.0, 0.0]), 1.0);
/// assert_eq!(effective_sample_size(&[]), 0.0);
/// ```
pub fn effective_sample_size(weights: &[f64]) -> f64 {
    let [sum, squares] = weights.iter().fold([0.0, 0.0], |[sum, squares], w| [sum + w, squares + w * w]);
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}
