//! Matrix products of eight rows at a time, as attention needs them: small, with factors that are already in the cache.
//!
//! The sums of a block stay in registers: 8 × 32 of them with AVX-512, 4 × 16 elsewhere.

use super::simd::Arithmetic;

/// How many rows a product has.
pub const ROWS: usize = 8;

/// Columns come in multiples of this.
pub const LANES: usize = 16;

/// `size` rounded up to whole lanes.
pub fn whole_lanes(size: usize) -> usize {
    size.next_multiple_of(LANES)
}

/// `c = a · b`: `a` is eight rows of `inner` numbers, `stride` apart; `b` is `[inner, columns]`, `c` `[8, columns]`.
#[inline(always)]
pub fn multiply<A: Arithmetic>(a: &[f32], stride: usize, inner: usize, b: &[f32], c: &mut [f32], columns: usize) {
    if A::WIDE {
        let wide = columns / 32 * 32;
        for at in (0..wide).step_by(32) {
            multiply_block::<A, 8, 32>(a, stride, inner, b, c, columns, at);
        }
        if wide < columns {
            multiply_block::<A, 8, 16>(a, stride, inner, b, c, columns, wide);
        }
    } else {
        for (a, c) in a.chunks(4 * stride).zip(c.chunks_exact_mut(4 * columns)) {
            for at in (0..columns).step_by(16) {
                multiply_block::<A, 4, 16>(a, stride, inner, b, c, columns, at);
            }
        }
    }
}

#[inline(always)]
fn multiply_block<A: Arithmetic, const R: usize, const C: usize>(
    a: &[f32],
    stride: usize,
    inner: usize,
    b: &[f32],
    c: &mut [f32],
    columns: usize,
    at: usize,
) {
    let mut sums = [[0f32; C]; R];
    let rows: [&[f32]; R] = std::array::from_fn(|r| &a[r * stride..r * stride + inner]);
    for (i, b) in b.chunks_exact(columns).take(inner).enumerate() {
        let b = &b[at..at + C];
        for r in 0..R {
            let a = rows[r][i];
            for l in 0..C {
                sums[r][l] = A::mul_add(a, b[l], sums[r][l]);
            }
        }
    }
    for r in 0..R {
        c[r * columns + at..r * columns + at + C].copy_from_slice(&sums[r]);
    }
}

/// `c += aᵀ · b`: `a` is `[8, stride]`, of which the first `count` columns count, `b` `[8, columns]`, `c`
/// `[stride, columns]`; `stride` is a multiple of eight.
#[inline(always)]
pub fn add_transposed<A: Arithmetic>(a: &[f32], stride: usize, count: usize, b: &[f32], c: &mut [f32], columns: usize) {
    for first in (0..count).step_by(ROWS) {
        let c = &mut c[first * columns..(first + ROWS) * columns];
        if A::WIDE {
            let wide = columns / 32 * 32;
            for at in (0..wide).step_by(32) {
                add_transposed_block::<A, 8, 32>(a, stride, first, b, c, columns, at);
            }
            if wide < columns {
                add_transposed_block::<A, 8, 16>(a, stride, first, b, c, columns, wide);
            }
        } else {
            for (half, c) in c.chunks_exact_mut(4 * columns).enumerate() {
                for at in (0..columns).step_by(16) {
                    add_transposed_block::<A, 4, 16>(a, stride, first + 4 * half, b, c, columns, at);
                }
            }
        }
    }
}

#[inline(always)]
fn add_transposed_block<A: Arithmetic, const R: usize, const C: usize>(
    a: &[f32],
    stride: usize,
    first: usize,
    b: &[f32],
    c: &mut [f32],
    columns: usize,
    at: usize,
) {
    let mut sums = [[0f32; C]; R];
    for r in 0..R {
        sums[r].copy_from_slice(&c[r * columns + at..r * columns + at + C]);
    }
    for (a, b) in a.chunks_exact(stride).zip(b.chunks_exact(columns)).take(ROWS) {
        let (a, b) = (&a[first..first + R], &b[at..at + C]);
        for r in 0..R {
            for l in 0..C {
                sums[r][l] = A::mul_add(a[r], b[l], sums[r][l]);
            }
        }
    }
    for r in 0..R {
        c[r * columns + at..r * columns + at + C].copy_from_slice(&sums[r]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Work, vectorised};
    use super::*;

    struct Multiply<'a>(&'a [f32], usize, usize, &'a [f32], &'a mut [f32], usize);

    impl Work for Multiply<'_> {
        type Output = ();

        #[inline(always)]
        fn run<A: Arithmetic>(self) {
            multiply::<A>(self.0, self.1, self.2, self.3, self.4, self.5);
        }
    }

    struct AddTransposed<'a>(&'a [f32], usize, usize, &'a [f32], &'a mut [f32], usize);

    impl Work for AddTransposed<'_> {
        type Output = ();

        #[inline(always)]
        fn run<A: Arithmetic>(self) {
            add_transposed::<A>(self.0, self.1, self.2, self.3, self.4, self.5);
        }
    }

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + 11) % 64) as f32 - 32.).collect()
    }

    /// Whole numbers, so that sums are exact in any order.
    #[test]
    fn products_are_those_of_three_loops() {
        for (stride, inner, columns) in [(16, 3, 16), (16, 16, 32), (32, 21, 48), (8, 8, 96)] {
            let (a, b) = (numbers(ROWS * stride), numbers(inner * columns));
            let mut c = vec![7.; ROWS * columns];
            vectorised(Multiply(&a, stride, inner, &b, &mut c, columns));
            for r in 0..ROWS {
                for l in 0..columns {
                    let sum: f32 = (0..inner).map(|i| a[r * stride + i] * b[i * columns + l]).sum();
                    assert_eq!(c[r * columns + l], sum);
                }
            }
            let b = numbers(ROWS * columns);
            let mut c = vec![7.; stride * columns];
            vectorised(AddTransposed(&a, stride, inner.min(stride), &b, &mut c, columns));
            for i in 0..inner.min(stride) {
                for l in 0..columns {
                    let sum: f32 = (0..ROWS).map(|r| a[r * stride + i] * b[r * columns + l]).sum();
                    assert_eq!(c[i * columns + l], 7. + sum);
                }
            }
        }
    }
}
