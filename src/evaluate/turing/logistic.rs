//! Logistic regression with a ridge penalty, by Newton's method.

/// The ridge penalty on the weights of standardized features.
const RIDGE: f64 = 1.0;
/// Features are clamped to this many standard deviations from their mean.
const MAX_DEVIATIONS: f64 = 4.0;
/// The maximum number of Newton steps; with a ridge penalty, at most 20 are needed.
const STEPS: usize = 30;

/// A fitted classifier.
#[derive(Clone, Debug)]
pub(super) struct Logistic {
    means: Vec<f64>,
    deviations: Vec<f64>,
    weights: Vec<f64>,
}

impl Logistic {
    /// Fits rows of features to their classes; both classes have the same total weight.
    ///
    /// # Shapes
    /// The numbers of rows and classes are equal, and all rows have the same length.
    pub(super) fn fit(rows: &[&[f64]], classes: &[bool]) -> Self {
        let count = rows.len() as f64;
        let width = rows.first().map_or(0, |row| row.len());
        let column = |k: usize| rows.iter().map(move |row| row[k]);
        let means: Vec<f64> = (0..width).map(|k| column(k).sum::<f64>() / count).collect();
        let deviation = |k: usize| (column(k).map(|v| (v - means[k]).powi(2)).sum::<f64>() / count).sqrt().max(1e-9);
        let deviations: Vec<f64> = (0..width).map(deviation).collect();
        let mut fitted = Self { means, deviations, weights: vec![0.0; width + 1] };
        let standard: Vec<Vec<f64>> = rows.iter().map(|row| fitted.standardize(row)).collect();
        let class_count = |class: bool| classes.iter().filter(|other| **other == class).count().max(1) as f64;
        let weight = [false, true].map(|class| 0.5 * count / class_count(class));
        for _ in 0..STEPS {
            let step = fitted.step(&standard, classes, weight);
            let largest = step.iter().fold(0.0f64, |max, value| max.max(value.abs()));
            fitted.weights.iter_mut().zip(&step).for_each(|(weight, step)| *weight -= step);
            if largest < 1e-10 {
                break;
            }
        }
        fitted
    }

    /// Returns the logarithm of the odds of class `true`.
    pub(super) fn score(&self, row: &[f64]) -> f64 {
        self.log_odds(&self.standardize(row))
    }

    fn standardize(&self, row: &[f64]) -> Vec<f64> {
        let scaled = row.iter().zip(self.means.iter().zip(&self.deviations));
        let scaled = scaled
            .map(|(value, (mean, deviation))| ((value - mean) / deviation).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS));
        scaled.chain([1.0]).collect()
    }

    fn log_odds(&self, standard: &[f64]) -> f64 {
        standard.iter().zip(&self.weights).map(|(value, weight)| value * weight).sum()
    }

    /// Returns the Newton step: the inverse Hessian times the gradient.
    fn step(&self, rows: &[Vec<f64>], classes: &[bool], weight: [f64; 2]) -> Vec<f64> {
        let size = self.weights.len();
        let mut gradient: Vec<f64> = self.weights.iter().map(|weight| RIDGE * weight).collect();
        let mut hessian = vec![vec![0.0; size]; size];
        // The last weight is the intercept; its penalty is only large enough to keep it finite.
        gradient[size - 1] *= 1e-6;
        for (k, row) in hessian.iter_mut().enumerate() {
            row[k] = if k + 1 < size { RIDGE } else { 1e-6 * RIDGE };
        }
        for (row, class) in rows.iter().zip(classes) {
            let p = 1.0 / (1.0 + libm::exp(-self.log_odds(row)));
            let weight = weight[usize::from(*class)];
            let error = weight * (p - f64::from(u8::from(*class)));
            let second = weight * (p * (1.0 - p)).max(1e-9);
            for i in 0..size {
                gradient[i] += error * row[i];
                for j in 0..=i {
                    hessian[i][j] += second * row[i] * row[j];
                }
            }
        }
        solve(hessian, gradient)
    }
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
    fn fit_minimises_loss() {
        let mut random = Key::root(1).stream("rows");
        let rows: Vec<Vec<f64>> = (0..80).map(|_| (0..3).map(|_| random.normal(5.0, 2.0)).collect()).collect();
        let classes: Vec<bool> = rows.iter().map(|row| row[0] - row[1] + random.normal(0.0, 1.0) > 0.0).collect();
        let borrowed: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let fitted = Logistic::fit(&borrowed, &classes);
        let standard: Vec<Vec<f64>> = rows.iter().map(|row| fitted.standardize(row)).collect();
        let class_count = |class: bool| classes.iter().filter(|other| **other == class).count() as f64;
        let loss = |weights: &[f64]| {
            let each = standard.iter().zip(&classes).map(|(row, class)| {
                let odds: f64 = row.iter().zip(weights).map(|(value, weight)| value * weight).sum();
                40.0 / class_count(*class) * if *class { (-odds).exp().ln_1p() } else { odds.exp().ln_1p() }
            });
            each.sum::<f64>() + 0.5 * RIDGE * weights[..3].iter().map(|w| w * w).sum::<f64>()
        };
        for k in 0..4 {
            for step in [-1e-3, 1e-3] {
                let mut other = fitted.weights.clone();
                other[k] += step;
                assert!(loss(&other) > loss(&fitted.weights), "{k} {step}");
            }
        }
        assert!(fitted.weights[0] > 0.5 && fitted.weights[1] < -0.5, "{:?}", fitted.weights);
    }
}
