//! One output that several tasks write to, each its own part.

use std::marker::PhantomData;

/// A slice that tasks on several threads write to.
///
/// Tiles of neighbouring output channels interleave in memory, so that the parts cannot be slices of their own.
#[derive(Clone, Copy)]
pub(super) struct SharedSlice<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `SharedSlice` only hands out pointers; whoever writes through them promises that no two tasks touch the same number.
unsafe impl Send for SharedSlice<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedSlice<'_> {}

impl<'a> SharedSlice<'a> {
    /// Wraps a slice that stays borrowed for as long as tasks may write.
    pub fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The place of one number, which must exist.
    #[inline]
    pub fn at(&self, index: usize) -> *mut f32 {
        assert!(index < self.len, "write at {index} of {}", self.len);
        self.start.wrapping_add(index)
    }
}
