//! Logistic regression with a ridge penalty, by Newton's method.

/// The maximum number of Newton steps; with a ridge penalty, at most 20 are needed.
const STEPS: usize = 50;
/// The change of the weights below which the fit has converged.
const TOLERANCE: f64 = 1e-12;

/// The ridge penalties of a fit, each half of which is multiplied by the square of a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// The penalty of the weights of features; scikit-learn's `1 / C`.
    pub weights: f64,
    /// The penalty of the intercept, above 0 to keep it finite for separable classes.
    pub intercept: f64,
}

impl Default for Penalty {
    /// Returns penalty 1 for weights, and one for the intercept that does not change results.
    fn default() -> Self {
        Self { weights: 1.0, intercept: 1e-9 }
    }
}

/// Fits the logarithm of the odds of class `true` as a linear function of features. Rows are weighted by `importance`; both classes have
/// the same total weight.
///
/// # Shapes
/// There are as many classes and numbers of importance as rows; all rows have the same length. Returns one weight for each feature, then
/// the intercept.
///
/// # Source
/// The minimum of scikit-learn's `LogisticRegression(C=1 / penalty, class_weight="balanced")`.
///
/// ```
/// use freetumor::statistics::{Penalty, fit_logistic};
/// let rows = [vec![0.0], vec![1.0], vec![2.0], vec![3.0]];
/// let weights = fit_logistic(&rows, &[false, false, true, true], &[1.0; 4], Penalty::default());
/// let log_odds = |x: f64| weights[0] * x + weights[1];
/// assert!(log_odds(1.5).abs() < 1e-6 && log_odds(2.0) > 0.3);
/// ```
pub fn fit_logistic(rows: &[Vec<f64>], classes: &[bool], importance: &[f64], penalty: Penalty) -> Vec<f64> {
    let size = rows.first().map_or(0, Vec::len) + 1;
    let of_class = |class: bool| classes.iter().zip(importance).filter(move |(other, _)| **other == class);
    let sum = |class: bool| of_class(class).map(|(_, importance)| importance).sum::<f64>();
    let sums = [sum(false), sum(true)];
    let all = sums[0] + sums[1];
    let class_weights = sums.map(|sum| if sum > 0.0 { 0.5 * all / sum } else { 0.0 });
    let row_weights: Vec<f64> = classes
        .iter()
        .zip(importance)
        .map(|(class, importance)| class_weights[usize::from(*class)] * importance)
        .collect();
    let mut weights = vec![0.0; size];
    for _ in 0..STEPS {
        let step = newton_step(rows, classes, &row_weights, penalty, &weights);
        let largest = step.iter().fold(0.0f64, |max, value| max.max(value.abs()));
        weights.iter_mut().zip(&step).for_each(|(weight, step)| *weight -= step);
        if largest < TOLERANCE {
            break;
        }
    }
    weights
}

/// Returns the linear function of a row.
fn log_odds(row: &[f64], weights: &[f64]) -> f64 {
    let intercept = weights[weights.len() - 1];
    row.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>() + intercept
}

/// Returns the Newton step: the inverse Hessian times the gradient.
fn newton_step(
    rows: &[Vec<f64>],
    classes: &[bool],
    row_weights: &[f64],
    penalty: Penalty,
    weights: &[f64],
) -> Vec<f64> {
    let size = weights.len();
    let ridge = |k: usize| if k + 1 < size { penalty.weights } else { penalty.intercept };
    let mut gradient: Vec<f64> = (0..size).map(|k| ridge(k) * weights[k]).collect();
    let mut hessian = vec![vec![0.0; size]; size];
    (0..size).for_each(|k| hessian[k][k] = ridge(k));
    for (row, (class, &weight)) in rows.iter().zip(classes.iter().zip(row_weights)) {
        let p = 1.0 / (1.0 + libm::exp(-log_odds(row, weights)));
        let error = weight * (p - f64::from(u8::from(*class)));
        let second = weight * (p * (1.0 - p)).max(1e-12);
        let values = || row.iter().copied().chain([1.0]);
        for (value, (gradient, line)) in values().zip(gradient.iter_mut().zip(&mut hessian)) {
            *gradient += error * value;
            // The upper triangle is not read.
            line.iter_mut().zip(values()).for_each(|(sum, other)| *sum += second * value * other);
        }
    }
    solve(hessian, gradient)
}

/// Solves a positive definite system, given its lower triangle, by Cholesky decomposition.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let size = right.len();
    for i in 0..size {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| matrix[i][k] * matrix[j][k]).sum();
            let rest = matrix[i][j] - sum;
            matrix[i][j] = if i == j { rest.max(1e-12).sqrt() } else { rest / matrix[j][j] };
        }
    }
    for i in 0..size {
        let sum: f64 = (0..i).map(|k| matrix[i][k] * right[k]).sum();
        right[i] = (right[i] - sum) / matrix[i][i];
    }
    for i in (0..size).rev() {
        let sum: f64 = (i + 1..size).map(|k| matrix[k][i] * right[k]).sum();
        right[i] = (right[i] - sum) / matrix[i][i];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn solve_returns_solution() {
        let matrix = vec![vec![4.0, 0.0, 0.0], vec![2.0, 5.0, 0.0], vec![1.0, 3.0, 6.0]];
        let x = solve(matrix, vec![4.0 + 4.0 + 3.0, 2.0 + 10.0 + 9.0, 1.0 + 6.0 + 18.0]);
        assert!(x.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{x:?}");
    }

    #[test]
    fn fit_minimizes_loss() {
        let mut random = Key::root(1).stream("rows");
        let rows: Vec<Vec<f64>> = (0..80).map(|_| (0..3).map(|_| random.normal(0.0, 1.0)).collect()).collect();
        let classes: Vec<bool> = rows.iter().map(|row| row[0] - row[1] + random.normal(0.0, 0.5) > 0.3).collect();
        let fitted = fit_logistic(&rows, &classes, &[1.0; 80], Penalty::default());
        let count = |class: bool| classes.iter().filter(|other| **other == class).count() as f64;
        let loss = |weights: &[f64]| {
            let each = rows.iter().zip(&classes).map(|(row, class)| {
                let odds = log_odds(row, weights);
                40.0 / count(*class) * if *class { (-odds).exp().ln_1p() } else { odds.exp().ln_1p() }
            });
            each.sum::<f64>() + 0.5 * weights[..3].iter().map(|w| w * w).sum::<f64>()
        };
        for k in 0..4 {
            for step in [-1e-3, 1e-3] {
                let mut other = fitted.clone();
                other[k] += step;
                assert!(loss(&other) > loss(&fitted), "{k} {step}");
            }
        }
        assert!(fitted[0] > 0.5 && fitted[1] < -0.5, "{fitted:?}");
    }

    #[test]
    fn separable_classes_have_finite_weights() {
        let rows: Vec<Vec<f64>> = (0..20).map(|i| vec![f64::from(i)]).collect();
        let classes: Vec<bool> = (0..20).map(|i| i >= 10).collect();
        assert!(fit_logistic(&rows, &classes, &[1.0; 20], Penalty::default()).iter().all(|weight| weight.is_finite()));
    }
}
