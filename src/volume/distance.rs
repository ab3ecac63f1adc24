//! Euclidean distances between voxels in millimetres, up to a limit.

use super::{Array3, RowSpans};

/// Returns the distance from each voxel's centre to the centre of the nearest voxel for which `is_target` is true. Distances are
/// exact up to `limit_mm`; larger ones are `limit_mm`.
///
/// Squared distances are minimized axis by axis over a window of the size of the limit, row by row, so the cost grows with the limit
/// and not with the number of targets.
///
/// # Units
/// Millimetres, both of `spacing_mm` and of the result.
///
/// ```
/// use freetumor::volume::{Array3, distance_mm};
/// let mut mask = Array3::filled([5, 5, 1], 0u8);
/// mask[[0, 0, 0]] = 1;
/// let distance = distance_mm(&mask, [3.0, 4.0, 1.0], 100.0, |&value| value == 1);
/// assert_eq!(distance[[1, 1, 0]], 5.0);
/// ```
pub fn distance_mm<T>(
    voxels: &Array3<T>,
    spacing_mm: [f64; 3],
    limit_mm: f64,
    is_target: impl Fn(&T) -> bool,
) -> Array3<f32> {
    let [_, ny, nz] = voxels.shape();
    let limit = limit_mm as f32;
    let reach = spacing_mm.map(|mm| (limit_mm / mm) as usize);
    // Most of a large box is farther from any target than the limit and need not be compared.
    let along_x = RowSpans::of(voxels, &is_target).grown([reach[0] + 1, 0, 0]);
    let mut squares = voxels.map(|value| if is_target(value) { 0.0 } else { f32::INFINITY });
    for (y, z, span) in along_x.rows() {
        along_row(&mut squares.row_mut(y, z)[span], spacing_mm[0] as f32);
    }
    let along_y = along_x.grown([0, reach[1], 0]);
    let along_z = along_y.grown([0, 0, reach[2]]);
    let mut result = Array3::filled(voxels.shape(), f32::INFINITY);
    for (axis, before, after) in [(1, &along_x, &along_y), (2, &along_y, &along_z)] {
        let mut lines: Vec<(f32, &[f32])> = Vec::new();
        for (y, z, span) in after.rows() {
            let (index, length) = if axis == 1 { (y, ny) } else { (z, nz) };
            lines.clear();
            for other in index.saturating_sub(reach[axis])..(index + reach[axis] + 1).min(length) {
                let (y, z) = if axis == 1 { (other, z) } else { (y, other) };
                if !before.row(y, z).is_empty() {
                    let offset_mm = index.abs_diff(other) as f32 * spacing_mm[axis] as f32;
                    lines.push((offset_mm * offset_mm, &squares.row(y, z)[span.clone()]));
                }
            }
            min_sum(&mut result.row_mut(y, z)[span], &lines);
        }
        std::mem::swap(&mut squares, &mut result);
    }
    let mut distances = result;
    distances.as_mut_slice().fill(limit);
    for (y, z, span) in along_z.rows() {
        let found = squares.row(y, z)[span.clone()].iter();
        let distances = distances.row_mut(y, z)[span].iter_mut();
        distances.zip(found).for_each(|(mm, square)| *mm = square.sqrt().min(limit));
    }
    distances
}

/// The number of values that are compared in registers at once.
const LANES: usize = 32;

/// Writes the minimum over all lines, each with its offset added; infinity if there is no line.
fn min_sum(row: &mut [f32], lines: &[(f32, &[f32])]) {
    for (block, out) in row.chunks_mut(LANES).enumerate() {
        let start = block * LANES;
        let mut minimum = [f32::INFINITY; LANES];
        for (offset, line) in lines {
            for (minimum, square) in minimum.iter_mut().zip(&line[start..start + out.len()]) {
                let sum = square + offset;
                // No value is NaN, and this is one instruction where `min` is three.
                *minimum = if sum < *minimum { sum } else { *minimum };
            }
        }
        out.copy_from_slice(&minimum[..out.len()]);
    }
}

/// Replaces the values of a row by squared distances to its nearest zero; a row without zeros stays infinite.
fn along_row(row: &mut [f32], spacing_mm: f32) {
    let square = |steps: usize| (steps as f32 * spacing_mm) * (steps as f32 * spacing_mm);
    let Some(first) = row.iter().position(|&value| value == 0.0) else { return };
    row[..first].iter_mut().enumerate().for_each(|(x, value)| *value = square(first - x));
    let mut last = first;
    while let Some(gap) = row[last + 1..].iter().position(|&value| value == 0.0) {
        let span = &mut row[last + 1..last + 1 + gap];
        span.iter_mut().enumerate().for_each(|(x, value)| *value = square((x + 1).min(gap - x)));
        last += gap + 1;
    }
    row[last + 1..].iter_mut().enumerate().for_each(|(x, value)| *value = square(x + 1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn distances_equal_search_over_all_pairs() {
        let mut random = Key::root(1).stream("distance");
        let spacing_mm = [0.8, 1.1, 2.5];
        let voxels = Array3::from_fn([13, 11, 7], |_| random.chance(0.01));
        let targets: Vec<[usize; 3]> = (0..voxels.as_slice().len())
            .filter(|&index| voxels.as_slice()[index])
            .map(|index| [index % 13, index / 13 % 11, index / 143])
            .collect();
        assert!(targets.len() > 2, "expected at least three targets");
        let limit_mm = 6.0;
        let distance = distance_mm(&voxels, spacing_mm, limit_mm, |&target| target);
        let plain = Array3::from_fn([13, 11, 7], |voxel| {
            targets
                .iter()
                .map(|target| {
                    (0..3).map(|k| (voxel[k].abs_diff(target[k]) as f64 * spacing_mm[k]).powi(2)).sum::<f64>()
                })
                .fold(f64::INFINITY, f64::min)
                .sqrt()
                .min(limit_mm)
        });
        for (fast, slow) in distance.as_slice().iter().zip(plain.as_slice()) {
            assert!((f64::from(*fast) - slow).abs() < 1e-4, "{fast} {slow}");
        }
    }

    #[test]
    fn distances_without_targets_are_the_limit() {
        let distance = distance_mm(&Array3::filled([4, 3, 2], 0u8), [1.0; 3], 9.0, |&value| value == 1);
        assert!(distance.as_slice().iter().all(|&mm| mm == 9.0));
    }
}
