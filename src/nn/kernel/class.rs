//! Which instruction set the kernels use.

use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for.
///
/// ```
/// use freetumor::nn::kernel::Class;
/// assert!(Class::available().contains(&Class::detect()));
/// assert!(Class::available().contains(&Class::Portable));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Plain arithmetic on every processor.
    Portable,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 foundation, beside AVX2.
    Avx512,
}

impl Class {
    /// The fastest class of this processor.
    pub fn detect() -> Self {
        static FASTEST: OnceLock<Class> = OnceLock::new();
        *FASTEST.get_or_init(|| Self::available().pop().unwrap_or(Self::Portable))
    }

    /// All classes that this processor can run, the fastest last.
    pub fn available() -> Vec<Self> {
        let mut available = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            available.push(Self::Avx2);
            if is_x86_feature_detected!("avx512f") {
                available.push(Self::Avx512);
            }
        }
        available
    }

    /// The name that is recorded beside results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}
