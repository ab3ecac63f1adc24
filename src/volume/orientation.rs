//! The axis order of a volume, derived from its affine.

use super::{Affine, Grid};

/// An axis order: for each voxel axis, the closest world axis (0 = R, 1 = A, 2 = S) and whether the voxel axis points towards
/// the positive end of the world axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation(pub [(usize, bool); 3]);

impl Orientation {
    /// The canonical orientation: the axes point towards right, anterior and superior.
    pub const RAS: Self = Self([(0, true), (1, true), (2, true)]);

    /// Returns the three letters towards which the axes point, such as `LPS`.
    pub fn code(&self) -> String {
        self.0.iter().map(|&(axis, positive)| LETTERS[axis][usize::from(positive)]).collect()
    }

    /// Parses three letters; `None` unless each world axis occurs once.
    ///
    /// ```
    /// use freetumor::volume::Orientation;
    /// assert_eq!(Orientation::from_code("LPS").unwrap().code(), "LPS");
    /// assert!(Orientation::from_code("LRS").is_none());
    /// ```
    pub fn from_code(code: &str) -> Option<Self> {
        let mut axes = Vec::with_capacity(3);
        for letter in code.chars() {
            let axis = LETTERS.iter().position(|pair| pair.contains(&letter))?;
            if axes.len() == 3 || axes.iter().any(|&(used, _)| used == axis) {
                return None;
            }
            axes.push((axis, LETTERS[axis][1] == letter));
        }
        axes.try_into().ok().map(Self)
    }
}

/// The letters at the negative and the positive end of each world axis.
const LETTERS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['I', 'S']];

impl Affine {
    /// Returns the axis order closest to this map.
    ///
    /// The axes are made orthogonal first (polar decomposition). Then voxel axes are assigned to world axes in descending order of
    /// agreement. In a tie, the first voxel axis is assigned first, to the first world axis.
    ///
    /// ```
    /// use freetumor::volume::Affine;
    /// let sagittal = Affine([[0.0, 0.1, 3.0, 5.0], [-1.0, 0.0, 0.0, -7.0], [0.0, 1.0, 0.1, 1.0]]);
    /// assert_eq!(sagittal.orientation().code(), "PSR");
    /// ```
    ///
    /// # Source
    /// The rule of nibabel's `io_orientation`.
    pub fn orientation(&self) -> Orientation {
        let mut closeness = self.orthogonal_axes();
        let strongest =
            |axis: usize, rows: &[[f64; 3]; 3]| rows.iter().map(|row| row[axis] * row[axis]).fold(0.0, f64::max);
        // Rounded, so that axes at 45° are a tie and do not depend on the last bit.
        let rank = [0, 1, 2].map(|axis| -(strongest(axis, &closeness) * 1e9).round() as i64);
        let mut order = [0, 1, 2];
        order.sort_by_key(|&axis| rank[axis]);

        let mut axes = [(0, true); 3];
        let mut free = [true; 3];
        for axis in order {
            let mut best = None;
            for world in (0..3).filter(|&world| free[world]) {
                let length = closeness[world][axis].abs();
                if best.is_none_or(|(_, longest)| length > longest + 1e-9) {
                    best = Some((world, length));
                }
            }
            if let Some((world, _)) = best {
                axes[axis] = (world, closeness[world][axis] >= 0.0);
                free[world] = false;
                closeness[world] = [0.0; 3];
            }
        }
        Orientation(axes)
    }

    /// Returns the rows of the orthogonal matrix closest to the unit axes, by Newton's iteration; the unit axes themselves if they
    /// are degenerate.
    fn orthogonal_axes(&self) -> [[f64; 3]; 3] {
        let lengths = self.spacing_mm().map(|length| if length > 0.0 { length } else { 1.0 });
        let unit = self.0.map(|row| [0, 1, 2].map(|axis| row[axis] / lengths[axis]));
        let mut rows = unit;
        for _ in 0..64 {
            let affine = Affine(rows.map(|[a, b, c]| [a, b, c, 0.0]));
            let Some(inverse) = affine.inverse() else { return unit };
            let mut change = 0.0f64;
            for (r, row) in rows.iter_mut().enumerate() {
                for (c, value) in row.iter_mut().enumerate() {
                    let next = 0.5 * (*value + inverse.0[c][r]);
                    change = change.max((next - *value).abs());
                    *value = next;
                }
            }
            if change < 1e-14 {
                break;
            }
        }
        rows
    }
}

