//! The grid of another spacing, and the positions of its voxels in the source grid.

use crate::error::{Fault, FaultKind};
use crate::volume::{Affine, Grid};

/// The maximum number of voxels of a resampled grid, 1024³: a wrong spacing in a header must not exhaust memory.
pub const MAX_VOXELS: usize = 1 << 30;

/// Axes whose spacing differs from the target by at most this keep their own, as in MONAI.
const SAME_SPACING_MM: f64 = 1e-3;

impl Grid {
    /// Returns the grid over the same box with another spacing: the same directions (shear removed), the same first voxel, and
    /// the number of voxels from the first to the last, rounded half to even. An axis whose spacing is within 0.001 mm of the
    /// target keeps its own.
    ///
    /// ```
    /// use freetumor::volume::{Affine, Grid};
    /// let scan = Grid { shape: [122, 101, 112], affine: Affine::from_spacing([3.0, 3.0, 3.0]) };
    /// assert_eq!(scan.with_spacing([1.5, 1.5, 3.0]).unwrap().shape, [243, 201, 112]);
    /// ```
    ///
    /// # Source
    /// The rule of MONAI 1.6 `Spacing` with its defaults.
    ///
    /// # Errors
    /// A fault of kind `geometry` if the grid is empty or degenerate or the spacing is not positive, and of kind `too_large`
    /// if the result would have more than [`MAX_VOXELS`].
    pub fn with_spacing(&self, spacing_mm: [f64; 3]) -> Result<Self, Fault> {
        if spacing_mm.iter().any(|mm| !mm.is_finite() || *mm <= 0.0) {
            return Err(Fault::read(
                FaultKind::Geometry,
                format!("expected a positive spacing to resample to, got {spacing_mm:?} mm"),
            ));
        }
        let own = self.spacing_mm();
        let target_mm = [0, 1, 2].map(|axis| {
            if (own[axis] - spacing_mm[axis]).abs() <= SAME_SPACING_MM { own[axis] } else { spacing_mm[axis] }
        });
        let directions = directions(&self.affine);
        let (Some(directions), true) = (directions, self.voxels() > 0) else { return Err(degenerate(self)) };
        let mut affine =
            Affine(directions.map(|row| [row[0] * target_mm[0], row[1] * target_mm[1], row[2] * target_mm[2], 0.0]));
        let Some(steps) = steps(&affine, &self.affine) else { return Err(degenerate(self)) };

        let last = self.shape.map(|voxels| voxels as f64 - 1.0);
        let extent = steps.0.map(|row| (0..3).map(|axis| row[axis].abs() * last[axis]).sum::<f64>());
        let voxels = extent.map(|voxels| (voxels + 1.0).round_ties_even());
        if voxels.iter().product::<f64>() > MAX_VOXELS as f64 {
            return Err(Fault::read(
                FaultKind::TooLarge,
                format!(
                    "at {target_mm:?} mm the scan would have {} x {} x {} voxels, more than 1024 x 1024 x 1024; its spacing \
                     of {own:?} mm may be wrong",
                    voxels[0], voxels[1], voxels[2]
                ),
            ));
        }
        let shape = voxels.map(|voxels| voxels as usize);

        let first_is_outermost = steps.0.iter().all(|row| {
            (0..3).map(|axis| row[axis].min(0.0) * last[axis]).sum::<f64>() >= -1e-8 // sheared axes extend before the first voxel
        });
        let origin = if first_is_outermost {
            self.affine.0.map(|row| row[3])
        } else {
            let middle = self.affine.apply(self.shape.map(|voxels| voxels as f64 / 2.0));
            let reach = affine.apply(shape.map(|voxels| voxels as f64 / 2.0));
            [0, 1, 2].map(|axis| middle[axis] - reach[axis])
        };
        for (row, value) in affine.0.iter_mut().zip(origin) {
            row[3] = value;
        }
        let target = Self { shape, affine };
        Ok(if target.is_practically(self) { *self } else { target })
    }

    /// Returns whether MONAI treats both grids as equal and does not resample.
    fn is_practically(&self, other: &Self) -> bool {
        self.shape == other.shape
            && self
                .affine
                .0
                .iter()
                .flatten()
                .zip(other.affine.0.iter().flatten())
                .all(|(a, b)| (a - b).abs() <= 1e-3 + 1e-5 * a.abs())
    }
}

/// Returns the fault for a grid that cannot be resampled.
pub(super) fn degenerate(grid: &Grid) -> Fault {
    Fault::read(
        FaultKind::Geometry,
        format!(
            "expected three independent axes with voxels along each, got the shape {:?}, the spacing {:?} mm and the \
             determinant {:e}",
            grid.shape,
            grid.spacing_mm(),
            grid.affine.determinant()
        ),
    )
}

