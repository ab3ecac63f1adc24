//! The selection of crops of a case.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Case;
use crate::error::ConfigError;
use crate::mask::{IGNORE_LABEL, Organ};
use crate::random::RandomStream;
use crate::volume::Region;

/// The weights of the kinds of voxels that crops are centred on; kinds that a case does not have are not sampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CropConfig {
    /// The weight of voxels of any label.
    pub label: f64,
    /// The weight of voxels of tumors.
    pub tumor: f64,
    /// The weight of voxels without a label.
    pub background: f64,
}

impl Default for CropConfig {
    /// Returns equal weights for voxels with and without a label, as published.
    fn default() -> Self {
        Self { label: 1.0, tumor: 0.0, background: 1.0 }
    }
}

/// The kind of voxel that a crop is centred on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CropCentre {
    /// A voxel of any label.
    Label,
    /// A voxel of a tumor.
    Tumor,
    /// A voxel without a label.
    Background,
}

impl CropConfig {
    /// Returns all errors in the weights.
    pub fn errors(&self) -> Vec<ConfigError> {
        let named = [("label", self.label), ("tumor", self.tumor), ("background", self.background)];
        let invalid = named.iter().filter(|(_, weight)| !(weight.is_finite() && *weight >= 0.0));
        let mut errors: Vec<ConfigError> = invalid
            .map(|(name, weight)| ConfigError::new(*name, format!("expected a weight of at least 0, got {weight}")))
            .collect();
        if errors.is_empty() && named.iter().all(|(_, weight)| *weight == 0.0) {
            errors.push(ConfigError::new("", "expected a weight above 0, all are 0"));
        }
        errors
    }

    /// Samples the kind of voxel that the next crop of a case is centred on.
    pub fn sample_centre(&self, case: &Case, organs: &[Organ], random: &mut RandomStream) -> CropCentre {
        let known = case.index.labels().filter(|label| *label != IGNORE_LABEL);
        let all: usize = known.map(|label| case.index.count(label)).sum();
        let background = case.index.count(0);
        let has_tumor = organs.iter().any(|organ| case.index.count(organ.tumor_label) > 0);
        let weights = [
            (CropCentre::Label, if all > background { self.label } else { 0.0 }),
            (CropCentre::Tumor, if has_tumor { self.tumor } else { 0.0 }),
            (CropCentre::Background, if background > 0 { self.background } else { 0.0 }),
        ];
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut position = random.uniform(0.0, sum);
        for (centre, weight) in weights {
            if position < weight {
                return centre;
            }
            position -= weight;
        }
        // The case has none of the kinds with a positive weight.
        if all > background { CropCentre::Label } else { CropCentre::Background }
    }
}

impl CropCentre {
    /// Samples a crop with a voxel of this kind in its middle, or as near to the middle as the edges of the case allow.
    pub fn crop(self, case: &Case, organs: &[Organ], random: &mut RandomStream) -> Region {
        let is_selected = |label: u8| match self {
            Self::Label => ![0, IGNORE_LABEL].contains(&label),
            Self::Tumor => organs.iter().any(|organ| organ.tumor_label == label),
            Self::Background => label == 0,
        };
        let voxel = case.index.sample(&case.masked.mask.labels, is_selected, random);
        let middle = voxel.unwrap_or_else(|| case.shape().map(|voxels| random.index(voxels)));
        crop_around(middle, case.patch, case.shape())
    }
}

/// Returns the region of `patch` voxels around a voxel, shifted to be inside the case.
pub(in crate::train) fn crop_around(middle: [usize; 3], patch: [usize; 3], shape: [usize; 3]) -> Region {
    assert!((0..3).all(|axis| patch[axis] <= shape[axis]), "a case {shape:?} is padded to its patch {patch:?}");
    let start = [0, 1, 2].map(|axis| middle[axis].saturating_sub(patch[axis] / 2).min(shape[axis] - patch[axis]));
    Region { start, shape: patch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::train::testing::{case, organs};

    #[test]
    fn crops_contain_their_centre_label() {
        let case = case(3);
        let mut random = Key::root(1).stream("crop");
        for _ in 0..50 {
            let region = CropCentre::Label.crop(&case, &organs(), &mut random);
            assert_eq!(region.shape, [16; 3]);
            assert!(case.masked.mask.labels.cut(region).as_slice().iter().any(|label| *label > 0));
        }
        assert_eq!(crop_around([0, 9, 5], [4; 3], [10; 3]).start, [0, 6, 3]);
    }

    #[test]
    fn sample_centre_skips_absent_labels() {
        let case = case(3);
        let config = CropConfig { label: 0.0, tumor: 5.0, background: 1.0 };
        let mut random = Key::root(2).stream("crop");
        assert!((0..20).all(|_| config.sample_centre(&case, &organs(), &mut random) == CropCentre::Background));
        let config = CropConfig { label: 0.0, tumor: 5.0, background: 0.0 };
        assert_eq!(config.sample_centre(&case, &organs(), &mut random), CropCentre::Label);
        let even = CropConfig::default();
        let labels =
            (0..1000).filter(|_| even.sample_centre(&case, &organs(), &mut random) == CropCentre::Label).count();
        assert!((440..560).contains(&labels), "{labels}");
    }
}
