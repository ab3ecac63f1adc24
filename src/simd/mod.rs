//! Vector instructions: AVX-512, AVX2 with FMA, and plain arithmetic on every other processor.
//!
//! Code is written once, generic over `Simd`, and compiled once for each [`Class`] of instruction set; the class is
//! chosen at run time. There are two forms:
//!
//! - `Work` owns or borrows its input. `vectorised` runs it in the class of this process, `run` in a given one, and
//!   `vectorised_short` in one suited to short rows. Plain loops without a call to `Simd` gain as well: the compiler
//!   vectorises them for the class.
//! - `Kernel` is a function without captured input. `kernel_avx512`, `kernel_avx2` and `kernel_portable` are its
//!   compiled forms, so that function pointers of different kernels fit into one table.
//!
//! Everything that a form calls must be `#[inline(always)]`, itself first of all: a function that is not inlined is
//! compiled for the baseline of the target.
//!
//! The types that implement `Simd` are private to this module and named only in functions compiled for their
//! instruction set. So wherever generic code names one, the processor has its instructions; that is why arithmetic on
//! vectors is safe, and only access through pointers is not.
//!
//! A sum or product has the same bits in every class. `Simd::mul_add` does not: it rounds once with FMA, twice without.
//! Nor do exponentials and logarithms of the standard library: results that are recorded take those of [`Class`].

mod class;
mod dispatch;
mod elementary;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use class::Class;
#[cfg(test)]
pub(crate) use dispatch::on_every_class;
#[cfg(target_arch = "x86_64")]
pub(crate) use dispatch::{kernel_avx2, kernel_avx512};
pub(crate) use dispatch::{kernel_portable, run, vectorised, vectorised_short};

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

/// Work that is compiled for each instruction set. Its `run` must be `#[inline(always)]`.
pub(crate) trait Work {
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
impl<R, F: FnMut() -> R> Work for F {
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
