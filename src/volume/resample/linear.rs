//! Linear interpolation.

use rayon::prelude::*;

use super::axis::{Axis, OutsideValue, is_inside, planes_at_once, snap};
use crate::volume::{Affine, Array3, Region};

/// Interpolates along x, then y, then z. Source planes are interpolated along x and y once and cached while target planes need
/// them, so that halving the spacing costs little more than writing the output.
pub(super) fn along_axes<T: Copy + Into<f32> + Sync>(
    axes: &[Axis; 3],
    shape: [usize; 3],
    source: &Array3<T>,
    outside: OutsideValue<f32>,
    finish: impl Fn(f32) -> f32 + Sync,
) -> Array3<f32> {
    let mut target = Array3::filled(shape, 0.0f32);
    let plane = shape[0] * shape[1];
    if target.as_slice().is_empty() {
        return target;
    }
    let depth = planes_at_once(shape[2]);
    target.as_mut_slice().par_chunks_mut(plane * depth).enumerate().for_each(|(group, planes)| {
        let mut rows = InterpolatedRows::new(axes, source, plane);
        for (z, values) in planes.chunks_exact_mut(plane).enumerate() {
            let z = group * depth + z;
            if let (OutsideValue::Value(value), false) = (outside, axes[2].inside.contains(&z)) {
                values.fill(finish(value));
                continue;
            }
            let (lower, weight) = (axes[2].lower[z], axes[2].weight[z]);
            if weight == 0.0 {
                let below = rows.plane(lower);
                values.iter_mut().zip(below).for_each(|(to, &a)| *to = finish(a));
            } else {
                let (below, above) = rows.planes(lower);
                for ((to, &a), &b) in values.iter_mut().zip(below).zip(above) {
                    *to = finish(a + (b - a) * weight);
                }
            }
            if let OutsideValue::Value(value) = outside {
                fill_outside(values, shape[0], [&axes[0].inside, &axes[1].inside], finish(value));
            }
        }
    });
    target
}

/// Writes `value` to the voxels of a plane that are outside the source.
fn fill_outside(plane: &mut [f32], nx: usize, [x, y]: [&std::ops::Range<usize>; 2], value: f32) {
    for (row, values) in plane.chunks_exact_mut(nx).enumerate() {
        if y.contains(&row) {
            values[..x.start].fill(value);
            values[x.end..].fill(value);
        } else {
            values.fill(value);
        }
    }
}

/// A cache of the last two source planes, interpolated along x and y, and the last two rows, interpolated along x.
struct InterpolatedRows<'a, T> {
    axes: &'a [Axis; 3],
    source: &'a Array3<T>,
    planes: [Vec<f32>; 2],
    planes_of: [Option<u32>; 2],
    rows: [Vec<f32>; 2],
    line: Vec<f32>,
}

impl<'a, T: Copy + Into<f32>> InterpolatedRows<'a, T> {
    fn new(axes: &'a [Axis; 3], source: &'a Array3<T>, plane: usize) -> Self {
        let row = axes[0].lower.len();
        Self {
            axes,
            source,
            planes: [vec![0.0; plane], vec![0.0; plane]],
            planes_of: [None; 2],
            rows: [vec![0.0; row], vec![0.0; row]],
            line: Vec::with_capacity(source.shape()[0] + 1),
        }
    }

    fn plane(&mut self, z: u32) -> &[f32] {
        let slot = self.load(z, None);
        &self.planes[slot]
    }

    /// Returns the planes at `z` and `z + 1`.
    fn planes(&mut self, z: u32) -> (&[f32], &[f32]) {
        let below = self.load(z, Some(z + 1));
        let above = self.load(z + 1, Some(z));
        (&self.planes[below], &self.planes[above])
    }

    /// Returns the slot of source plane `z`, loading the plane if necessary without evicting plane `keep`.
    fn load(&mut self, z: u32, keep: Option<u32>) -> usize {
        if let Some(slot) = self.planes_of.iter().position(|cached| *cached == Some(z)) {
            return slot;
        }
        let slot = usize::from(self.planes_of[0].is_some() && self.planes_of[0] == keep);
        let mut values = std::mem::take(&mut self.planes[slot]);
        self.interpolate(z as usize, &mut values);
        self.planes[slot] = values;
        self.planes_of[slot] = Some(z);
        slot
    }

