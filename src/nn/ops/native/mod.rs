//! Kernels of our own for `f32` on the CPU.
//!
//! Work is cut into pieces by the sizes alone, never by the number of threads, and sums over pieces are taken in the
//! pieces' order: a result has the same bits on any number of threads. Most of these operators wait for memory, so each
//! reads what it needs once for its sums, and once more to write its result.

mod attention;
mod exp;
mod matmul;
mod norm;
mod pointwise;
mod pool;
mod rowwise;
mod upsample;

use crate::nn::kernel::zeros;
use rayon::prelude::*;

/// How many numbers a task takes on: enough to hide its start, few enough to stay in the cache.
const PIECE: usize = 1 << 15;

/// How many rows of this many columns a task takes on.
fn rows_per_piece(columns: usize) -> usize {
    (PIECE / columns).max(1)
}

/// The sums of equally long vectors, taken in their order.
fn sum_in_order(parts: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = vec![0.; parts[0].len()];
    for part in parts {
        for (sum, value) in sums.iter_mut().zip(part) {
            *sum += value;
        }
    }
    sums
}

/// `values` as single precision.
fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// A vector filled in pieces by `fill`, which is given a piece's number and the piece.
fn filled(len: usize, piece: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut values = zeros(len);
    values.par_chunks_mut(piece).enumerate().for_each(|(i, piece)| fill(i, piece));
    values
}

/// The part of `values` that belongs to piece `i` of length `piece`.
fn piece_of(values: &[f32], i: usize, piece: usize) -> &[f32] {
    &values[i * piece..values.len().min((i + 1) * piece)]
}

/// The sum of 16 lanes, as a tree.
#[inline(always)]
fn sum_lanes(lanes: [f32; 16]) -> f32 {
    let mut lanes = lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// The sum of `term` over the positions of two rows, in 16 lanes where there are as many.
#[inline(always)]
fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    if a.len() < 16 {
        return a.iter().zip(b).fold(0., |sum, (&a, &b)| sum + term(a, b));
    }
    let mut lanes = [0f32; 16];
    let (a_blocks, b_blocks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest = a_blocks.remainder().iter().zip(b_blocks.remainder());
    for (lane, (&a, &b)) in lanes.iter_mut().zip(rest) {
        *lane = term(a, b);
    }
    for (a, b) in a_blocks.zip(b_blocks) {
        for i in 0..16 {
            lanes[i] += term(a[i], b[i]);
        }
    }
    sum_lanes(lanes)
}
