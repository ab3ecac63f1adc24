//! Place and identity of a series, to find its continuation in another folder.

use super::geometry::{EvenStack, SlicePose, dot};
use super::keys::SliceKeys;
use super::stack::{Stack, poses};

/// Place and identity of the slices of a series.
#[derive(Clone)]
pub struct SeriesExtent {
    identifier: [u8; 32],
    keys: SliceKeys,
    /// The even stack, if the slices are one.
    stack: Option<EvenStack>,
    /// The slices at both ends.
    ends: Vec<SlicePose>,
}

impl SeriesExtent {
    /// Returns the extent of a stack, or `None` if it has no readable slice, consists of localizers, or has no series identifier.
    pub(super) fn of(stack: &Stack) -> Option<Self> {
        let first = stack.slices.first().filter(|slice| !slice.localizer)?;
        let poses = poses(stack);
        let normal = poses.first()?.normal();
        let along = |pose: &SlicePose| dot(pose.position_mm, normal);
        let low = poses.iter().min_by(|a, b| along(a).total_cmp(&along(b)))?;
        let high = poses.iter().max_by(|a, b| along(a).total_cmp(&along(b)))?;
        Some(Self {
            identifier: first.series?,
            keys: first.keys,
            stack: EvenStack::of(&poses).ok(),
            ends: vec![*low, *high],
        })
    }

    /// Returns whether both have one series identifier and one patient, and one continues the other by one step.
    pub fn adjoins(&self, other: &Self) -> bool {
        let continues = |scan: &Self, piece: &Self| {
            scan.stack.as_ref().is_some_and(|stack| piece.ends.iter().any(|pose| stack.is_adjacent_slice(pose)))
        };
        self.identifier == other.identifier
            && self.keys.identity.patient == other.keys.identity.patient
            && (continues(self, other) || continues(other, self))
    }

    /// Returns a hash of the series identifier.
    pub fn identifier(&self) -> [u8; 32] {
        self.identifier
    }
}

/// Returns whether slices are of one patient, and in one study and frame of reference as far as both state it.
pub(super) fn are_one_study(a: &SliceKeys, b: &SliceKeys) -> bool {
    let (a, b) = (a.identity, b.identity);
    let agree = |a: u64, b: u64| a == b || a == 0 || b == 0;
    a.patient == b.patient && agree(a.study, b.study) && agree(a.frame, b.frame)
}
