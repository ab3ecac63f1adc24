//! The affine of a NIfTI file: from its sform, else its qform.

use crate::error::{Fault, FaultKind};
use crate::ingest::raster::checked_affine;
use crate::volume::Affine;

/// Tolerance of 1 − (b² + c² + d²) below zero in a rotation quaternion. The reference implementation has no limit; public files have
/// −4e-7 to −1e-6, and a wrong field is far below.
const QUATERNION_TOLERANCE: f64 = 1e-4;

/// The fields of a header that define its affine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    /// `pixdim[0]` is the handedness (qfac), the next three are the spacing.
    pub pixdim: [f64; 8],
    /// `xyzt_units`; the lowest three bits are the unit of length.
    pub units: u8,
    pub qform_code: i32,
    pub sform_code: i32,
    /// Parts b, c, d of the unit quaternion; a follows from unit length.
    pub quaternion: [f64; 3],
    pub offset: [f64; 3],
    pub sform: [[f64; 4]; 3],
}

impl Placement {
    /// Returns the affine from voxels to RAS+ millimetres, selected as in nibabel's `get_best_affine`, but an sform of zeros is
    /// ignored if there is a qform, as in ITK. Metres and micrometres are converted, as in ITK; an unknown unit is treated as
    /// millimetres. A shear of up to half a degree is removed, see [`Affine::with_right_angles`].
    ///
    /// # Errors
    /// Returns `geometry` if the header states no position: left and right would be a guess.
    pub fn affine(&self) -> Result<Affine, Fault> {
        let is_zero = self.sform.iter().all(|row| row[..3].iter().all(|&value| value == 0.0));
        let (name, mut affine) = if self.sform_code != 0 && !(is_zero && self.qform_code != 0) {
            ("sform", Affine(self.sform))
        } else if self.qform_code != 0 {
            ("qform", self.qform()?)
        } else {
            return Err(geometry(
                "expected a position in the header, got sform_code 0 and qform_code 0: left and right are unknown; set the sform or qform of the file, for example with `set_sform` of nibabel".into(),
            ));
        };
        let unit_mm = match self.units & 7 {
            1 => 1e3,
            3 => 1e-3,
            _ => 1.0,
        };
        if unit_mm != 1.0 {
            affine.0.iter_mut().flatten().for_each(|value| *value *= unit_mm);
        }
        checked_affine(affine, name)
    }

    fn qform(&self) -> Result<Affine, Fault> {
        let rotation = rotation_of(self.quaternion).ok_or_else(|| {
            geometry(format!("expected a rotation in the qform, got the quaternion part {:?}", self.quaternion))
        })?;
        let [x, y, z] = self.spacing();
        let z = if self.pixdim[0] < 0.0 { -z } else { z };
        Ok(Affine(std::array::from_fn(|r| {
            [rotation[r][0] * x, rotation[r][1] * y, rotation[r][2] * z, self.offset[r]]
        })))
    }

    /// Returns the absolute spacing: some writers store negative values, whose sign has no meaning.
    fn spacing(&self) -> [f64; 3] {
        [1, 2, 3].map(|axis| self.pixdim[axis].abs())
    }
}

