//! The NIfTI-1 header of a file that this program writes.

use crate::error::{Fault, FaultKind, Stage};
use crate::volume::{Affine, Grid};

/// How a voxel is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VoxelType {
    U8,
    I16,
    F32,
}

impl VoxelType {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::I16 => 2,
            Self::F32 => 4,
        }
    }

    /// The format's number for it.
    fn code(self) -> i16 {
        match self {
            Self::U8 => 2,
            Self::I16 => 4,
            Self::F32 => 16,
        }
    }
}

/// Bytes before the first voxel: the header and four bytes that say that no extension follows.
pub(super) const VOXEL_OFFSET: usize = 352;

/// The bytes before the first voxel, little-endian. The affine goes into the sform, and into the qform too where it is
/// a rotation with scales (ITK prefers it).
///
/// # Errors
/// A fault where the format cannot count that many voxels along an axis.
pub(super) fn header(grid: &Grid, voxel_type: VoxelType) -> Result<[u8; VOXEL_OFFSET], Fault> {
    let mut bytes = [0; VOXEL_OFFSET];
    let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(0, &348i32.to_le_bytes());
    let [nx, ny, nz] = grid.shape;
    for (axis, length) in [3, nx, ny, nz, 1, 1, 1, 1].into_iter().enumerate() {
        let length = i16::try_from(length).map_err(|_| {
            let expected = "NIfTI-1 holds at most 32767 voxels along an axis";
            Fault::new(Stage::Sink, FaultKind::Unsupported, format!("{expected}, got {nx}×{ny}×{nz}"))
        })?;
        put(40 + 2 * axis, &length.to_le_bytes());
    }
    put(70, &voxel_type.code().to_le_bytes());
    put(72, &(8 * voxel_type.bytes() as i16).to_le_bytes());
    let quaternion = Quaternion::of(&grid.affine);
    put(76, &quaternion.map_or(1.0, |q| q.handedness).to_le_bytes());
    for (axis, spacing) in grid.spacing_mm().into_iter().enumerate() {
        put(80 + 4 * axis, &(spacing as f32).to_le_bytes());
    }
    put(108, &(VOXEL_OFFSET as f32).to_le_bytes());
    put(112, &1f32.to_le_bytes()); // scl_slope
    put(123, &[2]); // millimetres
    if let Some(quaternion) = quaternion {
        put(252, &1i16.to_le_bytes());
        for (index, part) in quaternion.bcd.into_iter().enumerate() {
            put(256 + 4 * index, &part.to_le_bytes());
        }
        for (index, row) in grid.affine.0.iter().enumerate() {
            put(268 + 4 * index, &(row[3] as f32).to_le_bytes());
        }
    }
    put(254, &1i16.to_le_bytes());
    for (index, value) in grid.affine.0.iter().flatten().enumerate() {
        put(280 + 4 * index, &(*value as f32).to_le_bytes());
    }
    put(344, b"n+1\0");
    Ok(bytes)
}

#[derive(Clone, Copy)]
struct Quaternion {
    bcd: [f32; 3],
    handedness: f32,
}

