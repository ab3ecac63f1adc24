//! The levels of a box of voxels, of which a tumor is what lies below one: those of a turned ellipsoid, less noise.

use super::noise::SmoothNoise;
use crate::simd::{Simd, SimdKernel, vectorised_short};
use crate::volume::{Array3, RowSpans};

/// The level of voxels that are not looked at.
const FAR: f32 = 9.0;

/// The surface lies near 1: levels above this are looked at only where the volume asked for is not found below.
const NEAR: f32 = 1.3;

/// How far outside of the surface levels are told at least: ground glass fades there.
const TOLD_MM: f64 = 1.0;

/// A slice with less than this share of the largest slice's area is a sliver.
const SLIVER: f64 = 0.3;

/// A turned ellipsoid on a grid.
pub(super) struct Ellipsoid {
    /// A fractional voxel.
    pub centre: [f64; 3],
    pub spacing_mm: [f64; 3],
    pub radii: [f64; 3],
    /// The rows are the directions of its axes.
    pub turn: [[f64; 3]; 3],
}

/// A noise and how much of it is taken off.
pub(super) struct Roughness {
    pub noise: SmoothNoise,
    pub amplitude: f32,
}

/// What the levels of a box that begins at `start` are made of.
pub(super) struct Levels {
    pub ellipsoid: Ellipsoid,
    pub shape: [usize; 3],
    pub start: [i64; 3],
    /// Levels of the plain ellipsoid beyond this are never looked at.
    pub farthest: f64,
    pub lobes: Roughness,
    pub edge: Roughness,
}

/// Levels of a box, and the one of the tumor's surface.
pub(super) struct Surface {
    pub level: Array3<f32>,
    /// Outside of these stretches nothing lies below the surface.
    pub near: RowSpans,
    pub surface: f32,
}

impl Levels {
    /// The surface that `count` voxels lie below. Levels are right up to [`TOLD_MM`] outside of it; farther out they are right or too high.
    pub fn surface(&self, count: usize) -> Surface {
        // Between the centre, not far below 0, and the surface levels rise by less than 2 over a radius.
        let radius_mm = libm::cbrt(self.ellipsoid.radii.iter().product());
        let limit = (NEAR + (2.0 * TOLD_MM / radius_mm) as f32).min(FAR);
        let found = self.surface_below(limit, count).or_else(|| self.surface_below(f32::INFINITY, count));
        found.expect("without a limit there is a surface")
    }

    /// The same where that many lie below `limit`, else none; without a limit there always is one.
    fn surface_below(&self, limit: f32, count: usize) -> Option<Surface> {
        let most = self.lobes.noise.most_of_rows();
        let (mut level, near) = vectorised_short(LevelsBelow { levels: self, limit, most: &most });
        // Without a limit what is not looked at counts, too.
        let near = if limit.is_finite() { near } else { RowSpans::whole(self.shape) };
        let mut surface = threshold(&level, &near, limit, count)?;
        if let Some(axis) = thick_axis(self.ellipsoid.spacing_mm) {
            trim(&mut level, axis, surface);
            surface = threshold(&level, &near, limit, count)?;
        }
        Some(Surface { level, near, surface })
    }

