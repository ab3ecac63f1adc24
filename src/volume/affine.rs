//! Affine maps from voxel indices to millimetres.

/// Maximum sine of the angle between an axis of a scan and the normal of the other two axes: half a degree.
const MAX_SHEAR: f64 = 0.008_727;
/// Shear below which an affine is kept as it is. SimpleITK reads axes as perpendicular up to a sine of 1e-4.
const NEGLIGIBLE_SHEAR: f64 = 2e-5;

/// Three rows of a 4×4 matrix: voxel index [i, j, k] → RAS+ millimetres. The fourth row is always 0 0 0 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine(pub [[f64; 4]; 3]);

impl Affine {
    /// Creates a map that only scales: axes along R, A, S with the origin at voxel [0, 0, 0].
    pub fn from_spacing(spacing_mm: [f64; 3]) -> Self {
        let mut rows = [[0.0; 4]; 3];
        for axis in 0..3 {
            rows[axis][axis] = spacing_mm[axis];
        }
        Self(rows)
    }

    /// Returns the position of a (fractional) voxel index in mm.
    #[inline]
    pub fn apply(&self, [i, j, k]: [f64; 3]) -> [f64; 3] {
        self.0.map(|[a, b, c, d]| a * i + b * j + c * k + d)
    }

    /// Returns the distance in mm of one step along each voxel axis: the lengths of the columns.
    pub fn spacing_mm(&self) -> [f64; 3] {
        [0, 1, 2].map(|axis| self.0.iter().map(|row| row[axis] * row[axis]).sum::<f64>().sqrt())
    }

    /// Returns the determinant of the 3×3 part, in mm³ per voxel; negative for left-handed axes.
    pub fn determinant(&self) -> f64 {
        let [a, b, c] = &self.0;
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
    }

