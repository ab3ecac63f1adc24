//! An output that several tasks write, each a separate part.

use std::marker::PhantomData;

/// A slice that tasks on several threads write.
///
/// Tiles of neighbouring output channels interleave in memory, so that the parts cannot be separate slices.
#[derive(Clone, Copy)]
pub(super) struct SharedSlice<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `SharedSlice` only returns pointers; code that writes through a pointer guarantees that no two tasks access the same number.
unsafe impl Send for SharedSlice<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedSlice<'_> {}

impl<'a> SharedSlice<'a> {
    /// Wraps a slice that stays borrowed for as long as tasks may write.
    pub fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// Returns a pointer to the number at `index`, which must be in range.
    #[inline]
    pub fn at(&self, index: usize) -> *mut f32 {
        assert!(index < self.len, "expected an index below {}, got {index}", self.len);
        self.start.wrapping_add(index)
    }
}
