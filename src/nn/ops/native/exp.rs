//! The exponential and the error function, a vector at a time.

use crate::simd::Simd;

/// Evaluates the polynomial with these coefficients, the highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(x: S::Vector, coefficients: [f32; N]) -> S::Vector {
    let (first, rest) = coefficients.split_at(1);
    rest.iter().fold(S::splat(first[0]), |p, &c| S::mul_add(p, x, S::splat(c)))
}

/// Computes `e^x` within two units in the last place; 0 below -104 and infinity above 88.8, as correct rounding would return.
#[inline(always)]
pub fn exp<S: Simd>(x: S::Vector) -> S::Vector {
    // ln 2 in two parts: the first has zeros at its end, so that its product with a whole number is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // This order keeps NaN.
    let x = S::min(S::splat(89.), S::max(S::splat(-104.), x));
    let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    let r = S::mul_add(n, S::splat(-LN2_LOW), S::mul_add(n, S::splat(-LN2_HIGH), x));
    let p = polynomial::<S, 6>(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]);
    let p = S::mul_add(p, S::mul(r, r), S::add(r, S::splat(1.)));
    S::scale(p, n)
}

/// Computes the error function with an absolute error below 5e-7.
#[inline(always)]
pub fn erf<S: Simd>(x: S::Vector) -> S::Vector {
    // A quotient of polynomials; beyond 3.83 the function is one in single precision.
    let x = S::min(S::splat(3.832_507), S::max(S::splat(-3.832_507), x));
    let square = S::mul(x, x);
    let p = polynomial::<S, 7>(
        square,
        [
            -2.726_142_3e-10,
            2.770_681_4e-8,
            -2.101_024e-6,
            -5.692_506_4e-5,
            -7.349_906_3e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ],
    );
    let q =
        polynomial::<S, 5>(square, [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2]);
    S::div(S::mul(x, p), q)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{SimdKernel, on_every_class};

    /// Computes pairs of `exp` and `erf` of numbers.
    #[derive(Clone)]
    struct ExpAndErf(Vec<f32>);

    impl SimdKernel for ExpAndErf {
        type Output = Vec<[f32; 2]>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<[f32; 2]> {
            let mut all = Vec::new();
            let (mut a, mut b) = ([0f32; 16], [0f32; 16]);
            for x in self.0.chunks(S::WIDTH) {
                let mut padded = [0f32; 16];
                padded[..x.len()].copy_from_slice(x);
                S::store(exp::<S>(S::load(&padded)), &mut a);
                S::store(erf::<S>(S::load(&padded)), &mut b);
                all.extend(a.into_iter().zip(b).map(|(a, b)| [a, b]).take(x.len()));
            }
            all
        }
    }

    #[test]
    fn exp_and_erf_are_within_their_error_bounds() {
        let numbers: Vec<f32> = (-400_000..=400_000).map(|i| i as f32 * 2.2e-4).collect();
        for values in on_every_class(ExpAndErf(numbers.clone())) {
            let (mut worst_exp, mut worst_erf) = (0f64, 0f64);
            for (&x, [exp, erf]) in numbers.iter().zip(values) {
                let x = f64::from(x);
                let unit = f64::from(f32::EPSILON) * x.exp().max(f64::from(f32::MIN_POSITIVE));
                worst_exp = worst_exp.max((f64::from(exp) - x.exp()).abs() / unit);
                worst_erf = worst_erf.max((f64::from(erf) - libm::erf(x)).abs());
            }
            assert!(worst_exp < 2., "{worst_exp} units");
            assert!(worst_erf < 5e-7, "{worst_erf:e}");
        }
    }

    #[test]
    fn exp_and_erf_of_infinity_and_nan_are_exact() {
        let numbers = vec![0., f32::NEG_INFINITY, -105., f32::INFINITY, f32::NAN];
        for values in on_every_class(ExpAndErf(numbers)) {
            assert_eq!(values[..4].iter().map(|v| v[0]).collect::<Vec<_>>(), [1., 0., 0., f32::INFINITY]);
            assert!(values[4][0].is_nan() && values[4][1].is_nan());
            assert!(values[0][1] == 0. && (values[1][1] + 1.).abs() < 5e-7 && (values[3][1] - 1.).abs() < 5e-7);
        }
    }
}
