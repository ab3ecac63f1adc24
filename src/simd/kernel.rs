//! The two forms of code that is compiled for each instruction set.

use super::vector::Simd;

/// A computation that is compiled for each instruction set. The method `run` must be `#[inline(always)]`.
pub(crate) trait SimdKernel {
    /// The result.
    type Output;

    /// Runs the computation.
    fn run<S: Simd>(self) -> Self::Output;
}

/// A computation without explicit vectors: a closure marked `#[inline(always)]`. The bound is `FnMut`, because the compiler
/// inserts a function between a caller and an `FnOnce`, and compiles that function for the baseline.
///
/// A captured number is read again in every iteration of a loop that writes, as the compiler must assume that the loop
/// writes to the number. If only one arm of a branch reads such a number, the compiler cannot vectorize the branch for AVX2: bind the
/// number to a local variable of the closure first.
impl<R, F: FnMut() -> R> SimdKernel for F {
    type Output = R;

    #[inline(always)]
    fn run<S: Simd>(mut self) -> R {
        self()
    }
}

/// A function that is compiled for each instruction set. The function `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// The argument.
    type Input<'a>;

    /// Runs the kernel.
    ///
    /// # Safety
    /// The input must meet the requirements that the kernel defines.
    unsafe fn run<S: Simd>(input: Self::Input<'_>);
}
