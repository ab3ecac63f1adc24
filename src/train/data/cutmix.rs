//! CutMix: a part of one crop replaces the same part of another crop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Crop;
use crate::error::ConfigError;
use crate::random::RandomStream;
use crate::volume::Region;

/// The settings of CutMix, which replaces a part of each crop of a batch by that of another crop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CutMixConfig {
    /// Probability that CutMix is applied to a batch.
    pub probability: f64,
    /// Both shape parameters of the beta distribution of the position of the cutting plane; small values cut near an edge of the crop.
    pub beta: f64,
}

impl Default for CutMixConfig {
    fn default() -> Self {
        Self { probability: 0.5, beta: 0.2 }
    }
}

impl CutMixConfig {
    /// Returns all errors in the settings.
    pub fn errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if !(0.0..=1.0).contains(&self.probability) {
            let message = format!("expected a number from 0 to 1, got {}", self.probability);
            errors.push(ConfigError::new("probability", message));
        }
        if !(0.01..=100.0).contains(&self.beta) {
            errors.push(ConfigError::new("beta", format!("expected a number from 0.01 to 100, got {}", self.beta)));
        }
        errors
    }
}

/// Applies CutMix to a batch: in each crop, the voxels beyond a plane perpendicular to x or y are replaced by those of the next crop, in
/// image and labels.
///
/// # Source
/// The half-volume CutMix of FreeTumor, with one axis for image and label; the published code samples the axis for each of them.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::train::data::{CutMixConfig, Crop, cut_mix};
/// use freetumor::volume::Array3;
///
/// let crop = |value: u8| Crop {
///     image: Array3::filled([8, 8, 4], f32::from(value)),
///     labels: Array3::filled([8, 8, 4], value),
///     origin: Default::default(),
/// };
/// let config = CutMixConfig { probability: 1.0, beta: 1.0 };
/// let mixed = cut_mix(vec![crop(1), crop(2)], &config, &mut Key::root(2).stream("cutmix"));
/// assert!(mixed.iter().all(|crop| crop.image.map(|value| *value as u8) == crop.labels));
/// assert!(mixed[0].labels.as_slice().contains(&1) && mixed[0].labels.as_slice().contains(&2));
/// ```
///
/// # Panics
/// Panics if the crops have different shapes.
pub fn cut_mix(crops: Vec<Crop>, config: &CutMixConfig, random: &mut RandomStream) -> Vec<Crop> {
    let is_applied = random.chance(config.probability);
    if !is_applied || crops.len() < 2 {
        return crops;
    }
    let axis = random.index(2);
    let shape = crops[0].image.shape();
    let cut = (beta(config.beta, random) * shape[axis] as f64).round() as usize;
    if cut >= shape[axis] {
        return crops;
    }
    let mut beyond = Region { start: [0; 3], shape };
    beyond.start[axis] = cut;
    beyond.shape[axis] -= cut;
    let parts: Vec<_> = crops.iter().map(|crop| (crop.image.cut(beyond), crop.labels.cut(beyond))).collect();
    let count = crops.len();
    let mixed = crops.into_iter().enumerate().map(|(index, mut crop)| {
        let (image, labels) = &parts[(index + 1) % count];
        crop.image.paste(beyond.start, image);
        crop.labels.paste(beyond.start, labels);
        crop
    });
    mixed.collect()
}

/// Samples the beta distribution with two equal shape parameters (Jöhnk's algorithm, in logarithms because powers of small numbers
/// underflow).
fn beta(shape: f64, random: &mut RandomStream) -> f64 {
    loop {
        let [a, b] = [(); 2].map(|()| libm::log(1.0 - random.uniform(0.0, 1.0)) / shape);
        let max = a.max(b);
        let sum = max + libm::log(libm::exp(a - max) + libm::exp(b - max));
        if sum <= 0.0 {
            return libm::exp(a - sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::volume::Array3;

    #[test]
    fn cut_mix_moves_labels_with_voxels() {
        // All voxels of a crop differ, and the label is the index of the crop.
        let crops: Vec<Crop> = (0..4u8)
            .map(|id| Crop {
                image: Array3::from_fn([6, 5, 4], |[x, y, z]| f32::from(id) * 1000.0 + (x + 6 * (y + 5 * z)) as f32),
                labels: Array3::filled([6, 5, 4], id),
                origin: Default::default(),
            })
            .collect();
        let config = CutMixConfig { probability: 1.0, beta: 0.2 };
        let mut moved = 0;
        for seed in 0..200 {
            let mixed = cut_mix(crops.clone(), &config, &mut Key::root(seed).stream("cutmix"));
            for crop in &mixed {
                for (at, (value, label)) in crop.image.as_slice().iter().zip(crop.labels.as_slice()).enumerate() {
                    assert_eq!(*value, f32::from(*label) * 1000.0 + at as f32);
                }
            }
            moved += usize::from(mixed != crops);
        }
        assert!(moved > 100, "{moved}");
    }

    #[test]
    fn beta_has_expected_mean_and_variance() {
        for shape in [0.2, 1.0, 4.0] {
            let mut random = Key::root(7).stream("beta");
            let values: Vec<f64> = (0..20_000).map(|_| beta(shape, &mut random)).collect();
            let mean = values.iter().sum::<f64>() / 20_000.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 20_000.0;
            let expected = 0.25 / (2.0 * shape + 1.0);
            assert!(
                (mean - 0.5).abs() < 0.02 && (variance / expected - 1.0).abs() < 0.05,
                "{shape}: {mean} {variance}"
            );
        }
    }
}
