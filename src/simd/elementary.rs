//! Exponentials, logarithms and powers, whose bits depend on the class only.
//!
//! The functions of the standard library are those of the system's C library, which chooses their instructions by the
//! processor: with FMA, glibc rounds once; without FMA, the last bit differs. All processors of a class with
//! FMA use the same functions of glibc. The portable class uses the functions of the crate `libm` instead.

use super::class::Class;

/// Defines functions of a class, in single and double precision.
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
    fn elementary_functions_agree_in_all_classes() {
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

    /// The digests were equal on a processor with FMA and on an emulated processor without; those of the system's functions differed.
    #[test]
    fn portable_elementary_functions_have_fixed_bits() {
        let class = Class::Portable;
        let digest = |f: &dyn Fn(f64) -> u64| {
            (1..=1000).fold(0u64, |digest, i| digest.rotate_left(7) ^ f(f64::from(i) * 0.0137))
        };
        let single = |f: &dyn Fn(f32) -> f32| digest(&|x| u64::from(f(x as f32).to_bits()));
        assert_eq!(single(&|x| class.exp(-x)), 0x35ef_698e_7f8f_4ae7);
        assert_eq!(single(&|x| class.ln(x)), 0x12fb_0bc5_8052_295f);
        assert_eq!(single(&|x| class.tanh(x)), 0x1ebe_a3af_284c_ec21);
        assert_eq!(digest(&|x| class.exp_f64(-x).to_bits()), 0x99ba_afb3_7ef3_bd68);
        assert_eq!(digest(&|x| class.ln_f64(x).to_bits()), 0x859c_8663_770a_c7b0);
        assert_eq!(digest(&|x| class.powf_f64(0.999, x).to_bits()), 0xc4af_0551_5e9a_b1ad);
    }
}
