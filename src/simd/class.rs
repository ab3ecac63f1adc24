//! Which instruction set the code of this process uses.

use std::sync::OnceLock;

/// An instruction set that code is compiled for.
///
/// ```
/// use freetumor::simd::Class;
/// assert!(Class::available().contains(&Class::detect()));
/// assert!(Class::available().contains(&Class::Portable));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Plain arithmetic on every processor.
    Portable,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 (foundation, byte and word, doubleword and quadword, vector length), beside AVX2.
    Avx512,
}

impl Class {
    /// All classes, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The fastest class of this processor.
    #[inline]
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
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                available.push(Self::Avx512);
            }
        }
        available
    }

    /// Checks that this processor has the class, on which unsafe code relies.
    ///
    /// # Panics
    /// Where it has not.
    #[inline]
    pub(crate) fn require(self) {
        assert!(self <= Self::detect(), "{} kernels on a processor without them", self.name());
    }

    /// Numbers of single precision in a vector.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable | Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
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
