//! Affine maps from voxel indices to millimetres.

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

    /// Returns whether both maps move every corner of a grid of this shape to the same position, within `tolerance_mm`.
    pub fn agrees_with(&self, other: &Self, shape: [usize; 3], tolerance_mm: f64) -> bool {
        (0..8usize).all(|corner| {
            let index = [0, 1, 2].map(|axis| if corner >> axis & 1 == 1 { shape[axis] as f64 - 1.0 } else { 0.0 });
            let (own, others) = (self.apply(index), other.apply(index));
            own.iter().zip(others).all(|(a, b)| (a - b).abs() <= tolerance_mm)
        })
    }
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
    fn after_applies_argument_first() {
        let scale = Affine::from_spacing([2.0, 3.0, 4.0]);
        let shift = Affine([[1.0, 0.0, 0.0, 10.0], [0.0, 1.0, 0.0, 20.0], [0.0, 0.0, 1.0, 30.0]]);
        assert_eq!(scale.after(&shift).apply([1.0, 1.0, 1.0]), [22.0, 63.0, 124.0]);
        assert_eq!(shift.after(&scale).apply([1.0, 1.0, 1.0]), [12.0, 23.0, 34.0]);
    }
}