    /// The ellipsoid's level less the noises where that is below `limit`, something at or above it elsewhere, and the stretches outside of
    /// which nothing is below. `most` are the bounds of the lobes' rows.
    #[inline(always)]
    fn below(&self, limit: f32, most: &[f32]) -> (Array3<f32>, RowSpans) {
        let Ellipsoid { centre, spacing_mm, radii, turn } = &self.ellipsoid;
        let (lobes, edge) = (&self.lobes, &self.edge);
        let [nx, ny, nz] = self.shape;
        let mut level = Array3::filled(self.shape, FAR);
        let mut stretches = vec![0..0; ny * nz];
        let mut noise_row = vec![0.0f32; nx];
        let offset =
            |axis: usize, index: usize| ((self.start[axis] + index as i64) as f64 - centre[axis]) * spacing_mm[axis];
        let scaled = [0, 1, 2].map(|k| turn[k].map(|value| value / radii[k]));
        let step = scaled.map(|row| row[0] * spacing_mm[0]);
        // Levels less the lobes that are not below this stay above the limit, whatever the edge's noise; what is added covers roundings.
        let before_edge = limit + edge.amplitude * SmoothNoise::MOST + 1e-5;
        for z in 0..nz {
            for y in 0..ny {
                let first = scaled.map(|row| row[0] * offset(0, 0) + row[1] * offset(1, y) + row[2] * offset(2, z));
                // The same for plain levels, and all noise of this row.
                let plain = before_edge + lobes.amplitude * lobes.noise.most_of_row(most, y, z) + 1e-5;
                let farthest = self.farthest.min(f64::from(plain.max(0.0)));
                let Some(stretch) = within(first, step, farthest, nx) else { continue };
                let row = &mut level.row_mut(y, z)[stretch.clone()];
                let (first, step) = (first.map(|v| v as f32), step.map(|v| v as f32));
                for (x, value) in stretch.clone().zip(row.iter_mut()) {
                    let along = [0, 1, 2].map(|k| first[k] + step[k] * x as f32);
                    *value = (along[0] * along[0] + along[1] * along[1] + along[2] * along[2]).sqrt();
                }
                let noise = &mut noise_row[stretch.clone()];
                lobes.take_off(row, noise, [stretch.start, y, z]);
                let Some(from) = row.iter().position(|value| *value < before_edge) else { continue };
                let to = row.iter().rposition(|value| *value < before_edge).map_or(from, |last| last + 1);
                edge.take_off(&mut row[from..to], &mut noise[from..to], [stretch.start + from, y, z]);
                stretches[y + ny * z] = stretch.start + from..stretch.start + to;
            }
        }
        (level, RowSpans::new(self.shape, stretches))
    }
}

impl Roughness {
    /// Takes it off the levels of a part of a row that begins at a voxel; `noise` is room for as many numbers.
    #[inline(always)]
    fn take_off(&self, row: &mut [f32], noise: &mut [f32], [x, y, z]: [usize; 3]) {
        self.noise.row(x, y, z, noise);
        let amplitude = self.amplitude;
        row.iter_mut().zip(noise).for_each(|(value, noise)| *value -= amplitude * *noise);
    }
}

/// Levels to be made below a limit.
struct LevelsBelow<'a> {
    levels: &'a Levels,
    limit: f32,
    most: &'a [f32],
}

impl SimdKernel for LevelsBelow<'_> {
    type Output = (Array3<f32>, RowSpans);

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        self.levels.below(self.limit, self.most)
    }
}

/// The voxels x of a row for which |first + x · step| is at most `farthest`, and one more on either side.
fn within(first: [f64; 3], step: [f64; 3], farthest: f64, count: usize) -> Option<std::ops::Range<usize>> {
    let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let (square, half, rest) = (dot(step, step), dot(first, step), dot(first, first) - farthest * farthest);
    // Not that of `libm`, which is exact as well, but an instruction of SSE: among those of AVX it waits for them.
    let root = (half * half - square * rest).sqrt();
    // NaN where the row passes by.
    let [from, to] = [(-half - root) / square, (-half + root) / square];
    let range = (from - 1.0).max(0.0) as usize..((to + 2.0).max(0.0) as usize).min(count);
    (root >= 0.0 && range.start < range.end).then_some(range)
}

/// The least of values none of which is NaN, many at a time.
pub(super) fn least(values: &[f32]) -> f32 {
    let mut lanes = [f32::INFINITY; 32];
    for chunk in values.chunks(lanes.len()) {
        lanes.iter_mut().zip(chunk).for_each(|(least, value)| *least = if value < least { *value } else { *least });
    }
    lanes.into_iter().fold(f32::INFINITY, f32::min)
}

/// The axis along which slices are thick and far apart, if there is one.
fn thick_axis(spacing_mm: [f64; 3]) -> Option<usize> {
    (0..3).find(|&axis| {
        let others = spacing_mm.iter().enumerate().filter(|(other, _)| *other != axis);
        spacing_mm[axis] >= 2.0 && others.into_iter().all(|(_, mm)| spacing_mm[axis] >= 2.0 * mm)
    })
}

