//! The widest vectors of the processor for plain Rust loops: the only unsafe code of the operators.
//!
//! A loop over slices is compiled three times, for AVX-512, AVX2 and the baseline, and the processor chooses at run
//! time. That works because work marked `#[inline(always)]` becomes part of the function it is called from, and takes
//! over its instruction set.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;

/// The vectors of the instruction set that was chosen. Only [`vectorised`] hands one out, so the functions may be called
/// wherever one is named.
pub trait Arithmetic {
    /// A vector of numbers.
    type Vector: Copy;

    /// How many numbers a vector holds.
    const WIDTH: usize;

    /// Whether there are 32 registers, and not 16.
    const MANY_REGISTERS: bool;

    /// A vector of the same number.
    fn splat(value: f32) -> Self::Vector;

    /// The first numbers of a slice, which must be as many as a vector holds.
    fn load(from: &[f32]) -> Self::Vector;

    /// Writes to the beginning of a slice, which must have room.
    fn store(vector: Self::Vector, to: &mut [f32]);

    /// `a · b + c`, rounded once where the processor can.
    fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `a + b`.
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;

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
pub trait Work {
    /// What it gives.
    type Output;

    /// Does the work.
    fn run<A: Arithmetic>(self) -> Self::Output;
}

/// Work that multiplies and adds apart: a closure marked `#[inline(always)]`. It is an `FnMut`, because the compiler puts
/// a function of its own between a caller and an `FnOnce`, which would keep the instruction set of the baseline.
///
/// What a closure captured is read anew in every turn of a loop that writes, as for all the compiler knows the loop writes to it. Where only
/// one arm of a branch reads such a number, AVX2 has no vectors for it: bind it to a name of the closure's own first.
impl<R, F: FnMut() -> R> Work for F {
    type Output = R;

    #[inline(always)]
    fn run<A: Arithmetic>(mut self) -> R {
        self()
    }
}

/// Functions that are one instruction each.
#[cfg(target_arch = "x86_64")]
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

/// AVX-512: 32 registers of 16 numbers.
#[cfg(target_arch = "x86_64")]
struct Wide;

#[cfg(target_arch = "x86_64")]
impl Arithmetic for Wide {
    type Vector = x86::__m512;

