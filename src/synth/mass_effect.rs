//! Mass effect: the displacement of tissue by a growing tumor.
//!
//! Tissue moves along the rays from the tumor's centre. Let ρ be the level of the tumor's ellipsoid (0 at its centre, 1 on its surface).
//! The tissue that is at level ρ afterwards was at level ρ − s·d(ρ) before, with d(ρ) = ρ inside the tumor and
//! d(ρ) = ((Λ − ρ) / (Λ − 1))² between the surface and the level Λ, beyond which nothing moves. The strength s is the share of the tumor's
//! radius by which its surface was displaced: with s = 0 the tumor has replaced its host, with s = 1 only pushed it aside.
//!
//! Λ depends on the direction: it ends before bone, air and real tumors, which do not move, and s decreases with it, so that tissue is
//! compressed between tumor and obstacle by a bounded factor. A displacement along rays is invertible if and only if the order along each
//! ray is kept, which ρ − s·d(ρ) does for every s < 1: its derivative is 1 − s inside, and at least 1 outside. Its Jacobian is that
//! derivative times ((ρ − s·d(ρ)) / ρ)² for any dependence on the direction.

use std::ops::Range;

use super::directions::{DirectionLimits, DirectionMap};
use super::displaced_row::DisplacedRow;
use crate::mask::{MaskedScan, Organ};
use crate::volume::{Region, Voxels};

/// HU below which a voxel is air or lung, which do not move. Partial volumes of fat and air are between.
pub(super) const AIR_HU: i16 = -300;
/// HU above which a voxel outside the organ is bone (or a device, or undiluted contrast agent), which do not move.
pub(super) const BONE_HU: i16 = 200;
/// The distance to an obstacle at which the displacement ends.
const OBSTACLE_MARGIN_MM: f64 = 0.5;
/// The maximum width of the displaced tissue around a tumor.
const MAX_WIDTH_MM: f64 = 25.0;
/// Displacements of the surface below this are not visible, and are not computed.
const LEAST_MM: f64 = 0.4;

/// The ellipsoid of a tumor on a scan's grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Body {
    /// The centre, a fractional voxel.
    pub centre: [f64; 3],
    /// The semi-axes.
    pub radii_mm: [f64; 3],
    /// The rows are the directions of the axes.
    pub rotation: [[f64; 3]; 3],
    pub spacing_mm: [f64; 3],
}

impl Body {
    /// Returns the rows of the matrix that maps offsets in mm to a vector whose length is the level.
    fn level_matrix(&self) -> [[f64; 3]; 3] {
        [0, 1, 2].map(|k| self.rotation[k].map(|value| value / self.radii_mm[k]))
    }

    /// Returns the radius of the ball of the same volume.
    pub fn radius_mm(&self) -> f64 {
        libm::cbrt(self.radii_mm.iter().product())
    }

    /// Returns the distance from the centre to the surface of the ellipsoid in the direction of an offset.
    pub fn radius_towards(&self, offset: [f64; 3]) -> f64 {
        let length = libm::sqrt(offset.iter().map(|mm| mm * mm).sum());
        let level: f64 = self.level_matrix().iter().map(|row| dot(*row, offset)).map(|x| x * x).sum();
        length / libm::sqrt(level)
    }

    /// Returns the box of the ellipsoid scaled by a level, within a scan of `bounds` voxels.
    fn bounding_box(&self, level: f64, bounds: [usize; 3]) -> Region {
        let reach = [0, 1, 2].map(|axis| {
            let square: f64 = (0..3).map(|k| self.rotation[k][axis] * self.radii_mm[k]).map(|mm| mm * mm).sum();
            level * libm::sqrt(square) / self.spacing_mm[axis]
        });
        let start = [0, 1, 2].map(|k| ((self.centre[k] - reach[k]).floor().max(0.0) as usize).min(bounds[k]));
        let end =
            [0, 1, 2].map(|k| ((self.centre[k] + reach[k]).ceil().max(-1.0) + 1.0).min(bounds[k] as f64) as usize);
        Region { start, shape: [0, 1, 2].map(|k| end[k].saturating_sub(start[k])) }
    }
}

/// The displacement of the tissue around one tumor.
#[derive(Clone, Debug)]
pub(super) struct MassEffect {
    body: Body,
    level_matrix: [[f32; 3]; 3],
    /// The share of the radius by which the surface is displaced where no obstacle is near.
    strength: f32,
    /// The width of the displaced tissue in levels where no obstacle is near.
    width: f32,
    /// The level at which the displacement ends, by direction.
    end: DirectionMap,
    /// The box of all displaced voxels.
    pub region: Region,
}

