//! Matrix products of eight rows at a time, for attention: small, with factors that are already in the cache.
//!
//! The sums of a block stay in registers: 8 × 32 numbers with AVX-512, 4 × 16 elsewhere.

use crate::simd::Simd;

/// The number of rows of a product.
pub const ROWS: usize = 8;

/// The number of columns of a product is a multiple of this number.
pub const LANES: usize = 16;

/// Rounds `size` up to a multiple of [`LANES`].
pub fn round_up_to_lanes(size: usize) -> usize {
    size.next_multiple_of(LANES)
}

/// Computes `c = a · b`: `a` is eight rows of `inner` numbers, `stride` apart; `b` is `[inner, columns]`, `c` `[8, columns]`.
#[inline(always)]
pub fn multiply<S: Simd>(a: &[f32], stride: usize, inner: usize, b: &[f32], c: &mut [f32], columns: usize) {
    let wide = columns / (2 * S::WIDTH) * (2 * S::WIDTH);
    if S::MANY_REGISTERS {
        for at in (0..wide).step_by(2 * S::WIDTH) {
            multiply_block::<S, 8, 2>(a, stride, inner, b, c, columns, at);
        }
        if wide < columns {
            multiply_block::<S, 8, 1>(a, stride, inner, b, c, columns, wide);
        }
    } else {
        for (a, c) in a.chunks(4 * stride).zip(c.chunks_exact_mut(4 * columns)) {
            for at in (0..columns).step_by(2 * S::WIDTH) {
                multiply_block::<S, 4, 2>(a, stride, inner, b, c, columns, at);
            }
        }
    }
}

#[inline(always)]
fn multiply_block<S: Simd, const R: usize, const V: usize>(
    a: &[f32],
    stride: usize,
    inner: usize,
    b: &[f32],
    c: &mut [f32],
    columns: usize,
    at: usize,
) {
    let mut sums = [[S::splat(0.); V]; R];
    let rows: [&[f32]; R] = std::array::from_fn(|r| &a[r * stride..][..inner]);
    for (i, b) in b.chunks_exact(columns).take(inner).enumerate() {
        let b = &b[at..at + V * S::WIDTH];
        let b: [S::Vector; V] = std::array::from_fn(|v| S::load(&b[v * S::WIDTH..]));
        for r in 0..R {
            let a = S::splat(rows[r][i]);
            for v in 0..V {
                sums[r][v] = S::mul_add(a, b[v], sums[r][v]);
            }
        }
    }
    store::<S, R, V>(&sums, c, columns, at);
}

#[inline(always)]
fn store<S: Simd, const R: usize, const V: usize>(
    sums: &[[S::Vector; V]; R],
    c: &mut [f32],
    columns: usize,
    at: usize,
) {
    for (sums, c) in sums.iter().zip(c.chunks_exact_mut(columns)) {
        for (v, &sum) in sums.iter().enumerate() {
            S::store(sum, &mut c[at + v * S::WIDTH..]);
        }
    }
}

/// Computes `c += aᵀ · b`: `a` is `[8, stride]`, of which the first `count` columns are used, `b` `[8, columns]`, `c`
/// `[stride, columns]`; `stride` is a multiple of eight.
#[inline(always)]
pub fn add_transposed<S: Simd>(a: &[f32], stride: usize, count: usize, b: &[f32], c: &mut [f32], columns: usize) {
    let wide = columns / (2 * S::WIDTH) * (2 * S::WIDTH);
    for first in (0..count).step_by(ROWS) {
        let c = &mut c[first * columns..(first + ROWS) * columns];
        if S::MANY_REGISTERS {
            for at in (0..wide).step_by(2 * S::WIDTH) {
                add_transposed_block::<S, 8, 2>(a, stride, first, b, c, columns, at);
            }
            if wide < columns {
                add_transposed_block::<S, 8, 1>(a, stride, first, b, c, columns, wide);
            }
        } else {
            for (half, c) in c.chunks_exact_mut(4 * columns).enumerate() {
                for at in (0..columns).step_by(2 * S::WIDTH) {
                    add_transposed_block::<S, 4, 2>(a, stride, first + 4 * half, b, c, columns, at);
                }
            }
        }
    }
}

#[inline(always)]
fn add_transposed_block<S: Simd, const R: usize, const V: usize>(
    a: &[f32],
    stride: usize,
    first: usize,
    b: &[f32],
    c: &mut [f32],
    columns: usize,
    at: usize,
) {
    let mut sums: [[S::Vector; V]; R] =
        std::array::from_fn(|r| std::array::from_fn(|v| S::load(&c[r * columns + at + v * S::WIDTH..])));
    for (a, b) in a.chunks_exact(stride).zip(b.chunks_exact(columns)).take(ROWS) {
        let (a, b) = (&a[first..first + R], &b[at..at + V * S::WIDTH]);
        let b: [S::Vector; V] = std::array::from_fn(|v| S::load(&b[v * S::WIDTH..]));
        for r in 0..R {
            let a = S::splat(a[r]);
            for v in 0..V {
                sums[r][v] = S::mul_add(a, b[v], sums[r][v]);
            }
        }
    }
    store::<S, R, V>(&sums, c, columns, at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{SimdKernel, on_every_class};

    /// Both products of one size.
    #[derive(Clone)]
    struct Products {
        stride: usize,
        inner: usize,
        columns: usize,
    }

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + 11) % 64) as f32 - 32.).collect()
    }

    impl SimdKernel for Products {
        type Output = [Vec<f32>; 2];

        #[inline(always)]
        fn run<S: Simd>(self) -> [Vec<f32>; 2] {
            let Self { stride, inner, columns } = self;
            let mut product = vec![7.; ROWS * columns];
            multiply::<S>(&numbers(ROWS * stride), stride, inner, &numbers(inner * columns), &mut product, columns);
            let mut sum = vec![7.; stride * columns];
            add_transposed::<S>(&numbers(ROWS * stride), stride, inner, &numbers(ROWS * columns), &mut sum, columns);
            [product, sum]
        }
    }

    /// The factors are whole numbers, so that sums are exact in any order.
    #[test]
    fn matrix_products_equal_naive_loops() {
        for (stride, inner, columns) in [(16, 3, 16), (16, 16, 32), (32, 21, 48), (8, 8, 96)] {
            let a = numbers(ROWS * stride);
            for [product, sum] in on_every_class(Products { stride, inner, columns }) {
                let b = numbers(inner * columns);
                for (at, value) in product.iter().enumerate() {
                    let (r, l) = (at / columns, at % columns);
                    assert_eq!(*value, (0..inner).map(|i| a[r * stride + i] * b[i * columns + l]).sum::<f32>());
                }
                let b = numbers(ROWS * columns);
                for (at, value) in sum.iter().enumerate().take(inner * columns) {
                    let (i, l) = (at / columns, at % columns);
                    assert_eq!(*value, (0..ROWS).map(|r| a[r * stride + i] * b[r * columns + l]).sum::<f32>() + 7.);
                }
            }
        }
    }
}
