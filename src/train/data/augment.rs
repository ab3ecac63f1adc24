//! Small changes that leave a crop what it is: flips, quarter turns, brightness.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Patch;
use crate::error::ConfigError;
use crate::random::RandomStream;
use crate::volume::Array3;

/// How crops are changed, each change by itself with its probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Probability of a flip along each axis.
    pub flip: f64,
    /// Probability of one to three quarter turns in the axial plane.
    pub turn: f64,
    /// Probability that the image is multiplied by a number near 1.
    pub scale: f64,
    /// How far from 1 that number is at most.
    pub scale_by: f64,
    /// Probability that a number near 0 is added to the image.
    pub shift: f64,
    /// How far from 0 that number is at most, as a share of the window.
    pub shift_by: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { flip: 0.2, turn: 0.2, scale: 0.1, scale_by: 0.1, shift: 0.1, shift_by: 0.1 }
    }
}

impl AugmentConfig {
    /// Everything that is wrong with the settings.
    pub fn complaints(&self) -> Vec<ConfigError> {
        let shares = [("flip", self.flip), ("turn", self.turn), ("scale", self.scale), ("shift", self.shift)];
        let amounts = [("scale_by", self.scale_by), ("shift_by", self.shift_by)];
        let bad = shares.into_iter().chain(amounts).filter(|(_, value)| !(0.0..=1.0).contains(value));
        bad.map(|(name, value)| ConfigError::new(name, format!("expected a number from 0 to 1, got {value}"))).collect()
    }

    /// Draws the flips and turns of a crop.
    pub fn symmetry(&self, shape: [usize; 3], draws: &mut RandomStream) -> Symmetry {
        let mut symmetry = Symmetry::none(shape);
        for axis in 0..3 {
            if draws.chance(self.flip) {
                symmetry = symmetry.flipped(axis);
            }
        }
        // Drawn in any case, so that what follows does not depend on the shape.
        let (turned, quarters) = (draws.chance(self.turn), 1 + draws.index(3));
        if turned && shape[0] == shape[1] {
            for _ in 0..quarters {
                symmetry = symmetry.turned();
            }
        }
        symmetry
    }

    /// Draws a change of brightness and applies it.
    pub fn brighten(&self, image: &mut Array3<f32>, draws: &mut RandomStream) {
        let (scaled, by) = (draws.chance(self.scale), draws.uniform(-self.scale_by, self.scale_by));
        let factor = if scaled { 1.0 + by as f32 } else { 1.0 };
        let (shifted, by) = (draws.chance(self.shift), draws.uniform(-self.shift_by, self.shift_by));
        let offset = if shifted { by as f32 } else { 0.0 };
        if scaled || shifted {
            image.as_mut_slice().iter_mut().for_each(|value| *value = *value * factor + offset);
        }
    }

    /// Draws all changes of a crop and applies them.
    #[must_use]
    pub fn apply(&self, mut patch: Patch, draws: &mut RandomStream) -> Patch {
        let symmetry = self.symmetry(patch.image.shape(), draws);
        patch.image = symmetry.of(patch.image);
        patch.labels = symmetry.of(patch.labels);
        self.brighten(&mut patch.image, draws);
        patch
    }
}

/// A rearrangement of a box's voxels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symmetry {
    shape: [usize; 3],
    /// Where the first voxel comes from, and how far apart those come from that follow along each axis.
    first: isize,
    strides: [isize; 3],
}

impl Symmetry {
    /// Everything stays.
    pub fn none(shape: [usize; 3]) -> Self {
        let [nx, ny, _] = shape.map(|n| n as isize);
        Self { shape, first: 0, strides: [1, nx, nx * ny] }
    }

    /// The same, mirrored along an axis.
    #[must_use]
    pub fn flipped(mut self, axis: usize) -> Self {
        self.first += self.strides[axis] * (self.shape[axis] as isize - 1);
        self.strides[axis] = -self.strides[axis];
        self
    }

    /// The same, turned by a quarter in the axial plane; x and y have the same length.
    #[must_use]
    pub fn turned(mut self) -> Self {
        self.strides.swap(0, 1);
        self.shape.swap(0, 1);
        self.flipped(0)
    }

    /// The rearranged voxels.
    ///
    /// # Panics
    /// Where the box has another shape.
    pub fn of<T: Copy>(&self, array: Array3<T>) -> Array3<T> {
        if *self == Self::none(self.shape) {
            return array;
        }
        let values = array.as_slice();
        assert_eq!(values.len(), self.shape.iter().product::<usize>(), "a symmetry is of one shape");
        Array3::from_fn(self.shape, |voxel| {
            let from: isize = self.strides.iter().zip(voxel).map(|(stride, at)| stride * at as isize).sum();
            values[(self.first + from) as usize]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn flips_and_turns_are_what_they_say() {
        let array = Array3::from_fn([3, 3, 2], |[x, y, z]| 100 * x + 10 * y + z);
        let flipped = Symmetry::none([3, 3, 2]).flipped(1).of(array.clone());
        assert_eq!(flipped, Array3::from_fn([3, 3, 2], |[x, y, z]| array[[x, 2 - y, z]]));
        let turned = Symmetry::none([3, 3, 2]).turned().of(array.clone());
        assert_eq!(turned, Array3::from_fn([3, 3, 2], |[x, y, z]| array[[y, 2 - x, z]]));
        let around = (0..4).fold(Symmetry::none([3, 3, 2]), |it, _| it.turned());
        assert_eq!(around.of(array.clone()), array);
        let both = Symmetry::none([3, 3, 2]).flipped(0).turned().of(array.clone());
        let after = Symmetry::none([3, 3, 2]).turned().of(Symmetry::none([3, 3, 2]).flipped(0).of(array));
        assert_eq!(both, after);
    }

    #[test]
    fn labels_go_with_their_voxels() {
        let config = AugmentConfig { flip: 0.5, turn: 0.5, ..AugmentConfig::default() };
        let image = Array3::from_fn([4, 4, 3], |[x, y, z]| (x + 4 * y + 16 * z) as f32);
        let labels = image.map(|value| *value as u8);
        for seed in 0..20 {
            let patch = Patch { image: image.clone(), labels: labels.clone(), origin: Default::default() };
            let config = AugmentConfig { scale: 0.0, shift: 0.0, ..config };
            let patch = config.apply(patch, &mut Key::root(seed).draws("augment"));
            assert_eq!(patch.image.map(|value| *value as u8), patch.labels);
        }
    }
}
