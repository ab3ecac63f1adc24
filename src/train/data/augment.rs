//! Augmentation of crops: flips, quarter turns, brightness.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Crop;
use crate::error::ConfigError;
use crate::random::RandomStream;
use crate::volume::Array3;

/// The augmentation of crops; each change is applied independently with its probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Probability of a flip along each axis.
    pub flip: f64,
    /// Probability of one to three quarter turns in the axial plane.
    pub turn: f64,
    /// Probability that the image is multiplied by a factor near 1.
    pub scale: f64,
    /// Maximum difference of that factor from 1.
    pub scale_by: f64,
    /// Probability that an offset near 0 is added to the image.
    pub shift: f64,
    /// Maximum absolute offset, as a share of the window.
    pub shift_by: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { flip: 0.2, turn: 0.2, scale: 0.1, scale_by: 0.1, shift: 0.1, shift_by: 0.1 }
    }
}

impl AugmentConfig {
    /// Returns all errors in the settings.
    pub fn errors(&self) -> Vec<ConfigError> {
        let shares = [("flip", self.flip), ("turn", self.turn), ("scale", self.scale), ("shift", self.shift)];
        let amounts = [("scale_by", self.scale_by), ("shift_by", self.shift_by)];
        let invalid = shares.into_iter().chain(amounts).filter(|(_, value)| !(0.0..=1.0).contains(value));
        invalid
            .map(|(name, value)| ConfigError::new(name, format!("expected a number from 0 to 1, got {value}")))
            .collect()
    }

    /// Samples the flips and turns of a crop.
    pub fn symmetry(&self, shape: [usize; 3], random: &mut RandomStream) -> Symmetry {
        let mut symmetry = Symmetry::none(shape);
        for axis in 0..3 {
            if random.chance(self.flip) {
                symmetry = symmetry.flipped(axis);
            }
        }
        // Both are sampled for every shape, so that the rest of the random stream does not depend on the shape.
        let (turned, quarters) = (random.chance(self.turn), 1 + random.index(3));
        if turned && shape[0] == shape[1] {
            for _ in 0..quarters {
                symmetry = symmetry.turned();
            }
        }
        symmetry
    }

    /// Samples a change of brightness and applies it.
    pub fn brighten(&self, image: &mut Array3<f32>, random: &mut RandomStream) {
        let (scaled, by) = (random.chance(self.scale), random.uniform(-self.scale_by, self.scale_by));
        let factor = if scaled { 1.0 + by as f32 } else { 1.0 };
        let (shifted, by) = (random.chance(self.shift), random.uniform(-self.shift_by, self.shift_by));
        let offset = if shifted { by as f32 } else { 0.0 };
        if scaled || shifted {
            image.as_mut_slice().iter_mut().for_each(|value| *value = *value * factor + offset);
        }
    }

    /// Samples all changes of a crop and applies them.
    #[must_use]
    pub fn apply(&self, mut crop: Crop, random: &mut RandomStream) -> Crop {
        let symmetry = self.symmetry(crop.image.shape(), random);
        crop.image = symmetry.of(crop.image);
        crop.labels = symmetry.of(crop.labels);
        self.brighten(&mut crop.image, random);
        crop
    }
}

/// A permutation of the voxels of a box: flips and quarter turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symmetry {
    shape: [usize; 3],
    /// The source index of the first voxel, and the source strides along each axis.
    first: isize,
    strides: [isize; 3],
}

impl Symmetry {
    /// Returns the identity.
    pub fn none(shape: [usize; 3]) -> Self {
        let [nx, ny, _] = shape.map(|n| n as isize);
        Self { shape, first: 0, strides: [1, nx, nx * ny] }
    }

    /// Adds a flip along an axis.
    #[must_use]
    pub fn flipped(mut self, axis: usize) -> Self {
        self.first += self.strides[axis] * (self.shape[axis] as isize - 1);
        self.strides[axis] = -self.strides[axis];
        self
    }

    /// Adds a quarter turn in the axial plane; x and y must have the same length.
    #[must_use]
    pub fn turned(mut self) -> Self {
        self.strides.swap(0, 1);
        self.shape.swap(0, 1);
        self.flipped(0)
    }

    /// Returns the permuted voxels.
    ///
    /// # Panics
    /// Panics if the array has another shape.
    pub fn of<T: Copy>(&self, array: Array3<T>) -> Array3<T> {
        if *self == Self::none(self.shape) {
            return array;
        }
        let values = array.as_slice();
        assert_eq!(
            values.len(),
            self.shape.iter().product::<usize>(),
            "the symmetry and the array have the same shape"
        );
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
    fn symmetry_flips_and_turns_voxels() {
        let array = Array3::from_fn([3, 3, 2], |[x, y, z]| 100 * x + 10 * y + z);
        let flipped = Symmetry::none([3, 3, 2]).flipped(1).of(array.clone());
        assert_eq!(flipped, Array3::from_fn([3, 3, 2], |[x, y, z]| array[[x, 2 - y, z]]));
        let turned = Symmetry::none([3, 3, 2]).turned().of(array.clone());
        assert_eq!(turned, Array3::from_fn([3, 3, 2], |[x, y, z]| array[[y, 2 - x, z]]));
        let full_turn = (0..4).fold(Symmetry::none([3, 3, 2]), |symmetry, _| symmetry.turned());
        assert_eq!(full_turn.of(array.clone()), array);
        let both = Symmetry::none([3, 3, 2]).flipped(0).turned().of(array.clone());
        let after = Symmetry::none([3, 3, 2]).turned().of(Symmetry::none([3, 3, 2]).flipped(0).of(array));
        assert_eq!(both, after);
    }

    #[test]
    fn apply_moves_labels_with_voxels() {
        let config = AugmentConfig { flip: 0.5, turn: 0.5, ..AugmentConfig::default() };
        let image = Array3::from_fn([4, 4, 3], |[x, y, z]| (x + 4 * y + 16 * z) as f32);
        let labels = image.map(|value| *value as u8);
        for seed in 0..20 {
            let crop = Crop { image: image.clone(), labels: labels.clone(), origin: Default::default() };
            let config = AugmentConfig { scale: 0.0, shift: 0.0, ..config };
            let crop = config.apply(crop, &mut Key::root(seed).stream("augment"));
            assert_eq!(crop.image.map(|value| *value as u8), crop.labels);
        }
    }
}