/// Returns the rotation matrix of the unit quaternion with imaginary part [b, c, d] and a real part ≥ 0.
fn rotation_of([b, c, d]: [f64; 3]) -> Option<[[f64; 3]; 3]> {
    let square = 1.0 - (b * b + c * c + d * d);
    if square.is_nan() || square < -QUATERNION_TOLERANCE {
        return None;
    }
    let a = square.max(0.0).sqrt();
    // Rounded parts may have a length above one: dividing by the length keeps unit columns.
    let s = 2.0 / (a * a + b * b + c * c + d * d);
    Some([
        [1.0 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
        [s * (b * c + a * d), 1.0 - s * (b * b + d * d), s * (c * d - a * b)],
        [s * (b * d - a * c), s * (c * d + a * b), 1.0 - s * (b * b + c * c)],
    ])
}

/// Quaternion and handedness of an affine without shear.
pub(super) struct Qform {
    /// −1 if the axes are left-handed, else 1.
    pub qfac: f64,
    pub quaternion: [f64; 3],
}

impl Qform {
    /// Returns the quaternion and the handedness of an affine, or `None` if rounding them to the float32 of a header would move a corner
    /// of the grid by more than a hundredth of a voxel.
    pub fn from_affine(affine: &Affine, shape: [usize; 3]) -> Option<Self> {
        let spacing_mm = affine.spacing_mm();
        let qfac = if affine.determinant() < 0.0 { -1.0 } else { 1.0 };
        let rotation: [[f64; 3]; 3] = std::array::from_fn(|r| {
            std::array::from_fn(|c| affine.0[r][c] / spacing_mm[c] * if c == 2 { qfac } else { 1.0 })
        });
        let stored = |value: f64| f64::from(value as f32);
        let quaternion = round_to_f32(quaternion_of(&rotation)).map(f64::from);
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

/// Returns the float32 neighbours of b, c, d from which the real part is reconstructed with the smallest error. Near a rotation of
/// 180° the real part is the root of a small remainder, and plain rounding would rotate the far end of a scan by a fifth of a voxel.
fn round_to_f32([a, b, c, d]: [f64; 4]) -> [f32; 3] {
    let neighbours = |part: f64| [part as f32, (part as f32).next_down(), (part as f32).next_up()];
    let mut best = ([b as f32, c as f32, d as f32], f64::INFINITY);
    for b in neighbours(b) {
        for c in neighbours(c) {
            for d in neighbours(d) {
                let square = 1.0 - [b, c, d].iter().map(|&part| f64::from(part) * f64::from(part)).sum::<f64>();
                let error = (square.max(0.0).sqrt() - a).abs();
                if error < best.1 {
                    best = ([b, c, d], error);
                }
            }
        }
    }
    best.0
}

/// Returns the unit quaternion of a rotation, with a real part ≥ 0. Divides by the largest of the four parts, so that no
/// rotation loses precision.
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
    fn qform_round_trips_for_right_angles() {
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
                    let qform =
                        Qform::from_affine(&affine, [512, 512, 40]).expect("axes at right angles form a rotation");
                    assert_eq!(qform.qfac < 0.0, affine.determinant() < 0.0);
                }
            }
        }
    }

    #[test]
    fn tilted_scan_has_qform() {
        let (sin, cos) = 0.35f64.sin_cos();
        let affine =
            Affine([[0.8, 0.0, 0.0, -200.0], [0.0, 0.8 * cos, -3.0 * sin, 1.0], [0.0, 0.8 * sin, 3.0 * cos, 7.0]]);
        let qform = Qform::from_affine(&affine, [512, 512, 200]).expect("a rotation");
        assert!((qform.quaternion[0] - 0.175f64.sin()).abs() < 1e-7 && qform.qfac == 1.0);
    }

    /// Returns axes towards Left, Posterior and Superior by the qform, half a turn about z.
    fn half_turn() -> Placement {
        Placement {
            pixdim: [1.0, 2.0, 2.0, 2.5, 0.0, 0.0, 0.0, 0.0],
            units: 2,
            qform_code: 1,
            sform_code: 0,
            quaternion: [0.0, 0.0, 1.0],
            offset: [50.0, 40.0, -30.0],
            sform: [[0.0; 4]; 3],
        }
    }

    #[test]
    fn sform_of_zeros_is_ignored_if_there_is_qform() {
        let expected = Affine([[-2.0, 0.0, 0.0, 50.0], [0.0, -2.0, 0.0, 40.0], [0.0, 0.0, 2.5, -30.0]]);
        let zeros = Placement { sform_code: 1, ..half_turn() };
        assert_eq!(zeros.affine(), Ok(expected));
        let fault = Placement { qform_code: 0, ..zeros }.affine().unwrap_err();
        assert!(fault.message.contains("[0.0, 0.0, 0.0] in the sform"), "{fault}");
    }

    #[test]
    fn quaternion_above_unit_length_is_fault_unless_rounded() {
        let expected = half_turn().affine().unwrap();
        for excess in [1e-7, 3.845_952e-7, 1e-6, 5e-5] {
            let rounded = Placement { quaternion: [0.0, 0.0, 1.0f64 + excess / 2.0], ..half_turn() };
            assert!(rounded.affine().unwrap().agrees_with(&expected, [16, 20, 6], 1e-6), "{excess}");
        }
        assert!(Placement { quaternion: [0.0, 0.0, 1.01], ..half_turn() }.affine().is_err());
    }

    #[test]
    fn every_negative_qfac_is_left_handed() {
        for qfac in [-1.0, -2.0, -0.5] {
            let mut placement = half_turn();
            placement.pixdim[0] = qfac;
            assert_eq!(placement.affine().unwrap().0[2], [0.0, 0.0, -2.5, -30.0], "{qfac}");
        }
    }

    #[test]
    fn sheared_sform_is_geometry_fault_beyond_half_a_degree() {
        let sheared = |degrees: f64| {
            let sform = [[0.8, 0.0, 0.0, 0.0], [0.0, 0.8, 3.0 * degrees.to_radians().tan(), 0.0], [0.0, 0.0, 3.0, 0.0]];
            Placement { sform_code: 1, sform, ..half_turn() }.affine()
        };
        let fault = sheared(20.0).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Geometry);
        assert!(fault.message.contains("sheared by 20.00°"), "{fault}");
        assert!(sheared(0.51).is_err());
        let affine = sheared(0.49).unwrap();
        assert!(
            Qform::from_affine(&affine, [512, 512, 300]).is_some(),
            "programs that need perpendicular axes can read it"
        );
    }

    #[test]
    fn sheared_affine_has_no_qform() {
        let affine = Affine([[1.0, 0.0, 0.2, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
        assert!(Qform::from_affine(&affine, [64, 64, 64]).is_none());
    }
}
