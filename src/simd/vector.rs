//! The vector operations of code that is generic over instruction sets.

use super::class::Class;

/// The vectors of `f32` of one instruction set.
pub(crate) trait Simd {
    /// A vector of numbers.
    type Vector: Copy;

    /// The class of the instruction set.
    const CLASS: Class;

    /// The number of values in a vector.
    const WIDTH: usize = Self::CLASS.lanes();

    /// Whether the instruction set has 32 vector registers instead of 16.
    const MANY_REGISTERS: bool;

    /// Returns a vector of zeros.
    #[inline(always)]
    fn zero() -> Self::Vector {
        Self::splat(0.0)
    }

    /// Returns a vector whose elements all are `value`.
    fn splat(value: f32) -> Self::Vector;

    /// Loads the first numbers of a slice.
    ///
    /// # Panics
    /// If the slice is shorter than a vector.
    #[inline(always)]
    fn load(from: &[f32]) -> Self::Vector {
        // SAFETY: the slice is cut to the numbers that are read.
        unsafe { Self::load_at(from[..Self::WIDTH].as_ptr()) }
    }

    /// Stores a vector at the start of a slice.
    ///
    /// # Panics
    /// If the slice is shorter than a vector.
    #[inline(always)]
    fn store(vector: Self::Vector, to: &mut [f32]) {
        // SAFETY: the slice is cut to the numbers that are written.
        unsafe { Self::store_at(vector, to[..Self::WIDTH].as_mut_ptr()) }
    }

    /// Loads the numbers at `from`, aligned or not.
    ///
    /// # Safety
    /// A whole vector of numbers must be readable at `from`.
    unsafe fn load_at(from: *const f32) -> Self::Vector;

    /// Loads the first `count` numbers at `from`, followed by zeros.
    ///
    /// # Safety
    /// `count` must be at most the vector's width, and that many numbers must be readable at `from`.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::Vector;

    /// Stores all numbers at `to`, aligned or not.
    ///
    /// # Safety
    /// A whole vector of numbers must be writable at `to`.
    unsafe fn store_at(vector: Self::Vector, to: *mut f32);

    /// Stores the first `count` numbers at `to`.
    ///
    /// # Safety
    /// `count` must be at most the vector's width, and that many numbers must be writable at `to`.
    unsafe fn store_first(vector: Self::Vector, to: *mut f32, count: usize);

    /// Returns `a · b + c`, rounded once if the class has fused multiply-add.
    fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// Returns `a + b`.
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Returns `a - b`.
    fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Returns `a · b`.
    fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Returns `a / b`.
    fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Returns the larger number of each pair; `b` if either is NaN.
    fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Returns the smaller number of each pair; `b` if either is NaN.
    fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Rounds `a` to whole numbers.
    fn round(a: Self::Vector) -> Self::Vector;

    /// Returns `a · 2^n` for whole `n` from -160 to 130, for any magnitude of the result.
    fn scale(a: Self::Vector, n: Self::Vector) -> Self::Vector;
}
