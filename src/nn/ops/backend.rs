//! The choice between the two implementations of an operator.

use std::cell::Cell;

use candle_core::{DType, Tensor};

/// The implementation of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernels of this crate: `f32` on the CPU.
    Native,
    /// A composition of candle's tensor operations: any device, any floating-point type.
    Portable,
}

thread_local! {
    static PREFERRED: Cell<Backend> = const { Cell::new(Backend::Native) };
}

/// Runs `work` with the operators of this thread on `backend`; [`Backend::Native`] applies only to inputs that it supports.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops::{self, Backend};
///
/// let x = Tensor::randn(0f32, 1., (2, 5), &Device::Cpu)?;
/// let native = ops::softmax(&x)?;
/// let portable = ops::with_backend(Backend::Portable, || ops::softmax(&x))?;
/// let difference = (native - portable)?.abs()?.max_all()?.to_scalar::<f32>()?;
/// assert!(difference < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn with_backend<T>(backend: Backend, work: impl FnOnce() -> T) -> T {
    struct Restore(Backend);
    impl Drop for Restore {
        fn drop(&mut self) {
            PREFERRED.set(self.0);
        }
    }
    let _restore = Restore(PREFERRED.replace(backend));
    work()
}

impl Backend {
    /// Returns the backend for these inputs on this thread.
    pub(super) fn of(inputs: &[&Tensor]) -> Self {
        let native = inputs.iter().all(|x| x.device().is_cpu() && x.dtype() == DType::F32);
        if native { PREFERRED.get() } else { Backend::Portable }
    }
}
