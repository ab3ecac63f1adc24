//! Vectors of eight numbers for processors without the instructions of [`x86`](super::x86): plain arithmetic, rounded twice in `mul_add`.

use super::class::Class;
use super::vector::Simd;

/// The instructions of the target's baseline.
pub(super) struct Portable;

impl Simd for Portable {
    type Vector = [f32; 8];

    const CLASS: Class = Class::Portable;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load_at(from: *const f32) -> [f32; 8] {
        // SAFETY: the caller guarantees eight numbers.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> [f32; 8] {
        // SAFETY: the caller guarantees `count` numbers.
        std::array::from_fn(|i| if i < count { unsafe { *from.wrapping_add(i) } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store_at(vector: [f32; 8], to: *mut f32) {
        // SAFETY: the caller guarantees room for eight numbers.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(vector) }
    }

    #[inline(always)]
    unsafe fn store_first(vector: [f32; 8], to: *mut f32, count: usize) {
        for (i, value) in vector.into_iter().enumerate().take(count) {
            // SAFETY: the caller guarantees room for `count` numbers.
            unsafe { *to.wrapping_add(i) = value }
        }
    }

    #[inline(always)]
    fn mul_add(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn max(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn round(a: [f32; 8]) -> [f32; 8] {
        const SHIFT: f32 = 12_582_912.; // 1.5 · 2^23: a sum with it has no bits left for a fraction
        a.map(|a| (a + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn scale(a: [f32; 8], n: [f32; 8]) -> [f32; 8] {
        let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
        std::array::from_fn(|i| {
            let n = n[i] as i32;
            a[i] * power(n >> 1) * power(n - (n >> 1))
        })
    }
}