    /// Interpolates source plane `z` along x and y.
    fn interpolate(&mut self, z: usize, plane: &mut [f32]) {
        let mut rows_of: [Option<u32>; 2] = [None; 2];
        let Self { axes, source, rows, line, .. } = self;
        let [along_x, along_y, _] = *axes;
        let mut load = |rows: &mut [Vec<f32>; 2], y: u32, keep: Option<u32>| {
            if let Some(slot) = rows_of.iter().position(|row| *row == Some(y)) {
                return slot;
            }
            let slot = usize::from(rows_of[0].is_some() && rows_of[0] == keep);
            line.clear();
            line.extend(source.row(y as usize, z).iter().map(|&value| value.into()));
            line.push(line[line.len() - 1]); // the neighbour of the last voxel, with weight 0
            for ((to, &lower), &weight) in rows[slot].iter_mut().zip(&along_x.lower).zip(&along_x.weight) {
                let (a, b) = (line[lower as usize], line[lower as usize + 1]);
                *to = a + (b - a) * weight;
            }
            rows_of[slot] = Some(y);
            slot
        };
        for ((values, &lower), &weight) in
            plane.chunks_exact_mut(along_x.lower.len()).zip(&along_y.lower).zip(&along_y.weight)
        {
            if weight == 0.0 {
                let row = load(rows, lower, None);
                values.copy_from_slice(&rows[row]);
            } else {
                let below = load(rows, lower, Some(lower + 1));
                let above = load(rows, lower + 1, Some(lower));
                for ((to, &a), &b) in values.iter_mut().zip(&rows[below]).zip(&rows[above]) {
                    *to = a + (b - a) * weight;
                }
            }
        }
    }
}

/// Interpolates at the positions of an affine map.
pub(super) fn by_affine<T: Copy + Into<f32> + Sync>(
    map: &Affine,
    region: Region,
    source: &Array3<T>,
    outside: OutsideValue<f32>,
    finish: impl Fn(f32) -> f32 + Sync,
) -> Array3<f32> {
    let mut target = Array3::filled(region.shape, 0.0f32);
    let [nx, ny, _] = region.shape;
    if target.as_slice().is_empty() {
        return target;
    }
    let voxels = source.shape();
    let last = voxels.map(|n| n as f64 - 1.0);
    let strides = [1, voxels[0], voxels[0] * voxels[1]];
    let values = source.as_slice();
    target.as_mut_slice().par_chunks_mut(nx).enumerate().for_each(|(row, line)| {
        let (y, z) = (region.start[1] + row % ny, region.start[2] + row / ny);
        let start = map.apply([0.0, y as f64, z as f64]);
        for (x, to) in line.iter_mut().enumerate() {
            let x = (region.start[0] + x) as f64;
            let position = [0, 1, 2].map(|axis| snap(start[axis] + map.0[axis][0] * x));
            if let (OutsideValue::Value(value), false) =
                (outside, (0..3).all(|axis| is_inside(position[axis], voxels[axis])))
            {
                *to = finish(value);
                continue;
            }
            let mut first = 0;
            let mut next = [0; 3];
            let mut weight = [0.0f32; 3];
            for axis in 0..3 {
                let coordinate = position[axis].clamp(0.0, last[axis]);
                let lower = coordinate as usize;
                weight[axis] = (coordinate - lower as f64) as f32;
                first += lower * strides[axis];
                next[axis] = if lower + 1 < voxels[axis] { strides[axis] } else { 0 };
            }
            let along_x = |at: usize| {
                let (a, b): (f32, f32) = (values[at].into(), values[at + next[0]].into());
                a + (b - a) * weight[0]
            };
            let along_y = |at: usize| {
                let (a, b) = (along_x(at), along_x(at + next[1]));
                a + (b - a) * weight[1]
            };
            let (a, b) = (along_y(first), along_y(first + next[2]));
            *to = finish(a + (b - a) * weight[2]);
        }
    });
    target
}
