//! Blending of a difference map into an image, inside the healthy organ only.
//!
//! The formulas apply to differences by rules and by a network, and to values in HU and in 0..1 of a window: with `width` 1
//! they are those of the paper.

use crate::mask::Organ;
use crate::volume::{Array3, Boundary, Gaussian, RowSpans};

/// Smooths a difference map by the 7³ Gaussian of sigma 1 voxel, zero outside the box.
///
/// # Source
/// FreeTumor, the step between the generator's output and the blend.
pub fn smooth_difference(difference: &Array3<f32>) -> Array3<f32> {
    Gaussian::difference_blur().smoothed_within(difference, &RowSpans::whole(difference.shape()))
}

/// Softens a shape's edge by a Gaussian.
///
/// # Units
/// `shape` is 0 or 1, `sigma_voxels` along [x, y, z], truncated at `truncate` standard deviations (4 in the reference); the result
/// is in 0..1.
///
/// # Panics
/// If a standard deviation is negative, not finite, or above 10⁶ voxels.
pub fn soften(shape: &Array3<f32>, sigma_voxels: [f64; 3], truncate: f64) -> Array3<f32> {
    let filter = Gaussian::truncated(sigma_voxels, truncate, Boundary::Zero);
    filter.smoothed_within(shape, &RowSpans::whole(shape.shape()))
}

/// Returns `before − soft shape · difference · texture · width` in the healthy organ, `before` elsewhere.
///
/// # Shapes
/// All arrays are the candidate's box.
///
/// # Units
/// With `before` in HU, `width` is the window's width in HU; with `before` in 0..1 it is 1. A positive difference
/// darkens.
///
/// # Source
/// FreeTumor, equation of the blend; the chest's `+` is a negative difference.
///
/// # Panics
/// If the shapes differ.
pub fn blend(
    before: &Array3<f32>,
    labels: &Array3<u8>,
    organ: &Organ,
    soft_shape: &Array3<f32>,
    difference: &Array3<f32>,
    texture: &Array3<f32>,
    width: f32,
) -> Array3<f32> {
    for shape in [labels.shape(), soft_shape.shape(), difference.shape(), texture.shape()] {
        assert_eq!(shape, before.shape(), "expected arrays of the same shape");
    }
    let within = RowSpans::of(soft_shape, |&soft| soft != 0.0);
    let mut after = before.clone();
    for (y, z, span) in within.rows() {
        let [soft, difference, texture] = [soft_shape, difference, texture].map(|array| &array.row(y, z)[span.clone()]);
        let factors = soft.iter().zip(difference).zip(texture);
        let values = after.row_mut(y, z)[span.clone()].iter_mut().zip(&labels.row(y, z)[span]);
        for ((value, &label), ((soft, difference), texture)) in values.zip(factors) {
            if label == organ.label {
                *value -= soft * difference * texture * width;
            }
        }
    }
    after
}

/// Rounds to integer HU in the range of `i16`, for scans of integer HU.
pub fn round_hu(after: &mut Array3<f32>) {
    for value in after.as_mut_slice() {
        // As `round`, halves away from zero, but vectorizable; the truncation is exact below 2²³.
        let clamped = value.clamp(f32::from(i16::MIN), f32::from(i16::MAX));
        let whole = clamped as i32 as f32;
        let rest = clamped - whole;
        *value = whole + f32::from(u8::from(rest >= 0.5)) - f32::from(u8::from(rest <= -0.5));
    }
}

/// Returns the synthetic tumor: 1 if the shape is set in the healthy organ. A real tumor is never overwritten.
pub fn tumor_of(shape: &Array3<u8>, labels: &Array3<u8>, organ: &Organ) -> Array3<u8> {
    let voxels = shape.as_slice().iter().zip(labels.as_slice());
    let tumor = voxels.map(|(&inside, &label)| u8::from(inside != 0 && label == organ.label)).collect();
    Array3::from_vec(shape.shape(), tumor)
}

/// Returns the labels with the organ's tumor label in voxels of `tumor`.
pub fn with_tumor(labels: &Array3<u8>, tumor: &Array3<u8>, organ: &Organ) -> Array3<u8> {
    let voxels = labels.as_slice().iter().zip(tumor.as_slice());
    let merged = voxels.map(|(&label, &inside)| if inside != 0 { organ.tumor_label } else { label }).collect();
    Array3::from_vec(labels.shape(), merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn liver() -> Organ {
        Organ { name: "liver".into(), label: 1, tumor_label: 2 }
    }

    #[test]
    fn blend_changes_healthy_organ_only() {
        let labels = Array3::from_vec([4, 1, 1], vec![0, 1, 2, 1]);
        let before = Array3::from_vec([4, 1, 1], vec![10.0, 100.0, 60.0, 110.0]);
        let ones = Array3::filled([4, 1, 1], 1.0);
        let half = Array3::filled([4, 1, 1], 0.5);
        let after = blend(&before, &labels, &liver(), &half, &half, &ones, 100.0);
        assert_eq!(after.as_slice(), [10.0, 75.0, 60.0, 85.0]);
    }

    #[test]
    fn real_tumor_keeps_label_and_is_not_synthetic() {
        let labels = Array3::from_vec([4, 1, 1], vec![0, 1, 2, 3]);
        let tumor = tumor_of(&Array3::filled([4, 1, 1], 1), &labels, &liver());
        assert_eq!(tumor.as_slice(), [0, 1, 0, 0]);
        assert_eq!(with_tumor(&labels, &tumor, &liver()).as_slice(), [0, 2, 2, 3]);
    }

    #[test]
    fn round_hu_clamps_to_i16() {
        let mut after = Array3::from_vec([3, 1, 1], vec![1.5, -0.4, -40_000.0]);
        round_hu(&mut after);
        assert_eq!(after.as_slice(), [2.0, 0.0, -32_768.0]);
    }
}
