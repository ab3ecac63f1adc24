//! The two forms of code that is compiled for each instruction set.

use super::vector::Simd;

/// Work that is compiled for each instruction set. Its `run` must be `#[inline(always)]`.
pub(crate) trait SimdKernel {
    /// The result.
    type Output;

    /// Does the work.
    fn run<S: Simd>(self) -> Self::Output;
}

/// Work without vectors of its own: a closure marked `#[inline(always)]`. It is an `FnMut`, because the compiler puts
/// a function of its own between a caller and an `FnOnce`, which would keep the instruction set of the baseline.
///
/// A captured number is read again in every turn of a loop that writes, as the compiler has to assume that the loop
/// writes to it. Where only one arm of a branch reads such a number, AVX2 has no vectors for it: bind it to a name inside
/// the closure first.
impl<R, F: FnMut() -> R> SimdKernel for F {
    type Output = R;

    #[inline(always)]
    fn run<S: Simd>(mut self) -> R {
        self()
    }
}

/// A function that is compiled for each instruction set. Its `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// Its argument.
    type Input<'a>;

    /// Runs it.
    ///
    /// # Safety
    /// The kernel defines what it needs of its input.
    unsafe fn run<S: Simd>(input: Self::Input<'_>);
}
