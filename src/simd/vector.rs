//! What code that is generic over instruction sets may do with vectors.

use super::class::Class;

/// The vectors of `f32` of one instruction set.
pub(crate) trait Simd {
    /// A vector of numbers.
    type Vector: Copy;

    /// The class of the instruction set.
    const CLASS: Class;

    /// How many numbers a vector holds.
    const WIDTH: usize = Self::CLASS.lanes();

    /// Whether there are 32 registers, and not 16.
    const MANY_REGISTERS: bool;

    /// A vector of zeros.
    #[inline(always)]
    fn zero() -> Self::Vector {
        Self::splat(0.0)
    }

    /// A vector of the same number.
    fn splat(value: f32) -> Self::Vector;

    /// The first numbers of a slice.
    ///
    /// # Panics
    /// Where the slice is shorter than a vector.
    #[inline(always)]
    fn load(from: &[f32]) -> Self::Vector {
        // SAFETY: the slice is cut to the numbers that are read.
        unsafe { Self::load_at(from[..Self::WIDTH].as_ptr()) }
    }

    /// Writes to the beginning of a slice.
    ///
    /// # Panics
    /// Where the slice is shorter than a vector.
    #[inline(always)]
    fn store(vector: Self::Vector, to: &mut [f32]) {
        // SAFETY: the slice is cut to the numbers that are written.
        unsafe { Self::store_at(vector, to[..Self::WIDTH].as_mut_ptr()) }
    }

    /// The numbers at `from`, aligned or not.
    ///
    /// # Safety
    /// A whole vector of numbers can be read there.
    unsafe fn load_at(from: *const f32) -> Self::Vector;

    /// The first `count` numbers at `from`, zero after them.
    ///
    /// # Safety
    /// `count` is at most the vector's width, and that many numbers can be read there.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::Vector;

    /// Writes all numbers to `to`, aligned or not.
    ///
    /// # Safety
    /// A whole vector of numbers can be written there.
    unsafe fn store_at(vector: Self::Vector, to: *mut f32);

    /// Writes the first `count` numbers to `to`.
    ///
    /// # Safety
    /// `count` is at most the vector's width, and that many numbers can be written there.
    unsafe fn store_first(vector: Self::Vector, to: *mut f32, count: usize);

    /// `a · b + c`, rounded once where the processor can.
    fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `a + b`.
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a - b`.
    fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a · b`.
    fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a / b`.
    fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The larger; `b` where one is NaN.
    fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The smaller; `b` where one is NaN.
    fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Rounded to whole numbers.
    fn round(a: Self::Vector) -> Self::Vector;

    /// `a · 2^n` for whole `n` from -160 to 130, however small or large the result.
    fn scale(a: Self::Vector, n: Self::Vector) -> Self::Vector;
}
