//! Weighted sums of rows, the common kernel of all smoothing.

use crate::simd::Simd;

/// The order in which the products of a row's neighbours are added. The last bits of a floating-point sum depend on the order, and
/// both orders are part of results that are compared bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SumOrder {
    /// Lines at the same distance on both sides are added first and multiplied once.
    Paired,
    /// Each line is multiplied separately, so that lines of zeros can be skipped.
    Single,
}

/// Lines and their weights, whose sum is a row.
#[derive(Default)]
pub(super) struct WeightedLines<'a> {
    start: f32,
    single: Vec<(f32, &'a [f32])>,
    paired: Vec<(f32, [&'a [f32]; 2])>,
}

impl<'a> WeightedLines<'a> {
    /// Creates the terms of a row without any, with space for those of [`SumOrder::Single`] with the weights `half`.
    pub fn with_space_for(half: &[f32]) -> Self {
        Self { start: 0.0, single: Vec::with_capacity(2 * half.len()), paired: Vec::new() }
    }

    /// Replaces the terms by those of one row. `line` returns the line at an offset from the row, or `None` for a line of zeros. With
    /// [`SumOrder::Paired`], a pair is skipped if either line is `None`.
    #[inline(always)]
    pub fn gather(&mut self, half: &[f32], order: SumOrder, line: impl Fn(isize) -> Option<&'a [f32]>) {
        self.single.clear();
        self.paired.clear();
        // Adding -0 changes no number, not even the sign of a zero.
        self.start = if order == SumOrder::Paired { -0.0 } else { 0.0 };
        self.single.extend(line(0).map(|line| (half[0], line)));
        for (&weight, distance) in half[1..].iter().zip(1..) {
            let (before, after) = (line(-distance), line(distance));
            match order {
                SumOrder::Paired => {
                    self.paired.extend(before.zip(after).map(|(before, after)| (weight, [before, after])))
                }
                SumOrder::Single => {
                    self.single.extend([before, after].into_iter().flatten().map(|line| (weight, line)))
                }
            }
        }
    }

    /// Returns whether there are no terms, so that the sum is zero.
    pub fn is_empty(&self) -> bool {
        self.single.is_empty() && self.paired.is_empty()
    }

    /// Writes the sum of the terms. Products are rounded before they are added, and every value is summed in the order of the
    /// terms, so its bits depend neither on the vector width nor on the span of the row.
    #[inline(always)]
    pub fn sum<S: Simd>(&self, row: &mut [f32]) {
        // Apart: in one loop over both kinds of terms the sums do not stay in registers.
        if self.paired.is_empty() { self.sum_blocks::<S, false>(row) } else { self.sum_blocks::<S, true>(row) }
    }

    #[inline(always)]
    fn sum_blocks<S: Simd, const PAIRED: bool>(&self, row: &mut [f32]) {
        // Many rows of a tumor's box are short.
        match row.len() {
            0..4 => {
                for value in 0..row.len() {
                    self.sum_few::<PAIRED, 1>(row, value);
                }
            }
            length if length < S::WIDTH => {
                for first in (0..length).step_by(4) {
                    self.sum_few::<PAIRED, 4>(row, first.min(length - 4));
                }
            }
            length => {
                let mut done = 0;
                while done + 8 * S::WIDTH <= length {
                    self.sum_block::<S, PAIRED, 8>(row, done);
                    done += 8 * S::WIDTH;
                }
                // Fewer sums at once would wait for each other.
                if done + 4 * S::WIDTH <= length {
                    self.sum_block::<S, PAIRED, 4>(row, done);
                    done += 4 * S::WIDTH;
                }
                if length >= 2 * S::WIDTH {
                    self.sum_from::<S, PAIRED, 2>(row, done);
                } else {
                    self.sum_from::<S, PAIRED, 1>(row, done);
                }
            }
        }
    }

    /// Computes [`WeightedLines::sum`] for the values from `first`, in blocks of `VECTORS`. The row must have at least one block.
    #[inline(always)]
    fn sum_from<S: Simd, const PAIRED: bool, const VECTORS: usize>(&self, row: &mut [f32], first: usize) {
        let last = row.len() - VECTORS * S::WIDTH;
        for first in (first..row.len()).step_by(VECTORS * S::WIDTH) {
            // The last block begins early enough to be whole: values that are summed twice get the same bits.
            self.sum_block::<S, PAIRED, VECTORS>(row, first.min(last));
        }
    }

    /// Computes [`WeightedLines::sum`] for the values of `VECTORS` vectors from `first`. The sums stay in registers.
    #[inline(always)]
    fn sum_block<S: Simd, const PAIRED: bool, const VECTORS: usize>(&self, row: &mut [f32], first: usize) {
        let block = first..first + VECTORS * S::WIDTH;
        let mut sums = [S::splat(self.start); VECTORS];
        for (weight, line) in &self.single {
            let (weight, line) = (S::splat(*weight), &line[block.clone()]);
            for (sum, values) in sums.iter_mut().zip(line.chunks_exact(S::WIDTH)) {
                *sum = S::add(*sum, S::mul(weight, S::load(values)));
            }
        }
        if PAIRED {
            for (weight, [before, after]) in &self.paired {
                let (weight, before, after) = (S::splat(*weight), &before[block.clone()], &after[block.clone()]);
                let pairs = before.chunks_exact(S::WIDTH).zip(after.chunks_exact(S::WIDTH));
                for (sum, (before, after)) in sums.iter_mut().zip(pairs) {
                    *sum = S::add(*sum, S::mul(weight, S::add(S::load(before), S::load(after))));
                }
            }
        }
        for (sum, values) in sums.into_iter().zip(row[block].chunks_exact_mut(S::WIDTH)) {
            S::store(sum, values);
        }
    }

    /// Computes [`WeightedLines::sum`] for fewer values from `first` than a vector has.
    #[inline(always)]
    fn sum_few<const PAIRED: bool, const COUNT: usize>(&self, row: &mut [f32], first: usize) {
        let mut sums = [self.start; COUNT];
        for (weight, line) in &self.single {
            sums.iter_mut().zip(&line[first..first + COUNT]).for_each(|(sum, value)| *sum += weight * value);
        }
        if PAIRED {
            for (weight, [before, after]) in &self.paired {
                let pairs = before[first..first + COUNT].iter().zip(&after[first..first + COUNT]);
                sums.iter_mut().zip(pairs).for_each(|(sum, (a, b))| *sum += weight * (a + b));
            }
        }
        row[first..first + COUNT].copy_from_slice(&sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::simd::{SimdKernel, on_every_class};

    #[derive(Clone)]
    struct Sum<'a>(&'a WeightedLines<'a>, usize);

    impl SimdKernel for Sum<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<f32> {
            let mut row = vec![f32::NAN; self.1];
            self.0.sum::<S>(&mut row);
            row
        }
    }

    #[test]
    fn sum_does_not_depend_on_row_length() {
        let mut random = Key::root(3).stream("lines");
        let lines: Vec<Vec<f32>> = (0..7).map(|_| (0..150).map(|_| random.unit_f32() - 0.5).collect()).collect();
        let half = [0.4, 0.2, 0.07, 0.03];
        for order in [SumOrder::Paired, SumOrder::Single] {
            for length in 1..=150 {
                let mut terms = WeightedLines::default();
                terms.gather(&half, order, |offset| Some(&lines[(3 + offset) as usize][..length]));
                let rows = on_every_class(Sum(&terms, length));
                for (x, sum) in rows.into_iter().flat_map(|row| row.into_iter().enumerate()) {
                    let mut expected = half[0] * lines[3][x];
                    for k in 1..=3 {
                        let (before, after) = (lines[3 - k][x], lines[3 + k][x]);
                        expected = match order {
                            SumOrder::Paired => expected + half[k] * (before + after),
                            SumOrder::Single => expected + half[k] * before + half[k] * after,
                        };
                    }
                    assert_eq!(sum.to_bits(), expected.to_bits(), "{order:?}, value {x} of {length}");
                }
            }
        }
    }

    #[test]
    fn paired_sum_of_negative_zeros_is_negative_zero() {
        let zeros = [-0.0f32; 20];
        let mut terms = WeightedLines::default();
        terms.gather(&[0.5, 0.25], SumOrder::Paired, |_| Some(&zeros));
        for row in on_every_class(Sum(&terms, zeros.len())) {
            assert!(row.iter().all(|value| value.to_bits() == (-0.0f32).to_bits()));
        }
    }
}
