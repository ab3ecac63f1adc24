//! Vector instructions: AVX-512, AVX2 with FMA, and plain arithmetic on every other processor.
//!
//! This module owns the classes of instruction sets, the choice of a class, and all vector operations except the network kernels.
//!
//! Code is written once, generic over `Simd`, and compiled once for each [`Class`] of instruction set; the class is
//! chosen at run time. Kernels have two forms:
//!
//! - A `SimdKernel` owns or borrows its input. `dispatch` runs the kernel with the class of this process, `run` with a given class,
//!   and `dispatch_short_rows` with a class suited to short rows. Loops without calls to `Simd` are faster as well: the compiler
//!   vectorizes the loops for the class.
//! - A `Kernel` is a function without captured input. `kernel_avx512`, `kernel_avx2` and `kernel_portable` are its
//!   compiled forms, so that function pointers of different kernels fit into one table.
//!
//! Both forms, and all functions that they call, must be `#[inline(always)]`: a function that is not inlined is
//! compiled for the baseline of the target.
//!
//! The types that implement `Simd` are private to this module and used only in functions compiled for their
//! instruction set. Generic code that uses such a type therefore runs only on a processor with its instructions:
//! arithmetic on vectors is safe, and only access through pointers is unsafe.
//!
//! A sum or product has the same bits in every class. `Simd::mul_add` does not: it rounds once with FMA, twice without.
//! Neither do exponentials and logarithms of the standard library: recorded results use the functions of [`Class`].

mod class;
mod dispatch;
mod elementary;
mod kernel;
mod portable;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use class::Class;
#[cfg(test)]
pub(crate) use dispatch::on_every_class;
pub(crate) use dispatch::{dispatch, dispatch_short_rows, kernel_portable, run};
#[cfg(target_arch = "x86_64")]
pub(crate) use dispatch::{kernel_avx2, kernel_avx512};
pub(crate) use kernel::{Kernel, SimdKernel};
pub(crate) use vector::Simd;
