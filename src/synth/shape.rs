//! Tumor shapes drawn from a prior, directly on the scan's grid.
//!
//! A tumor is where `ρ(p) − a·N(p) − b·M(p)` is small: ρ is the level of a randomly turned ellipsoid (0 at its centre,
//! 1 on its surface), N a smooth random field whose features follow the tumor's size (lobes), M one of a few
//! millimetres (the ragged edge). The threshold is chosen so that the volume is the one asked for.

use super::components::keep_largest;
use super::noise::SmoothNoise;
use super::wide::{Wide, widest};
use crate::random::Draws;
use crate::volume::{Array3, Stretches};

/// A slice with less than this share of the largest slice's area is a sliver.
const SLIVER: f64 = 0.3;

/// The level of voxels so far outside that no noise makes them tumor.
const FAR: f32 = 9.0;

/// The surface lies near 1. What is surely farther out than this is looked at only where the volume asked for is not found below.
const NEAR: f32 = 1.3;

/// How far around a tumor its depth is told.
const SURROUNDINGS_MM: f64 = 4.0;

/// What defines a shape but for the noise in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShapeDraw {
    /// Diameter of the ball of the tumor's volume.
    pub diameter_mm: f64,
    /// Longest over middle axis of the ellipsoid, at least 1.
    pub major_over_middle: f64,
    /// Middle over shortest axis, at least 1.
    pub middle_over_minor: f64,
    /// Standard deviation of the lobes, as a share of the radius.
    pub lobes: f64,
    /// Size of the lobes' lattice, as a share of the diameter.
    pub lobe_step: f64,
    /// Standard deviation of the ragged edge.
    pub edge_mm: f64,
    /// Size of the ragged edge's lattice.
    pub edge_step_mm: f64,
}

/// A shape on a grid: a box that may reach beyond the scan.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnShape {
    /// The voxel of the scan at which the box begins; may be negative.
    pub start: [i64; 3],
    /// 1 inside the tumor.
    pub mask: Array3<u8>,
    /// How deep a voxel lies: 0 on the surface, 1 in the centre, negative outside.
    pub depth: Array3<f32>,
}

impl ShapeDraw {
    /// Semi-axes of the ellipsoid, descending, in mm.
    pub fn radii_mm(&self) -> [f64; 3] {
        // a · b · c = (d / 2)³ with a / b and b / c given.
        let middle = self.diameter_mm / 2.0 * libm::cbrt(self.middle_over_minor / self.major_over_middle);
        [middle * self.major_over_middle, middle, middle / self.middle_over_minor]
    }

    /// How far from the centre the shape may reach.
    pub fn reach_mm(&self) -> f64 {
        self.radii_mm()[0] * self.growth()
    }

    fn growth(&self) -> f64 {
        1.0 + 2.2 * (self.lobes + 2.0 * self.edge_mm / self.diameter_mm)
    }

    /// Levels of the plain ellipsoid beyond this need noise of four standard deviations to become tumor.
    fn farthest(&self) -> f64 {
        1.1 + 4.0 * (self.lobes + 2.0 * self.edge_mm / self.diameter_mm)
    }

