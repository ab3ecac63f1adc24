//! Where a NIfTI file says that its voxels lie: sform, else qform, else spacing alone.

use crate::error::{Fault, FaultKind};
use crate::volume::Affine;

/// How far 1 − (b² + c² + d²) may fall below zero before the quaternion is no rotation: three float32 roundings.
const QUATERNION_SLACK: f64 = 3.0 * f32::EPSILON as f64;
/// Spacings that a scanner can have; what lies outside is a wrong unit or a lie.
const SPACING_MM: std::ops::RangeInclusive<f64> = 1e-3..=1e3;
/// No scanner is longer than this, and sums of such coordinates stay exact enough.
const FARTHEST_MM: f64 = 1e6;

/// The fields of a header that place its voxels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    /// `pixdim[0]` holds the handedness (qfac), the next three the spacing.
    pub pixdim: [f64; 8],
    /// `xyzt_units`; the lowest three bits are the unit of length.
    pub units: u8,
    pub qform_code: i32,
    pub sform_code: i32,
    /// The rotation's b, c, d; a follows from unit length.
    pub quaternion: [f64; 3],
    pub offset: [f64; 3],
    pub sform: [[f64; 4]; 3],
}

impl Placement {
    /// The map from voxels to RAS+ millimetres, chosen as nibabel's `get_best_affine` does. A length unit of metres or
    /// micrometres is honoured, as ITK does; an unknown one is taken for millimetres.
    pub fn affine(&self, shape: [usize; 3]) -> Result<Affine, Fault> {
        let (name, mut affine) = if self.sform_code != 0 {
            ("sform", Affine(self.sform))
        } else if self.qform_code != 0 {
            ("qform", self.qform()?)
        } else {
            ("spacing", self.centred(shape))
        };
        let unit_mm = match self.units & 7 {
            1 => 1e3,
            3 => 1e-3,
            _ => 1.0,
        };
        if unit_mm != 1.0 {
            affine.0.iter_mut().flatten().for_each(|value| *value *= unit_mm);
        }
        if affine.0.iter().flatten().any(|value| !value.is_finite()) {
            return Err(geometry(format!("expected finite numbers in the {name}, came {:?}", affine.0)));
        }
        let spacing_mm = affine.spacing_mm();
        if spacing_mm.iter().any(|spacing| !SPACING_MM.contains(spacing)) {
            return Err(geometry(format!(
                "expected {}..{} mm between voxels, the {name} says {spacing_mm:?}",
                SPACING_MM.start(),
                SPACING_MM.end()
            )));
        }
        if affine.inverse().is_none() {
            return Err(geometry(format!("the axes of the {name} do not span space: {:?}", affine.0)));
        }
        if affine.0.iter().any(|row| row[3].abs() > FARTHEST_MM) {
            return Err(geometry(format!("the {name} puts the first voxel farther than {FARTHEST_MM} mm away")));
        }
        Ok(affine)
    }

    /// Spacing alone: the grid's middle at the origin, and x towards the Left as ANALYZE has it.
    fn centred(&self, shape: [usize; 3]) -> Affine {
        let [x, y, z] = self.spacing();
        let mut affine = Affine::from_spacing([-x, y, z]);
        for (axis, row) in affine.0.iter_mut().enumerate() {
            row[3] = -((shape[axis] as f64 - 1.0) / 2.0) * row[axis];
        }
        affine
    }

    fn qform(&self) -> Result<Affine, Fault> {
        let rotation = rotation_of(self.quaternion).ok_or_else(|| {
            geometry(format!("expected a rotation in the qform, came the quaternion part {:?}", self.quaternion))
        })?;
        let [x, y, z] = self.spacing();
        let z = if self.pixdim[0] == -1.0 { -z } else { z };
        Ok(Affine(std::array::from_fn(|r| {
            [rotation[r][0] * x, rotation[r][1] * y, rotation[r][2] * z, self.offset[r]]
        })))
    }

    /// A negative spacing is a known slip of writers; its sign means nothing.
    fn spacing(&self) -> [f64; 3] {
        [1, 2, 3].map(|axis| self.pixdim[axis].abs())
    }
}

