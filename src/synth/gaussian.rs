//! Gaussian smoothing of a box whose surroundings are zero.

use super::wide::{Wide, widest};
use crate::volume::{Array3, Stretches};

/// The edges of tumors are computed up to this many standard deviations; beyond them less than 0.2% of the contrast is left.
pub(super) const TRUNCATE: f64 = 3.0;

/// The weights of a Gaussian at whole voxels `0..=radius`, those on both sides summing to one.
pub(crate) fn weights(sigma_voxels: f64, radius: usize) -> Vec<f32> {
    if sigma_voxels <= 0.0 || radius == 0 {
        return vec![1.0];
    }
    let half: Vec<f64> =
        (0..=radius).map(|k| libm::exp(-0.5 * (k as f64 / sigma_voxels) * (k as f64 / sigma_voxels))).collect();
    let sum = half[0] + 2.0 * half[1..].iter().sum::<f64>();
    half.iter().map(|weight| (weight / sum) as f32).collect()
}

/// The radius at which a Gaussian is cut off: `truncate` standard deviations, rounded; SciPy's default is 4.
pub(crate) fn radius(sigma_voxels: f64, truncate: f64) -> usize {
    (truncate * sigma_voxels + 0.5) as usize
}

/// Smooths with a Gaussian of `sigma_voxels` along [x, y, z]; what lies outside the box counts as zero.
///
/// Values within `wanted` are computed, the others mean nothing.
pub(crate) fn gaussian(values: &Array3<f32>, sigma_voxels: [f64; 3], truncate: f64, wanted: &Stretches) -> Array3<f32> {
    separable(values, sigma_voxels.map(|sigma| weights(sigma, radius(sigma, truncate))), wanted)
}

/// Convolves with symmetric weights along each axis; what lies outside the box counts as zero.
///
/// Values within `wanted` are computed, the others mean nothing. Products are rounded before they are added, so that vectors
/// of any width give the same bits.
pub(crate) fn separable(values: &Array3<f32>, half_kernels: [Vec<f32>; 3], wanted: &Stretches) -> Array3<f32> {
    widest(Convolution { values, half_kernels, wanted })
}

struct Convolution<'a> {
    values: &'a Array3<f32>,
    half_kernels: [Vec<f32>; 3],
    wanted: &'a Stretches,
}

impl Wide for Convolution<'_> {
    type Output = Array3<f32>;

    #[inline(always)]
    fn done(self) -> Array3<f32> {
        convolved(self.values, &self.half_kernels, self.wanted)
    }
}

#[inline(always)]
fn convolved(values: &Array3<f32>, half_kernels: &[Vec<f32>; 3], wanted: &Stretches) -> Array3<f32> {
    let [nx, ny, nz] = values.shape();
    let reach = [0, 1, 2].map(|axis| half_kernels[axis].len() - 1);
    // What a pass along one axis gives is what those after it read.
    let after_y = wanted.grown([0, 0, reach[2]]);
    let passes = [after_y.grown([0, reach[1], 0]), after_y, wanted.clone()];
    let mut last: Option<Array3<f32>> = None;
    let mut spare: Option<Array3<f32>> = None;
    for (axis, half) in half_kernels.iter().enumerate().filter(|(_, half)| half.len() > 1) {
        let source = last.as_ref().unwrap_or(values);
        let mut target = match spare.take() {
            // The rows of an earlier pass, which are not all written again.
            Some(mut spare) => {
                spare.as_mut_slice().fill(0.0);
                spare
            }
            None => Array3::filled([nx, ny, nz], 0.0f32),
        };
        // Many rows of a tumor's box are empty; they need not be read again and again.
        let rows = source.as_slice().chunks_exact(nx.max(1));
        let filled: Vec<bool> = rows.map(|row| row.iter().fold(0, |bits, value| bits | value.to_bits()) != 0).collect();
        let margin = half.len() - 1;
        let mut padded = vec![0.0f32; nx + 2 * margin];
        let mut lines: Vec<(f32, &[f32])> = Vec::with_capacity(2 * half.len());
        // Along z line by line, so that the rows that are read again and again stay in the first caches.
        let (outer, inner) = if axis == 2 { (ny, nz) } else { (nz, ny) };
        for outer in 0..outer {
            for inner in 0..inner {
                let (y, z) = if axis == 2 { (outer, inner) } else { (inner, outer) };
                let stretch = passes[axis].row(y, z);
                if stretch.is_empty() {
                    continue;
                }
                let row = &mut target.row_mut(y, z)[stretch.clone()];
                if axis == 0 {
                    if filled[y + ny * z] {
                        padded[margin..margin + nx].copy_from_slice(source.row(y, z));
                        let shifted = |by: usize| &padded[by + stretch.start..by + stretch.end];
                        let pairs = half.iter().enumerate().skip(1);
                        let pairs = pairs.flat_map(|(k, &w)| [(w, shifted(margin + k)), (w, shifted(margin - k))]);
                        let lines: Vec<_> = [(half[0], shifted(margin))].into_iter().chain(pairs).collect();
                        weighted_sum(row, &lines);
                    }
                    continue;
                }
                let (at, length) = if axis == 1 { (y, ny) } else { (z, nz) };
                lines.clear();
                for (k, &weight) in half.iter().enumerate() {
                    let after = (k > 0 && at + k < length).then_some(at + k);
                    for other in [at.checked_sub(k), after].into_iter().flatten() {
                        let (y, z) = if axis == 1 { (other, z) } else { (y, other) };
                        if filled[y + ny * z] {
                            lines.push((weight, &source.row(y, z)[stretch.clone()]));
                        }
                    }
                }
                weighted_sum(row, &lines);
            }
        }
        spare = last.replace(target);
    }
    last.unwrap_or_else(|| values.clone())
}

