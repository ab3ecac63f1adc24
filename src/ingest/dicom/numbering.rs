//! The instance numbers of slices: runs of acquisitions that are numbered one after the other.

use std::collections::{BTreeMap, BTreeSet};

use super::geometry::FEWEST_SLICES;
use crate::error::{Fault, FaultKind};

/// Maximum number of places at which the slices may be separated into runs.
const MAX_CUTS: usize = 64;
/// Maximum relative difference of two gaps within a run.
const SAME_GAP: f64 = 0.1;
/// Maximum number of acquisitions whose slices alternate.
const MAX_ALTERNATING: usize = 4;

/// A slice with its instance number and its position along the normal.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberedSlice {
    pub slice: usize,
    pub number: i64,
    pub along_mm: f64,
}

/// Splits slices in the order of their numbers into runs that each go in one direction and are an even stack, by `is_even`; `None` if there
/// is no such split, or a number occurs twice.
///
/// # Errors
/// Returns `geometry` if there are several such splits, and the faults of `is_even`.
pub(super) fn runs(
    mut slices: Vec<NumberedSlice>,
    mut is_even: impl FnMut(&[usize]) -> Result<bool, Fault>,
) -> Result<Option<Vec<Vec<usize>>>, Fault> {
    slices.sort_by_key(|slice| slice.number);
    let is_repeated = slices.windows(2).any(|pair| pair[0].number == pair[1].number);
    let cuts = cuts(&slices);
    if is_repeated || cuts.len() > MAX_CUTS {
        return Ok(None);
    }
    let ends: Vec<usize> = cuts.into_iter().chain([slices.len()]).collect();
    // The number of splits of the slices from each start on, and the first end of one of them; from the last start to the first.
    let mut splits: BTreeMap<usize, (usize, usize)> = BTreeMap::from([(slices.len(), (1, slices.len()))]);
    for &start in ends.iter().rev().skip(1).chain([&0]) {
        let (mut count, mut first_end) = (0usize, 0);
        for &end in ends.iter().filter(|end| **end >= start + FEWEST_SLICES) {
            let after = splits.get(&end).map_or(0, |(count, _)| *count);
            if after > 0 && is_run(&slices[start..end]) && is_even(&indices(&slices[start..end]))? {
                count = count.saturating_add(after);
                first_end = end;
            }
        }
        splits.insert(start, (count, first_end));
    }
    match splits[&0].0 {
        0 => Ok(None),
        1 => {
            let (mut runs, mut start) = (Vec::new(), 0);
            while start < slices.len() {
                let end = splits[&start].1;
                runs.push(indices(&slices[start..end]));
                start = end;
            }
            Ok(Some(runs))
        }
        count => {
            let message = format!(
                "the instance numbers separate the slices into acquisitions in {count} ways: expected one acquisition per series, or an element that separates them"
            );
            Err(Fault::read(FaultKind::Geometry, message))
        }
    }
}

fn indices(slices: &[NumberedSlice]) -> Vec<usize> {
    slices.iter().map(|slice| slice.slice).collect()
}

/// Returns the indices before which a run may end: where the distance to the following slice changes.
fn cuts(slices: &[NumberedSlice]) -> BTreeSet<usize> {
    let gaps: Vec<f64> = slices.windows(2).map(|pair| pair[1].along_mm - pair[0].along_mm).collect();
    let changes =
        (1..gaps.len()).filter(|&at| (gaps[at] - gaps[at - 1]).abs() > SAME_GAP * gaps[at - 1].abs().max(0.01));
    changes.flat_map(|at| [at, at + 1]).collect()
}

/// Returns whether the slices go in one direction.
fn is_run(slices: &[NumberedSlice]) -> bool {
    let is_ascending = |pair: &[NumberedSlice]| pair[1].along_mm > pair[0].along_mm;
    slices.windows(2).all(is_ascending) || slices.windows(2).all(|pair| pair[1].along_mm < pair[0].along_mm)
}

/// Returns whether the numbers of slices, in order of their position, only ascend or only descend.
pub(super) fn is_monotone(slices: &[NumberedSlice]) -> bool {
    let is_ascending = |pair: &[NumberedSlice]| pair[1].number > pair[0].number;
    slices.windows(2).all(is_ascending) || slices.windows(2).all(|pair| pair[1].number < pair[0].number)
}

/// Returns the fault of slices whose instance numbers all occur several times: acquisitions with the same numbers. Otherwise returns
/// `None`.
pub(super) fn repeated_numbers(slices: &[NumberedSlice]) -> Option<Fault> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for slice in slices {
        *counts.entry(slice.number).or_default() += 1;
    }
    let times = *counts.values().next()?;
    let repeated = times > 1 && counts.len() >= FEWEST_SLICES && counts.values().all(|&count| count == times);
    repeated.then(|| {
        let message = format!(
            "each instance number occurs {times} times: expected one acquisition per series, got several without an element that separates them"
        );
        Fault::read(FaultKind::Geometry, message)
    })
}

