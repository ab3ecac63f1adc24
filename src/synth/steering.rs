//! Steering: a table of factors by which a synthesis samples sizes and contrasts more or less often.

use serde::{Deserialize, Serialize};

/// Factors τ by sampled diameter and contrast. A steered synthesis samples sizes and contrasts with their own density times τ, and the
/// quality test divides by τ, so that accepted tumors have the same distribution at a lower cost.
///
/// ```
/// use freetumor::synth::Steering;
/// let steering = Steering {
///     diameters_mm: vec![10.0, 20.0],
///     contrasts_hu: vec![0.0],
///     factors: vec![0.5, 0.5, 1.0, 2.0, 4.0, 1.0],
///     maximum: 1.2,
///     max_factor: 4.0,
/// };
/// assert_eq!(steering.factor(12.0, Some(5.0)), 2.0);
/// assert_eq!(steering.factor(25.0, Some(-30.0)), 4.0);
/// assert_eq!(steering.greatest(), 4.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steering {
    /// The edges between bins of the sampled diameter, ascending.
    pub diameters_mm: Vec<f64>,
    /// The edges between bins of the sampled contrast, ascending; empty if a network makes the contrast.
    pub contrasts_hu: Vec<f64>,
    /// The factor of each bin, the bins of the contrast fastest.
    pub factors: Vec<f64>,
    /// The quotient of density ratio and factor at which tumors are always accepted.
    pub maximum: f64,
    /// The limit of the factors: they are between 1 / max_factor and max_factor.
    pub max_factor: f64,
}

impl Steering {
    /// Returns the factor of a sampled size and contrast; tumors without a sampled contrast are in the first bin.
    pub fn factor(&self, diameter_mm: f64, contrast_hu: Option<f64>) -> f64 {
        self.factors[self.bin(diameter_mm, contrast_hu)]
    }

    /// Returns the index of the bin of a sampled size and contrast.
    pub(crate) fn bin(&self, diameter_mm: f64, contrast_hu: Option<f64>) -> usize {
        let bin = |edges: &[f64], value: f64| edges.partition_point(|edge| *edge <= value);
        let column = contrast_hu.map_or(0, |contrast| bin(&self.contrasts_hu, contrast));
        bin(&self.diameters_mm, diameter_mm) * (self.contrasts_hu.len() + 1) + column
    }

    /// Returns the greatest factor.
    pub fn greatest(&self) -> f64 {
        self.factors.iter().copied().fold(0.0, f64::max)
    }

    /// Checks a table from a file.
    ///
    /// # Errors
    /// Returns a description of the first problem of the table.
    pub(crate) fn check(&self) -> Result<(), String> {
        let bins = (self.diameters_mm.len() + 1) * (self.contrasts_hu.len() + 1);
        if self.factors.len() != bins {
            return Err(format!("{} factors instead of {bins}", self.factors.len()));
        }
        let is_ascending = |edges: &[f64]| edges.windows(2).all(|pair| pair[0] < pair[1]);
        if !is_ascending(&self.diameters_mm) || !is_ascending(&self.contrasts_hu) {
            return Err("edges that are not ascending".to_owned());
        }
        let positive = self.factors.iter().chain([&self.maximum]).all(|factor| *factor > 0.0 && factor.is_finite());
        if positive { Ok(()) } else { Err("factors that are not above 0".to_owned()) }
    }
}
