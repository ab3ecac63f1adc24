//! The functions that are compiled for an instruction set, and the choice of one of them.

use super::class::Class;
use super::kernel::{Kernel, SimdKernel};
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn run_avx512<W: SimdKernel>(work: W) -> W::Output {
    work.run::<Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<W: SimdKernel>(work: W) -> W::Output {
    work.run::<Avx2>()
}

/// Runs a kernel, compiled for the instruction set `class`.
///
/// # Panics
/// If the processor lacks the class.
#[inline]
pub(crate) fn run<W: SimdKernel>(class: Class, work: W) -> W::Output {
    class.require();
    match class {
        // SAFETY: the processor has the class, and with it every feature that the function is compiled for.
        #[cfg(target_arch = "x86_64")]
        Class::Avx512 => unsafe { run_avx512(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Class::Avx2 => unsafe { run_avx2(work) },
        _ => work.run::<Portable>(),
    }
}

/// Runs a kernel, compiled for the instruction set that this process uses ([`Class::current`]).
#[inline]
pub(crate) fn dispatch<W: SimdKernel>(work: W) -> W::Output {
    run(Class::current(), work)
}

/// Runs a kernel on short rows, such as those of a tumor's box, with AVX2 at most: with vectors of 16 numbers, more of a
/// short row is left to the scalar remainder of the loop. The kernel must not call [`Simd::mul_add`](super::Simd::mul_add), so that
/// its result is the same in every class.
#[inline]
pub(crate) fn dispatch_short_rows<W: SimdKernel>(work: W) -> W::Output {
    run(Class::current().min(Class::Avx2), work)
}

/// Runs the kernel `K`, compiled for AVX-512.
///
/// # Safety
/// The processor must have [`Class::Avx512`], and the input must meet the requirements of `K`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(crate) unsafe fn kernel_avx512<K: Kernel>(input: K::Input<'_>) {
    // SAFETY: the caller guarantees the requirements of `K`.
    unsafe { K::run::<Avx512>(input) }
}

/// Runs the kernel `K`, compiled for AVX2.
///
/// # Safety
/// The processor must have [`Class::Avx2`], and the input must meet the requirements of `K`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn kernel_avx2<K: Kernel>(input: K::Input<'_>) {
    // SAFETY: the caller guarantees the requirements of `K`.
    unsafe { K::run::<Avx2>(input) }
}

/// Runs the kernel `K`, compiled for any processor.
///
/// # Safety
/// The input must meet the requirements of `K`.
pub(crate) unsafe fn kernel_portable<K: Kernel>(input: K::Input<'_>) {
    // SAFETY: the caller guarantees the requirements of `K`.
    unsafe { K::run::<Portable>(input) }
}

/// Runs a kernel with each instruction set of this processor, the narrowest first, and returns the results.
#[cfg(test)]
pub(crate) fn on_every_class<W: SimdKernel + Clone>(work: W) -> Vec<W::Output> {
    Class::available().into_iter().map(|class| run(class, work.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Simd;

    #[derive(Clone)]
    struct Operations;

    impl SimdKernel for Operations {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<f32> {
            let mut to = [0f32; 16];
            let [two, three] = [2., 3.].map(S::splat);
            let results = [
                S::mul_add(two, three, three),
                S::add(two, three),
                S::sub(two, three),
                S::mul(two, three),
                S::div(three, two),
                S::max(two, three),
                S::min(two, three),
                S::max(S::splat(f32::NAN), three),
                S::max(two, S::splat(f32::NAN)),
                S::round(S::splat(-2.7)),
                S::scale(three, S::splat(-149.)),
                S::scale(three, S::splat(100.)),
                S::load(&[7.; 16]),
            ];
            results
                .map(|result| {
                    S::store(result, &mut to);
                    assert!(to[..S::WIDTH].iter().all(|x| x.to_bits() == to[0].to_bits()));
                    to[0]
                })
                .to_vec()
        }
    }

    #[test]
    fn vector_operations_are_equal_in_every_class() {
        let expected = [9., 5., -1., 6., 1.5, 3., 2., 3., f32::NAN, -3., f32::from_bits(3), 3. * 2f32.powi(100), 7.];
        for result in on_every_class(Operations) {
            assert_eq!(result.into_iter().map(f32::to_bits).collect::<Vec<_>>(), expected.map(f32::to_bits));
        }
    }

    #[derive(Clone)]
    struct Parts;

    impl SimdKernel for Parts {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self) {
            let from: Vec<f32> = (1..=16).map(|i| i as f32).collect();
            for count in 0..=S::WIDTH {
                let mut to = [-1f32; 16];
                // SAFETY: both arrays hold 16 numbers, at least as many as a vector.
                unsafe {
                    let part = S::load_first(from.as_ptr(), count);
                    S::store_at(part, to.as_mut_ptr());
                    assert!(to[..count] == from[..count] && to[count..S::WIDTH].iter().all(|&value| value == 0.));
                    to = [-1f32; 16];
                    S::store_first(S::load_at(from.as_ptr()), to.as_mut_ptr(), count);
                }
                assert!(to[..count] == from[..count] && to[count..].iter().all(|&value| value == -1.));
            }
        }
    }

    #[test]
    fn partial_loads_and_stores_touch_only_their_numbers() {
        on_every_class(Parts);
    }

    #[test]
    fn dispatch_runs_closure_once() {
        let mut sum = 0.;
        let twice = dispatch(
            #[inline(always)]
            || {
                sum += 1.;
                2. * sum
            },
        );
        assert_eq!((sum, twice), (1., 2.));
    }

    #[test]
    fn run_panics_for_unsupported_kernel_class() {
        let Some(missing) = [Class::Avx2, Class::Avx512].into_iter().find(|class| !Class::available().contains(class))
        else {
            return;
        };
        assert!(std::panic::catch_unwind(|| run(missing, || ())).is_err());
    }
}
