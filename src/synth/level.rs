//! The levels of a box of voxels: those of a rotated ellipsoid minus noise. A tumor is the set of voxels below a threshold.

use super::noise::SmoothNoise;
use crate::simd::{Simd, SimdKernel, dispatch_short_rows};
use crate::volume::{Array3, RowSpans};

/// The level of voxels that are not computed.
const FAR: f32 = 9.0;

/// The surface is near level 1. Higher levels than this are computed only if too few voxels are below.
const NEAR: f32 = 1.3;

/// The minimum distance outside the surface in which levels are exact: ground glass fades there.
const EXACT_MM: f64 = 1.0;

/// A rotated ellipsoid on a grid.
pub(super) struct Ellipsoid {
    /// The centre, a fractional voxel.
    pub centre: [f64; 3],
    pub spacing_mm: [f64; 3],
    pub radii: [f64; 3],
    /// The rows are the directions of the axes.
    pub rotation: [[f64; 3]; 3],
}

/// A noise and its amplitude, subtracted from levels.
pub(super) struct Roughness {
    pub noise: SmoothNoise,
    pub amplitude: f32,
}

/// The terms of the levels of a box that starts at `start`.
pub(super) struct Levels {
    pub ellipsoid: Ellipsoid,
    pub shape: [usize; 3],
    pub start: [i64; 3],
    /// Higher levels of the ellipsoid are never computed.
    pub max_level: f64,
    pub lobes: Roughness,
    pub edge: Roughness,
}

/// The levels of a box, and the level of the tumor's surface.
pub(super) struct Surface {
    pub level: Array3<f32>,
    /// Spans that contain all voxels below the surface.
    pub near: RowSpans,
    pub surface: f32,
}

impl Levels {
    /// Returns the surface with `count` voxels below. Levels are exact up to [`EXACT_MM`] outside the surface; farther outside they are
    /// exact or too high.
    pub fn surface(&self, count: usize) -> Surface {
        // From the centre, whose level is little below 0, to the surface, levels rise by less than 2 over a radius.
        let radius_mm = libm::cbrt(self.ellipsoid.radii.iter().product());
        let limit = (NEAR + (2.0 * EXACT_MM / radius_mm) as f32).min(FAR);
        let found = self.surface_below(limit, count).or_else(|| self.surface_below(f32::INFINITY, count));
        found.expect("a surface exists without a limit")
    }

    /// Returns the result of [`Levels::surface`] from levels up to `limit`; `None` if fewer than `count` voxels are below the limit. An
    /// infinite limit always returns a surface.
    fn surface_below(&self, limit: f32, count: usize) -> Option<Surface> {
        let row_maxima = self.lobes.noise.plane_row_maxima();
        let (level, near) = dispatch_short_rows(LevelsBelow { levels: self, limit, row_maxima: &row_maxima });
        // Without a limit, voxels that were not computed are included.
        let near = if limit.is_finite() { near } else { RowSpans::whole(self.shape) };
        let surface = threshold(&level, &near, limit, count)?;
        Some(Surface { level, near, surface })
    }

    /// Returns the ellipsoid's level minus the noises in voxels below `limit`, a value at or above `limit` elsewhere, and spans that
    /// contain all voxels below. `row_maxima` are the maxima of the rows of the lobes' planes.
    #[inline(always)]
    fn below(&self, limit: f32, row_maxima: &[f32]) -> (Array3<f32>, RowSpans) {
        let Ellipsoid { centre, spacing_mm, radii, rotation } = &self.ellipsoid;
        let (lobes, edge) = (&self.lobes, &self.edge);
        let [nx, ny, nz] = self.shape;
        let mut level = Array3::filled(self.shape, FAR);
        let mut spans = vec![0..0; ny * nz];
        let mut noise_row = vec![0.0f32; nx];
        let offset =
            |axis: usize, index: usize| ((self.start[axis] + index as i64) as f64 - centre[axis]) * spacing_mm[axis];
        let scaled = [0, 1, 2].map(|k| rotation[k].map(|value| value / radii[k]));
        let step = scaled.map(|row| row[0] * spacing_mm[0]);
        // Levels minus the lobes at or above this value stay above the limit for every value of the edge's noise; 1e-5 covers rounding.
        let before_edge = limit + edge.amplitude * SmoothNoise::MAX + 1e-5;
        for z in 0..nz {
            for y in 0..ny {
                let first = scaled.map(|row| row[0] * offset(0, 0) + row[1] * offset(1, y) + row[2] * offset(2, z));
                // The same bound for levels of the ellipsoid, with the noise of the lobes in this row.
                let before_lobes = before_edge + lobes.amplitude * lobes.noise.row_bound(row_maxima, y, z) + 1e-5;
                let max_level = self.max_level.min(f64::from(before_lobes.max(0.0)));
                let Some(span) = within(first, step, max_level, nx) else { continue };
                let row = &mut level.row_mut(y, z)[span.clone()];
                let (first, step) = (first.map(|v| v as f32), step.map(|v| v as f32));
                for (x, value) in span.clone().zip(row.iter_mut()) {
                    let along = [0, 1, 2].map(|k| first[k] + step[k] * x as f32);
                    *value = (along[0] * along[0] + along[1] * along[1] + along[2] * along[2]).sqrt();
                }
                let noise = &mut noise_row[span.clone()];
                lobes.subtract_from(row, noise, [span.start, y, z]);
                let Some(from) = row.iter().position(|value| *value < before_edge) else { continue };
                let to = row.iter().rposition(|value| *value < before_edge).map_or(from, |last| last + 1);
                edge.subtract_from(&mut row[from..to], &mut noise[from..to], [span.start + from, y, z]);
                spans[y + ny * z] = span.start + from..span.start + to;
            }
        }
        (level, RowSpans::new(self.shape, spans))
    }
}

