//! Weighted sums of rows, the common kernel of all smoothing.

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

    /// Writes the sum of the terms. Products are rounded before they are added, and every value is summed in the order of the
    /// terms, so its bits depend neither on the vector width nor on the span of the row.
    #[inline(always)]
    pub fn sum(&self, row: &mut [f32]) {
        // Apart: in one loop over both kinds of terms the sums do not stay in registers.
        if self.paired.is_empty() { self.sum_blocks::<false>(row) } else { self.sum_blocks::<true>(row) }
    }

    #[inline(always)]
    fn sum_blocks<const PAIRED: bool>(&self, row: &mut [f32]) {
        // Many rows of a tumor's box are short.
        match row.len() {
            0..4 => {
                for value in 0..row.len() {
                    self.sum_block::<PAIRED, 1>(row, value);
                }
            }
            4..8 => self.sum_from::<PAIRED, 4>(row, 0),
            8..16 => self.sum_from::<PAIRED, 8>(row, 0),
            _ => {
                let mut done = 0;
                while done + 64 <= row.len() {
                    self.sum_block::<PAIRED, 64>(row, done);
                    done += 64;
                }
                // Fewer sums at once would wait for each other.
                if done + 32 <= row.len() {
                    self.sum_block::<PAIRED, 32>(row, done);
                    done += 32;
                }
                self.sum_from::<PAIRED, 16>(row, done);
            }
        }
    }

    /// Computes [`WeightedLines::sum`] for the values from `first`, in blocks of `LANES`. The row must have at least `LANES` values.
    #[inline(always)]
    fn sum_from<const PAIRED: bool, const LANES: usize>(&self, row: &mut [f32], first: usize) {
        for first in (first..row.len()).step_by(LANES) {
            // The last block begins early enough to be whole: values that are summed twice get the same bits.
            self.sum_block::<PAIRED, LANES>(row, first.min(row.len() - LANES));
        }
    }

    /// Computes [`WeightedLines::sum`] for the `LANES` values from `first`. The sums stay in registers.
    #[inline(always)]
    fn sum_block<const PAIRED: bool, const LANES: usize>(&self, row: &mut [f32], first: usize) {
        let mut sums = [self.start; LANES];
        for (weight, line) in &self.single {
            sums.iter_mut().zip(&line[first..first + LANES]).for_each(|(sum, value)| *sum += weight * value);
        }
        if PAIRED {
            for (weight, [before, after]) in &self.paired {
                let pairs = before[first..first + LANES].iter().zip(&after[first..first + LANES]);
                sums.iter_mut().zip(pairs).for_each(|(sum, (a, b))| *sum += weight * (a + b));
            }
        }
        row[first..first + LANES].copy_from_slice(&sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn sum_does_not_depend_on_row_length() {
        let mut random = Key::root(3).stream("lines");
        let lines: Vec<Vec<f32>> = (0..7).map(|_| (0..150).map(|_| random.unit_f32() - 0.5).collect()).collect();
        let half = [0.4, 0.2, 0.07, 0.03];
        for order in [SumOrder::Paired, SumOrder::Single] {
            for length in 1..=150 {
                let mut terms = WeightedLines::default();
                terms.gather(&half, order, |offset| Some(&lines[(3 + offset) as usize][..length]));
                let mut row = vec![f32::NAN; length];
                terms.sum(&mut row);
                for (x, sum) in row.into_iter().enumerate() {
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
        let mut row = [1.0; 20];
        let mut terms = WeightedLines::default();
        terms.gather(&[0.5, 0.25], SumOrder::Paired, |_| Some(&zeros));
        terms.sum(&mut row);
        assert!(row.iter().all(|value| value.to_bits() == (-0.0f32).to_bits()));
    }
}