/// Returns the number of passes in which slices, in order of their position, are numbered, or `None` for one pass: every second one (or
/// third, or fourth) continues a numbering of its own. They are one scan that is numbered in several passes, or several acquisitions a part
/// of a step apart.
pub(super) fn interleaved_passes(slices: &[NumberedSlice]) -> Option<usize> {
    let distance = |at: usize, other: usize| slices[at].number.abs_diff(slices[other].number);
    let is_interleaved = |passes: &usize| {
        let ranks = 0..slices.len().saturating_sub(*passes);
        let close = ranks.clone().filter(|&at| distance(at, at + passes) < distance(at, at + 1)).count();
        let is_pass =
            |first: usize| is_monotone(&slices.iter().skip(first).step_by(*passes).copied().collect::<Vec<_>>());
        slices.len() >= passes * FEWEST_SLICES && 2 * close > ranks.len() && (0..*passes).all(is_pass)
    };
    (2..=MAX_ALTERNATING).find(is_interleaved)
}

/// Returns the fault of slices that are numbered in several passes.
pub(super) fn interleaved_fault(passes: usize) -> Fault {
    let message = format!(
        "the instance numbers run {passes} times through the slices, and elements or pixels do not show one acquisition: if they are one scan, remove InstanceNumber (0020,0013) from the files or number the slices in order of their position; if they are {passes} acquisitions, put each into a folder of its own, or read them by {passes} sources with `exclude`"
    );
    Fault::read(FaultKind::Geometry, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns slices with the numbers 1, 2, 3, … at these positions.
    fn numbered(along_mm: impl IntoIterator<Item = i32>) -> Vec<NumberedSlice> {
        let slices = along_mm.into_iter().enumerate();
        slices.map(|(slice, mm)| NumberedSlice { slice, number: slice as i64 + 1, along_mm: f64::from(mm) }).collect()
    }

    fn run_lengths(along_mm: impl IntoIterator<Item = i32>) -> Result<Option<Vec<usize>>, Fault> {
        let slices = numbered(along_mm);
        let positions: Vec<i32> = slices.iter().map(|slice| slice.along_mm as i32).collect();
        let is_even = |run: &[usize]| {
            let mut sorted: Vec<i32> = run.iter().map(|&slice| positions[slice]).collect();
            sorted.sort_unstable();
            Ok(sorted.windows(2).all(|pair| pair[1] - pair[0] == 2))
        };
        Ok(runs(slices, is_even)?.map(|runs| runs.iter().map(Vec::len).collect()))
    }

    #[test]
    fn acquisitions_numbered_one_after_the_other_are_runs_in_any_direction() {
        let (up, down) =
            (|from: i32| (0..6).map(move |z| from + 2 * z), |from: i32| (0..6).rev().map(move |z| from + 2 * z));
        assert_eq!(run_lengths(up(5).chain(up(7))), Ok(Some(vec![6, 6])));
        assert_eq!(run_lengths(up(5).chain(down(5))), Ok(Some(vec![6, 6])));
        assert_eq!(run_lengths(down(5).chain(up(9))), Ok(Some(vec![6, 6])));
        assert_eq!(run_lengths(up(5).chain(up(5)).chain(up(5))), Ok(Some(vec![6, 6, 6])));
        // The slice at 17 belongs to either run.
        assert!(run_lengths(up(5).chain(down(7))).unwrap_err().message.contains("in 2 ways"));
        assert_eq!(run_lengths([5, 7, 9, 9, 7, 11]), Ok(None));
    }

    #[test]
    fn passes_of_instance_numbers_are_counted() {
        let with_numbers = |numbers: &[i64]| {
            let slices = numbers.iter().enumerate();
            let slices: Vec<_> =
                slices.map(|(slice, &number)| NumberedSlice { slice, number, along_mm: slice as f64 }).collect();
            interleaved_passes(&slices)
        };
        assert_eq!(with_numbers(&[1, 7, 2, 8, 3, 9, 4, 10]), Some(2));
        assert_eq!(with_numbers(&[1, 7, 13, 2, 8, 14, 3, 9, 15, 4, 10, 16]), Some(3));
        assert_eq!(with_numbers(&[1, 2, 3, 4, 9, 10, 11, 12, 5, 6, 7, 8]), None);
        assert_eq!(with_numbers(&[8, 7, 6, 5, 4, 3, 2, 1]), None);
        assert_eq!(with_numbers(&[2, 1, 4, 3, 6, 5, 8, 7]), None);
    }
}
