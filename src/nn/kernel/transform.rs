//! The three small matrices of each Winograd transform, written out as sums.

use super::lanes::Lanes;

/// `OUT` outputs of a kernel of three from `IN = OUT + 2` inputs.
pub(super) trait Transform<const OUT: usize, const IN: usize>: Sync {
    /// `G k`.
    fn kernel(k: [f64; 3]) -> [f64; IN];
    /// `Bᵀ d`.
    ///
    /// # Safety
    ///
    /// Needs the instruction set of `L`.
    unsafe fn input<L: Lanes>(d: [L; IN]) -> [L; IN];
    /// `Aᵀ m`.
    ///
    /// # Safety
    ///
    /// Needs the instruction set of `L`.
    unsafe fn output<L: Lanes>(m: [L; IN]) -> [L; OUT];
}

/// `F(2, 3)` at the points 0, 1, −1, ∞.
pub(super) struct Two;

impl Transform<2, 4> for Two {
    #[inline(always)]
    fn kernel([a, b, c]: [f64; 3]) -> [f64; 4] {
        [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c]
    }

    #[inline(always)]
    unsafe fn input<L: Lanes>([a, b, c, d]: [L; 4]) -> [L; 4] {
        unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([a, b, c, d]: [L; 4]) -> [L; 2] {
        unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
    }
}

/// `F(4, 3)` at the points 0, 1, −1, 2, −2, ∞.
pub(super) struct Four;

impl Transform<4, 6> for Four {
    #[inline(always)]
    fn kernel([a, b, c]: [f64; 3]) -> [f64; 6] {
        let (near, far) = ((a + c) * (1.0 / 6.0), a + 4.0 * c);
        [
            a * 0.25,
            -near - b * (1.0 / 6.0),
            b * (1.0 / 6.0) - near,
            (far + 2.0 * b) * (1.0 / 24.0),
            (far - 2.0 * b) * (1.0 / 24.0),
            c,
        ]
    }

    #[inline(always)]
    unsafe fn input<L: Lanes>([a, b, c, d, e, f]: [L; 6]) -> [L; 6] {
        unsafe {
            let (two, four, five) = (L::splat(2.0), L::splat(4.0), L::splat(-5.0));
            let (minus_four, minus_two) = (L::splat(-4.0), L::splat(-2.0));
            let (even, odd) = (c.mul_add(minus_four, e), b.mul_add(minus_four, d));
            let (near, far) = (e.sub(c), d.sub(b));
            [
                a.mul_add(four, c.mul_add(five, e)),
                even.add(odd),
                even.sub(odd),
                far.mul_add(two, near),
                far.mul_add(minus_two, near),
                b.mul_add(four, d.mul_add(five, f)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([a, b, c, d, e, f]: [L; 6]) -> [L; 4] {
        unsafe {
            let (two, four, eight) = (L::splat(2.0), L::splat(4.0), L::splat(8.0));
            let (near, far) = (b.add(c), d.add(e));
            let (across, wide) = (b.sub(c), d.sub(e));
            [
                a.add(near).add(far),
                wide.mul_add(two, across),
                far.mul_add(four, near),
                wide.mul_add(eight, across).add(f),
            ]
        }
    }
}
