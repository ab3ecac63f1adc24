//! Sets of voxels as bit sets, with dilation and closing by a ball.

use crate::volume::{Components, Connectivity};

/// A set of voxels. A row along x is a whole number of 64-bit words; bits past its end are 0.
#[derive(Clone, Debug, PartialEq)]
pub struct BitVolume {
    shape: [usize; 3],
    words: usize,
    bits: Vec<u64>,
}

impl BitVolume {
    /// Creates an empty set of voxels for a volume of this shape.
    pub fn empty(shape: [usize; 3]) -> Self {
        let words = shape[0].div_ceil(64);
        Self { shape, words, bits: vec![0; words * shape[1] * shape[2]] }
    }

    /// Creates the set of voxels for which `inside` returns true.
    pub fn from_fn(shape: [usize; 3], mut inside: impl FnMut([usize; 3]) -> bool) -> Self {
        let mut set = Self::empty(shape);
        for z in 0..shape[2] {
            for y in 0..shape[1] {
                for (w, word) in set.row_mut(y, z).iter_mut().enumerate() {
                    let end = (shape[0] - 64 * w).min(64);
                    *word = (0..end).fold(0, |word, bit| word | u64::from(inside([64 * w + bit, y, z])) << bit);
                }
            }
        }
        set
    }

    /// Returns the number of voxels of the volume along [x, y, z].
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Returns the number of voxels in the set.
    pub fn count(&self) -> usize {
        self.bits.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Returns whether a voxel is in the set.
    #[inline]
    pub fn contains(&self, [x, y, z]: [usize; 3]) -> bool {
        self.row(y, z)[x / 64] >> (x % 64) & 1 == 1
    }

    /// Returns the words of a row.
    #[inline]
    pub fn row(&self, y: usize, z: usize) -> &[u64] {
        let start = self.words * (y + self.shape[1] * z);
        &self.bits[start..start + self.words]
    }

    /// Returns the words of a row for writing; bits past the end of the row must stay 0.
    #[inline]
    fn row_mut(&mut self, y: usize, z: usize) -> &mut [u64] {
        let start = self.words * (y + self.shape[1] * z);
        &mut self.bits[start..start + self.words]
    }

    /// Adds the voxels `from..to` of a row.
    pub fn insert_run(&mut self, y: usize, z: usize, from: usize, to: usize) {
        self.for_each_word_of_run(y, z, from, to, |word, mask| *word |= mask);
    }

    /// Removes the voxels `from..to` of a row.
    pub fn remove_run(&mut self, y: usize, z: usize, from: usize, to: usize) {
        self.for_each_word_of_run(y, z, from, to, |word, mask| *word &= !mask);
    }

    fn for_each_word_of_run(&mut self, y: usize, z: usize, from: usize, to: usize, change: impl Fn(&mut u64, u64)) {
        for (w, word) in self.row_mut(y, z).iter_mut().enumerate() {
            change(word, mask_of(w, from, to));
        }
    }

    /// Returns whether any voxel of `from..to` of a row is in the set.
    pub fn intersects_run(&self, y: usize, z: usize, from: usize, to: usize) -> bool {
        self.row(y, z).iter().enumerate().any(|(w, word)| word & mask_of(w, from, to) != 0)
    }

    /// Returns the runs of voxels in a row, as the first and one past the last.
    pub fn runs(&self, y: usize, z: usize) -> impl Iterator<Item = [usize; 2]> {
        let row = self.row(y, z);
        let end = 64 * row.len();
        // Finds the next bit with `value` at or after `from`.
        let next = move |from: usize, value: bool| {
            let mut at = from;
            while at < end {
                let word = if value { row[at / 64] } else { !row[at / 64] } >> (at % 64);
                if word != 0 {
                    return at + word.trailing_zeros() as usize;
                }
                at = (at / 64 + 1) * 64;
            }
            end
        };
        let mut at = 0;
        std::iter::from_fn(move || {
            let from = next(at, true);
            at = next(from, false);
            (from < end).then_some([from, at])
        })
    }

    /// Returns the connected components of the set.
    ///
    /// # Panics
    /// Panics if the set has more than 65,535 voxels along x.
    pub fn components(&self, connectivity: Connectivity) -> Components {
        Components::new(self.shape, connectivity, |y, z| self.runs(y, z))
    }

    /// Adds all voxels of another set of the same shape.
    pub fn insert_all(&mut self, other: &Self) {
        assert_eq!(self.shape, other.shape, "expected sets of one volume");
        self.bits.iter_mut().zip(&other.bits).for_each(|(word, other)| *word |= other);
    }

    /// Returns the number of voxels in the intersection with another set of the same shape.
    ///
    /// ```
    /// use freetumor::mask::BitVolume;
    /// let first = BitVolume::from_fn([5, 2, 1], |[x, _, _]| x < 3);
    /// let second = BitVolume::from_fn([5, 2, 1], |[x, _, _]| x > 1);
    /// assert_eq!(first.common(&second), 2);
    /// ```
    pub fn common(&self, other: &Self) -> usize {
        assert_eq!(self.shape, other.shape, "expected sets of one volume");
        self.bits.iter().zip(&other.bits).map(|(word, other)| (word & other).count_ones() as usize).sum()
    }

    /// Returns the voxels that share a face with a voxel outside of the set; voxels beyond the volume are outside of the set.
    ///
    /// ```
    /// use freetumor::mask::BitVolume;
    /// let block = BitVolume::from_fn([5, 5, 5], |_| true);
    /// assert_eq!(block.surface().count(), 125 - 27);
    /// ```
    #[must_use]
    pub fn surface(&self) -> Self {
        let mut surface = self.core_in_plane();
        let [_, ny, nz] = self.shape;
        for z in 0..nz {
            for y in 0..ny {
                let own = self.row(y, z);
                let layers = (z > 0 && z + 1 < nz).then(|| (self.row(y, z - 1), self.row(y, z + 1)));
                for (w, word) in surface.row_mut(y, z).iter_mut().enumerate() {
                    let inner = layers.map_or(0, |(below, above)| *word & below[w] & above[w]);
                    *word = own[w] & !inner;
                }
            }
        }
        surface
    }

    /// Returns the voxels that are not in the set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut set = self.clone();
        let last = mask_of(self.words - 1, 0, self.shape[0]);
        for row in set.bits.chunks_exact_mut(self.words) {
            row.iter_mut().for_each(|word| *word = !*word);
            row[self.words - 1] &= last;
        }
        set
    }