/// Returns orthonormal directions of the axes: the Q of a QR decomposition whose R has a positive diagonal, by Cholesky's
/// decomposition of AᵀA as in the reference.
fn directions(affine: &Affine) -> Option<[[f64; 3]; 3]> {
    affine.inverse()?;
    let a = &affine.0;
    let dot = |i: usize, j: usize| (0..3).map(|r| a[r][i] * a[r][j]).sum::<f64>();
    let u00 = dot(0, 0).sqrt();
    let (u01, u02) = (dot(0, 1) / u00, dot(0, 2) / u00);
    let u11 = (dot(1, 1) - u01 * u01).sqrt();
    let u12 = (dot(1, 2) - u01 * u02) / u11;
    let u22 = (dot(2, 2) - u02 * u02 - u12 * u12).sqrt();
    let (i00, i11, i22) = (1.0 / u00, 1.0 / u11, 1.0 / u22);
    let (i01, i12) = (-u01 * i11 * i00, -u12 * i22 * i11);
    let i02 = -(u01 * i12 + u02 * i22) * i00;
    let rows = a.map(|[x, y, z, _]| [x * i00, x * i01 + y * i11, x * i02 + y * i12 + z * i22].map(|v| v + 0.0));
    rows.iter().flatten().all(|value| value.is_finite()).then_some(rows)
}

/// Returns the map from voxels of `to` to voxels of `from`, or `None` if `from` has no inverse. For diagonal affines it is computed by
/// reciprocals, as LAPACK does.
pub(super) fn steps(from: &Affine, to: &Affine) -> Option<Affine> {
    let diagonal = |affine: &Affine| (0..3).all(|r| (0..3).all(|c| r == c || affine.0[r][c] == 0.0));
    if diagonal(from) && diagonal(to) {
        let mut rows = [[0.0; 4]; 3];
        for (axis, row) in rows.iter_mut().enumerate() {
            let reciprocal = 1.0 / from.0[axis][axis];
            row[axis] = to.0[axis][axis] * reciprocal;
            row[3] = (to.0[axis][3] - from.0[axis][3]) * reciprocal;
        }
        return from.inverse().map(|_| Affine(rows));
    }
    Some(from.inverse()?.after(to))
}