    /// Draws the shape around `centre`, a fractional voxel of a grid of `spacing_mm`.
    pub fn draw(&self, draws: &mut Draws, centre: [f64; 3], spacing_mm: [f64; 3]) -> DrawnShape {
        let radii = self.radii_mm();
        let turn = rotation(draws);
        let growth = self.growth();
        let reach = [0, 1, 2].map(|axis| {
            let square: f64 = (0..3).map(|k| (turn[k][axis] * radii[k]) * (turn[k][axis] * radii[k])).sum();
            // Lobes also reach sideways, off the ellipsoid's own axis.
            libm::sqrt(square) * growth + spacing_mm[axis]
        });
        let start = [0, 1, 2].map(|axis| (centre[axis] - reach[axis] / spacing_mm[axis]).floor() as i64);
        let shape = [0, 1, 2]
            .map(|axis| ((centre[axis] + reach[axis] / spacing_mm[axis]).ceil() as i64 - start[axis] + 1) as usize);

        let lobe_step = spacing_mm.map(|mm| (self.lobe_step * self.diameter_mm).max(mm));
        let lobes = SmoothNoise::new(draws, shape, spacing_mm, lobe_step);
        let edge_step = spacing_mm.map(|mm| self.edge_step_mm.max(1.2 * mm));
        // What varies within a voxel averages out over it.
        let kept: f64 = edge_step.iter().map(|step| libm::sqrt(self.edge_step_mm / step)).product();
        let edge = SmoothNoise::new(draws, shape, spacing_mm, edge_step);
        let levels = Levels {
            ellipsoid: Ellipsoid { centre, spacing_mm, radii, turn },
            shape,
            start,
            farthest: self.farthest(),
            lobes: (&lobes, self.lobes as f32),
            lobes_most: lobes.most_of_rows(),
            edge: (&edge, (2.0 * self.edge_mm / self.diameter_mm * kept) as f32),
        };
        let voxel_mm3: f64 = spacing_mm.iter().product();
        let volume_mm3 = std::f64::consts::PI / 6.0 * self.diameter_mm * self.diameter_mm * self.diameter_mm;
        let count = (volume_mm3 / voxel_mm3).round() as usize;
        let found = levels.surface(NEAR, count).or_else(|| levels.surface(f32::INFINITY, count));
        let Surface { level, within, surface } = found.expect("without a limit there is a surface");
        // What follows looks at the tumor and its surroundings only.
        let inside = within.extent(&level, |&value| value <= surface).unwrap_or(level.region());
        let around = inside.grown(spacing_mm.map(|mm| (SURROUNDINGS_MM / mm).ceil() as usize), shape);
        let mut level = level.cut(around);
        let mut mask = level.map(|&value| u8::from(value <= surface));
        keep_largest(&mut mask);
        let centre_level = least(level.as_slice());
        let scale = 1.0 / (surface - centre_level).max(f32::MIN_POSITIVE);
        level.as_mut_slice().iter_mut().for_each(|value| *value = (surface - *value) * scale);
        DrawnShape { start: [0, 1, 2].map(|k| start[k] + around.start[k] as i64), mask, depth: level }
    }
}

/// The rows are the directions of the ellipsoid's axes: a rotation, uniform over all.
fn rotation(draws: &mut Draws) -> [[f64; 3]; 3] {
    let first = draws.direction();
    let other = loop {
        let other = draws.direction();
        let along: f64 = (0..3).map(|k| first[k] * other[k]).sum();
        let across = [0, 1, 2].map(|k| other[k] - along * first[k]);
        let length = libm::sqrt(across.iter().map(|v| v * v).sum());
        if length > 1e-3 {
            break across.map(|v| v / length);
        }
    };
    let third = [0, 1, 2].map(|k| {
        let (a, b) = ((k + 1) % 3, (k + 2) % 3);
        first[a] * other[b] - first[b] * other[a]
    });
    [first, other, third]
}

/// A turned ellipsoid on a grid.
struct Ellipsoid {
    /// A fractional voxel.
    centre: [f64; 3],
    spacing_mm: [f64; 3],
    radii: [f64; 3],
    /// The rows are the directions of its axes.
    turn: [[f64; 3]; 3],
}