impl Roughness {
    /// Subtracts the noise from the levels of a part of a row that starts at a voxel; `noise` is scratch memory of the same length.
    #[inline(always)]
    fn subtract_from(&self, row: &mut [f32], noise: &mut [f32], [x, y, z]: [usize; 3]) {
        self.noise.row(x, y, z, noise);
        let amplitude = self.amplitude;
        row.iter_mut().zip(noise).for_each(|(value, noise)| *value -= amplitude * *noise);
    }
}

/// The computation of levels below a limit.
struct LevelsBelow<'a> {
    levels: &'a Levels,
    limit: f32,
    row_maxima: &'a [f32],
}

impl SimdKernel for LevelsBelow<'_> {
    type Output = (Array3<f32>, RowSpans);

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        self.levels.below(self.limit, self.row_maxima)
    }
}

/// Returns the voxels x of a row for which |first + x · step| is at most `max_level`, and one more on each side.
fn within(first: [f64; 3], step: [f64; 3], max_level: f64, count: usize) -> Option<std::ops::Range<usize>> {
    let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let (square, half, rest) = (dot(step, step), dot(first, step), dot(first, first) - max_level * max_level);
    // Not `libm::sqrt`: the result is the same, but it is an SSE instruction, which stalls between AVX instructions.
    let root = (half * half - square * rest).sqrt();
    // NaN if the row does not intersect the ellipsoid.
    let [from, to] = [(-half - root) / square, (-half + root) / square];
    let range = (from - 1.0).max(0.0) as usize..((to + 2.0).max(0.0) as usize).min(count);
    (root >= 0.0 && range.start < range.end).then_some(range)
}

/// Returns the smallest value, vectorized; no value may be NaN.
pub(super) fn minimum(values: &[f32]) -> f32 {
    let mut lanes = [f32::INFINITY; 32];
    for chunk in values.chunks(lanes.len()) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = if value < lane { *value } else { *lane });
    }
    lanes.into_iter().fold(f32::INFINITY, f32::min)
}

/// Returns the level with `count` voxels below; `None` if fewer voxels are below a finite `limit`. Voxels outside `near` are not below it.
fn threshold(level: &Array3<f32>, near: &RowSpans, limit: f32, count: usize) -> Option<f32> {
    let mut values = Vec::with_capacity(2 * count);
    for (y, z, span) in near.rows() {
        values.extend(level.row(y, z)[span].iter().copied().filter(|value| *value < limit));
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
    use crate::synth::shape::ShapeParameters;

    /// Voxels that are not computed change neither the tumor nor its immediate surroundings.
    #[test]
    fn surface_with_limited_levels_equals_surface_with_all_levels() {
        let (mut limited, mut unlimited) = (0, 0);
        for (seed, diameter_mm) in [0.1, 0.7, 2.0, 6.0, 15.0, 40.0].into_iter().cycle().take(120).enumerate() {
            let mut random = Key::root(seed as u64).stream("levels");
            let spacing_mm = [[0.8, 0.8, 1.0], [0.7, 0.9, 5.0], [3.0; 3]][random.index(3)];
            let shape = ShapeParameters {
                diameter_mm,
                major_over_middle: random.uniform(1.0, 1.8),
                middle_over_minor: random.uniform(1.0, 1.6),
                lobes: [0.0, 0.1, 0.3, 2.0][random.index(4)],
                lobe_step: random.uniform(0.2, 0.6),
                edge_mm: [0.0, 0.3, 1.0, 3.0][random.index(4)],
                edge_step_mm: 2.0,
            };
            let count = (std::f64::consts::PI / 6.0 * diameter_mm.powi(3) / spacing_mm.iter().product::<f64>()).round();
            let levels = shape.levels(&mut random, [0.3, 20.1, -7.4], spacing_mm);
            let all = levels.surface_below(f32::INFINITY, count as usize).unwrap();
            let got = levels.surface(count as usize);
            assert_eq!(got.surface, all.surface, "seed {seed}: {shape:?}");
            let rise = (got.surface - minimum(all.level.as_slice())).min(2.0);
            let exact_below = (got.surface + (2.0 * EXACT_MM / diameter_mm) as f32 * rise).min(FAR);
            for (got, all) in got.level.as_slice().iter().zip(all.level.as_slice()) {
                assert!(
                    got == all || (*got >= exact_below && *all >= exact_below),
                    "seed {seed}: {got} {all} {exact_below} {shape:?}"
                );
            }
            let expected = all.level.extent(|level| *level <= all.surface);
            assert_eq!(got.near.extent(&got.level, |level| *level <= got.surface), expected, "seed {seed}");
            let is_limited = levels.surface_below(NEAR, count as usize).is_some();
            (limited, unlimited) = (limited + usize::from(is_limited), unlimited + usize::from(!is_limited));
        }
        assert!(limited > 20 && unlimited > 5, "{limited} {unlimited}");
    }
}
