//! Logistic regression with a ridge, by Newton's method.

/// How strongly weights of standardised features are drawn towards 0: as much as one deviation on one lesion counts.
const RIDGE: f64 = 1.0;
/// A feature farther from its mean than so many deviations is taken for that far.
const FARTHEST: f64 = 4.0;
/// Newton's steps; ten more than ever needed with a ridge.
const STEPS: usize = 30;

/// A classifier that has been fitted.
#[derive(Clone, Debug)]
pub(super) struct Logistic {
    means: Vec<f64>,
    deviations: Vec<f64>,
    weights: Vec<f64>,
}

impl Logistic {
    /// Fits rows of features to their classes; both classes count as much, however many rows they have.
    ///
    /// # Shapes
    /// As many rows as classes; every row as long as the first.
    pub(super) fn fit(rows: &[&[f64]], classes: &[bool]) -> Self {
        let count = rows.len() as f64;
        let width = rows.first().map_or(0, |row| row.len());
        let column = |k: usize| rows.iter().map(move |row| row[k]);
        let means: Vec<f64> = (0..width).map(|k| column(k).sum::<f64>() / count).collect();
        let deviation = |k: usize| (column(k).map(|v| (v - means[k]).powi(2)).sum::<f64>() / count).sqrt().max(1e-9);
        let deviations: Vec<f64> = (0..width).map(deviation).collect();
        let mut fitted = Self { means, deviations, weights: vec![0.0; width + 1] };
        let standard: Vec<Vec<f64>> = rows.iter().map(|row| fitted.standardised(row)).collect();
        let of_class = |class: bool| classes.iter().filter(|own| **own == class).count().max(1) as f64;
        let weight = [false, true].map(|class| 0.5 * count / of_class(class));
        for _ in 0..STEPS {
            let step = fitted.step(&standard, classes, weight);
            let longest = step.iter().fold(0.0f64, |most, value| most.max(value.abs()));
            fitted.weights.iter_mut().zip(&step).for_each(|(weight, step)| *weight -= step);
            if longest < 1e-10 {
                break;
            }
        }
        fitted
    }

    /// The higher, the more likely the true class: the logarithm of the odds.
    pub(super) fn score(&self, row: &[f64]) -> f64 {
        self.odds(&self.standardised(row))
    }

    fn standardised(&self, row: &[f64]) -> Vec<f64> {
        let scaled = row.iter().zip(self.means.iter().zip(&self.deviations));
        let scaled = scaled.map(|(value, (mean, deviation))| ((value - mean) / deviation).clamp(-FARTHEST, FARTHEST));
        scaled.chain([1.0]).collect()
    }

    fn odds(&self, standard: &[f64]) -> f64 {
        standard.iter().zip(&self.weights).map(|(value, weight)| value * weight).sum()
    }

    /// Newton's step: the gradient through the inverse of the curvature.
    fn step(&self, rows: &[Vec<f64>], classes: &[bool], weight: [f64; 2]) -> Vec<f64> {
        let size = self.weights.len();
        let mut gradient: Vec<f64> = self.weights.iter().map(|weight| RIDGE * weight).collect();
        let mut curvature = vec![vec![0.0; size]; size];
        // The last weight is the offset, which nothing draws to 0 but enough to stay finite.
        gradient[size - 1] *= 1e-6;
        for (k, row) in curvature.iter_mut().enumerate() {
            row[k] = if k + 1 < size { RIDGE } else { 1e-6 * RIDGE };
        }
        for (row, class) in rows.iter().zip(classes) {
            let p = 1.0 / (1.0 + libm::exp(-self.odds(row)));
            let own = weight[usize::from(*class)];
            let error = own * (p - f64::from(u8::from(*class)));
            let bend = own * (p * (1.0 - p)).max(1e-9);
            for i in 0..size {
                gradient[i] += error * row[i];
                for j in 0..=i {
                    curvature[i][j] += bend * row[i] * row[j];
                }
            }
        }
        solved(curvature, gradient)
    }
}

/// Solves a positive definite system of which the lower half is given (Cholesky).
fn solved(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
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
    fn systems_are_solved() {
        let matrix = vec![vec![4.0, 0.0, 0.0], vec![2.0, 5.0, 0.0], vec![1.0, 3.0, 6.0]];
        let x = solved(matrix, vec![4.0 + 4.0 + 3.0, 2.0 + 10.0 + 9.0, 1.0 + 6.0 + 18.0]);
        assert!(x.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{x:?}");
    }

    #[test]
    fn the_fit_is_where_the_loss_is_flat() {
        let mut draws = Key::root(1).draws("rows");
        let rows: Vec<Vec<f64>> = (0..80).map(|_| (0..3).map(|_| draws.normal(5.0, 2.0)).collect()).collect();
        let classes: Vec<bool> = rows.iter().map(|row| row[0] - row[1] + draws.normal(0.0, 1.0) > 0.0).collect();
        let borrowed: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let fitted = Logistic::fit(&borrowed, &classes);
        let standard: Vec<Vec<f64>> = rows.iter().map(|row| fitted.standardised(row)).collect();
        let of = |class: bool| classes.iter().filter(|own| **own == class).count() as f64;
        let loss = |weights: &[f64]| {
            let each = standard.iter().zip(&classes).map(|(row, class)| {
                let odds: f64 = row.iter().zip(weights).map(|(value, weight)| value * weight).sum();
                40.0 / of(*class) * if *class { (-odds).exp().ln_1p() } else { odds.exp().ln_1p() }
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
