//! Loops that take the widest vectors of the processor.

use pulp::{Arch, Simd, WithSimd};

/// Work whose loops are compiled once for every width of vectors. What it calls has to be inlined, `done` itself first of all:
/// a function of its own is compiled for the narrowest.
///
/// A closure would not do: one that only borrows is called by way of a function that is not inlined.
pub(super) trait Wide {
    type Output;

    fn done(self) -> Self::Output;
}

/// Does some work with the widest vectors.
pub(super) fn widest<W: Wide>(work: W) -> W::Output {
    Arch::new().dispatch(Dispatched(work))
}

struct Dispatched<W>(W);

impl<W: Wide> WithSimd for Dispatched<W> {
    type Output = W::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> W::Output {
        self.0.done()
    }
}