impl MassEffect {
    /// Prepares the displacement around a tumor. `strength` is the share of the radius by which the surface is displaced, below 1, `width`
    /// the width of the displaced tissue in radii. Returns `None` if no displacement would be visible.
    pub fn new(scan: &MaskedScan, organ: &Organ, body: Body, strength: f64, width: f64) -> Option<Self> {
        let smallest = body.radii_mm.iter().copied().fold(f64::INFINITY, f64::min);
        if strength * smallest < LEAST_MM {
            return None;
        }
        // Compression is at most 1 + 2 s / width.
        let width = width.min(MAX_WIDTH_MM / body.radius_mm());
        let strength = strength.min(0.5 * width).min(0.9);
        let region = body.bounding_box(1.0 + width, scan.mask.labels.shape());
        let mut effect = Self {
            body,
            level_matrix: body.level_matrix().map(|row| row.map(|value| value as f32)),
            strength: strength as f32,
            width: width as f32,
            end: DirectionLimits::new(1.0 + width as f32).smoothed(),
            region,
        };
        effect.end = effect.obstacles(scan, organ).smoothed();
        Some(effect)
    }

    /// Returns the share of the radius by which the surface is displaced where no obstacle is near.
    pub fn strength(&self) -> f64 {
        self.strength.into()
    }

    /// Returns the offset in mm from the centre of the voxel.
    #[inline(always)]
    pub fn offset_mm(&self, voxel: [usize; 3]) -> [f32; 3] {
        [0, 1, 2].map(|k| ((voxel[k] as f64 - self.body.centre[k]) * self.body.spacing_mm[k]) as f32)
    }

    #[inline(always)]
    fn level(&self, offset: [f32; 3]) -> f32 {
        let along = self.level_matrix.map(|row| row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]);
        (along[0] * along[0] + along[1] * along[1] + along[2] * along[2]).sqrt()
    }

    /// Returns the row of voxels at [y, z].
    #[inline(always)]
    pub fn row(&self, y: usize, z: usize) -> DisplacedRow<'_> {
        let [_, offset_y, offset_z] = self.offset_mm([0, y, z]);
        DisplacedRow {
            level_matrix: self.level_matrix,
            strength: self.strength,
            width: self.width,
            end: &self.end,
            centre_x: self.body.centre[0],
            spacing_mm: self.body.spacing_mm,
            columns: self.columns(offset_y, offset_z),
            at: [y, z],
            offset: [offset_y, offset_z],
        }
    }

    /// Returns the columns of the row at this offset outside which no tissue moves: the square of the level is a quadratic function of x.
    fn columns(&self, offset_y: f32, offset_z: f32) -> Range<usize> {
        // Higher by more than the rounding errors of a level.
        let limit = 1.0001 * f64::from(1.0 + self.width);
        let (mut square, mut linear, mut constant) = (0.0, 0.0, -limit * limit);
        for [x, y, z] in self.level_matrix {
            let (x, rest) = (f64::from(x), f64::from(y * offset_y + z * offset_z));
            square += x * x;
            linear += x * rest;
            constant += rest * rest;
        }
        let discriminant = linear * linear - square * constant;
        if discriminant < 0.0 {
            return 0..0;
        }
        let root = libm::sqrt(discriminant);
        let column = |sign: f64| (sign * root - linear) / square / self.body.spacing_mm[0] + self.body.centre[0];
        let start = (column(-1.0).ceil().max(0.0) as usize).max(self.region.start[0]);
        let end = ((column(1.0).floor() + 1.0).max(0.0) as usize).min(self.region.end()[0]);
        start..end.max(start)
    }

    /// Finds the obstacles: bone, air and real tumors.
    fn obstacles(&self, scan: &MaskedScan, organ: &Organ) -> DirectionLimits {
        let mut limits = DirectionLimits::new(1.0 + self.width);
        let tumor_labels = scan.mask.kept_labels();
        let half_mm = self.body.spacing_mm.map(|mm| mm / 2.0 + OBSTACLE_MARGIN_MM);
        // The level falls by at most this from a voxel's centre to the margin around the voxel.
        let margin: f64 = {
            let scaled = self.body.level_matrix();
            let steps = scaled.map(|row| (0..3).map(|k| row[k].abs() * half_mm[k]).sum::<f64>());
            libm::sqrt(steps.iter().map(|x| x * x).sum())
        };
        let (labels, end) = (&scan.mask.labels, self.region.end());
        let mut add = |voxel: [usize; 3]| {
            let offset = self.offset_mm(voxel);
            let level = self.level(offset);
            if level < 1.0 + self.width + margin as f32 {
                limits.lower(offset, level - margin as f32);
            }
        };
        for z in self.region.start[2]..end[2] {
            for y in self.region.start[1]..end[1] {
                let columns = self.region.start[0]..end[0];
                let row = &labels.row(y, z)[columns.clone()];
                let first = labels.index_of([columns.start, y, z]);
                let immovable = |x: usize, hu: f32| {
                    let label = row[x];
                    hu < f32::from(AIR_HU)
                        || (hu > f32::from(BONE_HU) && label != organ.label)
                        || tumor_labels.contains(&label)
                };
                match &scan.scan.volume.voxels {
                    Voxels::I16(array) => {
                        let line = &array.as_slice()[first..first + row.len()];
                        let suspect = line.iter().fold(false, |any, hu| any | !(AIR_HU..=BONE_HU).contains(hu));
                        if suspect || row.iter().any(|label| tumor_labels.contains(label)) {
                            (0..row.len())
                                .filter(|&x| immovable(x, f32::from(line[x])))
                                .for_each(|x| add([columns.start + x, y, z]));
                        }
                    }
                    Voxels::F32(array) => {
                        let line = &array.as_slice()[first..first + row.len()];
                        (0..row.len()).filter(|&x| immovable(x, line[x])).for_each(|x| add([columns.start + x, y, z]));
                    }
                }
            }
        }
        limits
    }
}