/// The sum of lines times their weights, in the order in which they are given.
#[inline(always)]
fn weighted_sum(row: &mut [f32], lines: &[(f32, &[f32])]) {
    const FEW: usize = 16;
    if row.len() < FEW {
        row.fill(0.0);
        for (weight, line) in lines {
            row.iter_mut().zip(*line).for_each(|(sum, value)| *sum += weight * value);
        }
        return;
    }
    let mut done = 0;
    while done + 64 <= row.len() {
        summed::<64>(row, lines, done);
        done += 64;
    }
    while done < row.len() {
        // The last block begins early enough to be whole: what is summed twice comes out the same.
        summed::<FEW>(row, lines, done.min(row.len() - FEW));
        done += FEW;
    }
}

/// As [`weighted_sum`] for `LANES` values from `start` on, which are summed up in registers at once.
#[inline(always)]
fn summed<const LANES: usize>(row: &mut [f32], lines: &[(f32, &[f32])], start: usize) {
    let mut sums = [0.0f32; LANES];
    for (weight, line) in lines {
        sums.iter_mut().zip(&line[start..start + LANES]).for_each(|(sum, value)| *sum += weight * value);
    }
    row[start..start + LANES].copy_from_slice(&sums);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn a_point_becomes_the_product_of_three_kernels() {
        let mut point = Array3::filled([15, 13, 11], 0.0);
        point[[7, 6, 5]] = 1.0;
        let smooth = gaussian(&point, [1.0, 0.5, 0.75], 4.0, &Stretches::whole(point.shape()));
        let (x, y, z) = (weights(1.0, 4), weights(0.5, 2), weights(0.75, 3));
        assert!((smooth[[9, 5, 6]] - x[2] * y[1] * z[1]).abs() < 1e-7);
        assert!((smooth.as_slice().iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn what_is_wanted_is_as_in_the_whole() {
        let mut draws = Key::root(4).draws("values");
        let values = Array3::from_fn([150, 13, 11], |_| draws.unit_f32());
        for sigma in [[1.5, 1.0, 0.7], [0.0, 1.0, 0.7], [1.5, 0.0, 0.0]] {
            let whole = gaussian(&values, sigma, 3.0, &Stretches::whole(values.shape()));
            // Slanted, and of every length from a few voxels to more than a block.
            let some = Array3::from_fn(values.shape(), |[x, y, z]| x > 3 * z + y && x < 10 * (y + 1) + 5 * z);
            let wanted = Stretches::of(&some, |&is_wanted| is_wanted);
            let part = gaussian(&values, sigma, 3.0, &wanted);
            for (y, z, stretch) in wanted.rows() {
                assert_eq!(part.row(y, z)[stretch.clone()], whole.row(y, z)[stretch]);
            }
        }
    }

    #[test]
    fn no_width_changes_nothing() {
        let values = Array3::from_fn([4, 3, 2], |[x, y, z]| (x + 7 * y + z) as f32);
        assert_eq!(gaussian(&values, [0.0; 3], 4.0, &Stretches::whole(values.shape())), values);
    }
}
