//! Vectors of `f32` as the kernels see them: AVX-512, AVX2 with FMA, and arrays for every other processor.
//!
//! A kernel is written once, generic over [`Lanes`] and inlined into one function per instruction set (in
//! [`tile`](super::tile), `slide` and [`winograd`](super::winograd)), so that every operation becomes one instruction.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each function below is one instruction, or a loop over numbers, that needs just what the trait asks of its caller"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A vector of [`WIDTH`](Lanes::WIDTH) numbers.
///
/// # Safety
///
/// All functions need the instruction set of their type; those that take a pointer need `WIDTH` numbers (or `count` of
/// them) behind it. Alignment is not needed.
pub(super) trait Lanes: Copy {
    /// How many numbers one vector holds.
    const WIDTH: usize;
    /// All zero.
    unsafe fn zero() -> Self;
    /// All equal to `value`.
    unsafe fn splat(value: f32) -> Self;
    /// The numbers at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` numbers at `from`, zero after them.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    /// Writes all numbers to `to`.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count` numbers to `to`.
    unsafe fn store_first(self, to: *mut f32, count: usize);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once where the processor can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
impl Lanes for __m512 {
    const WIDTH: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        unsafe { _mm512_maskz_loadu_ps(first_bits(count), from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, first_bits(count), self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm512_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, factor, addend) }
    }
}

/// A mask with the lowest `count` of 16 bits set.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn first_bits(count: usize) -> u16 {
    ((1u32 << count) - 1) as u16
}

#[cfg(target_arch = "x86_64")]
impl Lanes for __m256 {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        unsafe { _mm256_maskload_ps(from, first_words(count)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // Some processors take many times as long for a masked store.
        if count >= Self::WIDTH {
            unsafe { self.store(to) }
        } else {
            unsafe { _mm256_maskstore_ps(to, first_words(count), self) }
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm256_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm256_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        unsafe { _mm256_fmadd_ps(self, factor, addend) }
    }
}

/// A mask with the first `count` of eight words set.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn first_words(count: usize) -> __m256i {
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

/// Eight numbers for processors without the others: plain arithmetic, rounded twice in `mul_add`.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 8]);

impl Plain {
    #[inline(always)]
    fn each(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Plain {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 8])
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        Self(std::array::from_fn(|i| if i < count { unsafe { *from.wrapping_add(i) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        for (i, value) in self.0.into_iter().enumerate().take(count) {
            unsafe { *to.wrapping_add(i) = value }
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        self.each(factor, |a, b| a * b).each(addend, |a, b| a + b)
    }
}