/// The rotation of the unit quaternion with imaginary part [b, c, d] and a real part ≥ 0.
fn rotation_of([b, c, d]: [f64; 3]) -> Option<[[f64; 3]; 3]> {
    let rest = 1.0 - (b * b + c * c + d * d);
    if rest.is_nan() || rest < -QUATERNION_SLACK {
        return None;
    }
    let a = rest.max(0.0).sqrt();
    // Rounded parts may be a little longer than one: dividing by the length keeps the columns' lengths right.
    let s = 2.0 / (a * a + b * b + c * c + d * d);
    Some([
        [1.0 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
        [s * (b * c + a * d), 1.0 - s * (b * b + d * d), s * (c * d - a * b)],
        [s * (b * d - a * c), s * (c * d + a * b), 1.0 - s * (b * b + c * c)],
    ])
}

/// Quaternion and handedness of a map, where they and its spacing say all of it (no shear).
pub(super) struct Qform {
    /// −1 where the axes are left-handed.
    pub qfac: f64,
    pub quaternion: [f64; 3],
}

impl Qform {
    /// The parts as a header stores them (float32), or `None` where they would move a corner of the grid by more than a
    /// hundredth of a voxel.
    pub fn of(affine: &Affine, shape: [usize; 3]) -> Option<Self> {
        let spacing_mm = affine.spacing_mm();
        let qfac = if affine.determinant() < 0.0 { -1.0 } else { 1.0 };
        let rotation: [[f64; 3]; 3] = std::array::from_fn(|r| {
            std::array::from_fn(|c| affine.0[r][c] / spacing_mm[c] * if c == 2 { qfac } else { 1.0 })
        });
        let stored = |value: f64| f64::from(value as f32);
        let quaternion = rounded(quaternion_of(&rotation)).map(f64::from);
        let mut pixdim = [0.0; 8];
        pixdim[0] = qfac;
        pixdim[1..4].copy_from_slice(&spacing_mm.map(stored));
        let offset = [0, 1, 2].map(|r| stored(affine.0[r][3]));
        let placement =
            Placement { pixdim, units: 2, qform_code: 1, sform_code: 0, quaternion, offset, sform: [[0.0; 4]; 3] };
        let tolerance_mm = 0.01 * spacing_mm.into_iter().fold(f64::INFINITY, f64::min);
        let agrees = placement.qform().ok()?.agrees_with(affine, shape, tolerance_mm);
        agrees.then_some(Self { qfac, quaternion })
    }
}

/// Float32 neighbours of b, c, d whose length gives the real part back as closely as they can. Near half a turn the real
/// part is the root of what is left of 1, and plain rounding would turn the far end of a scan by a fifth of a voxel.
fn rounded([a, b, c, d]: [f64; 4]) -> [f32; 3] {
    let neighbours = |part: f64| [part as f32, (part as f32).next_down(), (part as f32).next_up()];
    let mut best = ([b as f32, c as f32, d as f32], f64::INFINITY);
    for b in neighbours(b) {
        for c in neighbours(c) {
            for d in neighbours(d) {
                let rest = 1.0 - [b, c, d].iter().map(|&part| f64::from(part) * f64::from(part)).sum::<f64>();
                let error = (rest.max(0.0).sqrt() - a).abs();
                if error < best.1 {
                    best = ([b, c, d], error);
                }
            }
        }
    }
    best.0
}

/// The unit quaternion of a rotation, with a real part ≥ 0. Divides by the largest of the four parts, so that no
/// rotation loses digits.
fn quaternion_of(r: &[[f64; 3]; 3]) -> [f64; 4] {
    // Four times each squared part: a, b, c, d.
    let squares = [
        1.0 + r[0][0] + r[1][1] + r[2][2],
        1.0 + r[0][0] - r[1][1] - r[2][2],
        1.0 - r[0][0] + r[1][1] - r[2][2],
        1.0 - r[0][0] - r[1][1] + r[2][2],
    ];
    let largest = (0..4).fold(0, |best, n| if squares[n] > squares[best] { n } else { best });
    let root = squares[largest].max(0.0).sqrt();
    // Row `largest` of the matrix of products 4·p·q, each over 2·√(4·p²).
    let products = match largest {
        0 => [squares[0], r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]],
        1 => [r[2][1] - r[1][2], squares[1], r[0][1] + r[1][0], r[0][2] + r[2][0]],
        2 => [r[0][2] - r[2][0], r[0][1] + r[1][0], squares[2], r[1][2] + r[2][1]],
        _ => [r[1][0] - r[0][1], r[0][2] + r[2][0], r[1][2] + r[2][1], squares[3]],
    };
    let parts = products.map(|product| product / (2.0 * root));
    if parts[0] < 0.0 { parts.map(|part| -part) } else { parts }
}

fn geometry(message: String) -> Fault {
    Fault::read(FaultKind::Geometry, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quaternions_of_all_right_angles_return() {
        for (x, sx) in [(0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0), (2, 1.0), (2, -1.0)] {
            for (y, sy) in [(0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0), (2, 1.0), (2, -1.0)] {
                if x == y {
                    continue;
                }
                for sz in [1.0, -1.0] {
                    let mut affine = Affine([[0.0, 0.0, 0.0, 7.0], [0.0, 0.0, 0.0, -8.0], [0.0, 0.0, 0.0, 9.0]]);
                    affine.0[x][0] = 0.75 * sx;
                    affine.0[y][1] = 1.25 * sy;
                    affine.0[3 - x - y][2] = 5.0 * sz;
                    let qform = Qform::of(&affine, [512, 512, 40]).expect("axes at right angles are a rotation");
                    assert_eq!(qform.qfac < 0.0, affine.determinant() < 0.0);
                }
            }
        }
    }

    #[test]
    fn a_tilted_scan_has_a_qform() {
        let (sin, cos) = 0.35f64.sin_cos();
        let affine =
            Affine([[0.8, 0.0, 0.0, -200.0], [0.0, 0.8 * cos, -3.0 * sin, 1.0], [0.0, 0.8 * sin, 3.0 * cos, 7.0]]);
        let qform = Qform::of(&affine, [512, 512, 200]).expect("a rotation");
        assert!((qform.quaternion[0] - 0.175f64.sin()).abs() < 1e-7 && qform.qfac == 1.0);
    }

    #[test]
    fn shear_has_no_qform() {
        let affine = Affine([[1.0, 0.0, 0.2, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        assert!(Qform::of(&affine, [64, 64, 64]).is_none());
    }
}
