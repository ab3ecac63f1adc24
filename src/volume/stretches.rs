//! Which part of each row of a box matters.
//!
//! A long tumor that lies across its box fills a tenth of it: what is computed where it lies alone costs that much less.

use std::ops::Range;

use super::Region;
use super::array::{Array3, extent};

/// For every row along x of a box the stretch outside of which nothing matters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RowSpans {
    shape: [usize; 3],
    /// Row by row, y fastest; `0..0` where nothing of the row matters.
    rows: Vec<Range<usize>>,
}

impl RowSpans {
    /// Everything matters.
    pub fn whole(shape: [usize; 3]) -> Self {
        Self { shape, rows: vec![0..shape[0]; shape[1] * shape[2]] }
    }

    /// Those given, row by row, y fastest.
    ///
    /// # Panics
    /// Where they are not as many as the box has rows.
    pub fn new(shape: [usize; 3], rows: Vec<Range<usize>>) -> Self {
        assert_eq!(rows.len(), shape[1] * shape[2], "one stretch a row");
        Self { shape, rows }
    }

    /// From the first voxel of each row that `matters` to the last.
    pub fn of<T>(values: &Array3<T>, matters: impl Fn(&T) -> bool) -> Self {
        let shape = values.shape();
        let stretch = |row: &[T]| {
            let first = row.iter().position(&matters)?;
            let last = row.iter().rposition(&matters)?;
            Some(first..last + 1)
        };
        let rows = values.as_slice().chunks_exact(shape[0].max(1)).map(|row| stretch(row).unwrap_or(0..0)).collect();
        Self { shape, rows }
    }

    /// The box.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The stretch of the row at [y, z].
    #[inline(always)]
    pub fn row(&self, y: usize, z: usize) -> Range<usize> {
        self.rows[y + self.shape[1] * z].clone()
    }

    /// All rows of which something matters: y, z, and the stretch.
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize, Range<usize>)> + '_ {
        let ny = self.shape[1].max(1);
        let rows = self.rows.iter().enumerate().filter(|(_, stretch)| !stretch.is_empty());
        rows.map(move |(row, stretch)| (row % ny, row / ny, stretch.clone()))
    }

    /// The smallest box of the values that matter and for which `holds` is true; none where there is no such value.
    pub fn extent<T>(&self, values: &Array3<T>, holds: impl Fn(&T) -> bool) -> Option<Region> {
        extent(values, self.rows(), holds)
    }

    /// What lies within so many voxels along each axis of what matters.
    pub fn grown(&self, reach: [usize; 3]) -> Self {
        let [nx, ny, nz] = self.shape;
        let mut rows = self.rows.clone();
        for stretch in rows.iter_mut().filter(|stretch| stretch.start < stretch.end) {
            *stretch = stretch.start.saturating_sub(reach[0])..stretch.end.saturating_add(reach[0]).min(nx);
        }
        let mut grown = Self { shape: self.shape, rows };
        for (axis, count) in [(1, ny), (2, nz)].into_iter().filter(|(axis, _)| reach[*axis] > 0) {
            let around = |at: usize| at.saturating_sub(reach[axis])..at.saturating_add(reach[axis] + 1).min(count);
            let joined = |y: usize, z: usize| match axis {
                1 => around(y).map(|y| grown.row(y, z)).fold(0..0, hull),
                _ => around(z).map(|z| grown.row(y, z)).fold(0..0, hull),
            };
            let rows = (0..ny * nz).map(|row| joined(row % ny, row / ny)).collect();
            grown = Self { shape: self.shape, rows };
        }
        grown
    }

    /// Those of a part of the box.
    ///
    /// # Panics
    /// Where the part reaches beyond the box.
    pub fn cut(&self, region: Region) -> Self {
        let ([from, ..], [to, ..]) = (region.start, region.end());
        let row = |row: usize| {
            let stretch = self.row(region.start[1] + row % region.shape[1], region.start[2] + row / region.shape[1]);
            let (start, end) = (stretch.start.max(from), stretch.end.min(to));
            if start < end { start - from..end - from } else { 0..0 }
        };
        let rows = (0..region.shape[1] * region.shape[2]).map(row).collect();
        Self { shape: region.shape, rows }
    }
}

/// The shortest stretch that holds both.
pub(crate) fn hull(one: Range<usize>, other: Range<usize>) -> Range<usize> {
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other,
        (_, true) => one,
        _ => one.start.min(other.start)..one.end.max(other.end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    /// A few voxels of a box.
    fn few(seed: u64) -> Array3<u8> {
        let mut draws = Key::root(seed).draws("stretches");
        Array3::from_fn([11, 7, 6], |_| u8::from(draws.chance(0.02)))
    }

    #[test]
    fn what_matters_and_its_surroundings_lie_within() {
        for seed in 0..50 {
            let mask = few(seed);
            let stretches = RowSpans::of(&mask, |&value| value != 0);
            let reach = [2, 1, 3];
            let grown = stretches.grown(reach);
            for z in 0..6 {
                for y in 0..7 {
                    for x in 0..11 {
                        let near = Region { start: [x, y, z], shape: [1; 3] }.grown(reach, mask.shape());
                        let is_near = mask.cut(near).as_slice().iter().any(|&value| value != 0);
                        assert!(!is_near || grown.row(y, z).contains(&x), "seed {seed}");
                        assert!(mask[[x, y, z]] == 0 || stretches.row(y, z).contains(&x), "seed {seed}");
                    }
                    // No stretch is longer than it has to be.
                    let row = stretches.row(y, z);
                    assert!(row.is_empty() || (mask[[row.start, y, z]] != 0 && mask[[row.end - 1, y, z]] != 0));
                }
            }
        }
    }

    #[test]
    fn the_extent_is_that_of_what_matters() {
        for seed in 0..50 {
            let mask = few(seed);
            let all = RowSpans::of(&mask, |&value| value != 0);
            assert_eq!(all.extent(&mask, |&value| value != 0), mask.extent(|&value| value != 0), "seed {seed}");
            let rows =
                all.rows.iter().enumerate().map(|(row, stretch)| if row % 2 == 0 { stretch.clone() } else { 0..0 });
            let some = RowSpans::new(mask.shape(), rows.collect());
            let left = Array3::from_fn(mask.shape(), |[x, y, z]| mask[[x, y, z]] * u8::from((y + 7 * z) % 2 == 0));
            assert_eq!(some.extent(&mask, |&value| value != 0), left.extent(|&value| value != 0), "seed {seed}");
        }
    }

    #[test]
    fn a_part_has_the_stretches_of_the_part() {
        for seed in 0..50 {
            let mask = few(seed);
            let part = Region { start: [3, 2, 1], shape: [6, 4, 5] };
            let cut = RowSpans::of(&mask, |&value| value != 0).cut(part);
            let own = RowSpans::of(&mask.cut(part), |&value| value != 0);
            for (y, z, stretch) in own.rows() {
                assert!(cut.row(y, z).start <= stretch.start && stretch.end <= cut.row(y, z).end, "seed {seed}");
            }
        }
        assert_eq!(
            RowSpans::whole([4, 3, 2]).cut(Region { start: [1, 0, 0], shape: [2, 2, 2] }),
            RowSpans::whole([2; 3])
        );
    }

    #[test]
    fn nothing_grows_to_nothing() {
        let nothing = RowSpans::of(&Array3::filled([5, 4, 3], 0u8), |&value| value != 0);
        assert_eq!(nothing.grown([2; 3]).rows().count(), 0);
        assert_eq!(RowSpans::of(&Array3::filled([0, 4, 3], 0u8), |_| true).rows().count(), 0);
    }
}
