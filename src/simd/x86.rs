//! AVX-512 and AVX2 with FMA.

use std::arch::x86_64 as x86;

use super::class::Class;
use super::vector::Simd;

/// Defines functions of one instruction each.
macro_rules! instructions {
    ($vector:ty: $($name:ident($($operand:ident),*) = $instruction:expr;)*) => {
        $(
            #[inline(always)]
            fn $name($($operand: $vector),*) -> $vector {
                // SAFETY: the type that implements this is named only where the processor has its instructions.
                unsafe { $instruction($($operand),*) }
            }
        )*
    };
}

/// A vector at any address.
#[repr(C, packed)]
struct Unaligned<V>(V);

/// Defines loads and stores of whole vectors, and vectors of one number.
macro_rules! moves {
    ($vector:ty: $splat:path) => {
        #[inline(always)]
        fn splat(value: f32) -> $vector {
            // SAFETY: the type that implements this is named only where the processor has its instructions.
            unsafe { $splat(value) }
        }

        #[inline(always)]
        unsafe fn load_at(from: *const f32) -> $vector {
            // Not by an instruction's function, which copies through memory in a build with checks.
            // SAFETY: as above; the caller guarantees a whole vector.
            unsafe { (*from.cast::<Unaligned<$vector>>()).0 }
        }

        #[inline(always)]
        unsafe fn store_at(vector: $vector, to: *mut f32) {
            // SAFETY: as above; the caller guarantees room for a whole vector.
            unsafe { (*to.cast::<Unaligned<$vector>>()).0 = vector }
        }
    };
}

/// AVX-512: 32 registers of 16 numbers.
pub(super) struct Avx512;

impl Simd for Avx512 {
    type Vector = x86::__m512;

    const CLASS: Class = Class::Avx512;
    const MANY_REGISTERS: bool = true;

    moves!(x86::__m512: x86::_mm512_set1_ps);

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> x86::__m512 {
        // SAFETY: as for `load_at`; numbers outside the mask are not read.
        unsafe { x86::_mm512_maskz_loadu_ps(first_bits(count), from) }
    }

    #[inline(always)]
    unsafe fn store_first(vector: x86::__m512, to: *mut f32, count: usize) {
        // SAFETY: as for `store_at`; numbers outside the mask are not written.
        unsafe { x86::_mm512_mask_storeu_ps(to, first_bits(count), vector) }
    }

    instructions! {
        x86::__m512:
        mul_add(a, b, c) = x86::_mm512_fmadd_ps;
        add(a, b) = x86::_mm512_add_ps;
        sub(a, b) = x86::_mm512_sub_ps;
        mul(a, b) = x86::_mm512_mul_ps;
        div(a, b) = x86::_mm512_div_ps;
        max(a, b) = x86::_mm512_max_ps;
        min(a, b) = x86::_mm512_min_ps;
        round(a) = x86::_mm512_roundscale_ps::<0>;
        scale(a, n) = x86::_mm512_scalef_ps;
    }
}

/// Returns a mask with the lowest `count` of 16 bits set.
#[inline(always)]
fn first_bits(count: usize) -> u16 {
    ((1u32 << count) - 1) as u16
}

/// AVX2 with FMA: 16 registers of 8 numbers.
pub(super) struct Avx2;

impl Simd for Avx2 {
    type Vector = x86::__m256;

    const CLASS: Class = Class::Avx2;
    const MANY_REGISTERS: bool = false;

    moves!(x86::__m256: x86::_mm256_set1_ps);

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> x86::__m256 {
        // SAFETY: as for `load_at`; numbers outside the mask are not read.
        unsafe { x86::_mm256_maskload_ps(from, first_lanes(count)) }
    }

    #[inline(always)]
    unsafe fn store_first(vector: x86::__m256, to: *mut f32, count: usize) {
        // Some processors take many times as long for a masked store.
        if count >= Self::WIDTH {
            // SAFETY: the caller guarantees room for `count` numbers, here a whole vector.
            unsafe { Self::store_at(vector, to) }
        } else {
            // SAFETY: as for `store_at`; numbers outside the mask are not written.
            unsafe { x86::_mm256_maskstore_ps(to, first_lanes(count), vector) }
        }
    }

    instructions! {
        x86::__m256:
        mul_add(a, b, c) = x86::_mm256_fmadd_ps;
        add(a, b) = x86::_mm256_add_ps;
        sub(a, b) = x86::_mm256_sub_ps;
        mul(a, b) = x86::_mm256_mul_ps;
        div(a, b) = x86::_mm256_div_ps;
        max(a, b) = x86::_mm256_max_ps;
        min(a, b) = x86::_mm256_min_ps;
        round(a) = x86::_mm256_round_ps::<{ x86::_MM_FROUND_TO_NEAREST_INT | x86::_MM_FROUND_NO_EXC }>;
    }

    #[inline(always)]
    fn scale(a: x86::__m256, n: x86::__m256) -> x86::__m256 {
        // SAFETY: as for `splat`.
        unsafe {
            // Two factors, each a normal number even if the result is not.
            let n = x86::_mm256_cvtps_epi32(n);
            let half = x86::_mm256_srai_epi32::<1>(n);
            let power = |n| {
                let exponent = x86::_mm256_add_epi32(n, x86::_mm256_set1_epi32(127));
                x86::_mm256_castsi256_ps(x86::_mm256_slli_epi32::<23>(exponent))
            };
            x86::_mm256_mul_ps(x86::_mm256_mul_ps(a, power(half)), power(x86::_mm256_sub_epi32(n, half)))
        }
    }
}

/// Returns a mask with the first `count` of eight 32-bit lanes set.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn first_lanes(count: usize) -> x86::__m256i {
    // SAFETY: the caller guarantees the instructions.
    unsafe {
        let lanes = x86::_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        x86::_mm256_cmpgt_epi32(x86::_mm256_set1_epi32(count as i32), lanes)
    }
}
