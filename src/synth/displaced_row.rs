//! The positions of the tissue of one row of voxels before a displacement, computed for many voxels at once.

use std::ops::Range;

use super::directions::DirectionMap;

/// The number of voxels of a row that are computed at once.
pub(super) const LANES: usize = 32;

/// The positions before the displacement of the tissue that is at [`LANES`] voxels of a row after it.
pub(super) struct SourcePositions {
    /// The factor by which the offset from the centre is multiplied to get the offset before the displacement; 1 if the tissue has not
    /// moved.
    pub factors: [f32; LANES],
    /// The positions before the displacement along [x, y, z], in voxels.
    pub positions: [[f32; LANES]; 3],
}

impl Default for SourcePositions {
    fn default() -> Self {
        Self { factors: [1.0; LANES], positions: [[0.0; LANES]; 3] }
    }
}

/// One row of voxels of a displacement.
pub(super) struct DisplacedRow<'a> {
    /// The matrix that maps offsets in mm to a vector whose length is the level.
    pub level_matrix: [[f32; 3]; 3],
    /// The share of the radius by which the surface is displaced where no obstacle is near.
    pub strength: f32,
    /// The width of the displaced tissue in levels where no obstacle is near.
    pub width: f32,
    /// The level at which the displacement ends, by direction.
    pub end: &'a DirectionMap,
    /// The centre along x, a fractional voxel.
    pub centre_x: f64,
    pub spacing_mm: [f64; 3],
    /// The columns outside which no tissue has moved.
    pub columns: Range<usize>,
    /// The row as y and z.
    pub at: [usize; 2],
    /// The offset of the row from the centre in mm along y and z.
    pub offset: [f32; 2],
}

impl DisplacedRow<'_> {
    /// Computes the positions before the displacement of the tissue at [`LANES`] voxels from column `first`. The loops are vectorized:
    /// numbers that do not change are bound to local variables, and all voxels are computed in the same way.
    #[inline(always)]
    pub fn compute_sources(&self, first: usize, sources: &mut SourcePositions) {
        let Self { level_matrix: [a, b, c], strength, width, end, centre_x, spacing_mm, .. } = *self;
        let [offset_y, offset_z] = self.offset;
        let ([ax, bx, cx], [ay, by, cy]) = ([a[0], b[0], c[0]], [a[1] * offset_y, b[1] * offset_y, c[1] * offset_y]);
        let [az, bz, cz] = [a[2] * offset_z, b[2] * offset_z, c[2] * offset_z];
        let (mut offsets, mut levels) = ([0.0f32; LANES], [0.0f32; LANES]);
        for lane in 0..LANES {
            let offset_x = ((first as f64 + lane as f64 - centre_x) * spacing_mm[0]) as f32;
            let (along_a, along_b, along_c) =
                (ax * offset_x + ay + az, bx * offset_x + by + bz, cx * offset_x + cy + cz);
            offsets[lane] = offset_x;
            levels[lane] = (along_a * along_a + along_b * along_b + along_c * along_c).sqrt();
        }
        let mut ends = [end.unlimited(); LANES];
        if end.is_limited() {
            for lane in 0..LANES {
                if levels[lane] < 1.0 + width {
                    ends[lane] = end.at([offsets[lane], offset_y, offset_z]);
                }
            }
        }
        let spacing = [spacing_mm[0] as f32, spacing_mm[1] as f32, spacing_mm[2] as f32];
        let (x, y, z) = (first as f32, self.at[0] as f32, self.at[1] as f32);
        for lane in 0..LANES {
            let factor = factor(levels[lane], ends[lane], strength, width);
            sources.factors[lane] = factor;
            let change = factor - 1.0;
            sources.positions[0][lane] = (x + lane as f32 + offsets[lane] * change / spacing[0]).max(0.0);
            sources.positions[1][lane] = (y + offset_y * change / spacing[1]).max(0.0);
            sources.positions[2][lane] = (z + offset_z * change / spacing[2]).max(0.0);
        }
    }
}

/// Returns the factor by which the offset from the centre of the tissue that is at a level is multiplied to get its offset before; 1 if the
/// tissue has not moved. The displacement ends at the level `end`.
#[inline(always)]
pub(super) fn factor(level: f32, end: f32, strength: f32, width: f32) -> f32 {
    let room = end - 1.0;
    let at_surface = strength * room / width;
    let rest = (1.0 + room - level) / room;
    let moved = if level >= 1.0 { at_surface * rest * rest } else { at_surface * level };
    let moves = (level < 1.0 + width) & (room > 0.0) & (level < 1.0 + room) & (moved > 1e-4);
    let factor = if moves { (level - moved) / level } else { 1.0 };
    if level <= 1e-3 { 1.0 - strength } else { factor }
}
