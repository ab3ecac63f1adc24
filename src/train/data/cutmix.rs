//! CutMix: a part of one crop replaces the same part of another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Patch;
use crate::error::ConfigError;
use crate::random::RandomStream;
use crate::volume::Region;

/// The mixing of the crops of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CutMixConfig {
    /// Probability that a batch is mixed.
    pub probability: f64,
    /// Both shape parameters of the beta distribution of the position of the cut; small values cut near an edge.
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

/// Mixes a batch: the part behind a cut across x or y is replaced by that of the next crop, in the image and the labels.
///
/// # Source
/// The half-volume CutMix of FreeTumor, with one axis for image and label; the published code samples the axis for each of them.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::train::data::{CutMixConfig, Patch, cut_mix};
/// use freetumor::volume::Array3;
///
/// let patch = |value: u8| Patch {
///     image: Array3::filled([8, 8, 4], f32::from(value)),
///     labels: Array3::filled([8, 8, 4], value),
///     origin: Default::default(),
/// };
/// let config = CutMixConfig { probability: 1.0, beta: 1.0 };
/// let mixed = cut_mix(vec![patch(1), patch(2)], &config, &mut Key::root(2).stream("cutmix"));
/// assert!(mixed.iter().all(|patch| patch.image.map(|value| *value as u8) == patch.labels));
/// assert!(mixed[0].labels.as_slice().contains(&1) && mixed[0].labels.as_slice().contains(&2));
/// ```
///
/// # Panics
/// Panics if the crops have different shapes.
pub fn cut_mix(patches: Vec<Patch>, config: &CutMixConfig, random: &mut RandomStream) -> Vec<Patch> {
    let is_mixed = random.chance(config.probability);
    if !is_mixed || patches.len() < 2 {
        return patches;
    }
    let axis = random.index(2);
    let shape = patches[0].image.shape();
    let cut = (beta(config.beta, random) * shape[axis] as f64).round() as usize;
    if cut >= shape[axis] {
        return patches;
    }
    let mut behind = Region { start: [0; 3], shape };
    behind.start[axis] = cut;
    behind.shape[axis] -= cut;
    let parts: Vec<_> = patches.iter().map(|patch| (patch.image.cut(behind), patch.labels.cut(behind))).collect();
    let count = patches.len();
    let mixed = patches.into_iter().enumerate().map(|(index, mut patch)| {
        let (image, labels) = &parts[(index + 1) % count];
        patch.image.paste(behind.start, image);
        patch.labels.paste(behind.start, labels);
        patch
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
        let patches: Vec<Patch> = (0..4u8)
            .map(|id| Patch {
                image: Array3::from_fn([6, 5, 4], |[x, y, z]| f32::from(id) * 1000.0 + (x + 6 * (y + 5 * z)) as f32),
                labels: Array3::filled([6, 5, 4], id),
                origin: Default::default(),
            })
            .collect();
        let config = CutMixConfig { probability: 1.0, beta: 0.2 };
        let mut moved = 0;
        for seed in 0..200 {
            let mixed = cut_mix(patches.clone(), &config, &mut Key::root(seed).stream("cutmix"));
            for patch in &mixed {
                for (at, (value, label)) in patch.image.as_slice().iter().zip(patch.labels.as_slice()).enumerate() {
                    assert_eq!(*value, f32::from(*label) * 1000.0 + at as f32);
                }
            }
            moved += usize::from(mixed != patches);
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
