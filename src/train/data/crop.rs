//! Which part of a case a network sees.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Case;
use crate::error::ConfigError;
use crate::mask::Organ;
use crate::random::RandomStream;
use crate::volume::Region;

/// How often crops lie around what, as weights; what a case does not show is not drawn from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CropConfig {
    /// Around a voxel of any label.
    pub label: f64,
    /// Around a voxel of a tumor.
    pub tumor: f64,
    /// Around a voxel without a label.
    pub background: f64,
}

impl Default for CropConfig {
    /// One around a label to one around none, as published.
    fn default() -> Self {
        Self { label: 1.0, tumor: 0.0, background: 1.0 }
    }
}

/// What a crop lies around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CropCentre {
    /// Any label.
    Label,
    /// A tumor.
    Tumor,
    /// No label.
    Background,
}

impl CropConfig {
    /// Everything that is wrong with the weights.
    pub fn complaints(&self) -> Vec<ConfigError> {
        let named = [("label", self.label), ("tumor", self.tumor), ("background", self.background)];
        let bad = named.iter().filter(|(_, weight)| !(weight.is_finite() && *weight >= 0.0));
        let mut complaints: Vec<ConfigError> = bad
            .map(|(name, weight)| ConfigError::new(*name, format!("expected a weight from 0, got {weight}")))
            .collect();
        if complaints.is_empty() && named.iter().all(|(_, weight)| *weight == 0.0) {
            complaints.push(ConfigError::new("", "expected a weight above 0, all are 0"));
        }
        complaints
    }

    /// Draws what the next crop of a case lies around.
    pub fn draw(&self, case: &Case, organs: &[Organ], draws: &mut RandomStream) -> CropCentre {
        let all: usize = case.index.labels().map(|label| case.index.count(label)).sum();
        let background = case.index.count(0);
        let has_tumor = organs.iter().any(|organ| case.index.count(organ.tumor_label) > 0);
        let weights = [
            (CropCentre::Label, if all > background { self.label } else { 0.0 }),
            (CropCentre::Tumor, if has_tumor { self.tumor } else { 0.0 }),
            (CropCentre::Background, if background > 0 { self.background } else { 0.0 }),
        ];
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut place = draws.uniform(0.0, sum);
        for (around, weight) in weights {
            if place < weight {
                return around;
            }
            place -= weight;
        }
        // Everything that is wanted is absent here: any voxel will do.
        if all > background { CropCentre::Label } else { CropCentre::Background }
    }
}

impl CropCentre {
    /// The box of a patch with a voxel of this kind in its middle, or as near to it as the case's edges allow.
    pub fn crop(self, case: &Case, organs: &[Organ], draws: &mut RandomStream) -> Region {
        let is_wanted = |label: u8| match self {
            Self::Label => label > 0,
            Self::Tumor => organs.iter().any(|organ| organ.tumor_label == label),
            Self::Background => label == 0,
        };
        let drawn = case.index.draw(&case.masked.mask.labels, is_wanted, draws);
        let middle = drawn.unwrap_or_else(|| case.shape().map(|voxels| draws.index(voxels)));
        around(middle, case.patch, case.shape())
    }
}

/// The box of `patch` voxels around a voxel, moved where it would reach beyond the edge.
pub(in crate::train) fn around(middle: [usize; 3], patch: [usize; 3], shape: [usize; 3]) -> Region {
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
    fn crops_hold_what_they_lie_around() {
        let case = case(3);
        let mut draws = Key::root(1).draws("crop");
        for _ in 0..50 {
            let region = CropCentre::Label.crop(&case, &organs(), &mut draws);
            assert_eq!(region.shape, [16; 3]);
            assert!(case.masked.mask.labels.cut(region).as_slice().iter().any(|label| *label > 0));
        }
        assert_eq!(around([0, 9, 5], [4; 3], [10; 3]).start, [0, 6, 3]);
    }

    #[test]
    fn what_is_absent_is_not_drawn() {
        let case = case(3);
        let config = CropConfig { label: 0.0, tumor: 5.0, background: 1.0 };
        let mut draws = Key::root(2).draws("crop");
        assert!((0..20).all(|_| config.draw(&case, &organs(), &mut draws) == CropCentre::Background));
        let config = CropConfig { label: 0.0, tumor: 5.0, background: 0.0 };
        assert_eq!(config.draw(&case, &organs(), &mut draws), CropCentre::Label);
        let even = CropConfig::default();
        let labels = (0..1000).filter(|_| even.draw(&case, &organs(), &mut draws) == CropCentre::Label).count();
        assert!((440..560).contains(&labels), "{labels}");
    }
}