/// Returns the positions, in source voxels, of `count` target voxels along an axis of `voxels` source voxels. The first position is
/// the first source voxel; neighbours are `step` source voxels apart.
///
/// When the spacing is halved, half of all target voxels are exactly between two source voxels, and the last bit decides which label
/// they get. The computation therefore follows the reference: positions are spread over −1..1 with fused multiply-adds, mapped
/// between both normalized ranges, and only then scaled to voxels (PyTorch's `affine_grid` and `grid_sample`, align_corners off).
pub(super) fn positions(step: f64, voxels: usize, count: usize) -> Vec<f64> {
    let (source, target) = (voxels as f64, count as f64);
    let spread = if count > 1 { 2.0 / (target - 1.0) } else { 0.0 };
    let scale = (2.0 / source) * step;
    let inverse = 1.0 / (2.0 / target);
    let slope = scale * inverse;
    let offset = scale * -((1.0 / target - 1.0) * inverse) + (1.0 / source - 1.0);
    (0..count)
        .map(|i| {
            let unit = match (count, i) {
                (1, _) => 0.0,
                (_, i) if i < count / 2 => spread.mul_add(i as f64, -1.0),
                (_, i) => (-spread).mul_add((count - 1 - i) as f64, 1.0),
            };
            let normalized = unit * (target - 1.0) / target * slope + offset;
            ((normalized + 1.0) * source - 1.0) / 2.0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: [[f64; 4]; 3], shape: [usize; 3]) -> Grid {
        Grid { shape, affine: Affine(rows) }
    }

    #[test]
    fn with_spacing_equals_monai() {
        // monai.transforms.Spacing 1.6 on random images with these affines.
        let cases = [
            (
                "oblique",
                [
                    [0.784053, 0.158935, 0.0, -10.5],
                    [-0.151837, 0.749035, -1.4776, 20.25],
                    [-0.0469686, 0.231704, 4.77668, 3.0],
                ],
                [13, 17, 9],
                [1.5, 1.5, 1.5],
                [7, 10, 28],
                [
                    [1.4700998, 0.29800433, -2.69407002e-07, -10.6880752],
                    [-0.284694457, 1.40443981, -0.443280821, 19.16082],
                    [-0.0880661504, 0.434444748, 1.43300458, 4.23319183],
                ],
            ),
            (
                "flipped",
                [[-3.0, 0.0, 0.0, -10.5], [0.0, -2.0, 0.0, 20.25], [0.0, 0.0, 2.5, 3.0]],
                [9, 8, 7],
                [1.25, 1.25, 5.0],
                [20, 12, 4],
                [[-1.25, 0.0, 0.0, -10.5], [0.0, -1.25, 0.0, 20.25], [0.0, 0.0, 5.0, 3.0]],
            ),
            (
                "sheared forwards",
                [[1.0, 0.2, 0.1, -10.5], [0.0, 2.0, 0.3, 20.25], [0.0, 0.0, 3.0, 3.0]],
                [9, 8, 7],
                [1.5, 1.5, 1.5],
                [8, 12, 13],
                [[1.5, 0.0, 0.0, -10.5], [0.0, 1.5, 0.0, 20.25], [0.0, 0.0, 1.5, 3.0]],
            ),
            (
                "sheared backwards",
                [[1.0, -0.2, 0.1, -10.5], [0.0, 2.0, -0.3, 20.25], [0.0, 0.0, 3.0, 3.0]],
                [9, 8, 7],
                [1.5, 1.5, 1.5],
                [8, 12, 13],
                [[1.5, 0.0, 0.0, -12.45], [0.0, 1.5, 0.0, 18.2], [0.0, 0.0, 1.5, 3.75]],
            ),
            (
                "kept",
                [[1.5004, 0.0, 0.0, -10.5], [0.0, 1.4993, 0.0, 20.25], [0.0, 0.0, 3.0, 3.0]],
                [9, 8, 7],
                [1.5, 1.5, 1.5],
                [9, 8, 13],
                [[1.5004, 0.0, 0.0, -10.5], [0.0, 1.4993, 0.0, 20.25], [0.0, 0.0, 1.5, 3.0]],
            ),
            (
                "half to even",
                [[0.75, 0.0, 0.0, -10.5], [0.0, 0.75, 0.0, 20.25], [0.0, 0.0, 0.75, 3.0]],
                [8, 10, 12],
                [1.5, 1.5, 1.5],
                [4, 6, 6],
                [[1.5, 0.0, 0.0, -10.5], [0.0, 1.5, 0.0, 20.25], [0.0, 0.0, 1.5, 3.0]],
            ),
            (
                "thin",
                [[0.7, 0.0, 0.0, -10.5], [0.0, 0.7, 0.0, 20.25], [0.0, 0.0, 5.0, 3.0]],
                [20, 20, 1],
                [1.5, 1.5, 1.5],
                [10, 10, 1],
                [[1.5, 0.0, 0.0, -10.5], [0.0, 1.5, 0.0, 20.25], [0.0, 0.0, 1.5, 3.0]],
            ),
        ];
        for (name, source, shape, spacing_mm, expected_shape, expected) in cases {
            let target = grid(source, shape).with_spacing(spacing_mm).unwrap();
            assert_eq!(target.shape, expected_shape, "{name}");
            for (row, expected) in target.affine.0.iter().zip(expected) {
                for (value, expected) in row.iter().zip(expected) {
                    assert!((value - expected).abs() < 1e-7, "{name}: {:?}", target.affine);
                }
            }
        }
    }

    #[test]
    fn ties_are_rounded_as_in_pytorch() {
        // monai.transforms.Spacing(mode="nearest") of 0, 1, 2, … from 3 mm to 1.25 mm: 7.5 goes to 7 and 17.5 to 17
        // by the last bit, where rounding half to even would go to 8 and 18.
        let expected = [
            0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 7, 7, 7, 8, 8, 9, 9, 10, 10, 10, 11, 11, 12, 12, 12, 13,
            13, 14, 14, 15, 15, 15, 16, 16, 17, 17, 17, 18,
        ];
        let nearest: Vec<_> =
            positions(1.25 * (1.0 / 3.0), 19, 44).into_iter().map(|c| c.round_ties_even() as i32).collect();
        assert_eq!(nearest, expected);
    }

    #[test]
    fn positions_are_multiples_of_the_step() {
        for (step, voxels, count) in [(0.5, 122, 243), (1.536, 512, 334), (0.75, 20, 26), (3.0, 4, 2), (1.0, 1, 1)] {
            for (i, position) in positions(step, voxels, count).into_iter().enumerate() {
                assert!((position - step * i as f64).abs() < 1e-11 * (1.0 + position.abs()), "{step} {i}: {position}");
            }
        }
    }

    #[test]
    fn with_spacing_fails_on_impossible_grids() {
        let good = Grid { shape: [4, 4, 4], affine: Affine::from_spacing([1.0; 3]) };
        let kind = |grid: Grid, spacing_mm| grid.with_spacing(spacing_mm).unwrap_err().kind;
        assert_eq!(kind(good, [0.0, 1.0, 1.0]), FaultKind::Geometry);
        assert_eq!(kind(good, [1.0, f64::NAN, 1.0]), FaultKind::Geometry);
        assert_eq!(kind(Grid { shape: [4, 0, 4], ..good }, [1.0; 3]), FaultKind::Geometry);
        assert_eq!(kind(Grid { affine: Affine::from_spacing([1.0, 0.0, 1.0]), ..good }, [1.0; 3]), FaultKind::Geometry);
        assert_eq!(kind(Grid { affine: Affine::from_spacing([1e6; 3]), ..good }, [1.0; 3]), FaultKind::TooLarge);
        assert_eq!(kind(good, [1e-9; 3]), FaultKind::TooLarge);
    }
}
