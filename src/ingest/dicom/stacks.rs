//! Separation of the slices of one series into stacks: one for each orientation, matrix, acquisition and reconstruction.
//!
//! Series identifiers do not separate scans: one series may contain two contrast phases, and slices that were sent twice. What is a copy is
//! decided by the stored pixels, never by identifiers.

use std::collections::BTreeMap;

use super::geometry::{self, FEWEST_SLICES, SAME_POSITION_MM, SlicePose};
use super::slice::{ACQUISITION_KEYS, Slice};
use crate::error::{Fault, FaultKind};

/// Slices with a larger difference in a direction cosine belong to different stacks.
const SAME_ORIENTATION: f64 = 0.01;

/// The slices of one scan, all with a valid header.
#[derive(Clone, Default)]
pub(super) struct Stack {
    pub slices: Vec<Slice>,
    /// Further files with the same content as one of the slices.
    pub copies: Vec<Slice>,
    /// Whether other stacks of the same series overlap this one. Such a stack is a scan even if it has too few slices.
    pub is_part: bool,
    /// The fault of a stack that contains several acquisitions which nothing separates.
    pub fault: Option<Fault>,
}

/// Separates slices with valid headers into stacks.
pub(super) fn separate(slices: Vec<Slice>) -> Vec<Stack> {
    let mut groups: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        let parallel = groups.iter_mut().find(|group| is_parallel(&group[0], &slice));
        match parallel {
            Some(group) => group.push(slice),
            None => groups.push(vec![slice]),
        }
    }
    groups.into_iter().flat_map(by_shape).flat_map(by_content).collect()
}

fn pose(slice: &Slice) -> Option<&SlicePose> {
    slice.image.as_ref().ok().map(|image| &image.pose)
}

/// Returns whether two slices are both localizers or both not, and parallel.
fn is_parallel(first: &Slice, slice: &Slice) -> bool {
    let (Some(a), Some(b)) = (pose(first), pose(slice)) else { return false };
    first.localizer == slice.localizer && a.is_parallel_to(b, SAME_ORIENTATION)
}

/// Splits a group by shape: reconstructions with different matrices are separate scans, but a single deviating slice is a fault.
fn by_shape(group: Vec<Slice>) -> Vec<Vec<Slice>> {
    let parts = parts_by(&group, |slice| pose(slice).map(|pose| pose.shape));
    if parts.iter().any(|part| part.len() < FEWEST_SLICES) { vec![group] } else { parts }
}

/// Removes copies of slices, and separates acquisitions.
fn by_content(group: Vec<Slice>) -> Vec<Stack> {
    let (slices, copies, fault) = without_copies(group);
    let mut stacks: Vec<Stack> = match fault {
        Some(_) => vec![Stack { slices, fault, ..Stack::default() }],
        None => by_acquisition(slices, 0)
            .into_iter()
            .map(|(slices, is_part)| Stack { fault: repeated_numbers(&slices), slices, is_part, ..Stack::default() })
            .collect(),
    };
    if let Some(first) = stacks.first_mut() {
        first.copies = copies;
    }
    stacks
}

/// Separates the first of several files with the same content from its copies; the fault is that of pixels that cannot be read.
fn without_copies(mut group: Vec<Slice>) -> (Vec<Slice>, Vec<Slice>, Option<Fault>) {
    let Some(normal) = group.first().and_then(pose).map(SlicePose::normal) else { return (group, Vec::new(), None) };
    let along = |slice: &Slice| pose(slice).map_or(0.0, |pose| geometry::dot(pose.position_mm, normal));
    group.sort_by(|a, b| along(a).total_cmp(&along(b)).then_with(|| a.path.cmp(&b.path)));
    let (mut slices, mut copies): (Vec<Slice>, Vec<Slice>) = (Vec::new(), Vec::new());
    for slice in group {
        let near = slices.iter().rev().take_while(|kept| along(&slice) - along(kept) <= SAME_POSITION_MM);
        let is_copy = near.map(|kept| is_copy(&slice, kept)).find(|outcome| *outcome != Ok(false)).unwrap_or(Ok(false));
        match is_copy {
            Ok(true) => copies.push(slice),
            Ok(false) => slices.push(slice),
            Err(fault) => return (slices, copies, Some(fault)),
        }
    }
    (slices, copies, None)
}