    /// Returns the voxels whose four neighbours along x and y are in the set; voxels at the border are excluded.
    #[must_use]
    pub fn core_in_plane(&self) -> Self {
        let mut core = Self::empty(self.shape);
        for z in 0..self.shape[2] {
            for y in 1..self.shape[1].saturating_sub(1) {
                let (row, below, above) = (self.row(y, z), self.row(y - 1, z), self.row(y + 1, z));
                let own = core.row_mut(y, z);
                for w in 0..row.len() {
                    let left = row[w] << 1 | if w > 0 { row[w - 1] >> 63 } else { 0 };
                    let right = row[w] >> 1 | row.get(w + 1).map_or(0, |next| next << 63);
                    own[w] = row[w] & left & right & below[w] & above[w];
                }
            }
        }
        core
    }

    /// Returns all voxels within `radius_mm` of the set.
    ///
    /// Every row is widened once for each half-width of the ball and written to the rows within the radius: whole
    /// words at a time; empty rows are skipped.
    #[must_use]
    pub fn dilated(&self, radius_mm: f64, spacing_mm: [f64; 3]) -> Self {
        let [rx, ry, rz] = spacing_mm.map(|mm| (radius_mm / mm).floor() as isize);
        let mut chords = Vec::new();
        for dz in -rz..=rz {
            for dy in -ry..=ry {
                let square =
                    radius_mm.powi(2) - (dy as f64 * spacing_mm[1]).powi(2) - (dz as f64 * spacing_mm[2]).powi(2);
                if square >= 0.0 {
                    chords.push((dy, dz, (square.sqrt() / spacing_mm[0]).floor() as usize));
                }
            }
        }
        let mut grown = Self::empty(self.shape);
        let last = mask_of(self.words - 1, 0, self.shape[0]);
        let mut widened = vec![vec![0u64; self.words]; rx as usize + 1];
        for z in 0..self.shape[2] {
            for y in 0..self.shape[1] {
                let row = self.row(y, z);
                if row.iter().all(|word| *word == 0) {
                    continue;
                }
                widened[0].copy_from_slice(row);
                for step in 1..widened.len() {
                    let (narrow, wide) = widened.split_at_mut(step);
                    widen(&narrow[step - 1], &mut wide[0], last);
                }
                for &(dy, dz, half) in &chords {
                    let (y, z) = (y.wrapping_add_signed(dy), z.wrapping_add_signed(dz));
                    if y < self.shape[1] && z < self.shape[2] {
                        let target = grown.row_mut(y, z);
                        target.iter_mut().zip(&widened[half]).for_each(|(word, wide)| *word |= wide);
                    }
                }
            }
        }
        grown
    }

    /// Returns the morphological closing of the set by a ball of `radius_mm`. Voxels beyond the volume count as
    /// part of the set, so that no voxel at the border is removed.
    #[must_use]
    pub fn closed(&self, radius_mm: f64, spacing_mm: [f64; 3]) -> Self {
        self.dilated(radius_mm, spacing_mm).complement().dilated(radius_mm, spacing_mm).complement()
    }
}

