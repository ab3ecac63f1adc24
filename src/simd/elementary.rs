//! Exponentials, logarithms and powers with the bits of a class.
//!
//! The functions of the standard library are those of the system, and the system's choose their instructions by the
//! processor: glibc's round once where there is FMA, and differ in the last bit where there is not. In the classes with FMA
//! that is always the same choice. In the portable class, which any processor can compute in, the functions of the crate
//! `libm` take their place.

use super::Class;

/// Functions of this class, in single and in double precision.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($x:ident: $type:ty $(, $other:ident: $other_type:ty)?) = $system:expr, $portable:expr;)*) => {
        impl Class {
            $(
                $(#[$doc])*
                #[inline]
                pub(crate) fn $name(self, $x: $type $(, $other: $other_type)?) -> $type {
                    if self == Self::Portable { $portable($x $(, $other)?) } else { $system($x $(, $other)?) }
                }
            )*
        }
    };
}

functions! {
    /// `e^x`.
    exp(x: f32) = f32::exp, libm::expf;
    /// The natural logarithm.
    ln(x: f32) = f32::ln, libm::logf;
    /// The hyperbolic tangent.
    tanh(x: f32) = f32::tanh, libm::tanhf;
    /// `e^x`.
    exp_f64(x: f64) = f64::exp, libm::exp;
    /// The natural logarithm.
    ln_f64(x: f64) = f64::ln, libm::log;
    /// `x` to the power of `y`.
    powf_f64(x: f64, y: f64) = f64::powf, libm::pow;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_in_all_classes() {
        for class in Class::available() {
            for i in -200..=200 {
                let x = f64::from(i) * 0.1;
                let (single, positive) = (x as f32, (x + 20.1) as f32);
                let near = |got: f32, expected: f64| (f64::from(got) - expected).abs() <= 2e-7 * expected.abs();
                assert!(near(class.exp(single), f64::from(single).exp()), "{class}: exp {single}");
                assert!(near(class.tanh(single), f64::from(single).tanh()), "{class}: tanh {single}");
                let error = f64::from(class.ln(positive)) - f64::from(positive).ln();
                assert!(error.abs() < 3e-7, "{class}: ln {positive}");
                let near = |got: f64, expected: f64| (got - expected).abs() <= 4e-16 * expected.abs();
                assert!(
                    near(class.exp_f64(x), x.exp()) && near(class.powf_f64(1.1, x), 1.1f64.powf(x)),
                    "{class}: {x}"
                );
                assert!((class.ln_f64(x + 20.1) - (x + 20.1).ln()).abs() < 1e-15, "{class}: ln {x}");
            }
        }
    }

    /// Numbers of the crate `libm`, which no processor and no system may change.
    #[test]
    fn portable_functions_have_fixed_bits() {
        let class = Class::Portable;
        let sum = |f: &dyn Fn(f32) -> u64| (1..=1000).fold(0u64, |sum, i| sum.rotate_left(7) ^ f(i as f32 * 0.0137));
        assert_eq!(sum(&|x| u64::from(class.exp(-x).to_bits())), sum(&|x| u64::from(libm::expf(-x).to_bits())));
        assert_eq!(sum(&|x| class.exp_f64(f64::from(-x)).to_bits()), sum(&|x| libm::exp(f64::from(-x)).to_bits()));
    }
}