impl Quaternion {
    /// The rotation of an affine; `None` where its axes are not perpendicular.
    fn of(affine: &Affine) -> Option<Self> {
        let spacing = affine.spacing_mm();
        let mut r = [0, 1, 2].map(|row| [0, 1, 2].map(|column| affine.0[row][column] / spacing[column]));
        let dot = |a: usize, b: usize| (0..3).map(|row| r[row][a] * r[row][b]).sum::<f64>();
        if [dot(0, 1), dot(0, 2), dot(1, 2)].iter().any(|d| !d.is_finite() || d.abs() > 1e-5) {
            return None;
        }
        let handedness = if affine.determinant() < 0.0 { -1.0 } else { 1.0 };
        for row in &mut r {
            row[2] *= handedness;
        }
        // The largest of the four parts is found first: the others are divided by it.
        let squares = [
            1.0 + r[0][0] + r[1][1] + r[2][2],
            1.0 + r[0][0] - r[1][1] - r[2][2],
            1.0 - r[0][0] + r[1][1] - r[2][2],
            1.0 - r[0][0] - r[1][1] + r[2][2],
        ];
        let largest = (0..4).max_by(|&i, &j| squares[i].total_cmp(&squares[j]))?;
        let root = libm::sqrt(squares[largest]);
        let scale = 0.5 / root;
        let [a, b, c, d] = match largest {
            0 => [0.5 * root, (r[2][1] - r[1][2]) * scale, (r[0][2] - r[2][0]) * scale, (r[1][0] - r[0][1]) * scale],
            1 => [(r[2][1] - r[1][2]) * scale, 0.5 * root, (r[0][1] + r[1][0]) * scale, (r[0][2] + r[2][0]) * scale],
            2 => [(r[0][2] - r[2][0]) * scale, (r[0][1] + r[1][0]) * scale, 0.5 * root, (r[1][2] + r[2][1]) * scale],
            _ => [(r[1][0] - r[0][1]) * scale, (r[0][2] + r[2][0]) * scale, (r[1][2] + r[2][1]) * scale, 0.5 * root],
        };
        // The format keeps three parts and takes the first to be positive.
        let sign = if a < 0.0 { -1.0 } else { 1.0 };
        let mut bcd = [b, c, d].map(|part| (sign * part) as f32);
        if a.abs() < 1e-7 {
            // Half a turn: readers take the root of 1 - b² - c² - d², which rounding must not leave above zero.
            let length = |bcd: [f32; 3]| bcd.iter().map(|part| f64::from(*part) * f64::from(*part)).sum::<f64>();
            let longest = (0..3).max_by(|&i, &j| bcd[i].abs().total_cmp(&bcd[j].abs()))?;
            while length(bcd) < 1.0 {
                bcd[longest] = if bcd[longest] < 0.0 { bcd[longest].next_down() } else { bcd[longest].next_up() };
            }
        }
        Some(Self { bcd, handedness: handedness as f32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32_at(bytes: &[u8], offset: usize) -> f64 {
        f64::from(f32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap()))
    }

    /// The rotation that a reader computes from the stored quaternion, by the format's own formula.
    fn qform(bytes: &[u8]) -> Affine {
        let [b, c, d] = [0, 1, 2].map(|i| f32_at(bytes, 256 + 4 * i));
        let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
        let rotation = [
            [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
            [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
            [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ];
        let mut rows = [[0.0; 4]; 3];
        for row in 0..3 {
            for column in 0..3 {
                let sign = if column == 2 { f32_at(bytes, 76) } else { 1.0 };
                rows[row][column] = rotation[row][column] * sign * f32_at(bytes, 80 + 4 * column);
            }
            rows[row][3] = f32_at(bytes, 268 + 4 * row);
        }
        Affine(rows)
    }

    #[test]
    fn qform_and_sform_say_the_same_for_all_48_orientations_and_oblique_ones() {
        let mut affines = Vec::new();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for signs in 0..8 {
                let mut rows = [[0.0; 4]; 3];
                for column in 0..3 {
                    let sign = if signs >> column & 1 == 1 { -1.0 } else { 1.0 };
                    rows[order[column]][column] = sign * [0.75, 1.5, 5.0][column];
                    rows[column][3] = [-120.0, 33.25, 500.5][column];
                }
                affines.push(Affine(rows));
            }
        }
        let (s, c) = (0.3f64.sin(), 0.3f64.cos());
        affines.push(Affine([[-0.7, 0.0, 0.0, 1.0], [0.0, -0.7 * c, 3.0 * s, 2.0], [0.0, 0.7 * s, 3.0 * c, 3.0]]));
        for affine in affines {
            let bytes = header(&Grid { shape: [10, 20, 30], affine }, VoxelType::I16).unwrap();
            assert_eq!(i16::from_le_bytes([bytes[252], bytes[253]]), 1, "{affine:?}");
            assert!(qform(&bytes).agrees_with(&affine, [10, 20, 30], 1e-3), "{affine:?} {:?}", qform(&bytes));
        }
    }

    #[test]
    fn sheared_axes_have_a_sform_only() {
        let affine = Affine([[1.0, 0.2, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]);
        let bytes = header(&Grid { shape: [4, 4, 4], affine }, VoxelType::U8).unwrap();
        assert_eq!((bytes[252], bytes[254]), (0, 1));
        assert_eq!(f32_at(&bytes, 284), f64::from(0.2f32));
    }

    #[test]
    fn an_axis_too_long_is_a_fault() {
        let grid = Grid { shape: [40_000, 1, 1], affine: Affine::from_spacing([1.0; 3]) };
        assert_eq!(header(&grid, VoxelType::U8).unwrap_err().kind, FaultKind::Unsupported);
    }
}