fn is_copy(slice: &Slice, kept: &Slice) -> Result<bool, Fault> {
    match (&slice.image, &kept.image) {
        (Ok(a), Ok(b)) if slice.acquisition == kept.acquisition => a.is_copy_of(&slice.path, b, &kept.path),
        _ => Ok(false),
    }
}

/// Splits slices by the first element, from `key` on, whose values separate overlapping acquisitions; otherwise by the order of their
/// numbers. Returns each part, and whether it is one of several.
///
/// Acquisitions that do not overlap are one scan: some scanners count an acquisition for every rotation, or for every slice.
fn by_acquisition(group: Vec<Slice>, key: usize) -> Vec<(Vec<Slice>, bool)> {
    for key in key..ACQUISITION_KEYS {
        let parts = parts_by(&group, |slice| slice.acquisition[key]);
        if overlap(&parts) {
            let parts = parts.into_iter().flat_map(|part| by_acquisition(part, key + 1));
            return parts.map(|(part, _)| (part, true)).collect();
        }
    }
    let runs = runs_by_number(&group);
    let separable = runs.iter().all(|run| run.len() >= FEWEST_SLICES) && overlap(&runs);
    if separable { runs.into_iter().map(|run| (run, true)).collect() } else { vec![(group, false)] }
}

/// Returns the slices with each value of a key, in the order of the values.
fn parts_by<K: Ord>(group: &[Slice], key: impl Fn(&Slice) -> K) -> Vec<Vec<Slice>> {
    let mut parts: BTreeMap<K, Vec<Slice>> = BTreeMap::new();
    for slice in group {
        parts.entry(key(slice)).or_default().push(slice.clone());
    }
    parts.into_values().collect()
}

/// Returns whether two parts that are large enough for a volume overlap along the normal.
fn overlap(parts: &[Vec<Slice>]) -> bool {
    let Some(normal) = parts.first().and_then(|part| part.first()).and_then(pose).map(SlicePose::normal) else {
        return false;
    };
    let mut ranges: Vec<(f64, f64)> = parts
        .iter()
        .filter(|part| part.len() >= FEWEST_SLICES)
        .map(|part| {
            let along = part.iter().filter_map(pose).map(|pose| geometry::dot(pose.position_mm, normal));
            along.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), mm| (low.min(mm), high.max(mm)))
        })
        .collect();
    ranges.sort_by(|a, b| a.0.total_cmp(&b.0));
    ranges.windows(2).any(|pair| pair[1].0 - pair[0].1 <= SAME_POSITION_MM)
}

/// Returns the slices in the order of their instance numbers, split where the direction along the normal changes: two acquisitions that are
/// numbered one after the other are two runs, although their slices alternate.
fn runs_by_number(group: &[Slice]) -> Vec<Vec<Slice>> {
    let Some(normal) = group.first().and_then(pose).map(SlicePose::normal) else { return Vec::new() };
    let mut numbered: Vec<(i64, f64, &Slice)> = group
        .iter()
        .filter_map(|slice| Some((slice.number?, geometry::dot(pose(slice)?.position_mm, normal), slice)))
        .collect();
    if numbered.len() < group.len() {
        return Vec::new();
    }
    numbered.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut runs: Vec<Vec<Slice>> = Vec::new();
    let mut direction = None;
    let mut previous_mm = f64::NAN;
    for (_, mm, slice) in numbered {
        let step = mm > previous_mm;
        match runs.last_mut() {
            Some(run) if direction.is_none_or(|direction| direction == step) => {
                direction = Some(step);
                run.push(slice.clone());
            }
            _ => {
                direction = None;
                runs.push(vec![slice.clone()]);
            }
        }
        previous_mm = mm;
    }
    runs
}

/// Returns the fault of slices whose instance numbers all occur several times: acquisitions that are numbered alike.
fn repeated_numbers(slices: &[Slice]) -> Option<Fault> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for slice in slices {
        *counts.entry(slice.number?).or_default() += 1;
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