    const WIDTH: usize = 16;
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(value: f32) -> x86::__m512 {
        // SAFETY: `Wide` is named only below `wide`, which runs only where the processor has AVX-512.
        unsafe { x86::_mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(from: &[f32]) -> x86::__m512 {
        // SAFETY: as above; the slice is cut to the 16 numbers that are read.
        unsafe { x86::_mm512_loadu_ps(from[..Self::WIDTH].as_ptr()) }
    }

    #[inline(always)]
    fn store(vector: x86::__m512, to: &mut [f32]) {
        // SAFETY: as above; the slice is cut to the 16 numbers that are written.
        unsafe { x86::_mm512_storeu_ps(to[..Self::WIDTH].as_mut_ptr(), vector) }
    }

    instructions! {
        x86::__m512:
        mul_add(a, b, c) = x86::_mm512_fmadd_ps;
        add(a, b) = x86::_mm512_add_ps;
        mul(a, b) = x86::_mm512_mul_ps;
        div(a, b) = x86::_mm512_div_ps;
        max(a, b) = x86::_mm512_max_ps;
        min(a, b) = x86::_mm512_min_ps;
        round(a) = x86::_mm512_roundscale_ps::<0>;
        scale(a, n) = x86::_mm512_scalef_ps;
    }
}

/// AVX2 with FMA: 16 registers of 8 numbers.
#[cfg(target_arch = "x86_64")]
struct Fused;

#[cfg(target_arch = "x86_64")]
impl Arithmetic for Fused {
    type Vector = x86::__m256;

    const WIDTH: usize = 8;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(value: f32) -> x86::__m256 {
        // SAFETY: `Fused` is named only below `fused`, which runs only where the processor has AVX2 and FMA.
        unsafe { x86::_mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn load(from: &[f32]) -> x86::__m256 {
        // SAFETY: as above; the slice is cut to the 8 numbers that are read.
        unsafe { x86::_mm256_loadu_ps(from[..Self::WIDTH].as_ptr()) }
    }

    #[inline(always)]
    fn store(vector: x86::__m256, to: &mut [f32]) {
        // SAFETY: as above; the slice is cut to the 8 numbers that are written.
        unsafe { x86::_mm256_storeu_ps(to[..Self::WIDTH].as_mut_ptr(), vector) }
    }

    instructions! {
        x86::__m256:
        mul_add(a, b, c) = x86::_mm256_fmadd_ps;
        add(a, b) = x86::_mm256_add_ps;
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
            // Two factors, each a normal number even where the result is not.
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

/// Whatever the compiler takes for granted.
struct Plain;

impl Arithmetic for Plain {
    type Vector = [f32; 8];

    const WIDTH: usize = 8;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    fn load(from: &[f32]) -> [f32; 8] {
        std::array::from_fn(|i| from[i])
    }

    #[inline(always)]
    fn store(vector: [f32; 8], to: &mut [f32]) {
        to[..8].copy_from_slice(&vector);
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
        const SHIFT: f32 = 12_582_912.; // 1.5 · 2^23: beside it there is no room for a fraction
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

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn wide<W: Work>(work: W) -> W::Output {
    work.run::<Wide>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fused<W: Work>(work: W) -> W::Output {
    work.run::<Fused>()
}

/// Does the work with the widest vectors that the processor has.
#[inline]
pub fn vectorised<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if avx2 && avx512 {
            // SAFETY: the processor has every feature that `wide` is compiled for; that is all it asks of its caller.
            return unsafe { wide(work) };
        }
        if avx2 {
            // SAFETY: as above, for `fused`.
            return unsafe { fused(work) };
        }
    }
    work.run::<Plain>()
}

/// What `work` gives on each instruction set that the processor has.
#[cfg(test)]
pub fn on_every_instruction_set<W: Work + Clone>(work: W) -> Vec<W::Output> {
    let mut all = vec![vectorised(work.clone()), work.clone().run::<Plain>()];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features of `fused` were just found.
        all.push(unsafe { fused(work) });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Vectors;

    impl Work for Vectors {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<A: Arithmetic>(self) -> Vec<f32> {
            let mut to = [0f32; 16];
            let [two, three] = [2., 3.].map(A::splat);
            let results = [
                A::mul_add(two, three, three),
                A::add(two, three),
                A::mul(two, three),
                A::div(three, two),
                A::max(two, three),
                A::min(two, three),
                A::max(A::splat(f32::NAN), three),
                A::max(two, A::splat(f32::NAN)),
                A::round(A::splat(-2.7)),
                A::scale(three, A::splat(-149.)),
                A::scale(three, A::splat(100.)),
                A::load(&[7.; 16]),
            ];
            results
                .map(|result| {
                    A::store(result, &mut to);
                    assert!(to[..A::WIDTH].iter().all(|x| x.to_bits() == to[0].to_bits()));
                    to[0]
                })
                .to_vec()
        }
    }

    /// Whatever instruction set is chosen, the work is the same.
    #[test]
    fn every_instruction_set_does_the_same() {
        let expected =
            [9., 5., 6., 1.5, 3., 2., 3., f32::NAN, -3., f32::from_bits(3), 3. * 2f32.powi(100), 7.].map(f32::to_bits);
        for result in on_every_instruction_set(Vectors) {
            assert_eq!(result.into_iter().map(f32::to_bits).collect::<Vec<_>>(), expected);
        }
    }

    /// A closure is compiled for the instruction set, too.
    #[test]
    fn closures_are_work() {
        let mut sum = 0.;
        let twice = vectorised(
            #[inline(always)]
            || {
                sum += 1.;
                2. * sum
            },
        );
        assert_eq!((sum, twice), (1., 2.));
    }
}