/// What the levels of a box that begins at `start` are made of.
struct Levels<'a> {
    ellipsoid: Ellipsoid,
    shape: [usize; 3],
    start: [i64; 3],
    farthest: f64,
    /// The noises and their amplitudes.
    lobes: (&'a SmoothNoise, f32),
    lobes_most: Vec<f32>,
    edge: (&'a SmoothNoise, f32),
}

impl Levels<'_> {
    /// The surface that `count` voxels lie below; none where fewer than that lie below `limit`.
    fn surface(&self, limit: f32, count: usize) -> Option<Surface> {
        let (mut level, below) = widest(Below { levels: self, limit });
        // Without a limit what is far outside counts, too.
        let within = if limit.is_finite() { below } else { Stretches::whole(self.shape) };
        let mut surface = threshold(&level, &within, limit, count)?;
        if let Some(axis) = thick_axis(self.ellipsoid.spacing_mm) {
            trim(&mut level, axis, surface);
            surface = threshold(&level, &within, limit, count)?;
        }
        Some(Surface { level, within, surface })
    }

    /// The ellipsoid's level minus the noises times their amplitudes, wherever that is below `limit`, and the stretches of which that is
    /// true; elsewhere something above it.
    #[inline(always)]
    fn below(&self, limit: f32) -> (Array3<f32>, Stretches) {
        let Ellipsoid { centre, spacing_mm, radii, turn } = &self.ellipsoid;
        let ((lobes, lobes_amplitude), (edge, edge_amplitude)) = (self.lobes, self.edge);
        let [nx, ny, nz] = self.shape;
        let mut level = Array3::filled(self.shape, FAR);
        let mut stretches = vec![0..0; ny * nz];
        let mut noise_row = vec![0.0f32; nx];
        let offset =
            |axis: usize, index: usize| ((self.start[axis] + index as i64) as f64 - centre[axis]) * spacing_mm[axis];
        let scaled = [0, 1, 2].map(|k| turn[k].map(|value| value / radii[k]));
        let step = scaled.map(|row| row[0] * spacing_mm[0]);
        // Beyond these the noises that are still to be taken off are not large enough.
        let without_edge = limit + edge_amplitude * SmoothNoise::MOST;
        for z in 0..nz {
            for y in 0..ny {
                let first = scaled.map(|row| row[0] * offset(0, 0) + row[1] * offset(1, y) + row[2] * offset(2, z));
                let plain = without_edge + lobes_amplitude * lobes.most_of_row(&self.lobes_most, y, z);
                let Some(stretch) = within(first, step, self.farthest.min(f64::from(plain.max(0.0))), nx) else {
                    continue;
                };
                let row = &mut level.row_mut(y, z)[stretch.clone()];
                let (first, step) = (first.map(|v| v as f32), step.map(|v| v as f32));
                for (x, value) in stretch.clone().zip(row.iter_mut()) {
                    let along = [0, 1, 2].map(|k| first[k] + step[k] * x as f32);
                    *value = (along[0] * along[0] + along[1] * along[1] + along[2] * along[2]).sqrt();
                }
                let take_off = |row: &mut [f32], noise: &[f32], amplitude: f32| {
                    row.iter_mut().zip(noise).for_each(|(value, noise)| *value -= amplitude * noise);
                };
                let noise = &mut noise_row[stretch.clone()];
                lobes.row(stretch.start, y, z, noise);
                take_off(row, noise, lobes_amplitude);
                let Some(from) = row.iter().position(|value| *value < without_edge) else { continue };
                let to = row.iter().rposition(|value| *value < without_edge).map_or(from, |last| last + 1);
                let (row, noise) = (&mut row[from..to], &mut noise[from..to]);
                edge.row(stretch.start + from, y, z, noise);
                take_off(row, noise, edge_amplitude);
                stretches[y + ny * z] = stretch.start + from..stretch.start + to;
            }
        }
        (level, Stretches::new(self.shape, stretches))
    }
}

/// Levels of a box, and the one of the tumor's surface.
struct Surface {
    level: Array3<f32>,
    /// Where levels are below the limit.
    within: Stretches,
    surface: f32,
}

/// Levels to be made below a limit.
struct Below<'a> {
    levels: &'a Levels<'a>,
    limit: f32,
}

impl Wide for Below<'_> {
    type Output = (Array3<f32>, Stretches);

    #[inline(always)]
    fn done(self) -> Self::Output {
        self.levels.below(self.limit)
    }
}

