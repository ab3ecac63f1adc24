//! Checks of shapes and affines that all formats share.

use std::ops::RangeInclusive;

use crate::error::{Fault, FaultKind};
use crate::volume::Affine;

/// Range of valid spacings; other values are in a wrong unit or corrupt.
const SPACING_MM: RangeInclusive<f64> = 1e-3..=1e3;
/// Maximum coordinate of the first voxel: beyond any scanner, and with sufficient precision in sums.
const MAX_OFFSET_MM: f64 = 1e6;
/// Maximum deviation of the length of a direction from 1.
const LENGTH_TOLERANCE: f64 = 1e-3;

/// Checks an affine to RAS+ millimetres, and removes a shear of up to half a degree, see [`Affine::with_right_angles`]; `name` is the name
/// of the affine in messages.
///
/// # Errors
/// Returns `geometry` if a number is not finite, a spacing is outside 0.001..1000 mm, the axes are dependent or not at right angles within
/// half a degree, or the first voxel is more than a kilometre from the origin.
pub(in crate::ingest) fn checked_affine(affine: Affine, name: &str) -> Result<Affine, Fault> {
    if affine.0.iter().flatten().any(|value| !value.is_finite()) {
        return Err(geometry(format!("expected finite numbers in the {name}, got {:?}", affine.0)));
    }
    let spacing_mm = affine.spacing_mm();
    if spacing_mm.iter().any(|spacing| !SPACING_MM.contains(spacing)) {
        return Err(geometry(format!(
            "expected {}..{} mm between voxels, got {spacing_mm:?} in the {name}",
            SPACING_MM.start(),
            SPACING_MM.end()
        )));
    }
    if affine.inverse().is_none() {
        return Err(geometry(format!("expected three independent axes in the {name}, got {:?}", affine.0)));
    }
    if affine.0.iter().any(|row| row[3].abs() > MAX_OFFSET_MM) {
        return Err(geometry(format!(
            "expected the first voxel within {MAX_OFFSET_MM} mm of the origin, the {name} has a larger distance"
        )));
    }
    affine.with_right_angles().map_err(|degrees| {
        geometry(format!(
            "the axes are sheared by {degrees:.2}°: expected right angles within 0.5° in the {name}, resample the scan first"
        ))
    })
}

/// Returns the affine of axes in DICOM coordinates, millimetres towards Left, Posterior and Superior: the direction of each voxel axis as a
/// unit vector, the spacing along it, and the centre of the first voxel.
///
/// # Errors
/// Returns `geometry` if a direction is not a unit vector, and the faults of [`checked_affine`].
pub(in crate::ingest) fn affine_of_lps(
    directions: [[f64; 3]; 3],
    spacing_mm: [f64; 3],
    origin_mm: [f64; 3],
    name: &str,
) -> Result<Affine, Fault> {
    let lengths = directions.map(|direction| direction.iter().map(|part| part * part).sum::<f64>().sqrt());
    if lengths.iter().any(|length| (length - 1.0).abs() > LENGTH_TOLERANCE) {
        return Err(geometry(format!("expected unit vectors in the {name}, got vectors of length {lengths:?}")));
    }
    let [x, y, z] = [0, 1, 2].map(|axis| directions[axis].map(|part| part / lengths[axis] * spacing_mm[axis]));
    let columns = [x, y, z, origin_mm];
    // Adding zero turns -0 into 0.
    let affine =
        Affine([(0, -1.0), (1, -1.0), (2, 1.0)].map(|(row, sign)| columns.map(|column| sign * column[row] + 0.0)));
    checked_affine(affine, name)
}

/// Returns the shape of a volume from the three sizes in its header.
///
/// # Errors
/// Returns `geometry` if a size is not positive or the number of bytes overflows.
pub(in crate::ingest) fn shape_of(sizes: [i64; 3]) -> Result<[usize; 3], Fault> {
    if sizes.iter().any(|&size| size <= 0) {
        return Err(geometry(format!("expected at least one voxel along each axis, got {sizes:?}")));
    }
    // The largest voxel has eight bytes; the remaining factor prevents overflow in sums of sizes.
    let voxels = sizes.iter().try_fold(1i64, |product, &size| product.checked_mul(size));
    if voxels.is_none_or(|voxels| voxels > i64::MAX / 64) {
        return Err(geometry(format!("expected a volume that fits into memory, got {sizes:?} voxels")));
    }
    Ok(sizes.map(|size| size as usize))
}

fn geometry(message: String) -> Fault {
    Fault::read(FaultKind::Geometry, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shear_beyond_half_a_degree_is_a_fault() {
        let sheared = |degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            Affine([[0.8, 0.0, 0.0, 5.0], [0.0, 0.8, 3.0 * sin, -7.0], [0.0, 0.0, 3.0 * cos, 9.0]])
        };
        assert!(checked_affine(sheared(0.4), "sform").is_ok());
        let fault = checked_affine(sheared(20.0), "sform").unwrap_err();
        assert!(fault.kind == FaultKind::Geometry && fault.message.contains("sheared by 20.00°"), "{fault}");
    }

    #[test]
    fn directions_towards_left_and_posterior_have_opposite_sign_in_affine() {
        let directions = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]];
        let affine = affine_of_lps(directions, [2.0, 3.0, 4.0], [5.0, -6.0, 7.0], "matrix").unwrap();
        assert_eq!(affine, Affine([[0.0, -3.0, 0.0, -5.0], [-2.0, 0.0, 0.0, 6.0], [0.0, 0.0, -4.0, 7.0]]));
        let long = [[0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]];
        assert_eq!(affine_of_lps(long, [1.0; 3], [0.0; 3], "matrix").unwrap_err().kind, FaultKind::Geometry);
    }
}
