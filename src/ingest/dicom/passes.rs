//! Whether slices that are numbered in two passes are one acquisition, by their pixels.
//!
//! Of one acquisition, a slice is more like the slices next to it than like those two steps away. Of two acquisitions half a step apart,
//! for example two phases, each slice is more like the slices of its own acquisition, or all slices of one are brighter than those between
//! them.

use crate::error::Fault;
use crate::volume::Voxels;

/// Maximum number of slices that are read.
const MAX_SLICES: usize = 64;
/// Maximum ratio of the two errors of interpolation. In noise without anatomy both are equal on average.
const MAX_ERROR_RATIO: f64 = 1.02;
/// Mean differences in brightness up to this value are those of rounding, in HU.
const SAME_BRIGHTNESS_HU: f64 = 0.01;
/// Maximum mean of the alternating differences in brightness, in standard deviations of a difference by the root of their number: four
/// standard deviations of the mean for slices of one acquisition with independent noise, each of which contributes to three differences.
const MAX_DEVIATIONS: f64 = 6.5;

/// Returns whether each of `count` slices in order of their position is interpolated by its neighbours as well as by the slices two steps
/// away, and no second slice is brighter than its neighbours. `hu_of` returns the HU of a slice; slices in the middle are compared.
///
/// # Errors
/// Returns the faults of `hu_of`.
pub(super) fn are_neighbours_consistent(
    count: usize,
    mut hu_of: impl FnMut(usize) -> Result<Voxels, Fault>,
) -> Result<bool, Fault> {
    let start = count.saturating_sub(MAX_SLICES) / 2;
    let slices: Vec<Voxels> = (start..count.min(start + MAX_SLICES)).map(&mut hu_of).collect::<Result<_, _>>()?;
    let (mut near, mut far) = (0.0, 0.0);
    let mut alternating = Vec::new();
    for middle in 2..slices.len().saturating_sub(2) {
        let (near_error, difference) = interpolation_error(&slices, middle, 1);
        near += near_error;
        far += interpolation_error(&slices, middle, 2).0;
        alternating.push(if middle % 2 == 0 { difference } else { -difference });
    }
    Ok(!alternating.is_empty() && near <= MAX_ERROR_RATIO * far && is_zero_on_average(&alternating))
}

/// Returns whether the mean of differences in HU is zero within their scatter.
fn is_zero_on_average(differences: &[f64]) -> bool {
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    let variance = differences.iter().map(|difference| (difference - mean).powi(2)).sum::<f64>() / count;
    mean.abs() <= SAME_BRIGHTNESS_HU || mean.abs() * count.sqrt() <= MAX_DEVIATIONS * variance.sqrt()
}

/// Returns the mean absolute and the mean signed difference of a slice from the mean of the slices `distance` below and above, in HU.
fn interpolation_error(slices: &[Voxels], middle: usize, distance: usize) -> (f64, f64) {
    let [below, slice, above] = [middle - distance, middle, middle + distance].map(|index| &slices[index]);
    let pixels = slice.shape().iter().product::<usize>();
    let (mut absolute, mut signed) = (0.0, 0.0);
    for pixel in 0..pixels {
        let [below, value, above] = [below, slice, above].map(|slice| f64::from(slice.hu(pixel)));
        let difference = value - (below + above) / 2.0;
        absolute += difference.abs();
        signed += difference;
    }
    (absolute / pixels as f64, signed / pixels as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FaultKind;
    use crate::random::Key;
    use crate::volume::Array3;

    /// Returns whether twenty slices of a sphere in air are consistent, with noise, and with every second slice brighter and moved.
    fn are_consistent(noise_hu: f64, second_hu: f64, moved: f64) -> bool {
        let hu_of = |slice: usize| {
            let (is_second, z) = (slice % 2 == 1, slice as f64 - 9.5);
            let [offset_hu, x_moved] = if is_second { [second_hu, moved] } else { [0.0; 2] };
            let mut random = Key::root(7).number("slice", slice as u64).stream("noise");
            let value = |[x, y, _]: [usize; 3]| {
                let distance = (x as f64 - 16.0 - x_moved).hypot(y as f64 - 16.0).hypot(z);
                let body = 60.0 / (1.0 + (distance - 11.0).exp());
                (body + offset_hu + random.normal(0.0, noise_hu)) as f32
            };
            Ok(Voxels::F32(Array3::from_fn([32, 32, 1], value)))
        };
        are_neighbours_consistent(20, hu_of).unwrap()
    }

    #[test]
    fn slices_of_one_acquisition_are_consistent_with_and_without_noise() {
        for noise_hu in [0.0, 1.0, 5.0, 20.0] {
            assert!(are_consistent(noise_hu, 0.0, 0.0), "{noise_hu} HU");
        }
        let ramp = |slice: usize| Ok(Voxels::F32(Array3::filled([4, 4, 1], 100.0 * slice as f32)));
        assert!(are_neighbours_consistent(12, ramp).unwrap());
    }

    #[test]
    fn brighter_or_moved_second_slices_are_inconsistent() {
        for (noise_hu, second_hu, moved) in [(0.0, 5.0, 0.0), (10.0, 5.0, 0.0), (10.0, -40.0, 0.0), (2.0, 0.0, 3.0)] {
            assert!(
                !are_consistent(noise_hu, second_hu, moved),
                "{noise_hu} HU of noise, {second_hu} HU, {moved} pixels"
            );
        }
        assert!(!are_neighbours_consistent(4, |_| Ok(Voxels::F32(Array3::filled([4, 4, 1], 0.0)))).unwrap());
    }

    #[test]
    fn fault_of_a_slice_is_returned() {
        let fault = || Fault::read(FaultKind::Truncated, "damaged");
        let read =
            |slice: usize| if slice == 5 { Err(fault()) } else { Ok(Voxels::F32(Array3::filled([4, 4, 1], 0.0))) };
        assert_eq!(are_neighbours_consistent(9, read), Err(fault()));
    }
}
