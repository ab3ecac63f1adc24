//! The classifier of real and synthetic lesions.

use crate::statistics::{Penalty, fit_logistic};

/// Features are clamped to this many standard deviations from their mean.
const MAX_DEVIATIONS: f64 = 4.0;

/// A logistic regression of standardized features.
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
        let mut fitted = Self { means, deviations, weights: Vec::new() };
        let standard: Vec<Vec<f64>> = rows.iter().map(|row| fitted.standardize(row)).collect();
        fitted.weights =
            fit_logistic(&standard, classes, &vec![1.0; rows.len()], Penalty { weights: 1.0, intercept: 1e-6 });
        fitted
    }

    /// Returns the logarithm of the odds of class `true`.
    pub(super) fn score(&self, row: &[f64]) -> f64 {
        let standard = self.standardize(row).into_iter().chain([1.0]);
        standard.zip(&self.weights).map(|(value, weight)| value * weight).sum()
    }

    fn standardize(&self, row: &[f64]) -> Vec<f64> {
        let scaled = row.iter().zip(self.means.iter().zip(&self.deviations));
        scaled
            .map(|(value, (mean, deviation))| ((value - mean) / deviation).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_does_not_depend_on_units_of_features() {
        let rows: Vec<[f64; 2]> = (0..40).map(|i| [f64::from(i % 7), f64::from(i * i % 11)]).collect();
        let classes: Vec<bool> = rows.iter().map(|row| row[0] > row[1]).collect();
        let scaled: Vec<[f64; 2]> = rows.iter().map(|row| [1000.0 * row[0] + 3.0, row[1]]).collect();
        let fit =
            |rows: &[[f64; 2]]| Logistic::fit(&rows.iter().map(<[f64; 2]>::as_slice).collect::<Vec<_>>(), &classes);
        let (first, second) = (fit(&rows), fit(&scaled));
        for (row, other) in rows.iter().zip(&scaled) {
            assert!((first.score(row) - second.score(other)).abs() < 1e-6);
        }
    }
}