/// Takes slices out that show only a sliver of the tumor: on thick slices nobody marks these, and a tumor of the same
/// volume is blunter for it.
fn trim(level: &mut Array3<f32>, axis: usize, surface: f32) {
    let shape = level.shape();
    let step = [1, shape[0], shape[0] * shape[1]][axis];
    let slice_of = |index: usize| index / step % shape[axis];
    let mut areas = vec![0usize; shape[axis]];
    for (index, _) in level.as_slice().iter().enumerate().filter(|(_, value)| **value <= surface) {
        areas[slice_of(index)] += 1;
    }
    let largest = areas.iter().copied().max().unwrap_or(0);
    let kept: Vec<bool> = areas.iter().map(|&area| area as f64 >= SLIVER * largest as f64).collect();
    for (index, value) in level.as_mut_slice().iter_mut().enumerate() {
        if !kept[slice_of(index)] {
            // Far outside, yet finite, so that depths stay numbers.
            *value = value.max(surface) + 1.0;
        }
    }
}

/// The level below which `count` voxels lie; none where fewer than that lie below `limit`; without a limit there always is one. Outside of
/// `near` none does.
fn threshold(level: &Array3<f32>, near: &RowSpans, limit: f32, count: usize) -> Option<f32> {
    let mut values = Vec::with_capacity(2 * count);
    for (y, z, stretch) in near.rows() {
        values.extend(level.row(y, z)[stretch].iter().copied().filter(|value| *value < limit));
    }
    if values.len() < count.max(1) && limit.is_finite() {
        return None;
    }
    let index = count.clamp(1, values.len()) - 1;
    Some(*values.select_nth_unstable_by(index, f32::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::synth::shape::ShapeDraw;

    #[test]
    fn slices_are_thick_where_they_are_far_apart() {
        assert_eq!(thick_axis([0.8, 0.8, 5.0]), Some(2));
        assert_eq!(thick_axis([4.0, 0.9, 0.9]), Some(0));
        assert_eq!(thick_axis([0.7, 0.7, 1.5]), None);
        assert_eq!(thick_axis([3.0; 3]), None);
    }

    /// What is not looked at changes no tumor, nor what lies just outside of it.
    #[test]
    fn the_surface_is_that_of_all_levels() {
        let (mut limited, mut unlimited) = (0, 0);
        for (seed, diameter_mm) in [0.1, 0.7, 2.0, 6.0, 15.0, 40.0].into_iter().cycle().take(120).enumerate() {
            let mut draws = Key::root(seed as u64).draws("levels");
            let spacing_mm = [[0.8, 0.8, 1.0], [0.7, 0.9, 5.0], [3.0; 3]][draws.index(3)];
            let shape = ShapeDraw {
                diameter_mm,
                major_over_middle: draws.uniform(1.0, 1.8),
                middle_over_minor: draws.uniform(1.0, 1.6),
                lobes: [0.0, 0.1, 0.3, 2.0][draws.index(4)],
                lobe_step: draws.uniform(0.2, 0.6),
                edge_mm: [0.0, 0.3, 1.0, 3.0][draws.index(4)],
                edge_step_mm: 2.0,
            };
            let count = (std::f64::consts::PI / 6.0 * diameter_mm.powi(3) / spacing_mm.iter().product::<f64>()).round();
            let levels = shape.levels(&mut draws, [0.3, 20.1, -7.4], spacing_mm);
            let all = levels.surface_below(f32::INFINITY, count as usize).unwrap();
            let got = levels.surface(count as usize);
            assert_eq!(got.surface, all.surface, "seed {seed}: {shape:?}");
            let rise = (got.surface - least(all.level.as_slice())).min(2.0);
            let told = (got.surface + (2.0 * TOLD_MM / diameter_mm) as f32 * rise).min(FAR);
            for (got, all) in got.level.as_slice().iter().zip(all.level.as_slice()) {
                assert!(got == all || (*got >= told && *all >= told), "seed {seed}: {got} {all} {told} {shape:?}");
            }
            let of_all = all.level.extent(|level| *level <= all.surface);
            assert_eq!(got.near.extent(&got.level, |level| *level <= got.surface), of_all, "seed {seed}");
            let is_limited = levels.surface_below(NEAR, count as usize).is_some();
            (limited, unlimited) = (limited + usize::from(is_limited), unlimited + usize::from(!is_limited));
        }
        assert!(limited > 20 && unlimited > 5, "{limited} {unlimited}");
    }
}