impl Grid {
    /// Returns the axis order closest to the grid's affine.
    pub fn orientation(&self) -> Orientation {
        self.affine.orientation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cosine of 45°.
    const C: f64 = std::f64::consts::FRAC_1_SQRT_2;

    fn affine(rows: [[f64; 3]; 3]) -> Affine {
        Affine(rows.map(|[a, b, c]| [a, b, c, 0.0]))
    }

    #[test]
    fn orientation_codes_equal_nibabel() {
        // numpy.random.default_rng(5): skewed axes rounded to 3 digits, then ties at 45°; nibabel.aff2axcodes, 5.4.2.
        let cases = [
            ([[-0.4, -3.96, -0.125], [0.21, 3.42, 0.055], [-0.275, -2.34, 0.375]], "LAS"),
            ([[1.65, -0.18, -1.77], [1.23, 2.49, -4.92], [-0.78, -2.94, -0.51]], "RIP"),
            ([[-6.0, 0.81, -1.1], [0.09, 0.12, -1.99], [-0.69, -0.78, 0.96]], "LIP"),
            ([[-0.21, 1.35, -0.2], [0.57, -0.02, 0.305], [-1.08, -0.15, 0.12]], "IRA"),
            ([[-1.27, 0.305, -0.6], [-0.32, -0.005, -0.225], [-0.05, 0.67, -0.26]], "LSP"),
            ([[1.9, 0.48, -0.79], [1.73, 0.35, -0.47], [0.91, 0.02, -0.31]], "AIL"),
            ([[-0.06, 0.215, -0.265], [0.15, 0.36, 0.15], [2.61, 0.23, 0.245]], "SAL"),
            ([[0.545, -0.53, 4.14], [0.015, -0.905, -1.26], [-0.255, 0.795, -2.37]], "RPI"),
            ([[-5.04, 1.95, 0.92], [-2.91, 0.91, 1.34], [-7.17, -0.55, -0.39]], "IRA"),
            ([[0.24, 0.515, 1.17], [-0.435, 0.255, 0.75], [0.94, -0.005, -4.02]], "PRI"),
            ([[0.885, 1.72, 0.86], [0.165, 1.14, -0.14], [-0.05, -0.86, 0.01]], "RIP"),
            ([[0.53, -0.13, -3.3], [-0.185, -0.27, 2.16], [0.225, -0.14, -2.01]], "RPI"),
            ([[C, -C, 0.0], [C, C, 0.0], [0.0, 0.0, 1.0]], "RAS"),
            ([[C, C, 0.0], [C, -C, 0.0], [0.0, 0.0, 1.0]], "RPS"),
            ([[1.0, 0.0, 0.0], [0.0, C, -C], [0.0, C, C]], "RAS"),
            ([[1.0, 0.9, 0.0], [0.0, 1.0, 0.9], [0.0, 0.0, 1.0]], "RAS"),
            ([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 2.0]], "RPS"),
            ([[0.8, 0.0, 0.8], [0.0, 1.0, 0.0], [-0.8, 0.0, 0.8]], "RAS"),
        ];
        for (rows, code) in cases {
            assert_eq!(affine(rows).orientation().code(), code, "{rows:?}");
        }
    }

    #[test]
    fn tie_at_45_degrees_ignores_last_bit() {
        for noise in [-1e-15, 0.0, 1e-15] {
            let rows = [[C + noise, -C, 0.0], [C, C - noise, 0.0], [0.0, 0.0, 1.0]];
            assert_eq!(affine(rows).orientation(), Orientation::RAS);
        }
    }

    #[test]
    fn degenerate_axes_use_each_world_axis_once() {
        let mut worlds = affine([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).orientation().0.map(|(w, _)| w);
        worlds.sort_unstable();
        assert_eq!(worlds, [0, 1, 2]);
    }

    #[test]
    fn from_code_rejects_invalid_codes() {
        for code in ["", "RA", "RASR", "RRS", "RLS", "ras", "XYZ"] {
            assert!(Orientation::from_code(code).is_none(), "{code}");
        }
    }
}
