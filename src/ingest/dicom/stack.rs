//! The slices of one scan.

use super::geometry::{EvenStack, FEWEST_SLICES, SlicePose};
use super::slice::Slice;
use crate::error::Fault;

/// The slices of one scan, all with a valid header.
#[derive(Clone, Default)]
pub(super) struct Stack {
    pub slices: Vec<Slice>,
    /// Further files with the same image as one of the slices.
    pub copies: Vec<Slice>,
    /// Whether other stacks of the same series overlap this one. Such a stack is a scan even if it has too few slices.
    pub is_part: bool,
    /// Names of the elements that separate the stack from others of its series.
    pub separated_by: Vec<&'static str>,
    /// The fault of a stack that contains several acquisitions which nothing separates.
    pub fault: Option<Fault>,
}

impl Stack {
    /// Returns whether the stack is even, and large enough for a scan.
    pub fn is_even(&self) -> bool {
        self.fault.is_none() && self.slices.len() >= FEWEST_SLICES && EvenStack::of(&poses(self)).is_ok()
    }
}

/// Returns the pose of a slice, or `None` if its header is not valid.
pub(super) fn pose(slice: &Slice) -> Option<&SlicePose> {
    slice.image.as_ref().ok().map(|image| &image.pose)
}

/// Returns the poses of the slices of a stack.
pub(super) fn poses(stack: &Stack) -> Vec<SlicePose> {
    stack.slices.iter().filter_map(pose).copied().collect()
}