#[cfg(test)]
impl MassEffect {
    /// Returns the factor by which the offset from the centre of the tissue that is at `offset` mm is multiplied to get its offset before;
    /// `None` if the tissue has not moved.
    pub fn source(&self, offset: [f32; 3]) -> Option<f32> {
        let factor = super::displaced_row::factor(self.level(offset), self.end.at(offset), self.strength, self.width);
        (factor != 1.0).then_some(factor)
    }

    /// Returns the position before, in voxels, of the tissue at a voxel; `None` if the tissue has not moved.
    pub fn position_before(&self, voxel: [usize; 3]) -> Option<[f32; 3]> {
        let offset = self.offset_mm(voxel);
        let factor = self.source(offset)?;
        Some([0, 1, 2].map(|k| {
            let spacing = self.body.spacing_mm[k] as f32;
            (voxel[k] as f32 + offset[k] * (factor - 1.0) / spacing).max(0.0)
        }))
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Key;
    use crate::synth::displaced_row::SourcePositions;
    use crate::synth::organ::testing::{liver, masked};
    use crate::volume::Array3;

    const SPACING_MM: [f64; 3] = [1.0, 1.0, 2.0];

    /// Returns a liver of 90 HU in fat, with a plate of bone and a bubble of air near the middle.
    fn scan() -> MaskedScan {
        let labels = Array3::from_fn([96, 96, 48], |[x, y, z]| {
            let square = (x as f64 - 48.0).powi(2) + (y as f64 - 48.0).powi(2) + (2.0 * z as f64 - 48.0).powi(2);
            u8::from(square < 30.0 * 30.0)
        });
        let inside = labels.clone();
        masked(SPACING_MM, labels, |[x, y, z]| match () {
            () if x >= 80 && y.abs_diff(48) < 12 => 700.0,
            () if y < 16 && x.abs_diff(48) < 6 => -900.0,
            () if inside[[x, y, z]] == 1 => 90.0,
            () => -100.0,
        })
    }

    fn body(random: &mut crate::random::RandomStream) -> Body {
        let axes = crate::synth::shape::rotation(random);
        let radius = random.uniform(6.0, 20.0);
        Body {
            centre: [0, 1, 2].map(|k| [48.0, 48.0, 24.0][k] + random.uniform(-8.0, 8.0) / SPACING_MM[k]),
            radii_mm: [1.3 * radius, radius, radius / 1.2],
            rotation: axes,
            spacing_mm: SPACING_MM,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn jacobian_is_positive_everywhere(seed in any::<u64>(), strength in 0.05f64..0.6, width in 0.4f64..1.4) {
            let scan = scan();
            let mut random = Key::root(seed).stream("body");
            let Some(effect) = MassEffect::new(&scan, &liver(), body(&mut random), strength, width) else {
                return Ok(());
            };
            // The map of positions after to positions before, in mm, with a central difference of 0.2 mm.
            let before = |offset: [f64; 3]| {
                let offset = offset.map(|mm| mm as f32);
                let factor = f64::from(effect.source(offset).unwrap_or(1.0));
                offset.map(|mm| f64::from(mm) * factor)
            };
            for _ in 0..400 {
                let direction = random.direction();
                let length = random.uniform(1.0, 60.0);
                let at = direction.map(|x| x * length);
                let columns = [0, 1, 2].map(|axis| {
                    let shifted = |by: f64| before([0, 1, 2].map(|k| at[k] + if k == axis { by } else { 0.0 }));
                    let (low, high) = (shifted(-0.1), shifted(0.1));
                    [0, 1, 2].map(|k| (high[k] - low[k]) / 0.2)
                });
                let [a, b, c] = columns;
                let cross = [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]];
                let jacobian = dot(a, cross);
                prop_assert!(jacobian > 0.02, "{jacobian} at {at:?}");
            }
        }
    }

    #[test]
    fn bone_and_air_do_not_move() {
        let scan = scan();
        for seed in 0..12 {
            let mut random = Key::root(seed).stream("body");
            let Some(effect) = MassEffect::new(&scan, &liver(), body(&mut random), 0.5, 1.2) else { continue };
            let end = effect.region.end();
            let mut moved = 0;
            for z in effect.region.start[2]..end[2] {
                for y in effect.region.start[1]..end[1] {
                    for x in effect.region.start[0]..end[0] {
                        let hu = scan.scan.volume.voxels.hu(scan.mask.labels.index_of([x, y, z]));
                        let position = effect.position_before([x, y, z]);
                        moved += usize::from(position.is_some());
                        if !(-300.0..=200.0).contains(&hu) {
                            assert_eq!(position, None, "seed {seed}: {hu} HU at {x} {y} {z}");
                        } else if let Some(position) = position {
                            // Bone and air do not get into the tissue either.
                            let near = [0, 1, 2].map(|k| position[k].round() as usize);
                            let hu = scan.scan.volume.voxels.hu(scan.mask.labels.index_of(near));
                            assert!((-300.0..=200.0).contains(&hu), "seed {seed}: {hu} HU from {near:?}");
                        }
                    }
                }
            }
            assert!(moved > 1000, "seed {seed}: {moved}");
        }
    }

    #[test]
    fn displacement_by_row_equals_displacement_by_voxel() {
        let scan = scan();
        for seed in 0..6 {
            let mut random = Key::root(seed).stream("body");
            let Some(effect) = MassEffect::new(&scan, &liver(), body(&mut random), 0.5, 1.2) else { continue };
            let (region, mut sources, mut moved) = (effect.region, SourcePositions::default(), 0);
            for z in region.start[2]..region.end()[2] {
                for y in region.start[1]..region.end()[1] {
                    let row = effect.row(y, z);
                    for x in region.start[0]..region.end()[0] {
                        let expected = effect.position_before([x, y, z]);
                        moved += usize::from(expected.is_some());
                        if row.columns.contains(&x) {
                            row.compute_sources(x, &mut sources);
                            let position = sources.positions.map(|lanes| lanes[0]);
                            assert_eq!((sources.factors[0] != 1.0).then_some(position), expected, "seed {seed}");
                        } else {
                            assert_eq!(expected, None, "seed {seed}: {x} is not in {:?}", row.columns);
                        }
                    }
                }
            }
            assert!(moved > 1000, "seed {seed}: {moved}");
        }
    }

    #[test]
    fn surface_is_displaced_by_the_strength() {
        let scan = masked(SPACING_MM, Array3::filled([96, 96, 48], 1), |_| 90.0);
        let body = Body { centre: [48.0, 48.0, 24.0], radii_mm: [16.0; 3], rotation: IDENTITY, spacing_mm: SPACING_MM };
        let effect = MassEffect::new(&scan, &liver(), body, 0.3, 1.0).unwrap();
        assert!((effect.source([16.0, 0.0, 0.0]).unwrap() - 0.7).abs() < 1e-5);
        assert_eq!(effect.source([0.0, 32.1, 0.0]), None);
        assert!(effect.source([0.0, 24.0, 0.0]).unwrap() > 0.9);
        assert!(MassEffect::new(&scan, &liver(), body, 0.01, 1.0).is_none());
    }

    const IDENTITY: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
}
