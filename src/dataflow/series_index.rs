//! Series that are part of another series: all slices of one scan are consecutive slices of another one.
//!
//! An archive may contain the upper half of an examination as a separate scan. Its content digest differs, so that both scans are
//! processed, and a tumor may be in both. The index compares the hashes of slices of the scans of one run: 8 bytes for each slice, within a
//! bound.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::id::ScanId;
use crate::ingest::{Scan, SliceHashes, slice_hashes};

/// Maximum number of slices in an index: 32 MiB. Earlier scans are removed first.
const MAX_SLICES: usize = 4 << 20;

/// A scan whose slices are consecutive slices of another scan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PartOfScan {
    /// The scan that is a part.
    pub part: ScanId,
    /// The scan that has all slices of the part.
    pub whole: ScanId,
    /// The number of slices of the part.
    pub slices: usize,
    /// The index of the first of them in the whole, from 0 for the most inferior slice.
    pub first_slice: usize,
}

/// The slices of the scans of a run.
#[derive(Debug)]
pub struct SeriesIndex {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    scans: VecDeque<(ScanId, SliceHashes)>,
    slices: usize,
    found: BTreeSet<PartOfScan>,
}

impl Default for SeriesIndex {
    fn default() -> Self {
        Self::with_limit(MAX_SLICES)
    }
}

impl SeriesIndex {
    /// Creates an index of at most this number of slices.
    pub fn with_limit(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Compares a scan with those of the index, and adds it.
    pub fn add(&self, scan: &Scan) {
        self.add_slices(scan.entry.scan_id, slice_hashes(&scan.volume));
    }

    fn add_slices(&self, scan_id: ScanId, own: SliceHashes) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { scans, slices, found } = &mut *state;
        let comparable = scans.iter().filter(|(id, other)| *id != scan_id && other.geometry == own.geometry);
        for (other_id, other) in comparable {
            let (part, whole) = match own.slices.len() < other.slices.len() {
                true => ((scan_id, &own.slices), (*other_id, &other.slices)),
                false => ((*other_id, &other.slices), (scan_id, &own.slices)),
            };
            if let Some(first_slice) = find(part.1, whole.1) {
                found.insert(PartOfScan { part: part.0, whole: whole.0, slices: part.1.len(), first_slice });
            }
        }
        *slices += own.slices.len();
        scans.push_back((scan_id, own));
        while *slices > self.limit
            && let Some((_, removed)) = scans.pop_front()
        {
            *slices -= removed.slices.len();
        }
    }

    /// Returns the parts of other scans that were found, sorted.
    pub fn found(&self) -> Vec<PartOfScan> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).found.iter().cloned().collect()
    }
}

/// Returns the index of the first slice of `part` in `whole`; `None` if `part` is not a shorter series of consecutive slices of `whole`, or
/// all its slices are equal, such as air.
fn find(part: &[u64], whole: &[u64]) -> Option<usize> {
    let is_uniform = part.iter().all(|slice| *slice == part[0]);
    if is_uniform || part.len() >= whole.len() {
        return None;
    }
    whole.windows(part.len()).position(|slices| slices == part)
}

/// Returns a warning about scans that are part of other scans, or `None` if there are none.
pub(super) fn parts_warning(parts: &[PartOfScan]) -> Option<String> {
    let first = parts.first()?;
    let (verb, are) = if parts.len() == 1 { ("scan is", "its") } else { ("scans are", "their") };
    let PartOfScan { part, whole, slices, first_slice } = first;
    Some(format!(
        "{} {verb} part of another scan: all slices of {part} are slices {first_slice} to {} of {whole}; leave one of them out, because {are} \
         voxels are in two scans",
        parts.len(),
        first_slice + slices - 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(byte: u8) -> ScanId {
        ScanId::from_bytes([byte; 8])
    }

    fn series(slices: &[u64]) -> SliceHashes {
        SliceHashes { geometry: 1, slices: slices.to_vec() }
    }

    #[test]
    fn contained_series_is_found_in_any_scan_order() {
        let whole = series(&[1, 2, 3, 4, 5]);
        for part_is_first in [false, true] {
            let index = SeriesIndex::default();
            let mut scans = vec![(scan(1), whole.clone()), (scan(2), series(&[3, 4]))];
            if part_is_first {
                scans.reverse();
            }
            scans.into_iter().for_each(|(id, slices)| index.add_slices(id, slices));
            let expected = PartOfScan { part: scan(2), whole: scan(1), slices: 2, first_slice: 2 };
            assert_eq!(index.found(), [expected]);
            assert!(parts_warning(&index.found()).unwrap().contains("slices 2 to 3"));
        }
        assert_eq!(parts_warning(&[]), None);
    }

    #[test]
    fn other_series_are_not_parts() {
        let index = SeriesIndex::default();
        index.add_slices(scan(1), series(&[1, 2, 3, 0, 0]));
        let others = [&[1, 3][..], &[2, 1], &[0, 0], &[1, 2, 3, 0, 0], &[5, 1, 2, 3]];
        for (slices, id) in others.into_iter().zip(2..) {
            index.add_slices(scan(id), series(slices));
        }
        index.add_slices(scan(1), series(&[2, 3]));
        index.add_slices(scan(99), SliceHashes { geometry: 2, slices: vec![1, 2] });
        let found: Vec<_> = index.found().into_iter().filter(|found| found.whole == scan(1)).collect();
        assert_eq!(found, []);
    }

    #[test]
    fn memory_is_bounded_by_removal_of_earlier_scans() {
        let index = SeriesIndex::with_limit(6);
        index.add_slices(scan(1), series(&[1, 2, 3, 4]));
        index.add_slices(scan(2), series(&[6, 7, 8]));
        index.add_slices(scan(3), series(&[2, 3]));
        assert_eq!(index.found(), []);
        assert!(index.state.lock().unwrap().slices <= 6);
    }
}
