//! The three small matrices of each Winograd transform, written out as sums, and the transformed weights.

use rayon::prelude::*;

use super::buffer::zeros;
use super::lanes::Lanes;
use super::pack::Weight;

/// Kernels that are transformed at once.
const BESIDE: usize = 8;

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
        // SAFETY: the caller promises the instructions of `L`.
        unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([a, b, c, d]: [L; 4]) -> [L; 2] {
        // SAFETY: the caller promises the instructions of `L`.
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
        // SAFETY: the caller promises the instructions of `L`.
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
        // SAFETY: the caller promises the instructions of `L`.
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

/// Transformed weights: `[block][point][kernel plane][input][column]`.
pub(super) fn transform_weights<T: Transform<OUT, IN>, const OUT: usize, const IN: usize>(
    weight: Weight<'_>,
    planes: usize,
    columns: usize,
) -> Vec<f32> {
    let size = planes * weight.inputs * columns;
    let mut transformed = zeros(weight.outputs.div_ceil(columns) * IN * IN * size);
    transformed.par_chunks_mut(IN * IN * size).enumerate().for_each(|(block, numbers)| {
        let wide = columns.min(weight.outputs - block * columns);
        for input in 0..weight.inputs {
            for plane in 0..planes {
                let to = (plane * weight.inputs + input) * columns;
                for first in (0..wide).step_by(BESIDE) {
                    let count = BESIDE.min(wide - first);
                    let mut taps = [[0.0f64; BESIDE]; 9];
                    for column in 0..count {
                        for (tap, numbers) in taps.iter_mut().enumerate() {
                            let output = block * columns + first + column;
                            numbers[column] = f64::from(weight.at(output, input, plane * 9 + tap));
                        }
                    }
                    // First along y, for each tap along z, then along z.
                    let half: [_; 3] =
                        std::array::from_fn(|k| kernels::<T, OUT, IN>([&taps[k], &taps[3 + k], &taps[6 + k]]));
                    let [low, middle, high] = &half;
                    for (i, ((low, middle), high)) in low.iter().zip(middle).zip(high).enumerate() {
                        let points = kernels::<T, OUT, IN>([low, middle, high]);
                        for (j, point) in points.iter().enumerate() {
                            let at = (i * IN + j) * size + to + first;
                            let row = &mut numbers[at..at + count];
                            row.iter_mut().zip(point).for_each(|(number, &point)| *number = point as f32);
                        }
                    }
                }
            }
        }
    });
    transformed
}

/// The transforms of kernels that lie beside each other: loops that the compiler turns into vectors.
#[inline(always)]
fn kernels<T: Transform<OUT, IN>, const OUT: usize, const IN: usize>(k: [&[f64; BESIDE]; 3]) -> [[f64; BESIDE]; IN] {
    let mut transformed = [[0.0; BESIDE]; IN];
    for column in 0..BESIDE {
        for (numbers, number) in transformed.iter_mut().zip(T::kernel([k[0][column], k[1][column], k[2][column]])) {
            numbers[column] = number;
        }
    }
    transformed
}