/// The voxels x of a row for which |first + x · step| is at most `farthest`, and one more on either side.
fn within(first: [f64; 3], step: [f64; 3], farthest: f64, count: usize) -> Option<std::ops::Range<usize>> {
    let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let (square, half, rest) = (dot(step, step), dot(first, step), dot(first, first) - farthest * farthest);
    let root = libm::sqrt(half * half - square * rest);
    // NaN where the row passes by.
    let [from, to] = [(-half - root) / square, (-half + root) / square];
    let range = (from - 1.0).max(0.0) as usize..((to + 2.0).max(0.0) as usize).min(count);
    (root >= 0.0 && range.start < range.end).then_some(range)
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

/// The least of values none of which is NaN, many at a time.
fn least(values: &[f32]) -> f32 {
    let mut lanes = [f32::INFINITY; 32];
    for chunk in values.chunks(lanes.len()) {
        lanes.iter_mut().zip(chunk).for_each(|(least, value)| *least = if value < least { *value } else { *least });
    }
    lanes.into_iter().fold(f32::INFINITY, f32::min)
}

/// The level below which `count` voxels lie; none where fewer than that lie `within` and below `limit`.
fn threshold(level: &Array3<f32>, within: &Stretches, limit: f32, count: usize) -> Option<f32> {
    let mut values = Vec::with_capacity(2 * count);
    for (y, z, stretch) in within.rows() {
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
    use crate::synth::measure::measure;

    const PLAIN: ShapeDraw = ShapeDraw {
        diameter_mm: 20.0,
        major_over_middle: 1.4,
        middle_over_minor: 1.2,
        lobes: 0.0,
        lobe_step: 0.3,
        edge_mm: 0.0,
        edge_step_mm: 2.0,
    };

    #[test]
    fn without_noise_it_is_the_ellipsoid() {
        for spacing_mm in [[0.8, 0.8, 1.0], [0.7, 0.7, 2.5]] {
            let drawn = PLAIN.draw(&mut Key::root(1).draws("shape"), [50.2, 40.7, 30.1], spacing_mm);
            let measures = measure(&drawn.mask, spacing_mm).unwrap();
            for (axis, radius) in measures.axes_mm.iter().zip(PLAIN.radii_mm()) {
                assert!((axis / (2.0 * radius) - 1.0).abs() < 0.02, "{axis} {radius}");
            }
            assert!((measures.diameter_mm - 20.0).abs() < 0.05, "{}", measures.diameter_mm);
            assert!(measures.ellipsoid_dice > 0.985, "{}", measures.ellipsoid_dice);
        }
    }

    #[test]
    fn noise_roughens_and_keeps_the_volume() {
        let rough = ShapeDraw { lobes: 0.2, edge_mm: 0.8, ..PLAIN };
        let drawn = rough.draw(&mut Key::root(2).draws("shape"), [0.0; 3], [0.8, 0.8, 1.0]);
        let measures = measure(&drawn.mask, [0.8, 0.8, 1.0]).unwrap();
        assert!((measures.diameter_mm - 20.0).abs() < 0.5, "{}", measures.diameter_mm);
        assert!(measures.radial_residual_sd > 0.08 && measures.surface_irregularity_ratio > 1.1, "{measures:?}");
    }

    #[test]
    fn thick_slices_have_no_slivers() {
        assert_eq!(thick_axis([0.8, 0.8, 5.0]), Some(2));
        assert_eq!(thick_axis([4.0, 0.9, 0.9]), Some(0));
        assert_eq!(thick_axis([0.7, 0.7, 1.5]), None);
        assert_eq!(thick_axis([3.0; 3]), None);
        let rough = ShapeDraw { lobes: 0.15, edge_mm: 0.3, ..PLAIN };
        for seed in 0..20 {
            let drawn = rough.draw(&mut Key::root(seed).draws("shape"), [0.0; 3], [0.8, 0.8, 2.5]);
            let [nx, ny, _] = drawn.mask.shape();
            let areas: Vec<usize> =
                drawn.mask.as_slice().chunks(nx * ny).map(|s| s.iter().filter(|&&v| v != 0).count()).collect();
            let (largest, total) = (*areas.iter().max().unwrap(), areas.iter().sum::<usize>());
            // Trimmed slices are gone; what grew elsewhere keeps the volume.
            assert!(areas.iter().filter(|&&area| area > 0).all(|&area| 4 * area > largest), "seed {seed} {areas:?}");
            assert!((total as f64 * 1.6 / 4188.8 - 1.0).abs() < 0.05, "seed {seed} {total}");
        }
    }

    #[test]
    fn the_box_holds_the_shape_whole() {
        let rough = ShapeDraw { lobes: 0.25, edge_mm: 1.0, ..PLAIN };
        for seed in 0..20 {
            let drawn = rough.draw(&mut Key::root(seed).draws("shape"), [0.0; 3], [1.0; 3]);
            let [nx, ny, nz] = drawn.mask.shape();
            let rim = drawn.mask.as_slice().iter().enumerate().filter(|(index, value)| {
                let voxel = [index % nx, index / nx % ny, index / nx / ny];
                **value != 0 && (0..3).any(|k| voxel[k] == 0 || voxel[k] + 1 == [nx, ny, nz][k])
            });
            assert!(rim.count() * 200 < drawn.mask.as_slice().len(), "seed {seed}");
        }
    }
}
