//! Nearest-neighbour resampling, for labels.

use rayon::prelude::*;

use super::axis::{Axis, OutsideValue, is_inside, planes_at_once, snap};
use crate::volume::{Affine, Array3, Region};

/// Resamples along parallel axes. A row or plane from the same source row or plane as its predecessor is copied from it.
pub(super) fn along_axes<T: Copy + Default + Send + Sync>(
    axes: &[Axis; 3],
    shape: [usize; 3],
    source: &Array3<T>,
    outside: OutsideValue<T>,
) -> Array3<T> {
    let mut target = Array3::filled(shape, T::default());
    let [nx, ny, nz] = shape;
    let plane = nx * ny;
    if target.as_slice().is_empty() {
        return target;
    }
    let is_in = |axis: usize, i: usize| outside_is_edge(&outside) || axes[axis].inside.contains(&i);
    let depth = planes_at_once(nz);
    target.as_mut_slice().par_chunks_mut(plane * depth).enumerate().for_each(|(group, planes)| {
        for z in 0..planes.len() / plane {
            let (done, values) = planes.split_at_mut(plane * z);
            let (values, z) = (&mut values[..plane], group * depth + z);
            let from_z = axes[2].nearest[z] as usize;
            if !done.is_empty() && axes[2].nearest[z - 1] as usize == from_z && is_in(2, z) == is_in(2, z - 1) {
                values.copy_from_slice(&done[done.len() - plane..]);
                continue;
            }
            for y in 0..ny {
                let (done, row) = values.split_at_mut(nx * y);
                let row = &mut row[..nx];
                if let (OutsideValue::Value(value), false) = (outside, is_in(1, y) && is_in(2, z)) {
                    row.fill(value);
                    continue;
                }
                let from_y = axes[1].nearest[y] as usize;
                if y > 0 && axes[1].nearest[y - 1] as usize == from_y && is_in(1, y - 1) {
                    row.copy_from_slice(&done[done.len() - nx..]);
                    continue;
                }
                let from = source.row(from_y, from_z);
                row.iter_mut().zip(&axes[0].nearest).for_each(|(to, &x)| *to = from[x as usize]);
                if let OutsideValue::Value(value) = outside {
                    row[..axes[0].inside.start].fill(value);
                    row[axes[0].inside.end..].fill(value);
                }
            }
        }
    });
    target
}

fn outside_is_edge<T>(outside: &OutsideValue<T>) -> bool {
    matches!(outside, OutsideValue::Edge)
}

/// Resamples at the positions of an affine map.
pub(super) fn by_affine<T: Copy + Default + Send + Sync>(
    map: &Affine,
    region: Region,
    source: &Array3<T>,
    outside: OutsideValue<T>,
) -> Array3<T> {
    let mut target = Array3::filled(region.shape, T::default());
    let [nx, ny, _] = region.shape;
    if target.as_slice().is_empty() {
        return target;
    }
    let voxels = source.shape();
    target.as_mut_slice().par_chunks_mut(nx).enumerate().for_each(|(row, line)| {
        let (y, z) = (region.start[1] + row % ny, region.start[2] + row / ny);
        let start = map.apply([0.0, y as f64, z as f64]);
        for (x, to) in line.iter_mut().enumerate() {
            let x = (region.start[0] + x) as f64;
            let position = [0, 1, 2].map(|axis| snap(start[axis] + map.0[axis][0] * x));
            *to = match outside {
                OutsideValue::Value(value) if !(0..3).all(|axis| is_inside(position[axis], voxels[axis])) => value,
                _ => {
                    source[[0, 1, 2].map(|a| position[a].clamp(0.0, voxels[a] as f64 - 1.0).round_ties_even() as usize)]
                }
            };
        }
    });
    target
}