    /// Returns the inverse map, `None` if the axes are degenerate.
    ///
    /// ```
    /// use freetumor::volume::Affine;
    /// let affine = Affine([[0.0, -2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 1.0]]);
    /// let voxel = affine.inverse().unwrap().apply(affine.apply([4.0, 5.0, 6.0]));
    /// assert!((voxel[0] - 4.0).abs() < 1e-12 && (voxel[1] - 5.0).abs() < 1e-12);
    /// ```
    pub fn inverse(&self) -> Option<Self> {
        let determinant = self.determinant();
        let scale: f64 = self.spacing_mm().iter().product();
        if !determinant.is_finite() || determinant.abs() <= 1e-9 * scale || scale == 0.0 {
            return None;
        }
        let [a, b, c] = &self.0;
        let cross = |u: &[f64; 4], v: &[f64; 4]| {
            [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
        };
        let columns = [cross(b, c), cross(c, a), cross(a, b)];
        let mut rows = [[0.0; 4]; 3];
        for (r, row) in rows.iter_mut().enumerate() {
            for (column, values) in columns.iter().enumerate() {
                row[column] = values[r] / determinant;
            }
            row[3] = -(row[0] * a[3] + row[1] * b[3] + row[2] * c[3]);
        }
        Some(Self(rows))
    }

    /// Returns the composition that applies `first` and then `self`.
    #[must_use]
    pub fn after(&self, first: &Self) -> Self {
        let mut rows = [[0.0; 4]; 3];
        for (row, own) in rows.iter_mut().zip(&self.0) {
            for (column, value) in row.iter_mut().enumerate() {
                *value = (0..3).map(|k| own[k] * first.0[k][column]).sum();
            }
            row[3] += own[3];
        }
        Self(rows)
    }

    /// Returns the map with perpendicular axes, or the angle of the shear in degrees if it exceeds half a degree: lengths, shapes and
    /// distances are measured along the axes, and most programs do not read sheared scans.
    ///
    /// The first axis, the plane of the first two axes, the spacing and the origin are kept; the far end of the third axis moves by less
    /// than a hundredth of its length. A shear that other programs ignore changes nothing.
    ///
    /// ```
    /// use freetumor::volume::Affine;
    /// let sheared = |mm| Affine([[0.8, 0.0, mm, 5.0], [0.0, 0.8, 0.0, 6.0], [0.0, 0.0, 2.0, 7.0]]);
    /// let perpendicular = sheared(0.01).with_right_angles().unwrap();
    /// assert_eq!(perpendicular.0[0], [0.8, 0.0, 0.0, 5.0]);
    /// assert!((sheared(2.0).with_right_angles().unwrap_err() - 45.0).abs() < 1e-9);
    /// ```
    ///
    /// # Errors
    /// Returns the largest angle between an axis and the normal of the other two, in degrees.
    pub fn with_right_angles(&self) -> Result<Self, f64> {
        let [x, y, z] = [0, 1, 2].map(|axis| self.0.map(|row| row[axis]));
        let sine = |axis, first, second| {
            let normal = cross(first, second);
            length(cross(axis, normal)) / (length(axis) * length(normal))
        };
        let shear = sine(x, y, z).max(sine(y, z, x)).max(sine(z, x, y));
        if shear <= NEGLIGIBLE_SHEAR {
            return Ok(*self);
        }
        if shear.is_nan() || shear > MAX_SHEAR {
            return Err(libm::asin(shear.min(1.0)).to_degrees());
        }
        let scaled = |axis: [f64; 3], mm: f64| axis.map(|value| value * mm / length(axis));
        let normal = cross(x, y);
        let perpendicular =
            [x, scaled(cross(normal, x), length(y)), scaled(normal, length(z).copysign(dot(normal, z)))];
        let mut affine = *self;
        for (r, row) in affine.0.iter_mut().enumerate() {
            for (value, axis) in row.iter_mut().zip(perpendicular) {
                // Adding zero turns -0 into 0.
                *value = axis[r] + 0.0;
            }
        }
        Ok(affine)
    }

    /// Returns whether both maps move every corner of a grid of this shape to the same position, within `tolerance_mm`.
    pub fn agrees_with(&self, other: &Self, shape: [usize; 3], tolerance_mm: f64) -> bool {
        (0..8usize).all(|corner| {
            let index = [0, 1, 2].map(|axis| if corner >> axis & 1 == 1 { shape[axis] as f64 - 1.0 } else { 0.0 });
            let (own, others) = (self.apply(index), other.apply(index));
            own.iter().zip(others).all(|(a, b)| (a - b).abs() <= tolerance_mm)
        })
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn length(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_of_degenerate_axes_is_none() {
        assert!(Affine([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]).inverse().is_none());
        assert!(Affine::from_spacing([1.0, 0.0, 1.0]).inverse().is_none());
        assert!(Affine::from_spacing([1e-3, 1e-3, 1e-3]).inverse().is_some());
    }

    #[test]
    fn axes_become_perpendicular_and_keep_their_lengths() {
        let (sin, cos) = 0.3f64.sin_cos();
        // Left-handed axes, rotated about the first one, with a shear of 0.4° in each pair of axes.
        let shear = 0.4f64.to_radians().sin() / 2.0;
        let affine = Affine([
            [-0.7, 0.7 * shear, 5.0 * shear, 1.0],
            [0.0, 0.7 * cos, 5.0 * sin, 2.0],
            [0.0, 0.7 * sin, -5.0 * cos, 3.0],
        ]);
        let perpendicular = affine.with_right_angles().unwrap();
        let columns = [0, 1, 2].map(|axis| perpendicular.0.map(|row| row[axis]));
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            assert!(dot(columns[a], columns[b]).abs() < 1e-12, "axes {a} and {b}");
        }
        let lengths = affine.spacing_mm().into_iter().zip(perpendicular.spacing_mm());
        assert!(lengths.into_iter().all(|(before, after)| (before - after).abs() < 1e-12));
        assert_eq!(affine.determinant() < 0.0, perpendicular.determinant() < 0.0);
        assert!(perpendicular.agrees_with(&affine, [100, 100, 30], 0.01 * 150.0));
        assert_eq!(perpendicular.apply([0.0; 3]), affine.apply([0.0; 3]));
        assert_eq!(perpendicular.with_right_angles(), Ok(perpendicular));
    }

    #[test]
    fn after_applies_argument_first() {
        let scale = Affine::from_spacing([2.0, 3.0, 4.0]);
        let shift = Affine([[1.0, 0.0, 0.0, 10.0], [0.0, 1.0, 0.0, 20.0], [0.0, 0.0, 1.0, 30.0]]);
        assert_eq!(scale.after(&shift).apply([1.0, 1.0, 1.0]), [22.0, 63.0, 124.0]);
        assert_eq!(shift.after(&scale).apply([1.0, 1.0, 1.0]), [12.0, 23.0, 34.0]);
    }
}
