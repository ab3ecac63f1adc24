//! Separation of the slices of one series into stacks: one for each orientation, patient, matrix, acquisition and reconstruction.
//!
//! Series identifiers do not separate scans: one series may contain two contrast phases, two patients, and slices that were sent twice.
//! Copies of a slice are recognized by their pixels, never by identifiers.

use std::collections::BTreeMap;

use super::acquisitions::separate_acquisitions;
use super::copies::SliceComparison;
use super::decoder::Decoder;
use super::geometry::{self, FEWEST_SLICES};
use super::keys::Identity;
use super::slice::Slice;
use super::stack::{Stack, pose};
use crate::error::{Fault, FaultKind};

/// Slices with a larger difference in a direction cosine belong to different stacks.
const SAME_ORIENTATION: f64 = 0.01;

/// Separates slices with valid headers into stacks.
pub(super) fn separate(slices: Vec<Slice>, decoder: &Decoder) -> Vec<Stack> {
    let mut groups: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        let parallel = groups.iter_mut().find(|group| is_parallel(&group[0], &slice));
        match parallel {
            Some(group) => group.push(slice),
            None => groups.push(vec![slice]),
        }
    }
    let is_scan = |group: &&Vec<Slice>| group.len() >= FEWEST_SLICES && !group[0].localizer;
    let separated_by = match groups.iter().filter(is_scan).count() {
        0 | 1 => Vec::new(),
        _ => vec!["ImageOrientationPatient"],
    };
    let mut all = Vec::new();
    for group in groups {
        let mut stacks = Vec::new();
        let (patients, others) = by_identity(group);
        let has_several = patients.len() > 1 || others.is_some();
        stacks.extend(others.map(|others| Stack { separated_by: separated_by.clone(), ..others }));
        for (group, by_patient) in patients {
            for (group, by_matrix) in by_matrix(group) {
                for mut stack in separate_acquisitions(group, decoder) {
                    let outer = separated_by.iter().copied().chain(by_patient).chain(by_matrix);
                    stack.separated_by = outer.chain(stack.separated_by).collect();
                    stacks.push(stack);
                }
            }
        }
        all.extend(if has_several { without_copied_stacks(stacks, decoder) } else { stacks });
    }
    all
}

/// Returns whether two slices are both localizers or both not, and parallel.
fn is_parallel(first: &Slice, slice: &Slice) -> bool {
    let (Some(a), Some(b)) = (pose(first), pose(slice)) else { return false };
    first.localizer == slice.localizer && a.is_parallel_to(b, SAME_ORIENTATION)
}

/// A part of a group, and the name of the element that separates it from the other parts.
type NamedPart = (Vec<Slice>, Option<&'static str>);

/// Splits a group by patient, study and frame of reference, which are equal in all slices of a scan. Parts that are too small for a scan
/// are returned as one stack with a fault: a slice of another patient is an error of the archive, or a damaged identifier.
fn by_identity(group: Vec<Slice>) -> (Vec<NamedPart>, Option<Stack>) {
    let used = used_identity(&group);
    let identity = |slice: &Slice| {
        let Identity { patient, study, frame } = slice.keys.identity;
        [Some(patient), used[0].then_some(study), used[1].then_some(frame)]
    };
    let parts = parts_by(&group, identity);
    if parts.len() == 1 || group.len() < FEWEST_SLICES {
        return (vec![(group, None)], None);
    }
    let names = ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"];
    let first = identity(&group[0]);
    let differs = |index: &usize| group.iter().any(|slice| identity(slice)[*index] != first[*index]);
    let name = (0..names.len()).find(differs).map(|index| names[index]);
    let (scans, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.len() >= FEWEST_SLICES);
    let others = others.concat();
    let stack = (!others.is_empty()).then(|| {
        let message = format!(
            "expected one {} per series, got {} of {} slices with another one: exclude these slices, or restore their identifiers",
            name.unwrap_or("PatientID"),
            others.len(),
            group.len()
        );
        Stack { slices: others, fault: Some(Fault::read(FaultKind::Mismatch, message)), ..Stack::default() }
    });
    (scans.into_iter().map(|part| (part, name)).collect(), stack)
}

/// Merges stacks of which every slice is a copy of a slice of another stack of the same patient: a series that was sent again under other
/// identifiers.
fn without_copied_stacks(mut stacks: Vec<Stack>, decoder: &Decoder) -> Vec<Stack> {
    stacks.sort_by_key(|stack| std::cmp::Reverse(stack.slices.len()));
    let mut kept: Vec<Stack> = Vec::new();
    for stack in stacks {
        match kept.iter_mut().find(|other| is_copy(&stack, other, decoder)) {
            Some(original) => original.copies.extend(stack.slices.into_iter().chain(stack.copies)),
            None => kept.push(stack),
        }
    }
    kept
}

/// Returns whether every slice of a stack is a copy of a slice of another one. Slices whose pixels cannot be read are not copies.
fn is_copy(stack: &Stack, other: &Stack, decoder: &Decoder) -> bool {
    let patient = |stack: &Stack| stack.slices.first().map(|slice| slice.keys.identity.patient);
    let slices: Vec<Slice> = stack.slices.iter().chain(&other.slices).cloned().collect();
    let (own, others) = (0..stack.slices.len(), stack.slices.len()..slices.len());
    let mut comparison = SliceComparison::new(&slices, decoder);
    let mut has_original =
        |slice: usize| others.clone().any(|other| comparison.are_copies(slice, other).unwrap_or(false));
    patient(stack) == patient(other) && own.into_iter().all(&mut has_original)
}

/// Returns whether the identifiers of study and frame of reference identify anything: programs that replace identifiers one by one write
/// another one into each slice.
fn used_identity(group: &[Slice]) -> [bool; 2] {
    let is_used = |identifier: fn(&Identity) -> u64| {
        let parts = parts_by(group, |slice| identifier(&slice.keys.identity));
        parts.iter().any(|part| part.len() >= FEWEST_SLICES)
    };
    [is_used(|identity| identity.study), is_used(|identity| identity.frame)]
}

/// Splits a group by shape and pixel spacing: reconstructions with different matrices are separate scans, but a single deviating slice is a
/// fault.
fn by_matrix(group: Vec<Slice>) -> Vec<NamedPart> {
    let is_same = |a: &Slice, b: &Slice| match (pose(a), pose(b)) {
        (Some(a), Some(b)) => a.shape == b.shape && geometry::have_same_spacing(a, b),
        _ => false,
    };
    let mut parts: Vec<Vec<Slice>> = Vec::new();
    for slice in &group {
        match parts.iter_mut().find(|part| is_same(&part[0], slice)) {
            Some(part) => part.push(slice.clone()),
            None => parts.push(vec![slice.clone()]),
        }
    }
    if parts.len() == 1 || parts.iter().any(|part| part.len() < FEWEST_SLICES) {
        return vec![(group, None)];
    }
    parts.into_iter().map(|part| (part, Some("Rows, Columns and PixelSpacing"))).collect()
}

/// Returns the slices with each value of a key, in the order of the values.
fn parts_by<K: Ord>(group: &[Slice], key: impl Fn(&Slice) -> K) -> Vec<Vec<Slice>> {
    let mut parts: BTreeMap<K, Vec<Slice>> = BTreeMap::new();
    for slice in group {
        parts.entry(key(slice)).or_default().push(slice.clone());
    }
    parts.into_values().collect()
}
