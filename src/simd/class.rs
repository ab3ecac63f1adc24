//! The instruction set that the code of this process uses.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An instruction set that code is compiled for.
///
/// The outputs of networks with two classes differ in the last bits. The outputs depend on no other property of the processor: a processor
/// that supports a wider class but uses a narrower class returns the same bits as a processor without the wider class.
///
/// ```
/// use freetumor::simd::Class;
/// assert!(Class::available().contains(&Class::detect()));
/// assert!(Class::available().contains(&Class::Portable));
/// assert_eq!("avx2".parse::<Class>()?, Class::Avx2);
/// assert_eq!(Class::Avx512.to_string(), "avx512");
/// # Ok::<(), freetumor::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Plain arithmetic on every processor.
    Portable,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 (foundation, byte and word, doubleword and quadword, vector length), in addition to AVX2.
    Avx512,
}

/// The class of this process, fixed at its first use.
static CURRENT: OnceLock<Class> = OnceLock::new();

impl Class {
    /// All classes, from the narrowest to the widest vectors.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Returns the widest class that this processor supports.
    #[inline]
    pub fn detect() -> Self {
        static WIDEST: OnceLock<Class> = OnceLock::new();
        *WIDEST.get_or_init(|| Self::available().pop().unwrap_or(Self::Portable))
    }

    /// Returns all classes that this processor supports, the widest last.
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

    /// Returns the class of this process: the selected class, or by default the widest class that the processor supports.
    ///
    /// The first call fixes the class.
    #[inline]
    pub fn current() -> Self {
        *CURRENT.get_or_init(Self::detect)
    }

    /// Selects the class of this process, before anything is computed.
    ///
    /// ```standalone_crate
    /// use freetumor::simd::Class;
    /// Class::select(Class::Portable)?;
    /// assert_eq!(Class::current(), Class::Portable);
    /// Class::select(Class::Portable)?;
    /// assert!(Class::select(Class::Avx2).is_err());
    /// # Ok::<(), freetumor::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the processor lacks the class, or the process has already computed with another class.
    pub fn select(class: Self) -> Result<()> {
        if class > Self::detect() {
            let available: Vec<&str> = Self::available().into_iter().map(Self::name).collect();
            return Err(Error::new(format!("this processor lacks the kernel class {class}"))
                .with_hint(format!("use one of {}", available.join(", "))));
        }
        match *CURRENT.get_or_init(|| class) {
            current if current == class => Ok(()),
            current => Err(Error::new(format!(
                "cannot select the kernel class {class}: this process already computes with {current}"
            ))
            .with_hint("select the kernel class before the first computation of the process")),
        }
    }

    /// Asserts that this processor has the class; unsafe code relies on this check.
    ///
    /// # Panics
    /// If the processor lacks the class.
    #[inline]
    pub(crate) fn require(self) {
        assert!(self <= Self::detect(), "expected a processor with the kernel class {self}");
    }

    /// Returns the number of single-precision values in a vector.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable | Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }

    /// Returns the name that is recorded with results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Class {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|class| class.name() == name);
        known.ok_or_else(|| Error::new(format!("expected the kernel class portable, avx2 or avx512, got {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_has_the_same_name_in_text_and_json() {
        for class in Class::ALL {
            assert_eq!(class.to_string().parse::<Class>().unwrap(), class);
            let json = serde_json::to_string(&class).unwrap();
            assert_eq!(json, format!("\"{class}\""));
            assert_eq!(serde_json::from_str::<Class>(&json).unwrap(), class);
        }
        let error = "AVX2".parse::<Class>().unwrap_err();
        assert_eq!(error.to_string(), "expected the kernel class portable, avx2 or avx512, got \"AVX2\"");
    }

    #[test]
    fn select_fails_for_unsupported_kernel_class() {
        for class in Class::ALL.into_iter().filter(|class| !Class::available().contains(class)) {
            let error = Class::select(class).unwrap_err();
            assert_eq!(error.to_string(), format!("this processor lacks the kernel class {class}"));
            assert!(error.hint().is_some_and(|hint| hint.contains("portable")));
        }
    }
}
