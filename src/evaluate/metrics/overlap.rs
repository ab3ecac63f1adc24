//! The overlap of two sets of voxels, in volume and along their surfaces.

use crate::mask::BitVolume;

/// The factor of the tolerance that keeps distances equal to the tolerance within it despite rounding errors.
const ROUNDING: f64 = 1.0 + 1e-6;

/// Returns the Dice coefficient of two sets, `2 |A ∩ B| / (|A| + |B|)`; `None` if both are empty, in which case Dice is undefined and
/// the case is counted separately.
///
/// # Shapes
/// Both sets have the same shape.
///
/// # Source
/// Dice, *Ecology* 26, 297 (1945); equal to `compute_dice` of MONAI, which returns NaN if the ground truth is empty.
///
/// ```
/// use freetumor::mask::BitVolume;
/// use freetumor::evaluate::metrics::dice;
/// let slab = |from: usize, to: usize| BitVolume::from_fn([8, 2, 2], |[x, _, _]| (from..to).contains(&x));
/// assert_eq!(dice(&slab(0, 4), &slab(2, 6)), Some(0.5));
/// assert_eq!(dice(&slab(0, 0), &slab(2, 6)), Some(0.0));
/// assert_eq!(dice(&slab(0, 0), &slab(3, 3)), None);
/// ```
pub fn dice(truth: &BitVolume, prediction: &BitVolume) -> Option<f64> {
    let sum = truth.count() + prediction.count();
    (sum > 0).then(|| 2.0 * truth.common(prediction) as f64 / sum as f64)
}

/// Returns the tolerance of [`surface_dice`]: 2 mm, and on coarser grids the largest distance between neighbouring voxels, the
/// resolution of surfaces.
///
/// ```
/// use freetumor::evaluate::metrics::tolerance_mm;
/// assert_eq!(tolerance_mm([0.8, 0.8, 1.0]), 2.0);
/// assert_eq!(tolerance_mm([0.8, 0.8, 5.0]), 5.0);
/// ```
pub fn tolerance_mm(spacing_mm: [f64; 3]) -> f64 {
    spacing_mm.into_iter().fold(2.0, f64::max)
}

/// Returns the normalized surface Dice (NSD): the share of the surface voxels of both sets that are within `tolerance_mm` of the surface
/// of the other set. Returns `None` if both sets are empty, and 0 if one set is empty.
///
/// A surface voxel shares a face with the outside; voxels beyond the volume are outside. Distances are between the centres of voxels.
///
/// # Shapes
/// Both sets have the same shape and the spacing `spacing_mm`.
///
/// # Source
/// Nikolov et al., arXiv 1809.04430, on voxels instead of surface elements, as in `compute_surface_dice` of MONAI with the default
/// `use_subvoxels=False`; `tests/peers/metrics.py` compares both.
///
/// ```
/// use freetumor::mask::BitVolume;
/// use freetumor::evaluate::metrics::surface_dice;
/// let block = |from: usize| BitVolume::from_fn([20, 9, 9], |[x, y, z]| {
///     (from..from + 6).contains(&x) && (2..7).contains(&y) && (2..7).contains(&z)
/// });
/// assert_eq!(surface_dice(&block(3), &block(5), [1.0; 3], 2.0), Some(1.0));
/// assert!(surface_dice(&block(3), &block(7), [1.0; 3], 2.0).unwrap() < 1.0);
/// assert_eq!(surface_dice(&block(3), &block(20), [1.0; 3], 2.0), Some(0.0));
/// ```
pub fn surface_dice(truth: &BitVolume, prediction: &BitVolume, spacing_mm: [f64; 3], tolerance_mm: f64) -> Option<f64> {
    let (truth, prediction) = (truth.surface(), prediction.surface());
    let all = truth.count() + prediction.count();
    let near =
        |surface: &BitVolume, other: &BitVolume| surface.common(&other.dilated(tolerance_mm * ROUNDING, spacing_mm));
    (all > 0).then(|| (near(&truth, &prediction) + near(&prediction, &truth)) as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use proptest::prelude::*;

    /// Computes the surface Dice from all pairs of surface voxels.
    fn reference_surface_dice(a: &BitVolume, b: &BitVolume, spacing_mm: [f64; 3], tolerance_mm: f64) -> Option<f64> {
        let voxels = |set: &BitVolume| {
            let [nx, ny, nz] = set.shape();
            let all = (0..nx * ny * nz).map(|i| [i % nx, i / nx % ny, i / (nx * ny)]);
            all.filter(|voxel| set.contains(*voxel)).collect::<Vec<_>>()
        };
        let (a, b) = (voxels(&a.surface()), voxels(&b.surface()));
        let near = |p: &[usize; 3], q: &[usize; 3]| {
            let square: f64 = (0..3).map(|k| (p[k].abs_diff(q[k]) as f64 * spacing_mm[k]).powi(2)).sum();
            square.sqrt() <= tolerance_mm
        };
        let within = a.iter().filter(|p| b.iter().any(|q| near(p, q))).count()
            + b.iter().filter(|p| a.iter().any(|q| near(p, q))).count();
        (a.len() + b.len() > 0).then(|| within as f64 / (a.len() + b.len()) as f64)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn surface_dice_equals_reference_over_all_pairs(seed in any::<u64>(), share in 0.0f64..0.05, z_mm in 0.7f64..4.0) {
            let mut random = Key::root(seed).stream("sets");
            let mut set = || BitVolume::from_fn([18, 9, 7], |_| random.chance(share)).dilated(1.5, [1.0; 3]);
            let (a, b) = (set(), set());
            let spacing_mm = [0.9, 1.2, z_mm];
            let tolerance = tolerance_mm(spacing_mm);
            let expected = reference_surface_dice(&a, &b, spacing_mm, tolerance);
            prop_assert_eq!(surface_dice(&a, &b, spacing_mm, tolerance), expected);
        }
    }
}
