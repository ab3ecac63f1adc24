//! The widest vectors of the processor for plain Rust loops: the only unsafe code of the operators.
//!
//! A loop over slices is compiled three times, for AVX-512, AVX2 and the baseline, and the processor chooses at run
//! time. That works because work marked `#[inline(always)]` becomes part of the function it is called from, and takes
//! over its instruction set.

/// How products are added in the instruction set that was chosen.
pub trait Arithmetic {
    /// Whether there are 32 vector registers of 16 numbers.
    const WIDE: bool;

    /// `a · b + c`, rounded once where the processor can.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// Work that is compiled for each instruction set. Its `run` must be `#[inline(always)]`.
pub trait Work {
    /// What it gives.
    type Output;

    /// Does the work.
    fn run<A: Arithmetic>(self) -> Self::Output;
}

/// Work that multiplies and adds apart: a closure marked `#[inline(always)]`. It is called by reference, since a call by value goes
/// through a function of its own that keeps to the baseline.
impl<R, F: FnMut() -> R> Work for F {
    type Output = R;

    #[inline(always)]
    fn run<A: Arithmetic>(mut self) -> R {
        self()
    }
}

/// AVX-512: 32 registers of 16 numbers.
struct Wide;

/// AVX2 with FMA: 16 registers of 8 numbers.
struct Fused;

/// No fused product and sum.
struct Plain;

impl Arithmetic for Wide {
    const WIDE: bool = true;

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Arithmetic for Fused {
    const WIDE: bool = false;

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Arithmetic for Plain {
    const WIDE: bool = false;

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Dot<'a>(&'a [f32], &'a [f32]);

    impl Work for Dot<'_> {
        type Output = f32;

        #[inline(always)]
        fn run<A: Arithmetic>(self) -> f32 {
            self.0.iter().zip(self.1).fold(0., |sum, (&a, &b)| A::mul_add(a, b, sum))
        }
    }

    /// Whatever instruction set is chosen, the work is the same.
    #[test]
    fn every_instruction_set_does_the_same() {
        let numbers: Vec<f32> = (0..100).map(|i| i as f32).collect();
        let expected = (0..100).map(|i| (i * i) as f32).sum::<f32>();
        assert_eq!(vectorised(Dot(&numbers, &numbers)), expected);
        assert_eq!(Dot(&numbers, &numbers).run::<Plain>(), expected);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features of `fused` were just found.
            assert_eq!(unsafe { fused(Dot(&numbers, &numbers)) }, expected);
        }
    }
}
