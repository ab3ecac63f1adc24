//! The area under the receiver operating characteristic.

/// Returns the share of pairs of a positive and a negative in which the positive has the higher score; a tie counts half. `weights` are
/// those of the negatives. `None` if there are no positives or the weights of the negatives sum to 0.
///
/// # Shapes
/// There are as many weights as negatives.
///
/// # Source
/// Mann and Whitney, On a test of whether one of two random variables is stochastically larger than the other, 1947.
///
/// ```
/// use freetumor::statistics::auc;
/// assert_eq!(auc(&[2.0, 3.0], &[1.0, 2.0], &[1.0, 1.0]), Some(0.875));
/// assert_eq!(auc(&[2.0, 3.0], &[1.0, 9.0], &[1.0, 0.0]), Some(1.0));
/// assert_eq!(auc(&[], &[1.0], &[1.0]), None);
/// ```
pub fn auc(positives: &[f64], negatives: &[f64], weights: &[f64]) -> Option<f64> {
    let all: f64 = weights.iter().sum();
    if positives.is_empty() || all <= 0.0 {
        return None;
    }
    let mut sorted: Vec<(f64, f64)> = negatives.iter().copied().zip(weights.iter().copied()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = vec![0.0];
    for (_, weight) in &sorted {
        below.push(below[below.len() - 1] + weight);
    }
    let sum: f64 = positives
        .iter()
        .map(|score| {
            let low = sorted.partition_point(|(other, _)| other < score);
            let high = sorted.partition_point(|(other, _)| other <= score);
            0.5 * (below[low] + below[high])
        })
        .sum();
    Some(sum / (positives.len() as f64 * all))
}