/// Returns the bits of word `w` that belong to the voxels `from..to`.
fn mask_of(w: usize, from: usize, to: usize) -> u64 {
    let (low, high) = (from.max(64 * w), to.min(64 * w + 64));
    if low >= high {
        return 0;
    }
    (u64::MAX >> (64 - (high - low))) << (low - 64 * w)
}

/// Writes the row, widened by one voxel on both sides, to `wide`.
fn widen(row: &[u64], wide: &mut [u64], last: u64) {
    for w in 0..row.len() {
        let left = row[w] << 1 | if w > 0 { row[w - 1] >> 63 } else { 0 };
        let right = row[w] >> 1 | row.get(w + 1).map_or(0, |next| next << 63);
        wide[w] = row[w] | left | right;
    }
    if let Some(end) = wide.last_mut() {
        *end &= last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use proptest::prelude::*;

    fn speckles(shape: [usize; 3], share: f64, seed: u64) -> BitVolume {
        let mut random = Key::root(seed).stream("speckles");
        BitVolume::from_fn(shape, |_| random.chance(share))
    }

    fn near(set: &BitVolume, [x, y, z]: [usize; 3], radius_mm: f64, spacing_mm: [f64; 3]) -> bool {
        let [nx, ny, nz] = set.shape();
        (0..nx * ny * nz).map(|i| [i % nx, i / nx % ny, i / (nx * ny)]).filter(|v| set.contains(*v)).any(|v| {
            let d = [v[0].abs_diff(x), v[1].abs_diff(y), v[2].abs_diff(z)];
            (0..3).map(|a| (d[a] as f64 * spacing_mm[a]).powi(2)).sum::<f64>() <= radius_mm.powi(2)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn dilation_equals_reference(seed in any::<u64>(), nx in 60usize..72, radius in 0.0f64..5.0) {
            let spacing_mm = [0.9, 1.1, 2.0];
            let set = speckles([nx, 6, 5], 0.01, seed);
            let grown = set.dilated(radius, spacing_mm);
            let expected = BitVolume::from_fn(set.shape(), |voxel| near(&set, voxel, radius, spacing_mm));
            prop_assert_eq!(grown, expected);
        }

        #[test]
        fn runs_rebuild_the_set(seed in any::<u64>(), nx in 1usize..200, share in 0.0f64..1.0) {
            let set = speckles([nx, 3, 2], share, seed);
            let mut rebuilt = BitVolume::empty(set.shape());
            let mut holes = set.complement();
            for (y, z) in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)] {
                for [from, to] in set.runs(y, z) {
                    prop_assert!(from < to && to <= nx);
                    prop_assert!(!rebuilt.intersects_run(y, z, from.saturating_sub(1), to));
                    rebuilt.insert_run(y, z, from, to);
                    holes.insert_run(y, z, from, to);
                }
            }
            prop_assert_eq!(holes.count(), nx * 6);
            prop_assert_eq!(rebuilt, set);
        }
    }

    #[test]
    fn closing_fills_gaps_and_keeps_set() {
        let slab = BitVolume::from_fn([70, 12, 12], |[x, y, _]| y < 5 && !(30..33).contains(&x));
        let closed = slab.closed(2.0, [1.0; 3]);
        assert!(closed.contains([31, 2, 6]) && !closed.contains([31, 8, 6]));
        let mut union = closed.clone();
        union.insert_all(&slab);
        assert_eq!(union, closed);
        assert!(!slab.closed(1.0, [1.0; 3]).contains([31, 2, 6]));
    }

    #[test]
    fn surface_equals_reference() {
        let set = speckles([70, 6, 5], 0.9, 8);
        let outside = |[x, y, z]: [isize; 3]| {
            let within = (0..70).contains(&x) && (0..6).contains(&y) && (0..5).contains(&z);
            !within || !set.contains([x as usize, y as usize, z as usize])
        };
        let expected = BitVolume::from_fn(set.shape(), |voxel| {
            let [x, y, z] = voxel.map(|i| i as isize);
            set.contains(voxel)
                && [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
                    .iter()
                    .any(|[i, j, k]| outside([x + i, y + j, z + k]) || outside([x - i, y - j, z - k]))
        });
        assert!(expected.count() < set.count());
        assert_eq!(set.surface(), expected);
    }

    #[test]
    fn core_in_plane_equals_reference() {
        let set = speckles([130, 7, 2], 0.8, 5);
        let expected = BitVolume::from_fn(set.shape(), |[x, y, z]| {
            (1..129).contains(&x)
                && (1..6).contains(&y)
                && [[x, y], [x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]]
                    .iter()
                    .all(|&[x, y]| set.contains([x, y, z]))
        });
        assert_eq!(set.core_in_plane(), expected);
    }
}
