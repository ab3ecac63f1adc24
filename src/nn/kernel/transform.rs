//! The three small matrices of each Winograd transform, written as sums, and the transformed weights.

use rayon::prelude::*;

use super::buffer::zeros;
use super::pack::Weight;
use crate::simd::Simd;

/// The number of kernels that are transformed together.
const LANES: usize = 8;

/// A Winograd transform that computes `OUT` outputs of a kernel of three from `IN = OUT + 2` inputs.
pub(super) trait Transform<const OUT: usize, const IN: usize>: Sync {
    /// Computes `G k`, the transform of a kernel.
    fn kernel(k: [f64; 3]) -> [f64; IN];
    /// Computes `Bᵀ d`, the transform of an input.
    fn input<S: Simd>(d: [S::Vector; IN]) -> [S::Vector; IN];
    /// Computes `Aᵀ m`, the output of transformed products.
    fn output<S: Simd>(m: [S::Vector; IN]) -> [S::Vector; OUT];
}

/// `F(2, 3)` at the points 0, 1, −1, ∞.
pub(super) struct WinogradF2;

impl Transform<2, 4> for WinogradF2 {
    #[inline(always)]
    fn kernel([a, b, c]: [f64; 3]) -> [f64; 4] {
        [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c]
    }

    #[inline(always)]
    fn input<S: Simd>([a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 4] {
        [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)]
    }

    #[inline(always)]
    fn output<S: Simd>([a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 2] {
        [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)]
    }
}

/// `F(4, 3)` at the points 0, 1, −1, 2, −2, ∞.
pub(super) struct WinogradF4;

impl Transform<4, 6> for WinogradF4 {
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
    fn input<S: Simd>([a, b, c, d, e, f]: [S::Vector; 6]) -> [S::Vector; 6] {
        let (two, four, five) = (S::splat(2.0), S::splat(4.0), S::splat(-5.0));
        let (minus_four, minus_two) = (S::splat(-4.0), S::splat(-2.0));
        let (even, odd) = (S::mul_add(c, minus_four, e), S::mul_add(b, minus_four, d));
        let (near, far) = (S::sub(e, c), S::sub(d, b));
        [
            S::mul_add(a, four, S::mul_add(c, five, e)),
            S::add(even, odd),
            S::sub(even, odd),
            S::mul_add(far, two, near),
            S::mul_add(far, minus_two, near),
            S::mul_add(b, four, S::mul_add(d, five, f)),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>([a, b, c, d, e, f]: [S::Vector; 6]) -> [S::Vector; 4] {
        let (two, four, eight) = (S::splat(2.0), S::splat(4.0), S::splat(8.0));
        let (near, far) = (S::add(b, c), S::add(d, e));
        let (across, wide) = (S::sub(b, c), S::sub(d, e));
        [
            S::add(S::add(a, near), far),
            S::mul_add(wide, two, across),
            S::mul_add(far, four, near),
            S::add(S::mul_add(wide, eight, across), f),
        ]
    }
}

/// Transforms the weights: `[block][point][kernel plane][input][column]`.
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
                for first in (0..wide).step_by(LANES) {
                    let count = LANES.min(wide - first);
                    let mut taps = [[0.0f64; LANES]; 9];
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

/// Transforms several neighbouring kernels, by loops that the compiler vectorizes.
#[inline(always)]
fn kernels<T: Transform<OUT, IN>, const OUT: usize, const IN: usize>(k: [&[f64; LANES]; 3]) -> [[f64; LANES]; IN] {
    let mut transformed = [[0.0; LANES]; IN];
    for column in 0..LANES {
        for (numbers, number) in transformed.iter_mut().zip(T::kernel([k[0][column], k[1][column], k[2][column]])) {
            numbers[column] = number;
        }
    }
    transformed
}
