//! The span of each row of a box to which computations are restricted.
//!
//! An elongated, oblique tumor fills a tenth of its box. Restricted to spans, a computation costs a tenth as well.

use std::ops::Range;

use super::Region;
use super::array::{Array3, extent};

/// A span of voxels for every row along x of a box.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RowSpans {
    shape: [usize; 3],
    /// Row by row, y fastest; `0..0` for rows without a span.
    rows: Vec<Range<usize>>,
}

impl RowSpans {
    /// Returns spans that cover whole rows.
    pub fn whole(shape: [usize; 3]) -> Self {
        Self { shape, rows: vec![0..shape[0]; shape[1] * shape[2]] }
    }

    /// Creates spans from one range per row, y fastest.
    ///
    /// # Panics
    /// If there are not as many ranges as rows of the box.
    pub fn new(shape: [usize; 3], rows: Vec<Range<usize>>) -> Self {
        assert_eq!(rows.len(), shape[1] * shape[2], "expected one span per row");
        Self { shape, rows }
    }

    /// Returns the spans from the first to the last value of each row for which `predicate` is true.
    pub fn of<T>(values: &Array3<T>, predicate: impl Fn(&T) -> bool) -> Self {
        let shape = values.shape();
        let span = |row: &[T]| {
            let first = row.iter().position(&predicate)?;
            let last = row.iter().rposition(&predicate)?;
            Some(first..last + 1)
        };
        let rows = values.as_slice().chunks_exact(shape[0].max(1)).map(|row| span(row).unwrap_or(0..0)).collect();
        Self { shape, rows }
    }

    /// Returns the shape of the box.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Returns the span of the row at [y, z].
    #[inline(always)]
    pub fn row(&self, y: usize, z: usize) -> Range<usize> {
        self.rows[y + self.shape[1] * z].clone()
    }

    /// Returns all rows whose span is not empty, as y, z and the span.
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize, Range<usize>)> + '_ {
        let ny = self.shape[1].max(1);
        let rows = self.rows.iter().enumerate().filter(|(_, span)| !span.is_empty());
        rows.map(move |(row, span)| (row % ny, row / ny, span.clone()))
    }

    /// Returns the bounding box of the values within the spans for which `predicate` is true, `None` if there are none.
    pub fn extent<T>(&self, values: &Array3<T>, predicate: impl Fn(&T) -> bool) -> Option<Region> {
        extent(values, self.rows(), predicate)
    }

    /// Returns the spans dilated by `reach` voxels along each axis.
    pub fn grown(&self, reach: [usize; 3]) -> Self {
        let [nx, ny, nz] = self.shape;
        let mut rows = self.rows.clone();
        for span in rows.iter_mut().filter(|span| span.start < span.end) {
            *span = span.start.saturating_sub(reach[0])..span.end.saturating_add(reach[0]).min(nx);
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

    /// Returns the spans moved into a larger box of `shape`, in which `inner` is this box.
    ///
    /// # Panics
    /// If `inner` does not have the shape of this box or is not inside the larger one.
    pub fn placed(&self, inner: Region, shape: [usize; 3]) -> Self {
        assert_eq!(inner.shape, self.shape, "expected a region of the shape of the box");
        let mut rows = vec![0..0; shape[1] * shape[2]];
        for (y, z, span) in self.rows() {
            rows[inner.start[1] + y + shape[1] * (inner.start[2] + z)] =
                inner.start[0] + span.start..inner.start[0] + span.end;
        }
        Self { shape, rows }
    }
}

/// Returns the shortest span that contains both.
pub(crate) fn hull(first: Range<usize>, second: Range<usize>) -> Range<usize> {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        _ => first.start.min(second.start)..first.end.max(second.end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn placed_spans_cover_the_same_voxels_of_the_larger_box() {
        let mask = sparse_mask(4);
        let inner = Region { start: [2, 1, 3], shape: mask.shape() };
        let mut larger = Array3::filled([0, 1, 2].map(|k| mask.shape()[k] + 5), 0u8);
        larger.paste(inner.start, &mask);
        let set = |&value: &u8| value != 0;
        assert_eq!(RowSpans::of(&mask, set).placed(inner, larger.shape()), RowSpans::of(&larger, set));
    }

    /// Returns a box with few voxels set.
    fn sparse_mask(seed: u64) -> Array3<u8> {
        let mut random = Key::root(seed).stream("spans");
        Array3::from_fn([11, 7, 6], |_| u8::from(random.chance(0.02)))
    }

    #[test]
    fn grown_spans_contain_all_voxels_within_reach() {
        for seed in 0..50 {
            let mask = sparse_mask(seed);
            let spans = RowSpans::of(&mask, |&value| value != 0);
            let reach = [2, 1, 3];
            let grown = spans.grown(reach);
            for z in 0..6 {
                for y in 0..7 {
                    for x in 0..11 {
                        let near = Region { start: [x, y, z], shape: [1; 3] }.grown(reach, mask.shape());
                        let is_near = mask.cut(near).as_slice().iter().any(|&value| value != 0);
                        assert!(!is_near || grown.row(y, z).contains(&x), "seed {seed}");
                        assert!(mask[[x, y, z]] == 0 || spans.row(y, z).contains(&x), "seed {seed}");
                    }
                    // Spans are tight.
                    let row = spans.row(y, z);
                    assert!(row.is_empty() || (mask[[row.start, y, z]] != 0 && mask[[row.end - 1, y, z]] != 0));
                }
            }
        }
    }

    #[test]
    fn extent_equals_bounding_box_of_values_within_spans() {
        for seed in 0..50 {
            let mask = sparse_mask(seed);
            let all = RowSpans::of(&mask, |&value| value != 0);
            assert_eq!(all.extent(&mask, |&value| value != 0), mask.extent(|&value| value != 0), "seed {seed}");
            let rows = all.rows.iter().enumerate().map(|(row, span)| if row % 2 == 0 { span.clone() } else { 0..0 });
            let some = RowSpans::new(mask.shape(), rows.collect());
            let left = Array3::from_fn(mask.shape(), |[x, y, z]| mask[[x, y, z]] * u8::from((y + 7 * z) % 2 == 0));
            assert_eq!(some.extent(&mask, |&value| value != 0), left.extent(|&value| value != 0), "seed {seed}");
        }
    }

    #[test]
    fn empty_spans_stay_empty_when_grown() {
        let empty = RowSpans::of(&Array3::filled([5, 4, 3], 0u8), |&value| value != 0);
        assert_eq!(empty.grown([2; 3]).rows().count(), 0);
        assert_eq!(RowSpans::of(&Array3::filled([0, 4, 3], 0u8), |_| true).rows().count(), 0);
    }
}
