//! Scans that another stack of slices continues by one step: pieces of one scan that an element separates by mistake.

use super::extent::are_one_study;
use super::geometry::EvenStack;
use super::series::Series;
use super::slice::Slice;
use super::stack::{pose, poses};
use crate::error::{Fault, FaultKind};

/// Marks scans that other slices of the same patient and frame of reference continue exactly by one step, and that no setting separates
/// from these slices: the scan looks complete without them.
///
/// Returns the ids of the scans of one patient of which one continues the other, although their identifiers or settings differ.
pub(super) fn mark_continued(series: &mut [Series]) -> Vec<[String; 2]> {
    let (mut faults, mut adjoining) = (Vec::new(), Vec::new());
    for (index, scan) in series.iter().enumerate() {
        let is_whole = scan.stack.fault.is_none() && scan.stack.slices.iter().all(|slice| !slice.localizer);
        let poses = poses(&scan.stack);
        let (true, Some(first), Ok(stack)) = (is_whole, scan.stack.slices.first(), EvenStack::of(&poses)) else {
            continue;
        };
        let others = || series.iter().enumerate().filter(|(other, _)| *other != index);
        let fault = others().find_map(|(_, other)| continuation(first, &stack, other));
        let pairs = others().filter(|(other, series)| *other > index && adjoins(first, &stack, series));
        if fault.is_none() {
            adjoining.extend(pairs.map(|(_, other)| [scan.id.clone(), other.id.clone()]));
        }
        faults.extend(fault.map(|fault| (index, fault)));
    }
    for (index, fault) in faults {
        series[index].stack.fault = Some(fault);
    }
    adjoining
}

/// Returns whether another scan of the same patient continues a scan by one step.
fn adjoins(first: &Slice, scan: &EvenStack, other: &Series) -> bool {
    let poses = poses(&other.stack);
    let is_one_patient =
        other.stack.slices.first().is_some_and(|slice| slice.keys.identity.patient == first.keys.identity.patient);
    is_one_patient
        && other.stack.is_even()
        && poses.iter().any(|pose| scan.is_adjacent_slice(pose))
        && !poses.iter().any(|pose| scan.overlaps(pose))
}

/// Returns the fault of a scan that another stack continues.
fn continuation(first: &Slice, scan: &EvenStack, other: &Series) -> Option<Fault> {
    let slices = &other.stack.slices;
    let other_first = slices.first()?;
    let poses = poses(&other.stack);
    if !are_one_study(&first.keys, &other_first.keys)
        || first.keys.differ_in_setting(&other_first.keys)
        || first.keys.differ_in_series_number(&other_first.keys)
        || poses.iter().any(|pose| scan.overlaps(pose))
    {
        return None;
    }
    let is_piece = |slice: &&Slice| {
        let Some(pose) = pose(slice) else { return false };
        let is_other_kind = slice.series == first.series && !slice.localizer;
        scan.is_adjacent_slice(pose) || (is_other_kind && scan.is_adjacent_plane(pose))
    };
    slices.iter().any(|slice| is_piece(&slice)).then(|| {
        let (count, expected) = (slices.len(), "exclude these slices if they do not belong to the scan");
        let message = match other_first.series == first.series {
            true => format!(
                "{} of another orientation, matrix or image type one step beyond the last slice: expected slices of one kind in a scan, {expected}",
                if count == 1 { "a slice is".to_owned() } else { format!("{count} slices are") },
            ),
            false => format!(
                "{} one step beyond the last slice: expected the slices of a scan to share their SeriesInstanceUID, {expected}",
                if count == 1 { "a slice of another series is".to_owned() } else { format!("{count} slices of another series are") },
            ),
        };
        Fault::read(FaultKind::Missing, message)
    })
}
